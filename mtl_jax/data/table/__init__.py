"""Lifetimes from a table of one's own; see `mtl_jax.data.survival.table`."""
