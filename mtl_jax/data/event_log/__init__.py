"""Impressions from a multi-behaviour log of one's own; see `mtl_jax.data.event_logs`."""
