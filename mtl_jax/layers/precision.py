"""Networks that compute in fewer bits than their parameters are kept in.

A network computes in the dtype of the parameters that it is given: the engine keeps them in float32
and hands over bfloat16 ones (`config.train.precision`). Three rules keep that right:

* what comes from the batch is brought to that dtype where it enters the network (`like`), and
  nowhere before: targets, masks, counts and times keep all their bits;
* statistics of normalisations, softmaxes over many places, and all from a head's output to the loss
  are float32 (`wide`);
* constants, positions and counts take the dtype of what they meet: one float32 array among
  bfloat16 ones makes all that follows float32, without a word.

For parameters of float32 and more nothing is converted.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
Tree = Any


def narrow(params: Tree) -> Any:
    """Returns the dtype of the parameters where that is narrower than float32, else None."""
    dtype = jnp.result_type(*jax.tree.leaves(params))
    return dtype if jnp.finfo(dtype).bits < 32 else None


def like(x: Array, params: Tree) -> Array:
    """Returns floats x in the dtype of the parameters, where that is narrower than float32."""
    dtype = narrow(params)
    return x if dtype is None else x.astype(dtype)


def wide(x: Array) -> Array:
    """Returns floats x in float32, or the wider dtype that they have."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
