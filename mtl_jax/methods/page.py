"""The page of methods, made from the table: `python -m mtl_jax.methods.page`."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.methods.base import LossWeighting
from mtl_jax.methods.table import METHODS, default_options, make

PAGE = Path(__file__).with_name("README.md")
_TASKS, _SIZE = 7, 10_007
_INTRODUCTION = """\
Written by `python -m mtl_jax.methods.page` from `table.py`, not by hand.

Every method goes by its name in `config.method.aggregator`, and is a function of `mtl_jax.methods`.
An aggregator makes one direction of T task gradients; a weighting makes weights of T losses. Around
any of them: `flat_regions` (1 + 5T forward passes in all, fewer with `every` and `rows`), `samo`
(3 + 5T), and around aggregators `prenormalise`.

Cost is a step in forward passes, a backward pass being two and heads cheap beside what is shared.
State is what is kept from step to step, up to a factor: T numbers, TT for a matrix of them, TP for
T gradients, which embedding tables that are updated row by row cannot have."""


def definition(name: str) -> str:
    """The first paragraph of a method's docstring, in one line."""
    text = inspect.getdoc(METHODS[name].factory) or ""
    return re.sub(r"\s+", " ", text.split("\n\n")[0])


def cost(name: str) -> str:
    """A step in forward passes, a backward pass being two and heads cheap; T tasks."""
    found = make(name)
    if isinstance(found, LossWeighting):
        return "3" if found.after_step is None else "4"
    return "1 + 2T"


def state(name: str) -> str:
    """How many numbers a method keeps from step to step, with T tasks and P shared parameters."""
    found = make(name)
    if isinstance(found, LossWeighting):
        kept: Any = jax.eval_shape(lambda: found.init(_TASKS))
    else:
        kept = jax.eval_shape(lambda: found.init({"w": jnp.zeros(_SIZE)}, _TASKS))
    shapes = [leaf.shape for leaf in jax.tree.leaves(kept)]
    if any(_SIZE in shape for shape in shapes):
        return "TP"
    return "TT" if (_TASKS, _TASKS) in shapes else "T" if any(shapes) else ""


def page() -> str:
    """Returns the page, Markdown."""
    lines = [
        "# Methods",
        "",
        _INTRODUCTION,
        "",
        "| name | kind | cost | state | source |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in METHODS.items():
        cells = (f"[`{name}`](#{name})", row.kind, cost(name), state(name), row.paper)
        lines.append(f"| {' | '.join(cells)} |")
    for name, row in METHODS.items():
        options = ", ".join(f"`{key} = {value!r}`" for key, value in default_options(name).items())
        lines += ["", f"## {name}", "", definition(name), ""]
        lines += [f"When: {row.use}", ""]
        lines.append(f"Options: {options or 'none'}.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.name}: {len(METHODS)} methods")
