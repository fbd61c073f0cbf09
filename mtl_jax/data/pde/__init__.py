"""Differential equations solved here: random inputs, solvers, meshes.

- `grf`: Gaussian random fields and the generator of each sample.
- `fisher`: reaction and diffusion on a line.
- `shapes`, `mesh`, `meshing`: polygons, their triangles, and new ones by netgen.
- `darcy`, `darcy_data`: flow on a shape; the samples of the prepared sets.

SciPy is imported where it is used. JAX depends on it, so it is always there.
"""
