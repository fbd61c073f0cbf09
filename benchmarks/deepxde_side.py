"""What both DeepXDE sides of `versus_deepxde` share: data, training loop, calls.

Import it after `DDE_BACKEND` is set: DeepXDE reads that once, when it is imported.

What DeepXDE's loop does besides the step, it does here too: NumPy copies of every batch, and two
evaluations a call of `train`, of the last batch and of a test set that is as small as it may be.
Both networks leave out two of DeepXDE's habits, so that all sides compute the same: an activation
after the trunk's last layer, and a bias added to the output (which spares it a pass over [B, N]).
The branch is a module of the backend, since DeepXDE's own networks have no LayerNorm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import deepxde as dde
import numpy as np

LEAKY_SLOPE, NORM_EPS, LR, ADAM_EPS = 0.2, 1e-3, 1e-3, 1e-8
CHECKED = 5
"""Updates after which losses are compared."""
NEVER = 10**9
"""Steps between two evaluations."""
Arrays = dict[str, np.ndarray]


def widths(arrays: Arrays, prefix: str) -> list[int]:
    """Returns the widths of a network's layers from the kernels "params/<prefix>/dense_<k>/"."""
    sizes: list[int] = []
    while f"params/{prefix}/dense_{max(len(sizes) - 1, 0)}/kernel" in arrays:
        kernel = arrays[f"params/{prefix}/dense_{max(len(sizes) - 1, 0)}/kernel"]
        sizes += kernel.shape[1:] if sizes else kernel.shape
    return sizes


class OneBatch(dde.data.TripleCartesianProd):
    """Gives the same batch for every step, to compare losses on it."""

    def train_next_batch(self, batch_size: Any = None) -> Any:
        del batch_size
        return self.train_x, self.train_y


class DeepxdeSide:
    """See `side_deeponet.Side`: the same parameters and samples, read from `folder`.

    Args:
      folder: with `shared.npz`.
      steps: of a call.
      batch_size: B.
      build: `build(arrays) -> network` with the parameters in `arrays`.
      compilers: by name of a call, `compile(model)`.
      trained: lists a network's trained arrays.
    """

    def __init__(
        self,
        folder: str,
        steps: int,
        batch_size: int,
        build: Callable[[Arrays], Any],
        compilers: dict[str, Callable[[Any], None]],
        trained: Callable[[Any], Iterable[Any]],
    ):
        self._arrays: Arrays = dict(np.load(Path(folder) / "shared.npz"))
        self._steps, self._batch_size = steps, batch_size
        self._build, self._compilers, self._trained = build, compilers, trained
        self.calls: dict[str, Any] = {}

    def _model(self, what: str, kind: Any, rows: Any) -> Any:
        x, y, out = (self._arrays[name] for name in ("branch", "trunk", "solution"))
        data = kind((x[rows], y), out[rows], (x[:1], y[:1]), out[:1, :1])
        model = dde.Model(data, self._build(self._arrays))
        self._compilers[what](model)
        return model

    def prepare(self, what: str) -> dict[str, Any]:
        """Compiles a model; returns its losses on the first batch, before each of some updates."""
        model = self._model(what, OneBatch, self._arrays["first"])
        history, _ = model.train(iterations=CHECKED, display_every=1, verbose=0)
        timed = self._model(what, dde.data.TripleCartesianProd, slice(None))
        self.calls[what] = lambda: self._train(timed)
        return {
            "losses": [float(np.sum(loss)) for loss in history.loss_train],
            "parameters": sum(math.prod(leaf.shape) for leaf in self._trained(model.net)),
        }

    def _train(self, model: Any) -> None:
        model.train(
            iterations=self._steps, batch_size=self._batch_size, display_every=NEVER, verbose=0
        )
