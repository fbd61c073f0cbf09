"""Pets of a shelter site until adoption; see `mtl_jax.data.survival.petfinder`."""
