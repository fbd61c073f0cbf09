"""The sets of the comparison: existing experiments, cut so that a run takes seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.compare import single_molecules, single_vision, small_census
from mtl_jax.config import ExperimentConfig


class Set(NamedTuple):
    """One set.

    Attributes:
      title: for people.
      metric: of a task; the set's main metric is its mean over tasks.
      label: of the main metric, for people.
      higher: whether more of it is better.
      config: makes the shortened experiment.
      single: makes of it the same experiment with a network for each task.
    """

    title: str
    metric: str
    label: str
    higher: bool
    config: Callable[[], ExperimentConfig]
    single: Callable[[ExperimentConfig], ExperimentConfig]


def _cut(config: Any, steps: int, evaluations: int, **changes: Any) -> Any:
    """Returns an experiment with so many steps and evaluations, without report.

    Args:
      config: the experiment.
      steps: of training.
      evaluations: on validation; a divisor of the steps.
      changes: of its data, model, optim, as `data={"train_size": 2000}`.
    """
    every = steps // evaluations
    train = {"steps": steps, "eval_every": every, "log_every": every, "report": False}
    train["keep_last"] = 1
    for part, values in {"train": {**train, **changes.pop("train", {})}, **changes}.items():
        config = dataclasses.replace(
            config, **{part: dataclasses.replace(getattr(config, part), **values)}
        )
    return config


def _top_single(config: Any) -> Any:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, top="single"))


def _yeast() -> ExperimentConfig:
    from experiments.tabular import yeast

    return _cut(yeast.get_config(), 600, 5)


def _rf1() -> ExperimentConfig:
    from experiments.tabular import rf1

    return _cut(rf1.get_config(), 400, 4)


def _census() -> ExperimentConfig:
    from experiments.dtrn import census

    small = small_census.Config(**_values(census.get_config()))
    # The network of fewest parts: most of a short run is compiling it.
    model = {"top": "shared_bottom"}
    return _cut(small, 160, 2, model=model, train={"batch_size": 256})


def _multi_mnist() -> ExperimentConfig:
    from experiments.fsmtl import multi_mnist

    model = {"name": "lenet_5x5", "widths": (6, 12)}
    return _cut(multi_mnist.get_config(), 240, 2, data={"train_size": 1500}, model=model)


def _qm9() -> ExperimentConfig:
    from experiments.molecules import qm9

    model = {"width": 24, "messages": 12, "layers": 2, "basis": 8, "hidden": 24}
    data, train = {"train_size": 2048}, {"batch_size": 32}
    return _cut(qm9.get_config(), 160, 2, data=data, model=model, train=train)


def _values(config: Any) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def _single_vision(config: Any) -> ExperimentConfig:
    return single_vision.Config(**_values(config))


def _single_molecules(config: Any) -> ExperimentConfig:
    return single_molecules.Config(**_values(config))


SETS = {
    "yeast": Set("Yeast", "auc", "AUC", True, _yeast, _top_single),
    "rf1": Set("RF1", "rrmse", "aRRMSE", False, _rf1, _top_single),
    "census": Set("Census-Income", "auc", "AUC", True, _census, _top_single),
    "qm9": Set("QM9", "std_mae", "MAE / std", False, _qm9, _single_molecules),
    "multi_mnist": Set("Multi-MNIST", "accuracy", "accuracy", True, _multi_mnist, _single_vision),
}
