"""What `mtl_jax.report` draws with: curves, loss surfaces, tables, the page, figures in general."""
