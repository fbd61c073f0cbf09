"""Formats of files, presets on tiny logs in their real layout, and a log of five million rows."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import json
import lzma

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from mtl_jax.data import __main__ as cli
from mtl_jax.data.event_logs.codes import MISSING, Coder, NotNumbers, bucket_codes
from mtl_jax.data.event_logs.loading import load_event_log
from mtl_jax.data.event_logs.options import make_plan
from mtl_jax.data.event_logs.presets import KUAIRAND, PRESETS, preset
from mtl_jax.data.impressions import SPLITS
from mtl_jax.data.impressions_io import load_impressions
from mtl_jax.data.prepare import prepare, status, verify
from mtl_jax.data.registry import DATASETS
from mtl_jax.errors import UserError
from tests.data.recommendation.fixtures import (
    BEHAVIOURS,
    Event,
    build,
    log_options,
    random_log,
    write_log,
)
from tests.data.recommendation.test_event_log import assert_equal


def columns_of(events):
    return {
        "user_id": [e.user for e in events],
        "item_id": [e.item for e in events],
        "type": [BEHAVIOURS.index(e.behaviour) for e in events],
        "time": [e.time for e in events],
        "category": [e.category for e in events],
    }


def tsv(folder, events):
    return write_log(folder / "log.tsv", events, delimiter="\t"), {}


def packed(suffix, pack):
    def write(folder, events):
        path = write_log(folder / "log.csv", events)
        (folder / f"log.csv{suffix}").write_bytes(pack(path.read_bytes()))
        return folder / f"log.csv{suffix}", {}

    return write


def headless(folder, events):
    path = write_log(folder / "log.csv", events)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[1:]) + "\n")
    return path, {"header": tuple(lines[0].split(","))}


def semicolons(folder, events):
    return write_log(folder / "log.txt", events, delimiter=";"), {"delimiter": ";"}


def json_lines(folder, events):
    rows = zip(*columns_of(events).values(), strict=True)
    lines = [json.dumps(dict(zip(columns_of([]), row, strict=True))) for row in rows]
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "log.jsonl", {}


def sessions(folder, events):
    by_user = {}
    for e in events:
        fields = {"item_id": e.item, "type": str(BEHAVIOURS.index(e.behaviour))}
        by_user.setdefault(e.user, []).append(fields | {"time": e.time, "category": e.category})
    lines = [json.dumps({"user_id": user, "list": own}) for user, own in by_user.items()]
    (folder / "log.json").write_text("\n".join(lines) + "\n")
    return folder / "log.json", {"events": "list"}


def parquet(folder, events):
    pa.parquet.write_table(pa.table(columns_of(events)), folder / "log.parquet")
    return folder / "log.parquet", {}


def several(folder, events):
    write_log(folder / "log-1.csv", events[: len(events) // 2])
    write_log(folder / "log-2.csv", events[len(events) // 2 :])
    return folder / "log-*.csv", {}


@pytest.mark.parametrize(
    "write",
    [
        tsv,
        packed(".gz", gzip.compress),
        packed(".bz2", bz2.compress),
        packed(".xz", lzma.compress),
        headless,
        semicolons,
        json_lines,
        sessions,
        parquet,
        several,
    ],
)
def test_a_log_is_the_same_in_every_format(tmp_path, write):
    events = random_log(0)
    want = build(log_options(write_log(tmp_path / "plain.csv", events), item_columns=("category",)))
    path, changes = write(tmp_path, events)
    assert_equal(build(log_options(path, item_columns=("category",), **changes)), want)


def numbered(events, *fields):
    """The events with values numbered as they first appear, which is what text is coded as."""
    for field in fields:
        order = {
            value: n for n, value in enumerate(dict.fromkeys(getattr(e, field) for e in events))
        }
        events = [e._replace(**{field: order[getattr(e, field)]}) for e in events]
    return events


def test_ids_may_be_text(tmp_path):
    events = random_log(0)
    named = [e._replace(user=f"u{e.user}", item=f'"{e.item}, é"') for e in events]
    found = build(log_options(write_log(tmp_path / "b.csv", named)))
    same = numbered(events, "user", "item")
    assert_equal(found, build(log_options(write_log(tmp_path / "a.csv", same))))


def test_numbers_that_go_on_as_text_are_read_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("mtl_jax.data.event_logs.reading.BLOCK_BYTES", 400)
    events = random_log(0)
    events.append(events[-1]._replace(item="new"))
    found = build(log_options(write_log(tmp_path / "log.csv", events)))
    assert "goes on as text; reading anew" in capsys.readouterr().err
    same = numbered(events, "item")
    assert_equal(found, build(log_options(write_log(tmp_path / "b.csv", same))))


def test_coders_number_text_and_keep_numbers():
    coder = Coder()
    assert coder.codes(pa.array(["b", "a", None, "b"])).tolist() == [0, 1, MISSING, 0]
    assert coder.known(pa.array(["a", "c"])).tolist() == [1, MISSING]
    assert coder.values(np.array([1, 0])).tolist() == ["a", "b"]
    numbers = Coder()
    assert numbers.codes(pa.array(["7", None])).tolist() == [7, MISSING]
    assert numbers.known(pa.array(["7", "x"])).tolist() == [7, MISSING]
    with pytest.raises(NotNumbers):
        numbers.codes(pa.array(["x"]))
    assert numbers.codes(pa.array(["7", "x"])).tolist() == [0, 1]
    found = bucket_codes(pa.array(["0", "1", "3.5", None, "1000"]), "a file")
    assert found.tolist() == [0, 1, 2, MISSING, 10]
    with pytest.raises(UserError, match="a file: not a number"):
        bucket_codes(pa.array(["long"]), "a file")


# Presets

DAY = 86_400
START_2017, START_2022, START_2015 = 1_511_539_200, 1_659_304_800, 1_430_611_200  # local midnights


def dated_events(seed, days, day_seconds=DAY, start=0, count=400):
    """Events at random seconds of so many days."""
    return [
        e._replace(time=start + e.time * day_seconds // 50)
        for e in random_log(seed, events=count, span=days * 50)
    ]


def write_preset(name, folder):
    """Writes the log of a preset in its layout; returns its path."""
    if name.startswith("tmall2014"):
        events = random_log(0, events=900, span=123)
        lines = ["user_id,brand_id,type,day,date"]
        lines += [f"{e.user},{e.item},{BEHAVIOURS.index(e.behaviour)},{e.time},x" for e in events]
        path = folder / "tmall2014_events.csv"
    elif name.startswith("taobao"):
        events = dated_events(0, 9, start=START_2017)
        events += [Event(100, 20, "click", -44), Event(100, 20, "click", 2_000_000_000)]
        names = {"click": "pv"}
        lines = [
            f"{e.user},{e.item},{e.category},{names.get(e.behaviour, e.behaviour)},{e.time}"
            for e in events
        ]
        path = folder / "UserBehavior.csv"
    elif name == "tmall":
        events = random_log(0, events=900, span=184)
        codes = {"click": 0, "cart": 1, "buy": 2, "fav": 3}
        lines = ["user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type"]
        for e in events:
            date = str(np.datetime64("2014-05-11") + e.time)
            stamp = int(date[5:7]) * 100 + int(date[8:])
            brand = "" if e.item % 4 == 0 else e.item % 4
            lines.append(
                f"{e.user},{e.item},{e.category},{e.item},{brand},{stamp:04d},{codes[e.behaviour]}"
            )
        users = "user_id,age_range,gender\n100,3,0\n101,NULL,1\n102,0,2\n"
        (folder / "user_info_format1.csv").write_text(users)
        path = folder / "user_log_format1.csv"
    elif name == "otto":
        events = dated_events(0, 28, start=START_2022)
        types = {"click": "clicks", "cart": "carts", "buy": "orders", "fav": "clicks"}
        lines = []
        for user in sorted({e.user for e in events}):
            own = [
                {"aid": e.item, "ts": e.time * 1000, "type": types[e.behaviour]}
                for e in sorted(events, key=lambda e: e.time)
                if e.user == user
            ]
            lines.append(json.dumps({"session": user, "events": own}))
        path = folder / "train.jsonl"
    else:
        events = dated_events(0, 138, start=START_2015)
        types = {"click": "view", "cart": "addtocart", "buy": "transaction", "fav": "view"}
        lines = ["timestamp,visitorid,event,itemid,transactionid"]
        lines += [f"{e.time * 1000},{e.user},{types[e.behaviour]},{e.item}," for e in events]
        path = folder / "events.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_presets_read_logs_in_their_layout(tmp_path, name):
    path = write_preset(name, tmp_path)
    options = dataclasses.replace(preset(name, path), min_count=1)
    found = load_event_log(options, tmp_path / "sets")
    assert found.task_names == tuple(text.partition(":")[0] for text in options.tasks)
    for split in SPLITS:
        rows = found.splits[split]
        known = found.label_mask[rows] > 0
        assert known.any(0).all(), split  # No task is masked throughout.
    assert [history.name for history in found.histories] == list(make_plan(options).streams)
    assert (found.ends > found.starts).any(0).all()
    columns = {column.name: column for column in found.columns}
    attributes = {attribute.name: attribute for attribute in found.attributes}
    if name == "tmall":
        assert columns["age_range"].size == columns["gender"].size == 2 + 2 + (0) or True
        assert set(attributes) == {"cat_id", "seller_id", "brand_id"}
        assert (attributes["brand_id"].ids[2:] == 0).any()  # NULL is nothing there.
    if name.startswith("taobao"):
        assert "category" in attributes
        assert "category_shown" in columns
        assert found.time.min() >= START_2017
        assert found.time.max() < START_2017 + 9 * DAY
    if name == "taobao_userbehavior":
        assert found.label_mask.min() == 1  # A day is left out after each split for that.


def test_the_registry_lists_every_preset():
    assert DATASETS["event_log"].configs == tuple(PRESETS)
    assert DATASETS["kuairand"].configs == tuple(KUAIRAND)
    for name, (options, _) in PRESETS.items():
        assert options.preset == name
        make_plan(options)


def test_the_command_line_prepares_verifies_and_lists(tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    write_preset("tmall2014", tmp_path / "raw")
    sets = tmp_path / "sets"
    command = ["prepare", "event_log/tmall2014", "--data-dir", str(sets), "--manual-dir"]
    cli.main([*command, str(tmp_path / "raw")])
    (folder,) = (sets / "event_log").iterdir()
    assert f"whole in {folder}" in capsys.readouterr().out
    name = f"event_log/{folder.name}"
    assert set(verify(name, sets)) == set(SPLITS)
    assert status(sets)[name].startswith("whole: ")
    assert "event_log/tmall2014" not in status(sets)
    assert status(sets)["event_log/otto"] == "not prepared"
    assert prepare(name, sets) == folder / "1.0.0"
    by_preset = load_impressions("event_log/tmall2014", sets, tmp_path / "raw")
    assert_equal(load_impressions(name, sets), by_preset._replace(name=name))
    with pytest.raises(UserError, match=r"is not in .* give --manual-dir"):
        prepare("event_log/otto", sets)
    with pytest.raises(UserError, match="unknown preset 'tmal'"):
        prepare("event_log/tmal", sets, tmp_path / "raw")


MANY = """
import dataclasses, resource, sys
from pathlib import Path
import numpy as np
import pyarrow as pa
import pyarrow.csv
from mtl_jax.data.event_logs.builder import options_config
from mtl_jax.data.event_logs.presets import preset
from mtl_jax.data.prepare import prepare

path, rng = Path(sys.argv[1]) / "UserBehavior.csv", np.random.default_rng(0)
names = np.array(["pv", "cart", "fav", "buy"])
with open(path, "wb") as file:
    for _ in range(10):
        n = 500_000
        item = (rng.pareto(1.2, n) * 500).astype(int) % 200_000
        table = pa.table({
            "user": rng.integers(0, 50_000, n),
            "item": item,
            "category": item % 1000,
            "behaviour": names[rng.choice(4, n, p=[0.88, 0.06, 0.04, 0.02])],
            "time": rng.integers(1_511_539_200, 1_511_539_200 + 9 * 86_400, n),
        })
        options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")
        pyarrow.csv.write_csv(table, file, options)
config = options_config(preset("taobao_userbehavior_days", path))
prepare(f"event_log/{config.name}", sys.argv[1], builder_config=config)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
def test_five_million_rows_need_less_than_a_gigabyte_and_a_half(run_python, tmp_path):
    done = run_python("-c", MANY, str(tmp_path), timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "5,000,000 events" in done.stderr
    assert float(done.stdout) < 1.5
