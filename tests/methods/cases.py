"""Every row of the method table, with its defaults and with options that take another branch."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from mtl_jax.methods.table import METHODS

KEY = jax.random.key(3)
# Beside the defaults of every row: every other branch of a factory, unless a golden walk takes it
# (golden/make_walks.py), which costs one compiled program instead of four.
VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "pcgrad": ({"reduction": "mean"},),
    "cagrad": ({"rescale": 2, "c": 0.9}, {"c": 0.0}),
    "nash_mtl": ({"max_norm": 0.0, "update_every": 3},),
    "fairgrad": ({"alpha": 0.5, "max_norm": 0.0, "reduction": "mean"},),
    "upgrad": ({"reduction": "sum"},),
    "aligned_mtl": ({"scale": "median"}, {"scale": "rmse", "reduction": "mean"}),
    "linear_scalarization": ({"reduction": "sum"},),
    "uncertainty": ({"init": -0.5},),
    "dwa": ({"window": 2},),
    "scale_invariant": ({"reduction": "mean"},),
    "stch": ({"warmup": 5, "mu": 0.5},),
}


class Case(NamedTuple):
    name: str
    options: tuple[tuple[str, Any], ...] = ()
    how: str = "none"

    def __str__(self) -> str:
        text = ",".join(f"{key}={value}" for key, value in self.options)
        return f"{self.name}({text})" + ("" if self.how == "none" else f"/{self.how}")


def cases(kind: str) -> list[Case]:
    out = []
    for name, row in METHODS.items():
        if row.kind == kind:
            all_options = ({}, *VARIANTS.get(name, ()))
            out += [Case(name, tuple(options.items())) for options in all_options]
    if kind == "aggregator":
        out += [Case("mgda", (), how) for how in ("l2", "loss", "loss+")]
    return out
