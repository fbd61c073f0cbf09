"""Readers of solved problems that users have as files; each returns an `OperatorSet`.

- `arrays`: the user's own, in one .npz or HDF5 file.
- `authors`: the files of the MT-DeepONet code.
- `pdebench`, `neuralop`: two public benchmarks.
- `dispatch`: any of them by name.
"""
