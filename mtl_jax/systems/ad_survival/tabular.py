"""Numbers and categories: entity embeddings beside standardised numbers, and a small network.

Entity embeddings after Guo and Berkhahn (2016). Kitada et al. give genre an embedding and gender a
one-hot vector; here every category has an embedding, of a size that grows slowly with its levels.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.data.lifetimes import MISSING
from mtl_jax.layers.dropout import dropout
from mtl_jax.layers.nets import dense, init_dense

Array = jax.Array
Tree = Any

LARGEST = 50


class TabularSetting(NamedTuple):
    """What a tabular encoder is made of.

    Attributes:
      numbers: K, numeric columns.
      levels: levels of each of the C categorical columns.
      hidden: width of the hidden layer.
      out: size of the encoding.
      rate: dropout of the hidden layer.
    """

    numbers: int = 0
    levels: tuple[int, ...] = ()
    hidden: int = 64
    out: int = 32
    rate: float = 0.2

    @property
    def inputs(self) -> int:
        """Width of what the network reads: numbers, their indicators, embeddings."""
        return 2 * self.numbers + sum(embedding_size(levels) for levels in self.levels)


def embedding_size(levels: int) -> int:
    """Returns min(50, ceil(1.6 levels^0.56)), fastai's rule; that of 1 level for none."""
    return min(LARGEST, math.ceil(1.6 * max(levels, 1) ** 0.56))


def init_tabular(key: Array, setting: TabularSetting) -> Tree:
    """Returns the parameters: `tables`, one [levels + 2, size] a category, and two layers.

    A table's rows are its levels, then the row of all other levels, then that of `MISSING`.

    Raises:
      ValueError: no column, or a negative number of levels.
    """
    if not setting.inputs or min(setting.levels, default=0) < 0:
        raise ValueError(f"there must be a column, of 0 or more levels. Found {setting}.")
    a, b, *keys = jax.random.split(key, 2 + len(setting.levels))
    tables = []
    for own, levels in zip(keys, setting.levels, strict=True):
        size = embedding_size(levels)
        tables.append(jax.random.normal(own, (levels + 2, size)) / math.sqrt(size))
    return {
        "tables": tables,
        "hidden": init_dense(a, setting.inputs, setting.hidden),
        "out": init_dense(b, setting.hidden, setting.out),
    }


def encode_tabular(
    params: Tree,
    numbers: Array,
    missing: Array,
    codes: Array,
    setting: TabularSetting,
    keys: Array | None = None,
    site: int = 0,
) -> Array:
    """Encodes numbers and categories, as `preprocess.apply` gives them.

    Args:
      params: of `init_tabular`.
      numbers: [B, K] standardised; not looked at where missing.
      missing: [B, K], above 0 where a number is not known.
      codes: [B, C] int. `MISSING` (-1) has a row of its own; so have, together, all codes that are
        no level.
      setting: see `TabularSetting`.
      keys: one an example for dropout; None for evaluation.
      site: number of the one dropout mask, so that no two encoders draw the same.

    Returns:
      [B, out].

    Raises:
      ValueError: columns that do not fit the setting.
    """
    shapes = (numbers.shape[1:], missing.shape[1:], codes.shape[1:])
    if shapes != ((setting.numbers,), (setting.numbers,), (len(setting.levels),)):
        raise ValueError(f"columns {shapes} do not fit {setting}.")
    kernel = params["hidden"]["kernel"]
    absent = missing > 0
    parts = [jnp.where(absent, 0, numbers).astype(kernel.dtype), absent.astype(kernel.dtype)]
    for column, (table, levels) in enumerate(zip(params["tables"], setting.levels, strict=True)):
        parts.append(table[table_rows(codes[:, column], levels)])
    x = jax.nn.gelu(dense(params["hidden"], jnp.concatenate(parts, axis=-1)))
    return dense(params["out"], dropout(x, keys, setting.rate, site))


def table_rows(codes: Array, levels: int) -> Array:
    """Returns the rows of a table that belong to codes [...]; see `init_tabular`."""
    known = (codes >= 0) & (codes < levels)
    return jnp.where(codes == MISSING, levels + 1, jnp.where(known, codes, levels))
