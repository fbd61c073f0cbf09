"""KuaiRand: short videos shown, with a dozen kinds of feedback; see `mtl_jax.data.event_logs`."""
