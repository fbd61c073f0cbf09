"""Snap's library of political ads; see `mtl_jax.data.survival.snap_ads`."""
