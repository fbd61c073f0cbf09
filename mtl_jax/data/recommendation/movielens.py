"""MovieLens as impressions: a row for each rating, what the user rated before as histories.

Tasks: `like` (4 or 5), `love` (5) and `dislike` (1 or 2). Behaviours: `watch` (every rating),
`like` and `dislike`. Histories hold ratings of strictly earlier seconds: half of the ratings share
their second with another of the same user, and those never see each other.

Splits. "user": the last tenth of each user's ratings tests, the tenth before validates; both cuts
move back to the start of their second. "global": the same cuts in the whole log, where most of the
test's users are new.

Policies. "rolling": a row reads every earlier rating, of whatever split, as a system that learns
what happened would. "frozen": only ratings of training rows.

Ids come from training rows. An item that was not seen in training has no year and no genres.
"""

from __future__ import annotations

import itertools

import numpy as np

from mtl_jax.data.impressions import (
    SPLITS,
    UNSEEN,
    Attribute,
    Column,
    ImpressionSet,
    check_impressions,
)
from mtl_jax.data.recommendation.histories import earlier_events, stream
from mtl_jax.data.recommendation.movielens_files import Ratings
from mtl_jax.data.recommendation.vocabulary import FIRST, Vocabulary, fit, padded_lists
from mtl_jax.errors import UserError, did_you_mean

TASKS = ("like", "love", "dislike")
BEHAVIOURS = ("watch", "like", "dislike")
AGE_EDGES = (18, 25, 30, 35, 40, 45, 50, 56)
GENRES_KEPT = 6  # No film of either set has more than this.
# (how the splits are cut, which events a row may read) of each config, the default first.
CONFIGS = {
    "default": ("user", "rolling"),
    "frozen": ("user", "frozen"),
    "global_time": ("global", "rolling"),
}
_HOUR, _DAY = 3600, 86400


def movielens_impressions(
    ratings: Ratings, split: str = "user", policy: str = "rolling"
) -> tuple[ImpressionSet, dict[str, np.ndarray]]:
    """Returns the set and the raw values of each vocabulary, of ids 2, 3, ...

    Rows are sorted by user and time, in the order of the file where both are equal.

    Args:
      ratings: the log.
      split: "user" or "global".
      policy: "rolling" or "frozen".

    Raises:
      UserError: unknown split or policy, too few ratings for three splits.
    """
    for value, known, what in (
        (split, ("user", "global"), "split"),
        (policy, ("rolling", "frozen"), "history policy"),
    ):
        if value not in known:
            raise UserError(f"unknown {what} {value!r}; {did_you_mean(value, known)}")
    order = np.lexsort((ratings.time, ratings.user))
    user, item, rating, time = (
        array[order] for array in (ratings.user, ratings.item, ratings.rating, ratings.time)
    )
    people, group = np.unique(user, return_inverse=True)
    part = _by_user(group, time) if split == "user" else _cut(np.zeros_like(group), time)
    splits = {name: np.flatnonzero(part == p).astype(np.int32) for p, name in enumerate(SPLITS)}
    if empty := [name for name in SPLITS if not len(splits[name])]:
        raise UserError(f"{ratings.name}: {len(user)} ratings leave no row for {empty[0]}")
    train = part == 0

    known = [ratings.users[u] for u in people.tolist()]
    age = np.digitize([person[0] for person in known], AGE_EDGES)
    code = [person[3] if person[3].isdigit() else "letter" for person in known]
    raw = {
        "user": user,
        "item": item,
        "age": age[group],
        "gender": np.array([person[1] for person in known])[group],
        "occupation": np.array([person[2] for person in known])[group],
        "zip": np.array(code)[group],
        "hour": time // _HOUR % 24,
        "weekday": (time // _DAY + 3) % 7,  # 1 January 1970 was a Thursday; Monday is 0.
    }
    kinds = {"item": "item", "hour": "context", "weekday": "context"}
    words = {name: fit(name, values[train]) for name, values in raw.items()}
    attributes, of_items = _attributes(ratings, words["item"])

    truths = {"watch": rating > 0, "like": rating >= 4, "love": rating == 5, "dislike": rating <= 2}
    ids = words["item"].ids(item)
    histories, starts, ends = [], [], []
    for behaviour in BEHAVIOURS:
        kept = truths[behaviour] & (train if policy == "frozen" else True)
        histories.append(stream(behaviour, "item", ids[kept], time[kept]))
        start, end = earlier_events(group[kept], time[kept], group, time)
        starts.append(start)
        ends.append(end)
    labels = np.stack([truths[task] for task in TASKS], 1).astype(np.float32)
    found = ImpressionSet(
        name=ratings.name,
        task_names=TASKS,
        columns=tuple(Column(n, w.size, kinds.get(n, "user")) for n, w in words.items()),
        item="item",
        attributes=attributes,
        dense_names=(),
        histories=tuple(histories),
        fields=np.stack([words[name].ids(values) for name, values in raw.items()], 1),
        dense=np.zeros((len(user), 0), np.float32),
        starts=np.stack(starts, 1),
        ends=np.stack(ends, 1),
        labels=labels,
        label_mask=np.ones_like(labels),
        group=group.astype(np.int32),
        time=time,
        splits=splits,
        truth=np.zeros((len(user), 0), np.float32),
    )
    values = {w.name: w.values for w in (*words.values(), *of_items)}
    return check_impressions(found, ratings.name), values


def _cut(group: np.ndarray, time: np.ndarray) -> np.ndarray:
    """0, 1, 2 for the first eight, the ninth and the last tenth of all rows by time."""
    order = np.argsort(time, kind="stable")
    part = np.zeros(len(group), np.int8)
    ordered = time[order]
    for tenths in (8, 9):
        # The cut falls before every row of its second, so that equal times stay together.
        part += time >= ordered[len(ordered) * tenths // 10]
    return part


def _by_user(group: np.ndarray, time: np.ndarray) -> np.ndarray:
    """The same cuts within each user; rows are sorted by user."""
    edges = np.flatnonzero(np.diff(group)) + 1
    bounds = [0, *edges.tolist(), len(group)]
    pieces = itertools.pairwise(bounds)
    return np.concatenate([_cut(group[a:b], time[a:b]) for a, b in pieces])


def _attributes(
    ratings: Ratings, items: Vocabulary
) -> tuple[tuple[Attribute, ...], tuple[Vocabulary, Vocabulary]]:
    """Year and genres of the items seen in training, and their vocabularies."""
    listed = [ratings.items[item] for item in items.values.tolist()]
    years = np.array([year for year, _ in listed])[:, None]
    genres = padded_lists([genres for _, genres in listed], GENRES_KEPT)
    found, words = [], []
    for name, raw in (("year", years), ("genres", genres)):
        words.append(fit(name, raw, raw != ""))
        ids = np.zeros((len(listed) + FIRST, raw.shape[1]), np.int32)
        ids[UNSEEN, 0] = UNSEEN
        ids[FIRST:] = words[-1].ids(raw, raw != "")
        found.append(Attribute(name, words[-1].size, ids))
    return tuple(found), (words[0], words[1])
