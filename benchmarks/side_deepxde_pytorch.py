"""DeepXDE's pytorch side of `versus_deepxde`, see `deepxde_side`.

Calls: "adam", as its users ask for it; "fused", torch's fused Adam handed to it, the fastest that
it can be given. Nothing goes through torch.compile, which DeepXDE does not offer. Its loop asks
for gradients of the network's inputs too.
"""

from __future__ import annotations

import itertools
import os
from importlib.metadata import version
from typing import Any

import numpy as np

from mtl_jax.errors import UserError

# Else DeepXDE asks, or writes its choice into the user's home.
os.environ["DDE_BACKEND"] = "pytorch"
try:
    import torch
    from torch import nn

    from benchmarks import deepxde_side as common
    from benchmarks.deepxde_side import dde
except ImportError as error:
    raise UserError(
        f"the comparison needs deepxde and torch ({error}); run `make bench-deepxde`, which"
        " installs them, or: pip install deepxde torch==2.13.0"
    ) from None


def describe(threads: int) -> dict[str, Any]:
    """Limits torch to so many threads; returns its version and DeepXDE's."""
    torch.set_num_threads(threads)
    return {"deepxde": version("deepxde"), "torch": torch.__version__, "threads": threads}


class DeepONet(dde.nn.DeepONetCartesianProd):
    """Without an output bias."""

    def merge_branch_trunk(self, x_func: Any, x_loc: Any, index: int) -> Any:
        del index
        return torch.einsum("bi,ni->bn", x_func, x_loc)


def _leaky_relu(x: Any) -> Any:
    return nn.functional.leaky_relu(x, common.LEAKY_SLOPE)


def build(arrays: common.Arrays) -> Any:
    """Builds the network of the parameters "params/branch/..." and "params/trunk/net/..."."""

    def copy(target: Any, prefix: str) -> None:
        weight = arrays.get(f"params/{prefix}/scale")
        if weight is None:
            weight = arrays[f"params/{prefix}/kernel"].T
        with torch.no_grad():
            target.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
            target.bias.copy_(torch.from_numpy(arrays[f"params/{prefix}/bias"]))

    branch = nn.Sequential()
    sizes = common.widths(arrays, "branch")
    for k, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        branch.append(nn.Linear(inputs, outputs))
        copy(branch[-1], f"branch/dense_{k}")
        if k < len(sizes) - 2:
            branch.append(nn.LayerNorm(outputs, eps=common.NORM_EPS))
            copy(branch[-1], f"branch/norm_{k}")
            branch.append(nn.LeakyReLU(common.LEAKY_SLOPE))
    trunk = common.widths(arrays, "trunk/net")
    network = DeepONet([sizes[0], branch], trunk, _leaky_relu, "Glorot normal")
    network.activation_trunk = dde.nn.activations.linear  # after the last layer
    for k, layer in enumerate(network.trunk.linears):
        copy(layer, f"trunk/net/dense_{k}")
    del network.b
    return network


def _adam(model: Any) -> None:
    model.compile("adam", lr=common.LR, loss="MSE", verbose=0)


def _fused(model: Any) -> None:
    optimiser = torch.optim.Adam(model.net.parameters(), lr=common.LR, fused=True)
    model.compile(optimiser, loss="MSE", verbose=0)


class Side(common.DeepxdeSide):
    """The pytorch backend."""

    def __init__(self, folder: str, steps: int, batch_size: int):
        compilers: dict[str, Any] = {"adam": _adam, "fused": _fused}
        super().__init__(folder, steps, batch_size, build, compilers, lambda net: net.parameters())
