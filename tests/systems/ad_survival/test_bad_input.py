"""Configs and prediction files that cannot be: one line that says what, why and what else."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_jax.data.survival.creatives import CONFIGS, generate
from mtl_jax.errors import UserError
from mtl_jax.systems.ad_survival import builders
from mtl_jax.systems.ad_survival.config import Config
from mtl_jax.systems.ad_survival.data import loss_weights, split_of
from mtl_jax.systems.ad_survival.predict import lifetimes_of
from mtl_jax.systems.ad_survival.terms import make_views
from mtl_jax.systems.csv_files import read_rows


@pytest.fixture(scope="module")
def found() -> Any:
    return generate(CONFIGS["tiny"], seed=4)


def refused(caught: Any, *words: str) -> None:
    line = str(caught.value)
    assert "\n" not in line
    assert not [word for word in words if word not in line], line


CHOICES: list[tuple[dict[str, dict[str, Any]], tuple[str, ...]]] = [
    ({"data": {"name": "creativs"}}, ("creativs", "did you mean 'creatives'")),
    ({"data": {"name": "creatives/faithfull"}}, ("faithfull", "faithful")),
    ({"data": {"name": "table"}}, ("config.data.path is empty", "table reads a file")),
    ({"data": {"name": "table/x", "path": "a.csv"}}, ("table has no configs",)),
    ({"data": {"path": "a.csv"}}, ("config.data.path is 'a.csv'", "creatives does not have")),
    ({"data": {"landmarks": ()}}, ("config.data.landmarks",)),
    ({"data": {"landmarks": (3.0, 0.0)}}, ("landmarks is (3.0, 0.0)", "in order")),
    ({"data": {"landmarks": (120.0,)}}, ("below 120",)),
    ({"data": {"short": (0, 5, 9)}}, ("first bin",)),
    ({"data": {"short": (0, 5, 3)}}, ("must increase",)),
    ({"data": {"inputs": ("txt",)}}, ("has 'txt'", "did you mean 'text'")),
    ({"data": {"inputs": ("text", "text")}}, ("each once",)),
    ({"data": {"min_count": 0}}, ("min_count is 0", "1 or more")),
    ({"model": {"score": "rmts"}}, ("'rmts'", "did you mean 'rmst'")),
    ({"model": {"score": "survival@500"}}, ("survival@500", "up to 120")),
    ({"model": {"trunk": ()}}, ("config.model.trunk is ()",)),
    ({"model": {"dropout": 1.0}}, ("config.model.dropout is 1.0",)),
    ({"model": {"coherence": -1.0}}, ("coherence is -1.0",)),
    ({"model": {"terms": "overall", "coherence": 1.0}}, ("coherence", "terms=two")),
    ({"model": {"share": False, "coherence": 1.0}}, ("coherence", "one trunk")),
    ({"model": {"terms": "short", "share": False}}, ("config.model.share", "two heads")),
    ({"model": {"head": "cox"}}, ("head is cox", "terms=overall")),
    ({"model": {"terms": "long"}, "weights": {"share": 0.3}}, ("weights.share is 0.3",)),
    ({"weights": {"share": 1.0}}, ("weights.share is 1.0", "between 0 and 1")),
]


@pytest.mark.parametrize(("changes", "words"), CHOICES, ids=[str(i) for i in range(len(CHOICES))])
def test_choices_that_no_run_can_use(
    changes: dict[str, dict[str, Any]], words: tuple[str, ...]
) -> None:
    config = Config()
    parts = {
        name: dataclasses.replace(getattr(config, name), **own) for name, own in changes.items()
    }
    with pytest.raises(UserError) as caught:
        dataclasses.replace(config, **parts).check()
    refused(caught, *words)


def test_what_the_set_does_not_have(found: Any) -> None:
    views = make_views("landmark", (0.0,))
    train = split_of(found, "")["train"]
    weights = dataclasses.replace(Config().weights, kind="ctr")
    bare = found._replace(texts=(), history_names=(), history=found.history[..., :0])
    with pytest.raises(UserError) as caught:
        split_of(found, "tme")
    refused(caught, "config.data.split is 'tme'", "did you mean 'time'")
    with pytest.raises(UserError) as caught:
        builders.without(found, ("genra",))
    refused(caught, "config.data.drop has 'genra'", "did you mean 'genre'")
    with pytest.raises(UserError) as caught:
        builders.only_inputs(bare, ("text",))
    refused(caught, "config.data.inputs has text", "it has image")
    with pytest.raises(UserError) as caught:
        loss_weights(bare, views, train, weights)
    refused(caught, "no daily impressions")
    with pytest.raises(UserError) as caught:
        loss_weights(found, views, train, weights)
    refused(caught, "needs days of history", "config.data.landmarks")


FILES: list[tuple[list[list[str]], tuple[str, ...]]] = [
    ([["bid"]], ("no ads",)),
    ([["bid", "bid"], ["1", "2"]], ("names repeat",)),
    ([["bid", "genre"], ["1"]], ("line 2 has 1 values, not 2",)),
    ([["genra"], ["games"]], ("column 'genra'", "did you mean 'genre'")),
    ([["bid"], ["1"], ["much"]], ("line 3 has bid = 'much'",)),
    ([["bid"], ["-1"]], ("line 2 has bid = '-1'", "from 0 on")),
    ([["day"], ["-2"]], ("line 2 has day = '-2'",)),
    ([["history_views_1"], ["3"]], ("history_views_1", "amounts are impressions")),
    ([["history_clicks_900"], ["3"]], ("history_clicks_900", "days 1..120")),
    ([["image_path"], ["absent.png"]], ("line 2 has image_path", "absent.png")),
]


@pytest.mark.parametrize(("lines", "words"), FILES, ids=[str(i) for i in range(len(FILES))])
def test_files_of_new_ads(
    lines: list[list[str]], words: tuple[str, ...], found: Any, tmp_path: Path
) -> None:
    source = tmp_path / "ads.csv"
    with open(source, "w", newline="") as file:
        csv.writer(file).writerows(lines)
    with pytest.raises(UserError) as caught:
        lifetimes_of(found, *read_rows(source, "ads"), source)
    refused(caught, "ads.csv", *words)


def test_new_ads_are_read_by_name(found: Any, tmp_path: Path) -> None:
    source = tmp_path / "ads.csv"
    head = ["title", "genre", "bid", "day", "history_clicks_1", "history_clicks_2"]
    rows = [["zzz new", "games", "1.5", "2", "7", "9"], ["", "unheard", "", "0", "", ""]]
    cases, day, notes = lifetimes_of(found, head, rows, source)
    at = found.history_names.index("clicks")
    np.testing.assert_array_equal(cases.history[0, :3, at], [7, 9, 0])
    np.testing.assert_array_equal(cases.history_days, [2, 0])
    np.testing.assert_array_equal(day, [2, 0])
    bid = next(number for number in cases.numbers if number.name == "bid")
    assert bid.values[0] == 1.5
    assert np.isnan(bid.values[1])
    genre = next(category for category in cases.categories if category.name == "genre")
    assert genre.levels[genre.codes[0]] == "games"
    assert genre.codes[1] == len(genre.levels) - 1
    title = next(text for text in cases.texts if text.name == "title")
    assert [cases.words[w] for w in title.words[0, :2]] == ["zzz", "new"]
    assert not title.words[1].any()
    assert any("2 words are new" in note for note in notes)
    assert any("1 levels of genre are new" in note for note in notes)
