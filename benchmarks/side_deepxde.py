"""DeepXDE's side of `versus_deepxde`: its DeepONet, its data class and its training loop, on torch.

`dde.nn.DeepONetCartesianProd` exists for four of DeepXDE's five backends (1.15.0): tensorflow,
tensorflow.compat.v1, pytorch and paddle; its jax backend has no DeepONet at all.

The network: the branch is a torch module of our own, since DeepXDE's fully connected networks have
no LayerNorm; the trunk is DeepXDE's. Two of its habits are switched off, so that both sides compute
the same: an activation after the trunk's last layer, and a bias added to the output (an in-place
pass over [B, N] less). What its loop does besides, it does here too: NumPy batches copied for every
step, gradients for the inputs, and two evaluations a call of `train`, of the last batch and of a
test set that is as small as it may be.

Two calls: "adam" as its users ask for it, and "fused", torch's fused Adam handed to it, which is
the fastest that it can be given. Nothing goes through torch.compile, which DeepXDE does not offer.
"""

from __future__ import annotations

import itertools
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mtl_jax.errors import UserError

# Else DeepXDE asks, or writes its choice into the user's home.
os.environ["DDE_BACKEND"] = "pytorch"
try:
    import deepxde as dde
    import torch
    from torch import nn
except ImportError as error:
    raise UserError(
        f"the comparison needs torch and deepxde ({error}); run `make bench-deepxde`, which"
        " installs them, or: pip install torch==2.13.0 deepxde"
    ) from None

LEAKY_SLOPE, NORM_EPS, LR = 0.2, 1e-3, 1e-3
OPTIMISERS = ("adam", "fused")
NEVER = 10**9  # steps between two evaluations


def describe(threads: int) -> dict[str, Any]:
    """Limits torch to so many threads; returns its version and DeepXDE's."""
    torch.set_num_threads(threads)
    return {
        "deepxde": version("deepxde"),
        "torch": torch.__version__,
        "backend": dde.backend.backend_name,
        "threads": torch.get_num_threads(),
    }


class DeepONet(dde.nn.DeepONetCartesianProd):
    """Without an output bias."""

    def merge_branch_trunk(self, x_func: Any, x_loc: Any, index: int) -> Any:
        del index
        return torch.einsum("bi,ni->bn", x_func, x_loc)


def make_network(arrays: dict[str, np.ndarray]) -> Any:
    """Builds the network of the parameters "params/branch/..." and "params/trunk/..."."""

    def widths(prefix: str) -> list[int]:
        kernels = [arrays[f"params/{prefix}/dense_{k}/kernel"] for k in range(_layers(prefix))]
        return [len(kernels[0]), *(kernel.shape[1] for kernel in kernels)]

    def _layers(prefix: str) -> int:
        return sum(f"params/{prefix}/dense_{k}/kernel" in arrays for k in range(99))

    def copy(target: Any, prefix: str) -> None:
        weight = arrays.get(f"params/{prefix}/scale")
        if weight is None:
            weight = arrays[f"params/{prefix}/kernel"].T
        with torch.no_grad():
            target.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
            target.bias.copy_(torch.from_numpy(arrays[f"params/{prefix}/bias"]))

    branch = nn.Sequential()
    sizes = widths("branch")
    for k, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        branch.append(nn.Linear(inputs, outputs))
        copy(branch[-1], f"branch/dense_{k}")
        if k < len(sizes) - 2:
            branch.append(nn.LayerNorm(outputs, eps=NORM_EPS))
            copy(branch[-1], f"branch/norm_{k}")
            branch.append(nn.LeakyReLU(LEAKY_SLOPE))

    def leaky_relu(x: Any) -> Any:
        return nn.functional.leaky_relu(x, LEAKY_SLOPE)

    network = DeepONet([sizes[0], branch], widths("trunk/net"), leaky_relu, "Glorot normal")
    network.activation_trunk = dde.nn.activations.linear  # the trunk's layers hold their own
    for k, layer in enumerate(network.trunk.linears):
        copy(layer, f"trunk/net/dense_{k}")
    del network.b
    return network


class OneBatch(dde.data.TripleCartesianProd):
    """Gives the same batch for every step, to compare losses on it."""

    def train_next_batch(self, batch_size: Any = None) -> Any:
        del batch_size
        return self.train_x, self.train_y


class Side:
    """See `side_deeponet.Side`: the same parameters and samples, read from `folder`."""

    def __init__(self, folder: str, steps: int, batch_size: int):
        self._arrays = dict(np.load(Path(folder) / "shared.npz"))
        self._steps, self._batch_size = steps, batch_size
        self.calls: dict[str, Any] = {}

    def _model(self, optimiser: str, kind: Any, rows: Any) -> Any:
        x, y, out = (self._arrays[name] for name in ("branch", "trunk", "solution"))
        data = kind((x[rows], y), out[rows], (x[:1], y[:1]), out[:1, :1])
        network = make_network(self._arrays)
        model = dde.Model(data, network)
        if optimiser == "adam":
            model.compile("adam", lr=LR, loss="MSE", verbose=0)
        else:
            fused = torch.optim.Adam(network.parameters(), lr=LR, fused=True)
            model.compile(fused, loss="MSE", verbose=0)
        return model

    def prepare(self, what: str) -> dict[str, Any]:
        """Compiles a model; returns the losses on the first batch before each of some updates."""
        model = self._model(what, OneBatch, self._arrays["first"])
        history, _ = model.train(iterations=5, display_every=1, verbose=0)
        timed = self._model(what, dde.data.TripleCartesianProd, slice(None))
        self.calls[what] = lambda: _train(timed, self._steps, self._batch_size)
        return {
            "losses": [float(loss.sum()) for loss in history.loss_train],
            "parameters": model.net.num_trainable_parameters(),
        }


def _train(model: Any, steps: int, batch_size: int) -> None:
    model.train(iterations=steps, batch_size=batch_size, display_every=NEVER, verbose=0)
