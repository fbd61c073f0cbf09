"""KuaiRand's files in their real layout, tiny: outcomes of an exposure are labels, not inputs."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest

from mtl_jax.data.event_logs.loading import load_event_log
from mtl_jax.data.event_logs.options import make_plan
from mtl_jax.data.event_logs.presets import kuairand
from mtl_jax.data.impressions import SPLITS, UNSEEN
from mtl_jax.data.impressions_io import load_impressions, load_vocabularies
from mtl_jax.errors import UserError
from tests.data.recommendation.fixtures import build

SIGNALS = (
    "is_click",
    "is_like",
    "is_follow",
    "is_comment",
    "is_forward",
    "is_hate",
    "long_view",
    "is_profile_enter",
)
COLUMNS = (
    "user_id",
    "video_id",
    "date",
    "hourmin",
    "time_ms",
    "is_click",
    "is_like",
    "is_follow",
    "is_comment",
    "is_forward",
    "is_hate",
    "long_view",
    "play_time_ms",
    "duration_ms",
    "profile_stay_time",
    "comment_stay_time",
    "is_profile_enter",
    "is_rand",
    "tab",
)
FIRST = 1_649_347_200_000  # 8 April 2022 in UTC+8
DAY = 86_400_000


def exposures(days, count=400, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        row = dict.fromkeys(COLUMNS, 0)
        row["user_id"] = int(rng.integers(6))
        row["video_id"] = int(rng.integers(30, 42))
        row["time_ms"] = FIRST + int(rng.integers(days * DAY // 600_000)) * 600_000
        row |= {signal: int(rng.random() < 0.3) for signal in SIGNALS}
        row |= {"duration_ms": 1000 * row["video_id"], "tab": int(rng.integers(3))}
        row |= {key: int(rng.integers(10**5)) for key in ("play_time_ms", "comment_stay_time")}
        rows.append(row)
    return rows


def write(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two logs, users and videos, as one of the published sizes has them."""
    raw = tmp_path / "KuaiRand-Pure"
    raw.mkdir()
    rows = exposures(31)
    write(raw / "log_standard_4_08_to_4_21_pure.csv", rows[:200])
    write(raw / "log_standard_4_22_to_5_08_pure.csv", rows[200:])
    write(raw / "log_random_4_22_to_5_08_pure.csv", exposures(31, seed=1))
    options_users = [
        "user_active_degree",
        "is_lowactive_period",
        "is_live_streamer",
        "is_video_author",
        "follow_user_num_range",
        "fans_user_num_range",
        "friend_user_num_range",
        "register_days_range",
        *(f"onehot_feat{k}" for k in range(18)),
    ]
    users = [{"user_id": u, **dict.fromkeys(options_users, f"({u % 3},]")} for u in range(5)]
    write(raw / "user_features_pure.csv", users)
    videos = [
        {
            "video_id": v,
            "author_id": v % 5,
            "video_type": "NORMAL",
            "upload_dt": "2022-01-01",
            "upload_type": "Web",
            "music_id": "" if v % 2 else 7,
            "tag": f"{v % 3},{v % 4}" if v % 3 != v % 4 else "",
        }
        for v in range(30, 41)
    ]
    write(raw / "video_features_basic_pure.csv", videos)
    return raw


def test_labels_are_the_row_s_own_outcomes(folder, tmp_path):
    found = load_event_log(kuairand(folder), tmp_path / "sets", "kuairand")
    assert found.task_names == ("click", "long_view", "like", "follow", "forward")
    assert found.label_mask.min() == 1
    (prepared,) = (tmp_path / "sets" / "kuairand").iterdir()
    vocabularies, _ = load_vocabularies(f"kuairand/{prepared.name}", tmp_path / "sets")
    user = np.array([-1, -1, *vocabularies["user"]])[found.fields[:, 0]]
    labels = {}
    for row in exposures(31):
        key = (row["user_id"], row["time_ms"])
        names = ("is_click", "long_view", "is_like", "is_follow", "is_forward")
        labels.setdefault(key, []).append([row[name] for name in names])
    assert len(found.time) == sum(map(len, labels.values()))
    for row, key in enumerate(zip(user.tolist(), found.time.tolist(), strict=True)):
        assert found.labels[row].tolist() in labels[key]
    days = (found.time - FIRST) // DAY
    spans = [(days[found.splits[s]].min(), days[found.splits[s]].max()) for s in SPLITS]
    assert spans == [(0, 24), (25, 26), (27, 30)]


def test_histories_are_earlier_videos_with_that_outcome(folder):
    found = build(kuairand(folder))
    log = exposures(31)
    assert [history.name for history in found.histories] == ["click", "long_view", "like", "hate"]
    for s, signal in enumerate(("is_click", "long_view", "is_like", "is_hate")):
        times = sorted(row["time_ms"] for row in log if row[signal])
        assert sorted(found.histories[s].times.tolist()) == times
        lengths = found.ends[:, s] - found.starts[:, s]
        own = [
            sum(
                o[signal] and o["time_ms"] < r["time_ms"] and o["user_id"] == r["user_id"]
                for o in log
            )
            for r in log
        ]
        assert sorted(lengths.tolist()) == sorted(own)


def test_outcomes_of_a_row_change_no_input_of_it(folder):
    rows = exposures(31)
    last = max(range(len(rows)), key=lambda k: rows[k]["time_ms"])
    before = build(kuairand(folder))
    for name in (*SIGNALS, "play_time_ms", "comment_stay_time", "profile_stay_time"):
        rows[last][name] = 1 - min(rows[last][name], 1)
    write(folder / "log_standard_4_08_to_4_21_pure.csv", rows[:200])
    write(folder / "log_standard_4_22_to_5_08_pure.csv", rows[200:])
    after = build(kuairand(folder))
    np.testing.assert_array_equal(before.fields, after.fields)
    np.testing.assert_array_equal(
        *(found.histories_of(np.arange(len(found.time)), 20) for found in (before, after))
    )
    assert (before.labels != after.labels).any(1).sum() == 1


@pytest.mark.parametrize("column", ["is_click", "long_view", "play_time_ms", "comment_stay_time"])
def test_outcomes_cannot_be_made_inputs(folder, column):
    options = kuairand(folder)
    columns = (*options.event_columns, column)
    with pytest.raises(UserError, match=f"column {column} holds outcomes; a row may not see it"):
        make_plan(dataclasses.replace(options, event_columns=columns))


def test_users_and_videos_have_their_own_columns(folder):
    found = build(dataclasses.replace(kuairand(folder), min_count=1))
    names = [column.name for column in found.columns]
    degree = found.fields[:, names.index("user_active_degree")]
    assert set(degree.tolist()) == {0, 2, 3, 4}  # 0: user 5 has no line.
    attributes = {attribute.name: attribute for attribute in found.attributes}
    assert attributes["tag"].ids.shape == (2 + 12, 2)
    assert ((attributes["tag"].ids > 0).sum(1) == 2).sum() > 4
    assert (attributes["music_id"].ids[2:, 0] > 0).sum() == 6 - 1 + (40 % 2 == 0)
    author = found.fields[:, names.index("author_id_shown")]
    item = found.fields[:, names.index("item")]
    seen = item != UNSEEN
    np.testing.assert_array_equal(author[seen], attributes["author_id"].ids[item[seen], 0])


def test_tasks_can_be_chosen(folder):
    options = dataclasses.replace(kuairand(folder), tasks=("enter:profile_enter:row", "hate:row"))
    found = build(options)
    assert found.task_names == ("enter", "hate")
    total = [sum(row[name] for row in exposures(31)) for name in ("is_profile_enter", "is_hate")]
    assert found.labels.sum(0).tolist() == total


def test_explicit_feedback_takes_liked_rows_only(tmp_path):
    rows = exposures(14)
    for row in rows:
        row["like1_hate0"] = row.pop("is_like")
        for name in ("is_hate", "is_rand", "tab", "profile_stay_time"):
            del row[name]
    path = write(tmp_path / "kuairand_explicit.csv", rows)
    found = load_impressions("kuairand/explicit", tmp_path / "sets", tmp_path)
    liked = {(r["user_id"], r["video_id"], r["time_ms"]) for r in rows if r["like1_hate0"]}
    assert len(found.time) == len(liked)
    assert found.task_names == ("click", "long_view", "profile_enter", "comment")
    hated = [r["time_ms"] for r in rows if not r["like1_hate0"]]
    assert sorted(found.histories[3].times.tolist()) == sorted(hated)
    whole = build(kuairand(path, "explicit"))
    assert len(whole.time) == len(found.time)


def test_wrong_folders_and_values(folder, tmp_path):
    with pytest.raises(UserError, match=r"holds no log_standard\*\.csv"):
        kuairand(tmp_path)
    with pytest.raises(UserError, match="unknown config 'pure' of kuairand"):
        kuairand(folder, "pure")
    rows = exposures(31)
    rows[3]["is_like"] = 2
    write(folder / "log_standard_4_08_to_4_21_pure.csv", rows)
    message = r"log_standard_4_08_to_4_21_pure\.csv: row 4, column 'is_like': behaviour '2' is not"
    with pytest.raises(UserError, match=message):
        build(kuairand(folder))
