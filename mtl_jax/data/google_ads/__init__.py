"""Google's political ads; see `mtl_jax.data.survival.google_ads`."""
