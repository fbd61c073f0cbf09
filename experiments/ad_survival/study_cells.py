"""The cells of the survival study: one training run each, by part; see `study`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from experiments.ad_survival import creatives, hdfail, rhc, snap_ads, support2, unempdur
from experiments.study_runs import Cell, method_of
from mtl_jax.systems.ad_survival.config import Config

SEEDS = 3
KINDS = ("text", "image", "categories", "numbers", "totals", "history")
# Parts of a creative that a row goes without; days and totals are both its history.
REMOVALS = {
    "full": (),
    "without_text": ("text",),
    "without_image": ("image",),
    "without_categories": ("categories",),
    "without_numbers": ("numbers",),
    "without_history": ("totals", "history"),
    "stat_only": ("text", "image", "totals", "history"),
}
# (kind of weight, what is made of the click rate); the first stands for the full model.
WEIGHTS = {
    "full": ("ctr", "raw"),
    "unweighted": ("none", "raw"),
    "impressions": ("impressions", "raw"),
    "ctr_minmax": ("ctr", "minmax"),
    "ctr_rank": ("ctr", "rank"),
    "ctr_log": ("ctr", "log"),
    "ctr_eb": ("ctr", "eb"),
}
TERMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "full": ({}, {}),
    "separate": ({"share": False}, {}),
    "overall": ({"terms": "overall"}, {}),
    "short": ({"terms": "short"}, {}),
    "long": ({"terms": "long"}, {}),
    "coherent": ({"coherence": 0.3}, {}),
    "lambda25": ({}, {"share": 0.25}),
    "lambda75": ({}, {"share": 0.75}),
}
METHODS = {
    "linear_scalarization": "LS",
    "pcgrad": "PCGrad",
    "cagrad": "CAGrad",
    "upgrad": "UPGrad",
}
RADIUS = 0.05
SETS = {"support2": support2, "rhc": rhc, "unempdur": unempdur, "hdfail": hdfail}
# As many splits as seeds: cell s has seed s and split s, which the references have too.
SPLITS = ("random", "random_1", "random_2", "random_3", "random_4")
NETWORKS: dict[str, dict[str, Any]] = {
    "two": {},
    "overall": {"terms": "overall"},
    "cox": {"terms": "overall", "head": "cox"},
}
SNAP_SPLITS = ("random", "group", "time")


class Files(NamedTuple):
    """What the user has brought along; "" for what is not there."""

    snap: str = ""


def _cell(config: Config, name: str, seed: int, **changes: Any) -> Cell:
    settings = dataclasses.replace(config.train, report=False, log_every=10_000)
    name = f"{name}-{seed}"
    return Cell(name, dataclasses.replace(config, name=name, seed=seed, train=settings, **changes))


def inputs(seed: int, files: Files) -> Iterator[Cell]:
    """Kinds of input taken away, and the paper's protocol."""
    del files
    base = creatives.get_config()
    for name, gone in REMOVALS.items():
        left = tuple(kind for kind in KINDS if kind not in gone)
        data = dataclasses.replace(base.data, inputs=left if gone else ())
        yield _cell(base, f"creatives-{name}", seed, data=data)
    for name, gone in (("full", ()), ("without_history", REMOVALS["without_history"])):
        left = tuple(kind for kind in KINDS if kind not in gone)
        changes: dict[str, Any] = {"protocol": "paper", "inputs": left if gone else ()}
        data = dataclasses.replace(base.data, **changes)
        yield _cell(base, f"creatives-paper_{name}", seed, data=data)


def weights(seed: int, files: Files) -> Iterator[Cell]:
    """Weights of rows."""
    del files
    base = creatives.get_config()
    for name, (kind, transform) in WEIGHTS.items():
        made: dict[str, Any] = {"kind": kind, "transform": transform}
        own = dataclasses.replace(base.weights, **made)
        yield _cell(base, f"creatives-{name}", seed, weights=own)


def terms(seed: int, files: Files) -> Iterator[Cell]:
    """Two terms on one trunk, apart, or one; penalty and share of the short term."""
    del files
    base = creatives.get_config()
    for name, (model, weight) in TERMS.items():
        yield _cell(
            base,
            f"creatives-{name}",
            seed,
            model=dataclasses.replace(base.model, **model),
            weights=dataclasses.replace(base.weights, **weight),
        )


def methods(seed: int, files: Files) -> Iterator[Cell]:
    """Aggregators and flat regions, two terms."""
    del files
    base = creatives.get_config()
    for method in METHODS:
        for flat in ("erm", "fs"):
            plain = (method, flat) == ("linear_scalarization", "erm")
            # The plain row is the full network's, a cell of other parts too.
            own = method_of(base.method, method, flat == "fs", RADIUS)
            name = "full" if plain else f"{method}_{flat}"
            yield _cell(base, f"creatives-{name}", seed, method=base.method if plain else own)


def sets(seed: int, files: Files) -> Iterator[Cell]:
    """Real sets by name: two terms, one, and Cox's likelihood on the same network."""
    del files
    split = SPLITS[seed % len(SPLITS)]
    for word, module in SETS.items():
        base = module.get_config()
        for name, model in NETWORKS.items():
            yield _cell(
                base,
                f"{word}-{name}",
                seed,
                data=dataclasses.replace(base.data, split=split),
                model=dataclasses.replace(base.model, **model),
            )


def snap(seed: int, files: Files) -> Iterator[Cell]:
    """Snap's political ads in three splits, where the file is given."""
    if files.snap:
        base = snap_ads.get_config()
        for split in SNAP_SPLITS:
            data = dataclasses.replace(base.data, path=files.snap, split=split)
            yield _cell(base, f"snap_ads-{split}", seed, data=data)


CELLS = {
    "sets": sets,
    "inputs": inputs,
    "terms": terms,
    "weights": weights,
    "methods": methods,
    "snap": snap,
}
