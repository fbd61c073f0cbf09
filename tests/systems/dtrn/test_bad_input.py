"""Files, names and numbers that do not fit the data: one line that says what, why and what else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtl_jax import config as configs
from mtl_jax import run as runs
from mtl_jax.errors import UserError
from mtl_jax.systems.dtrn import builders
from mtl_jax.train import train
from tests.systems.dtrn import cases
from tests.systems.dtrn.cases import changed, config_of

# Some mistakes come to light after the first parameters are made: those of the smallest network.
NONE = {"model__encoder": "none", "model__trm": False}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny generated set and one good log."""
    folder = tmp_path_factory.mktemp("bad")
    builders.load(config_of(folder).data)
    cases.write_tmall2014(folder / "events.csv")
    return folder


def refused(config: Any, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        runs.build(config)
    line = str(caught.value)
    assert "\n" not in line
    assert not [word for word in words if word not in line], line


NAMES: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"data__tasks": ("clik",)}, ("config.data.tasks is clik", "did you mean 'click'")),
    ({"data__tasks": ("click", "click")}, ("config.data.tasks is click click", "each once")),
    (
        {"data__condition": ("conversion|clik",)},
        ("config.data.condition has 'conversion|clik'", "did you mean 'click'"),
    ),
    ({"data__condition": ("buy|click",)}, ("has 'buy|click'", "known: click, conversion")),
    ({"model__top": "esmm", "data__tasks": ("click",)}, ("top is esmm", "two tasks", "found 1")),
    ({"train__batch_size": 1_000_000}, ("batch", "1000000", "840")),
    ({"train__batch_size": 64, "train__microbatches": 3}, ("batch", "64", "3")),
    ({**NONE, "optim__trainable": "tim/hyperr/*"}, ("tim/hyperr/*", "matches no parameter")),
    ({"method__aggregator": "cagrd"}, ("cagrd", "did you mean 'cagrad'")),
]


@pytest.mark.parametrize(("changes", "words"), NAMES, ids=[str(i) for i in range(len(NAMES))])
def test_what_the_set_does_not_have(
    changes: dict[str, Any], words: tuple[str, ...], root: Path
) -> None:
    refused(config_of(root, **changes), *words)


def test_a_metric_that_nobody_computes(root: Path, tmp_path: Path) -> None:
    config = config_of(root, **NONE, train__select="validation/acu")
    with pytest.raises(UserError, match=r"select is 'validation/acu'; did you mean '.*auc'"):
        train(config, tmp_path / "run")


def log(root: Path, **changes: Any) -> Any:
    """The small experiment on the Tmall contest's log."""
    given = {"data__name": "event_log", "data__preset": "tmall2014", "data__tasks": ()}
    return config_of(root, **{**given, "data__path": str(root / "events.csv"), **changes})


LOGS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"data__preset": "tmal2014"}, ("unknown preset 'tmal2014'", "did you mean 'tmall2014'")),
    ({"data__path": "absent.csv"}, ("no file absent.csv",)),
    ({"data__path": "", "data__manual_dir": "absent"}, ("no file absent",)),
    ({"data__log__time": "dy"}, ("events.csv", "'dy'", "did you mean 'day'")),
    ({"data__log__tasks": ("by:0d",)}, ("'by'", "did you mean 'buy'")),
    ({"data__log__tasks": ("buy:tomorrow",)}, ("buy:tomorrow",)),
    ({"data__log__train": ("90", "30")}, ("train", "ends before it begins")),
    ({"data__log__test": ("95", "99")}, ("test", "may not overlap")),
    ({"data__log__item_columns": ("type",)}, ("column type holds outcomes",)),
    ({"data__log__min_count": 0}, ("min_count = 0", "at least 1")),
    ({"data__tasks": ("bought",)}, ("config.data.tasks is bought", "known: buy, deep, fav")),
]


@pytest.mark.parametrize(("changes", "words"), LOGS, ids=[str(i) for i in range(len(LOGS))])
def test_options_that_do_not_fit_the_log(
    changes: dict[str, Any], words: tuple[str, ...], root: Path
) -> None:
    refused(log(root, **changes), *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("events.csv",)),
        ("user_id,brand_id,type,day\n", ("no row",)),
        ("user_id,brand_id,type,day\n1,2,0,x\n", ("row 1", "'x'")),
        ("user_id,brand_id,type,day\n1,2,7,40\n", ("row 1", "7")),
        ("user_id,brand_id,type,day\n1,2,0\n", ("Row #1", "Expected 4 columns, got 3")),
        ("user_id,brand_id,day\n1,2,40\n", ("'type'", "user_id")),
        ("user_id,brand_id,type,day\n1,2,0,40\n", ("no row falls into the split validation",)),
    ],
    ids=["empty", "header", "time", "behaviour", "ragged", "column", "split"],
)
def test_logs_that_cannot_be_read(
    text: str, words: tuple[str, ...], root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "events.csv"
    path.write_text(text)
    sets = tmp_path / "sets"
    refused(log(root, data__path=str(path), data__data_dir=str(sets)), *words)
    assert not [left for left in (sets / "event_log").rglob("*") if left.is_file()]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("kuairand", ("kuairand", "log_standard*.csv")),
        ("ali_ccp", ("ali_ccp", "sample_skeleton_{train,test}.csv")),
        ("aliexpress", ("aliexpress", "train.csv and test.csv")),
        ("movielens1m", ("movielens1m", "ratings.dat")),
    ],
)
def test_folders_without_the_files(
    name: str, words: tuple[str, ...], tmp_path: Path, root: Path
) -> None:
    own = config_of(root, data__name=name, data__tasks=())
    refused(changed(own, data__manual_dir=str(tmp_path / "absent")), "absent")
    (tmp_path / "empty").mkdir()
    refused(changed(own, data__manual_dir=str(tmp_path / "empty")), str(tmp_path / "empty"))
    if name != "aliexpress":
        refused(own, *words)


def test_numbers_that_are_none_stop_the_run(root: Path, tmp_path: Path) -> None:
    """Weights that are no numbers never come out of a loader, but a rate may be far too large."""
    config = config_of(root, **NONE, optim__name="sgd", optim__lr=1e30)
    with pytest.raises(UserError, match=r"loss not finite at step \d: .*click is") as caught:
        train(config, tmp_path / "run")
    assert "smaller optim.lr" in str(caught.value)


def test_a_saved_config_of_another_system_is_refused(tmp_path: Path) -> None:
    saved = configs.to_dict(config_of(tmp_path))
    saved["model"] = {**saved["model"], "branch": "mlp"}
    with pytest.raises(UserError, match=r"config.model.branch is unknown; known: .*encoder"):
        configs.from_dict(saved)
