"""Configs that no run can use are refused in one line, before any data is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtl_jax.errors import UserError
from mtl_jax.flags import override
from mtl_jax.systems.dtrn import builders
from mtl_jax.systems.dtrn.config import SETS, Config, DataConfig
from tests.impression_sets import tiny_set
from tests.systems.dtrn.cases import changed, config_of

WRONG: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"data__name": "movielens"}, ("config.data.name is 'movielens'", "did you mean 'movielens")),
    ({"data__name": "conflict/strog"}, ("unknown config 'strog'", "did you mean 'strong'")),
    ({"data__name": "event_log/tmall2014"}, ("event_log alone", "config.data.preset")),
    ({"data__name": "event_log"}, ("config.data.path is empty", "config.data.manual_dir")),
    ({"data__name": "event_log", "data__manual_dir": "x"}, ("config.data.path is empty",)),
    ({"data__path": "events.csv"}, ("config.data.path is 'events.csv'", "belongs to event_log")),
    ({"data__preset": "tmall"}, ("config.data.preset is 'tmall'", "belongs to event_log")),
    ({"data__length": 0}, ("config.data.length is 0", "1 or more")),
    ({"data__eval_batch_size": -1}, ("config.data.eval_batch_size is -1", "1 or more")),
    ({"data__condition": ("click",)}, ("has 'click'", "write TASK|OTHER")),
    ({"data__condition": ("click|click",)}, ("has 'click|click'", "write TASK|OTHER")),
    ({"data__condition": ("|click",)}, ("has '|click'", "write TASK|OTHER")),
    ({"model__top": "moe"}, ("config.model.top is 'moe'", "mmoe")),
    ({"model__encoder": "gru"}, ("config.model.encoder is 'gru'", "transformer")),
    ({"model__width": 10, "model__heads": 4}, ("width is 10", "4 heads", "a multiple")),
    ({"model__dropout": 1.0}, ("config.model.dropout is 1.0", "from 0 to below 1")),
    ({"model__attention_dropout": -0.1}, ("attention_dropout is -0.1", "from 0 to below 1")),
    ({"model__top": "mmoe", "model__levels": 2}, ("levels is 2", "only ple has levels")),
    ({"model__calibrator": -0.5}, ("config.model.calibrator is -0.5", "0 or more")),
    ({"model__experts": 0}, ("config.model.experts is 0", "1 or more")),
    ({"model__bottom": ()}, ("config.model.bottom is empty", "give positive widths")),
    ({"model__tower": (8, 0)}, ("config.model.tower is 8 0", "give positive widths")),
    ({"optim__tables__rule": "adagrad"}, ("tables.rule is 'adagrad'", "row_adagrad")),
    ({"optim__tables__l2": -1.0}, ("config.optim.tables.l2 is -1.0", "0 or more")),
    ({"optim__lr": float("nan")}, ("config.optim.lr is nan", "finite")),
]


def says(error: UserError, words: tuple[str, ...]) -> None:
    assert "\n" not in str(error)
    assert not [word for word in words if word not in str(error)], str(error)


@pytest.mark.parametrize(("changes", "words"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_wrong_values(
    changes: dict[str, Any], words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(data: object) -> None:
        raise AssertionError("data was touched")

    monkeypatch.setattr(builders, "load", never)
    with pytest.raises(UserError) as caught:
        builders.build(config_of(Path("nowhere"), **changes))
    says(caught.value, words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"model__top": "single", "optim__tables__rule": "row_adagrad"},
            ("tables.rule is row_adagrad", "every task of single", "choose dense"),
        ),
        (
            {"model__top": "stem", "optim__tables__rule": "sgd"},
            ("tables.rule is sgd", "every task of stem", "choose dense"),
        ),
        ({"train__batch_size": 65}, ("batch", "65", "64")),
    ],
    ids=["single", "stem", "batch"],
)
def test_values_that_do_not_fit_the_set(
    changes: dict[str, Any], words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builders, "load", lambda data: tiny_set())
    with pytest.raises(UserError) as caught:
        builders.build(config_of(Path("nowhere"), **changes))
    says(caught.value, words)


@pytest.mark.parametrize("top", ["esmm", "aitm"])
def test_a_funnel_has_two_tasks(top: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = builders.only_tasks(tiny_set(), ("task_1",))
    monkeypatch.setattr(builders, "load", lambda data: alone)
    with pytest.raises(UserError) as caught:
        builders.build(config_of(Path("nowhere"), model__top=top))
    says(caught.value, (f"config.model.top is {top}", "two tasks or more", "found 1"))


@pytest.mark.parametrize("name", SETS)
def test_every_set_has_a_sound_config(name: str) -> None:
    path = "events.csv" if name == "event_log" else ""
    Config(data=DataConfig(name=name, path=path)).check()


def test_options_of_a_log_are_the_preset_s_but_for_those_given(tmp_path: Path) -> None:
    log = tmp_path / "tmall2014.csv"
    log.touch()
    config = changed(Config(), data__name="event_log", data__preset="tmall2014")
    flags = ["--config.data.log.min-count=3", "--config.data.log.tasks", "buy:0d", "any:1-2d"]
    for place in ("path", "manual_dir"):
        there = changed(config, **{f"data__{place}": str(log if place == "path" else tmp_path)})
        found = builders.log_options(override(there, flags).data)
        assert (found.path, found.preset) == (str(log), "tmall2014")
        assert (found.item, found.min_count) == ("brand_id", 3)
        assert found.tasks == ("buy:0d", "any:1-2d")
    own = changed(config, data__preset="", data__path=str(log))
    assert builders.log_options(own.data).item == "item_id"
