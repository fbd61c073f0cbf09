"""The Fisher files of the MT-DeepONet code, as its authors hand them out.

    Fisher1_*.npz, Fisher2_*.npz    inputs [n, a and u(0)], outputs [n, 20, 64]
    Fisher4_*.npz                   inputs [n, a, b and u(0)], outputs likewise

Source: the code of MT-DeepONet (Kumar et al. 2024), its `dataset.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mtl_jax.data.operator_files.files import find_file, read_npz
from mtl_jax.data.operators import OperatorSet, check_operators
from mtl_jax.data.pde.fisher import TASKS, coefficients
from mtl_jax.errors import UserError

FILES = {"kpp": "Fisher1_*.npz", "nws": "Fisher2_*.npz", "zfk": "Fisher4_*.npz"}
SPLIT_SEED = 42


def load_fisher(folder: Path) -> OperatorSet:
    """Returns the Fisher set of three tasks; `params` are the coefficients of u .. u^4.

    The test set is the code's own random fifth (scikit-learn's draw of seed 42, made here the way
    it makes it); a tenth of the others validates.

    Args:
      folder: with the three files, or above them.

    Raises:
      UserError: a file is missing or has other shapes.
    """
    params, initial, solutions, task = [], [], [], []
    for number, name in enumerate(TASKS):
        path = find_file(folder, FILES[name])
        arrays = read_npz(path, ("inputs", "outputs"))
        inputs, outputs = arrays["inputs"], arrays["outputs"]
        leading = 2 if name == "zfk" else 1
        if inputs.ndim != 2 or inputs.shape[1] <= leading or len(outputs) != len(inputs):
            raise UserError(
                f"{path}: inputs {list(inputs.shape)} and outputs {list(outputs.shape)} are not"
                f" [n, {leading} + x] and [n, t, x]"
            )
        width = inputs.shape[1] - leading
        if outputs.size % (len(inputs) * width):
            raise UserError(
                f"{path}: outputs {list(outputs.shape)} are no snapshots of the {width} points of"
                f" inputs {list(inputs.shape)}"
            )
        params.append(coefficients(name, inputs[:, 0], inputs[:, leading - 1]))
        initial.append(inputs[:, leading:])
        solutions.append(outputs.reshape(len(inputs), -1, width))
        task.append(np.full(len(inputs), number, np.int32))
        if solutions[-1].shape[1:] != solutions[0].shape[1:]:
            raise UserError(
                f"{path}: snapshots and points are {list(solutions[-1].shape[1:])}, in the first"
                f" file {list(solutions[0].shape[1:])}"
            )
    count, grid = sum(map(len, task)), solutions[0].shape[1:]
    test = -(-count // 5)
    # Another generator would draw another test set than the published code's.
    order = np.random.RandomState(SPLIT_SEED).permutation(count)
    validation = (count - test) // 10
    parts = np.split(order, [test, count - validation])
    axes = [np.linspace(0, 1, n) for n in grid]
    coords = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    found = OperatorSet(
        task_names=TASKS,
        params=np.concatenate(params).astype(np.float32),
        field=np.concatenate(initial).astype(np.float32),
        coords=coords.astype(np.float32),
        coord_names=("t", "x"),
        grid=grid,
        masks=np.ones((1, len(coords)), bool),
        solutions=np.concatenate(solutions).reshape(count, -1).astype(np.float32),
        task=np.concatenate(task),
        geometry=np.zeros(count, np.int32),
        splits={
            split: np.sort(part).astype(np.int32)
            for split, part in zip(("test", "train", "validation"), parts, strict=True)
        },
    )
    return check_operators(found, str(folder))
