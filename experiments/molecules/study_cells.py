"""The cells of the study on molecules: one training run each, by part; see `study`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from experiments.molecules import qm9, qm9_full
from experiments.study_runs import Cell, method_of
from mtl_jax.data.molecules import TARGET_NAMES
from mtl_jax.systems.molecules.config import Config, ModelConfig

METHODS = {
    "linear_scalarization": "LS",
    "uncertainty": "UW",
    "cagrad": "CAGrad",
    "nash_mtl": "Nash-MTL",
    "upgrad": "UPGrad",
    "famo": "FAMO",
}
SCALES = ("cpu", "paper")
# Names of the sets that begin the names of cells.
WORDS = {"cpu": "qm9small", "paper": "qm9full"}
RADIUS = 0.05
SEEDS = 3
EPOCHS = 4  # of the default scale, whose network is narrower than that of `qm9.py`
SMALL = ModelConfig(width=32, messages=16, layers=3, basis=12, hidden=32)


def base_config(scale: str) -> Config:
    """The experiment of a scale, with the study's budget and linear scalarisation."""
    if scale == "paper":
        return qm9_full.get_config()
    base = qm9.get_config()
    settings = dataclasses.replace(base.train, epochs=EPOCHS)
    return dataclasses.replace(base, model=SMALL, train=settings)


def _quiet(config: Config, name: str, seed: int) -> Config:
    settings = dataclasses.replace(config.train, report=False, log_every=10_000)
    return dataclasses.replace(config, name=name, seed=seed, train=settings)


def single(scale: str, seed: int) -> Iterator[Cell]:
    """A network for each property, of the same size and steps: what Delta_m is measured against."""
    base = base_config(scale)
    for task in TARGET_NAMES:
        name = f"{WORDS[scale]}-single-{task}-{seed}"
        data = dataclasses.replace(base.data, tasks=(task,))
        yield Cell(name, _quiet(dataclasses.replace(base, data=data), name, seed))


def methods(scale: str, seed: int) -> Iterator[Cell]:
    """All properties: methods, plain and with flat regions."""
    base = base_config(scale)
    for method in METHODS:
        for flat in ("erm", "fs"):
            name = f"{WORDS[scale]}-{method}-{flat}-{seed}"
            own = method_of(base.method, method, flat == "fs", RADIUS)
            yield Cell(name, _quiet(dataclasses.replace(base, method=own), name, seed))


CELLS = {"single": single, "methods": methods}
