"""Heads on a trunk's features, one or T equal ones."""

from __future__ import annotations

from typing import Any

import jax
from flax import linen as nn

from mtl_jax.layers.initializers import torch_bias, torch_kernel

Array = jax.Array


class Head(nn.Module):
    """A linear layer, alone or after a hidden layer with ReLU: [..., D] to [..., outputs].

    Attributes:
      outputs: number of outputs (classes).
      hidden: width of the hidden layer; None for none.
    """

    outputs: int
    hidden: int | None = None

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Maps features [..., D] to outputs [..., outputs]."""
        if self.hidden is not None:
            bias_init = torch_bias(z.shape[-1])
            hidden = nn.Dense(self.hidden, kernel_init=torch_kernel(), bias_init=bias_init)
            z = nn.relu(hidden(z))
        bias_init = torch_bias(z.shape[-1])
        return nn.Dense(self.outputs, kernel_init=torch_kernel(), bias_init=bias_init)(z)


def init_stacked(head: nn.Module, key: Array, z: Array, num_tasks: int) -> Any:
    """Returns the parameters of `num_tasks` equal heads in one tree; every leaf is [T, ...].

    Args:
      head: a module without state, such as `Head`.
      key: every head is initialised with a key of its own.
      z: an example of its input.
      num_tasks: T.

    Returns:
      The tree of `head.init(...)["params"]` with a leading task axis; row t is a tree for
      `head.apply({"params": row}, z)`.
    """
    keys = jax.random.split(key, num_tasks)
    return jax.vmap(lambda k: head.init(k, z)["params"])(keys)
