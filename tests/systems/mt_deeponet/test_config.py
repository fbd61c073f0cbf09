"""Configs that no run can use are refused in one line, before any data is touched."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from mtl_jax.errors import UserError
from mtl_jax.systems.mt_deeponet import builders
from mtl_jax.systems.mt_deeponet.config import Config
from tests import operator_sets
from tests.systems.mt_deeponet.test_model import config_of

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"data__name": "fischer"}, "did you mean 'fisher'"),
    ({"data__name": "file"}, "data.path is empty"),
    ({"data__name": "pdebench_reacdiff"}, "manual_dir is empty"),
    ({"data__name": "darcy", "data__geometry": ()}, "geometry is empty"),
    ({"data__name": "darcy", "data__geometry": ("disc", "disc")}, "each once"),
    ({"data__train_size": -1}, "train_size is -1"),
    ({"data__points_per_step": -5}, "points_per_step is -5"),
    ({"data__validation": 0.0}, "shares above 0"),
    ({"data__validation": 0.5, "data__test": 0.5}, "shares above 0"),
    ({"data__batches": "sorted"}, "data.batches is 'sorted'"),
    ({"loss": "mse"}, "loss is 'mse'"),
    ({"model__branch_activation": "relu6"}, "branch_activation is 'relu6'"),
    ({"model__trunk_activation": "Tanh"}, "did you mean 'tanh'"),
    ({"model__trunk_widths": ()}, "trunk_widths is empty"),
    ({"model__branch_widths": (8, 0)}, "branch_widths is 8 0"),
    ({"model__latent": 0}, "latent is 0"),
    ({"model__branch_l2": -1.0}, "must be 0 or more"),
    ({"model__branch_dropout": (1.0,)}, "rates must be from 0 to below 1"),
    ({"model__branch_dropout": (0.1, 0.1, 0.1)}, "has 3 rates"),
    ({"model__branch_norm": "group"}, "branch_norm is 'group'"),
    ({"optim__b2": 1.0}, "optim.b2 is 1.0"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_wrong_values(changes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(data: object) -> None:
        raise AssertionError("data was touched")

    monkeypatch.setattr(builders, "load", never)
    with pytest.raises(UserError, match=words) as caught:
        builders.build(config_of("families", **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("families", {"model__branch": "cnn"}, "branch is cnn, which reads a field"),
        (
            "geometries",
            {"model__branch_channels": (2, 2, 2, 2, 2)},
            "5 stages that halve a field of 16 x 16",
        ),
        ("scattered", {"data__scale_solution": "point"}, "query points of their own"),
        ("families", {"train__batch_size": 7}, "needs a multiple of 3: choose 6"),
    ],
)
def test_values_that_do_not_fit_the_set(
    name: str, changes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builders, "load", lambda data: operator_sets.ALL[name]())
    with pytest.raises(UserError, match=words):
        builders.build(config_of(name, **changes))


def test_the_default_config_is_sound() -> None:
    Config().check()
    assert dataclasses.is_dataclass(Config)
