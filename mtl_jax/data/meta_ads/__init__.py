"""Meta's Ad Library; see `mtl_jax.data.survival.meta_ads`."""
