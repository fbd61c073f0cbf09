"""Fisher: reaction and diffusion on a line, solved here; see `mtl_jax.data.pde.fisher`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from mtl_jax.data.fetch import say
from mtl_jax.data.overlay import stable_permutation
from mtl_jax.data.pde import fisher

COUNTS = {"kpp": 1000, "nws": 1000, "zfk": 2000}
SPLIT_SEED = 42
BLOCK = 500


class Builder(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of `fisher`.

    Each record: `task` [k] int32, `params` [k, 4], `field` [k, 64] = u(0) and `solutions`
    [k, 20 * 64], snapshot by snapshot, float32, k <= 500. A fifth of all samples, drawn at random
    as in the MT-DeepONet code, is for the test; a tenth of the others validates, which is ours.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="default", description="D = 0.01, T = 1, u in 0..1: ours."),
        tfds.core.BuilderConfig(name="paper", description="What the released networks fit."),
    ]
    sources: list[str]

    def _info(self) -> tfds.core.DatasetInfo:
        def rows(*shape: int) -> Any:
            return tfds.features.Tensor(shape=(None, *shape), dtype=np.float32, encoding="bytes")

        features = {
            "task": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "params": rows(4),
            "field": rows(fisher.POINTS),
            "solutions": rows(fisher.SNAPSHOTS * fisher.POINTS),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="u_t = D u_xx + f(u) with three families of source terms f.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        setting = fisher.SETTINGS[self.builder_config.name]
        self.sources = [
            f"solved here by {setting.solver}: D = {setting.diffusion}, T = {setting.end_time},"
            " seed 0"
        ]
        parts = [_solved(setting, number, name) for number, name in enumerate(fisher.TASKS)]
        arrays = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        order = stable_permutation(len(arrays["task"]), SPLIT_SEED)
        test = len(order) // 5
        validation = (len(order) - test) // 10
        chosen = {
            "train": order[test + validation :],
            "validation": order[test : test + validation],
            "test": order[:test],
        }
        return {
            split: self._generate_examples(arrays, np.sort(rows)) for split, rows in chosen.items()
        }

    def _generate_examples(
        self, arrays: dict[str, np.ndarray], rows: np.ndarray
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for key, start in enumerate(range(0, len(rows), BLOCK)):
            block = rows[start : start + BLOCK]
            yield key, {name: array[block] for name, array in arrays.items()}


def _solved(setting: fisher.Setting, number: int, task: str) -> dict[str, np.ndarray]:
    """All samples of one task, a block at a time."""
    count, began = COUNTS[task], time.perf_counter()
    blocks = []
    for start in range(0, count, BLOCK):
        blocks.append(fisher.make_samples(setting, task, range(start, min(start + BLOCK, count))))
        done = min(start + BLOCK, count)
        cost = 1000 * (time.perf_counter() - began) / done
        say(f"fisher {task}: {done} of {count} samples solved, {cost:.2f} s per 1000")
    params, initial, solutions = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return {
        "task": np.full(count, number, np.int32),
        "params": params,
        "field": initial,
        "solutions": solutions.reshape(count, -1),
    }
