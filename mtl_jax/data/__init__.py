"""Data: where raw files come from, prepared sets on disk, and batches addressed by step.

- `sources`, `fetch`, `raw`: raw digits and garments, from a folder, a package or a download.
- `registry`, `prepare`, `manifest`: `python -m mtl_jax.data prepare|verify|list`.
- `overlay`, `pairs`: the Multi-MNIST family; sources are stored, pairs are index arrays.
- `operators`: problems and their solutions in memory; `pde_sets`, `plate_set`: those made here, by
  the solvers of `pde` and `plate_solver`; `operator_files`: those read from files of the user's.
- `records`, `celeba_files`, `dense_files`: CelebA, NYUv2, CityScapes from the user's own copy.
- `loader`: which examples make up the batch of a step; prefetching.

One TFDS builder a set: `mtl_jax/data/<name>/<name>_dataset_builder.py`.
"""
