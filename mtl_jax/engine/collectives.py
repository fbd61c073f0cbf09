"""What devices send each other in a step, read from the compiled program."""

from __future__ import annotations

import re

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
