"""Metrics as mergeable sums; see `metrics.base` for the contract."""
