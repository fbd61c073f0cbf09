"""Multi-task learning on one small, fast JAX engine."""
