"""The cells of the operator study: one training run each, by part; see `study`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from experiments.mt_deeponet import darcy, darcy_transfer, fisher, plate3d
from mtl_jax.config import FlatConfig, OptimConfig
from mtl_jax.data.pde.shapes import SOURCES, TARGETS
from mtl_jax.systems.mt_deeponet.config import Config

FAMILIES = ("kpp", "nws", "zfk")
AGGREGATORS = {
    "linear_scalarization": "LS",
    "pcgrad": "PCGrad",
    "cagrad": "CAGrad",
    "upgrad": "UPGrad",
}
STARTS = {
    "zero": "zero-shot",
    "paper": "paper's set",
    "head": "heads",
    "full": "all",
    "": "scratch",
}
SAMPLES = (20, 100, 600)
RADIUS = 0.05


class Cell(NamedTuple):
    """One training run.

    Attributes:
      name: of its folder.
      config: what to train.
      source: folder of the cell that it starts from, "" for none.
      zero: only score the source network, do not train.
    """

    name: str
    config: Config
    source: str = ""
    zero: bool = False


def _quiet(config: Config, name: str, seed: int) -> Config:
    settings = dataclasses.replace(config.train, report=False, log_every=500)
    return dataclasses.replace(config, name=name, seed=seed, train=settings)


def _alone(config: Config, tasks: int, data: Any) -> Config:
    """The same experiment on one of its tasks: as many samples of it in a step."""
    settings = dataclasses.replace(config.train, batch_size=config.train.batch_size // tasks)
    return dataclasses.replace(config, data=data, train=settings)


def sharing(seed: int) -> Iterator[Cell]:
    """All tasks at once, and each alone."""
    base = fisher.get_config()
    yield Cell(name := f"fisher-all-{seed}", _quiet(base, name, seed))
    for task in FAMILIES:
        config = _alone(base, 3, dataclasses.replace(base.data, tasks=(task,)))
        yield Cell(name := f"fisher-{task}-{seed}", _quiet(config, name, seed))
    base = darcy.get_config()
    yield Cell(name := f"darcy-all-{seed}", _quiet(base, name, seed))
    for task in SOURCES:
        config = _alone(base, 3, dataclasses.replace(base.data, geometry=(task,)))
        yield Cell(name := f"darcy-{task}-{seed}", _quiet(config, name, seed))


ABLATIONS = {
    "no-channel": "no mask channel",
    "open": "no mask channel, field shown outside",
    "grid-mse": "the paper's loss (grid MSE)",
}


def ablation(seed: int) -> Iterator[Cell]:
    """Darcy with one thing changed."""
    base = darcy.get_config()
    hidden = dataclasses.replace(base.data, mask_channel=False)
    changed = {
        "no-channel": dataclasses.replace(base, data=hidden),
        "open": dataclasses.replace(base, data=dataclasses.replace(hidden, mask_input=False)),
        "grid-mse": dataclasses.replace(base, loss="grid_mse"),
    }
    for word, config in changed.items():
        yield Cell(name := f"darcy-{word}-{seed}", _quiet(config, name, seed))


def target_name(geometry: str, size: int, start: str) -> str:
    """Name, without the seed, of the cells that go to a geometry with `size` samples."""
    return f"to-{geometry}-{size}-{start or 'scratch'}"


def _target(geometry: str, size: int, start: str, seed: int) -> Cell:
    base = darcy_transfer.get_config()
    name = f"{target_name(geometry, size, start)}-{seed}"
    optim = base.optim
    if start in ("paper", "head", "full"):
        optim = dataclasses.replace(optim, trainable=start)
    elif not start:  # from scratch a larger rate is better (measured once, as for the source)
        optim = dataclasses.replace(optim, lr=1e-3)
    config = dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, geometry=(geometry,), train_size=size),
        optim=optim,
        train=dataclasses.replace(base.train, batch_size=min(size, 100)),
    )
    source = f"darcy-all-{seed}" if start else ""
    return Cell(name, _quiet(config, name, seed), source, zero=start == "zero")


def transfer(seed: int) -> Iterator[Cell]:
    """100 samples of each target geometry."""
    for geometry in TARGETS:
        for start in STARTS:
            yield _target(geometry, 100, start, seed)


def samples(seed: int) -> Iterator[Cell]:
    """The first two targets against the number of samples."""
    for geometry in ("pentagon", "l_shape"):
        for size in SAMPLES:
            for start in STARTS:
                yield _target(geometry, size, start, seed)


def aggregators(seed: int) -> Iterator[Cell]:
    """Fisher with aggregators, plain and around flat regions."""
    base = fisher.get_config()
    for method in AGGREGATORS:
        for flat in (False, True):
            name = f"fisher-{method}-{'fs' if flat else 'erm'}-{seed}"
            regions = FlatConfig(combine="erm")
            if flat:
                regions = FlatConfig(rho=RADIUS, adaptive=False)
            config = dataclasses.replace(
                base,
                method=dataclasses.replace(base.method, aggregator=method, flat=regions),
                train=dataclasses.replace(base.train, steps=1000),
            )
            yield Cell(name, _quiet(config, name, seed))


def optimisers(seed: int) -> Iterator[Cell]:
    """Fisher with Adam, as many steps and the rate that was best for it."""
    adam = OptimConfig(name="adam", lr=2e-3, schedule="cosine")
    config = dataclasses.replace(fisher.get_config(), optim=adam)
    yield Cell(name := f"fisher-adam-{seed}", _quiet(config, name, seed))


PLATES = {
    "all": "as in the experiment: none in the branch",
    "layer": "LayerNorm in the branch",
}


def plate(seed: int) -> Iterator[Cell]:
    """The heated plate as in its experiment, and with a branch that is less smooth."""
    base = plate3d.get_config()
    layer = dataclasses.replace(base, model=dataclasses.replace(base.model, branch_norm="layer"))
    for word, config in (("all", base), ("layer", layer)):
        yield Cell(name := f"plate-{word}-{seed}", _quiet(config, name, seed))


CELLS = {
    "sharing": sharing,
    "ablation": ablation,
    "transfer": transfer,
    "samples": samples,
    "aggregators": aggregators,
    "optimisers": optimisers,
    "plate": plate,
}
