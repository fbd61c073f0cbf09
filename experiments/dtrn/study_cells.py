"""The cells of the recommendation study: one training run each, by part; see `study`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from experiments.dtrn import census, conflict, event_log, movielens
from experiments.study_runs import Cell, method_of
from mtl_jax.systems.dtrn.config import Config

TOPS = {"shared_bottom": "SharedBottom", "mmoe": "MMoE", "ple": "PLE"}
VARIANTS = {
    "base": "base (mean of events)",
    "trm": "+ TRM",
    "encoder": "+ shared transformer",
    "tim": "+ TIM",
    "dtrn": "DTRN (TIM + TRM)",
}
CHANGES: dict[str, dict[str, Any]] = {
    "base": {"encoder": "mean", "trm": False},
    "trm": {"encoder": "mean", "trm": True},
    "encoder": {"encoder": "transformer", "conditioning": "none", "trm": False},
    "tim": {"encoder": "transformer", "conditioning": "hyper", "trm": False},
    "dtrn": {"encoder": "transformer", "conditioning": "hyper", "trm": True},
}
STRENGTHS = ("mild", "medium", "strong")
CONDITIONINGS = {
    "none": "one transformer for all",
    "hyper": "hypernetwork (DTRN)",
    "table": "free scale and shift",
    "separate": "a transformer for each pair",
}
METHODS = {
    "linear_scalarization": "LS",
    "uncertainty": "UW",
    "pcgrad": "PCGrad",
    "cagrad": "CAGrad",
    "upgrad": "UPGrad",
}
RADIUS = 0.05
SEEDS = 3


class Files(NamedTuple):
    """What the user has brought along; "" for what is not there."""

    tmall2014: str = ""
    kuairand: str = ""


def _quiet(config: Config, name: str, seed: int) -> Config:
    settings = dataclasses.replace(config.train, report=False, log_every=10_000)
    return dataclasses.replace(config, name=name, seed=seed, train=settings)


def _model(config: Config, **changes: Any) -> Config:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))


def _variant(config: Config, top: str, variant: str) -> Config:
    """One row of the tables."""
    return _model(config, top=top, **CHANGES[variant])


def sets(files: Files) -> dict[str, Config]:
    """Returns the experiments by the word that names their cells."""
    found = {"movielens": movielens.get_config()}
    base = conflict.get_config()
    for strength in STRENGTHS:
        data = dataclasses.replace(base.data, name=f"conflict/{strength}")
        found[strength] = dataclasses.replace(base, data=data)
    if files.tmall2014:
        base = event_log.get_config()
        data = dataclasses.replace(base.data, path=files.tmall2014, preset="tmall2014")
        found["tmall2014"] = dataclasses.replace(base, data=data)
    if files.kuairand:
        # A small log, of the size of tmall2014 and not of KuaiRand's: it is trained as that one is.
        base = event_log.get_config()
        data = dataclasses.replace(
            base.data, name="kuairand/explicit", path="", preset="", manual_dir=files.kuairand
        )
        found["kuairand"] = dataclasses.replace(base, data=data)
    return found


def variants(seed: int, files: Files) -> Iterator[Cell]:
    """Base, +TRM, +shared transformer, +TIM and DTRN under three tops."""
    for word, base in sets(files).items():
        for top in TOPS:
            for variant in CHANGES:
                name = f"{word}-{top}-{variant}-{seed}"
                yield Cell(name, _quiet(_variant(base, top, variant), name, seed))


def single(seed: int, files: Files) -> Iterator[Cell]:
    """A network for each task, of the base's budget: what Delta_m is measured against."""
    for word, base in sets(files).items():
        name = f"{word}-single-base-{seed}"
        yield Cell(name, _quiet(_variant(base, "single", "base"), name, seed))


def conditioning(seed: int, files: Files) -> Iterator[Cell]:
    """Ways to make a transformer depend on task and behaviour type, under MMoE without TRM."""
    del files
    for word in ("movielens", "strong"):
        base = sets(Files())[word]
        for how in CONDITIONINGS:
            if how in ("none", "hyper"):
                continue  # rows of `variants`
            name = f"{word}-mmoe-{how}-{seed}"
            changes = {**CHANGES["tim"], "conditioning": how}
            yield Cell(name, _quiet(_model(base, top="mmoe", **changes), name, seed))


def methods(seed: int, files: Files) -> Iterator[Cell]:
    """Aggregators and flat regions, with DTRN over MMoE."""
    del files
    for word in ("movielens", "strong"):
        base = _model(sets(Files())[word], top="mmoe", **CHANGES["dtrn"])
        for method in METHODS:
            for flat in ("erm", "fs"):
                if (method, flat) == ("linear_scalarization", "erm"):
                    continue  # a row of `variants`
                name = f"{word}-{method}-{flat}-{seed}"
                own = method_of(base.method, method, flat == "fs", RADIUS)
                config = dataclasses.replace(base, method=own)
                yield Cell(name, _quiet(config, name, seed))


def tabular(seed: int, files: Files) -> Iterator[Cell]:
    """Census-Income: bases only, it has no histories."""
    del files
    base = census.get_config()
    for top in ("single", *TOPS):
        name = f"census-{top}-base-{seed}"
        yield Cell(name, _quiet(_model(base, top=top, encoder="none", trm=False), name, seed))


CELLS = {
    "variants": variants,
    "single": single,
    "conditioning": conditioning,
    "methods": methods,
    "tabular": tabular,
}
