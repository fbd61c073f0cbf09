"""Multi-task recommendation, with and without task-specific bottoms."""
