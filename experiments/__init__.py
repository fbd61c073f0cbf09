"""Experiment files: each defines `get_config()` and is a lab note of one run."""
