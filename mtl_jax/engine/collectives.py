"""What devices send each other in a step, read from the compiled program."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

_KINDS = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
# Of an operation in two halves the second one has the result alone.
_LINE = re.compile(rf"= (.*?) ({'|'.join(_KINDS)})(?:-done)?\(")
_SHAPE = re.compile(r"\b([a-z]+)(\d*)[a-z0-9]*\[([\d,]*)\]")


def collective_bytes(text: str) -> dict[str, int]:
    """Bytes of the results of all collectives on one device, by kind.

    Args:
      text: a compiled program, see `parallel.DataParallel.text`. What is within a loop counts
        once.
    """
    found: dict[str, int] = {}
    for result, kind in _LINE.findall(text):
        size = 0
        for letter, bits, shape in _SHAPE.findall(result):
            each = 1 if letter == "pred" else int(bits or 0) // 8
            size += each * int(np.prod([int(n) for n in shape.split(",") if n]))
        found[kind] = found.get(kind, 0) + size
    return dict(sorted(found.items()))


def ring_bytes(found: Mapping[str, int], devices: int) -> int:
    """Bytes that each device sends for such results, every collective being done along a ring.

    A result of R bytes on D devices costs 2 R (D - 1) / D for an all-reduce, R (D - 1) / D for an
    all-gather or an all-to-all (R is all parts), R (D - 1) for a reduce-scatter (R is one part) and
    R for a permutation.

    Args:
      found: of `collective_bytes`.
      devices: D.
    """
    shares = {
        "all-reduce": 2 * (devices - 1) / devices,
        "all-gather": (devices - 1) / devices,
        "all-to-all": (devices - 1) / devices,
        "reduce-scatter": devices - 1,
        "collective-permute": 1,
    }
    return round(sum(shares[kind] * size for kind, size in found.items()))
