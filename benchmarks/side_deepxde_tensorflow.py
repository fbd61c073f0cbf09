"""DeepXDE's TensorFlow 2 side of `versus_deepxde`, see `deepxde_side`.

Calls: "adam", as DeepXDE runs on a CPU, a graph without XLA; "xla", with the XLA that it offers.
Keras' Adam gets the epsilon of the others, 1e-8.
"""

from __future__ import annotations

import os
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np

from mtl_jax.errors import UserError

# Else DeepXDE asks, or writes its choice into the user's home.
os.environ["DDE_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
try:
    import tensorflow as tf

    from benchmarks import deepxde_side as common
    from benchmarks.deepxde_side import dde
except ImportError as error:
    raise UserError(
        f"the comparison needs deepxde on TensorFlow ({error}): pip install deepxde tensorflow-cpu"
        " tensorflow-probability tf-keras, or leave --backends at pytorch"
    ) from None


def describe(threads: int) -> dict[str, Any]:
    """Limits TensorFlow to so many threads; returns its version and DeepXDE's."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    return {"deepxde": version("deepxde"), "tensorflow": tf.__version__, "threads": threads}


class DeepONet(dde.nn.DeepONetCartesianProd):
    """Without an output bias."""

    def merge_branch_trunk(self, x_func: Any, x_loc: Any, index: int) -> Any:
        del index
        return tf.einsum("bi,ni->bn", x_func, x_loc)


def _leaky_relu(x: Any) -> Any:
    return tf.nn.leaky_relu(x, common.LEAKY_SLOPE)


def build(arrays: common.Arrays) -> Any:
    """Builds the network of the parameters "params/branch/..." and "params/trunk/net/..."."""

    def copy(target: Any, prefix: str) -> None:
        first = "scale" if f"params/{prefix}/scale" in arrays else "kernel"
        target.set_weights([arrays[f"params/{prefix}/{leaf}"] for leaf in (first, "bias")])

    layers = tf.keras.layers
    sizes = common.widths(arrays, "branch")
    stack: list[Any] = []
    for outputs in sizes[1:-1]:
        stack += [layers.Dense(outputs), layers.LayerNormalization(epsilon=common.NORM_EPS)]
        stack += [layers.Activation(_leaky_relu)]
    branch = tf.keras.Sequential([*stack, layers.Dense(sizes[-1])])
    trunk = common.widths(arrays, "trunk/net")
    network = DeepONet([sizes[0], branch], trunk, _leaky_relu, "Glorot normal")
    network.activation_trunk = dde.nn.activations.linear  # after the last layer
    network.b = []
    # Keras makes parameters at the first call.
    network((np.zeros((1, sizes[0]), np.float32), np.zeros((1, trunk[0]), np.float32)))
    for k in range(len(sizes) - 1):
        copy(branch.layers[3 * k], f"branch/dense_{k}")
        if k < len(sizes) - 2:
            copy(branch.layers[3 * k + 1], f"branch/norm_{k}")
    for k, layer in enumerate(network.trunk.denses):
        copy(layer, f"trunk/net/dense_{k}")
    return network


def _compile(xla: bool, model: Any) -> None:
    dde.config.enable_xla_jit(xla)  # read by `compile`
    optimiser = tf.keras.optimizers.Adam(common.LR, epsilon=common.ADAM_EPS)
    model.compile(optimiser, loss="MSE", verbose=0)


class Side(common.DeepxdeSide):
    """The tensorflow backend."""

    def __init__(self, folder: str, steps: int, batch_size: int):
        compilers: dict[str, Any] = {
            name: partial(_compile, name == "xla") for name in ("adam", "xla")
        }
        super().__init__(
            folder, steps, batch_size, build, compilers, lambda net: net.trainable_variables
        )
