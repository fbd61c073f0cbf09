"""The `conflict` generator: tasks that want different things of the same fields and histories.

With real logs nobody knows how much of a history is of use to a task. Here the best that any model
can do is known exactly, and so is how much the tasks disagree.

World. An item has F facets (think of its kind, its maker, its style) of V values each, and a price.
A user has, for each behaviour type s and facet f, a favourite value z[s, f], uniform and
independent. The history of behaviour s is n_s events, n_s uniform in `min_events..max_events`: each
facet of each event is the favourite with probability 1 - noise, else uniform over the V values,
and the item is any one that has those facets. A user meets `rows_per_user` candidate items, drawn
uniformly, each in a scene drawn uniformly.

Labels. With m[s, f] = 1 if the candidate's facet f is the favourite z[s, f],

    logit_t = bias + sum_sf weight[t, s, f, scene] (m[s, f] - 1 / V) + sum_g effect[t, g, value_g]

over the fields g: the user's segment and age, the scene, the item's price. Label t is a Bernoulli
of sigmoid(logit_t), except in the funnel: task 1, `conversion`, is 1 only if task 0, `click`, is 1
and a Bernoulli of sigmoid(logit_1) is too. Its mask is 1 everywhere, so that it is the conversion
of an impression; for the conditional sample space weigh it by the click, and P(conversion | click)
is `truth[:, 1] / truth[:, 0]`.

Conflict. Task 0 reads, of behaviour s, facet s mod F; matches with its last behaviour count against
it; in scene k it listens most to behaviour k mod S; it cares most for the segment. What task t
would read by itself is shifted by t: of behaviour s facet (s + t) mod F, another behaviour counts
against it, in scene k behaviour (k + t) mod S is in front, and another field, with other effects.
Beyond F tasks the tasks F, F + 1, .. read what F - 1, F - 2, .. read, with every sign turned.
Weights and effects are 1 - c parts of task 0's and c parts of the task's own, scaled to the same
norm whatever c is. So c turns directions and leaves the signal: at c = 0 all tasks but the funnel's
have one truth and one summary of a history serves all, V - 1 numbers for each behaviour; at c = 1
no two tasks keep the same part of it, and a summary for all needs F (V - 1).

What can be known. Given the histories, favourites are independent over (s, f), and the posterior of
z[s, f] = v is proportional to r ** count[v], r = 1 + V (1 - noise) / noise. So the posterior of
each match is closed and the probability of a label is a sum over the patterns of the matches that
its task reads. That sum is `truth`: P(label | everything in the row and in its whole histories).
Its AUC is the best that a model can reach that is given at least `max_events` events; their order
tells nothing. `oracle` is P(label | the favourites as well), which no model can reach.

Nothing else tells more than `truth`: users have no id, all rows of a user are in one split, so that
no label of a test user is ever seen, and candidates do not depend on favourites. But rows of one
user share favourites, so their labels are dependent: resample users, not rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mtl_jax.data.impressions import (
    SPLITS,
    Attribute,
    Column,
    History,
    ImpressionSet,
    check_impressions,
)
from mtl_jax.data.recommendation.conflict_world import (
    FIELD_SIZES,
    Settings,
    check_settings,
    label_probabilities,
    make_weights,
    match_posterior,
    task_names,
)
from mtl_jax.data.recommendation.draws import Draws

FIRST = 2  # The first id that stands for a value, after PAD and UNSEEN.

CONFIGS: Mapping[str, Settings] = {
    "strong": Settings(users=15_000, conflict=1.0),
    "medium": Settings(users=15_000, conflict=0.6),
    "mild": Settings(users=15_000, conflict=0.3),
    "tiny": Settings(users=300, conflict=1.0, max_events=6),
}


class Generated(NamedTuple):
    """A set and what is known about it.

    Attributes:
      found: the impressions; `found.truth` is the best prediction from what they show.
      oracle: [N, T] float32, P(label | the row, the histories and the user's favourites).
      favourites: [users, S, F] int32 in 0..V-1; row u belongs to group u.
    """

    found: ImpressionSet
    oracle: np.ndarray
    favourites: np.ndarray


def generate(settings: Settings, seed: int = 0, name: str = "conflict") -> Generated:
    """Returns a set, a pure function of its arguments.

    Raises:
      UserError: a setting out of its range.
    """
    check_settings(settings)
    weights = make_weights(settings, seed)
    draws = Draws(seed, 2)
    users, values, length = settings.users, settings.values, settings.max_events
    behaviours, facets = settings.behaviours, settings.facets

    favourites = draws.integers(values, users, behaviours, facets)
    spread = length - settings.min_events + 1
    events = settings.min_events + draws.integers(spread, users, behaviours)
    history = draws.integers(values, users, behaviours, length, facets)
    told = draws.uniform(*history.shape) >= settings.noise
    history = np.where(told, favourites[:, :, None], history)
    real = np.arange(length) < events[..., None]
    base = values ** np.arange(facets)
    copy = draws.integers(settings.copies, users, behaviours, length)
    tokens = (history @ base) * settings.copies + copy

    user = np.repeat(np.arange(users, dtype=np.int32), settings.rows_per_user)
    rows, items = len(user), values**facets * settings.copies
    item = draws.integers(items, rows)
    item_facets = (np.arange(items)[:, None] // settings.copies // base % values).astype(np.int32)
    prices = draws.integers(FIELD_SIZES["price"], items)
    given = {
        "segment": draws.integers(FIELD_SIZES["segment"], users)[user],
        "age": draws.integers(FIELD_SIZES["age"], users)[user],
        "scene": draws.integers(FIELD_SIZES["scene"], rows),
        "price": prices[item],
    }
    scene, candidate = given["scene"], item_facets[item]

    offset = settings.bias - weights.match.sum((1, 2)).T[scene] / values
    for field, table in weights.effects.items():
        offset += table.T[given[field]]
    posterior = match_posterior(history[user], real[user], candidate, values, settings.noise)
    truth = label_probabilities(posterior, scene, offset, weights.match)
    match = favourites[user] == candidate[:, None]
    added = np.einsum("nsf,tsfc->ntc", match.astype(float), weights.match)
    logits = offset + np.take_along_axis(added, scene[:, None, None], 2)[..., 0]
    chance = 1 / (1 + np.exp(-logits))
    labels = (draws.uniform(*chance.shape) < chance).astype(np.float32)
    labels[:, 1] *= labels[:, 0]
    chance[:, 1] *= chance[:, 0]

    ends = np.cumsum(events, axis=0, dtype=np.int64)
    when = np.broadcast_to(np.arange(length), (users, length))
    histories = tuple(
        History(
            name=f"behaviour_{s}",
            vocabulary="item",
            ids=(tokens[:, s][real[:, s]] + FIRST).astype(np.int32),
            times=when[real[:, s]].astype(np.int64),
            counts=np.ones(int(ends[-1, s]), np.int32),
        )
        for s in range(behaviours)
    )
    found = ImpressionSet(
        name=name,
        task_names=task_names(settings.tasks),
        columns=(
            Column("item", items + FIRST, "item"),
            Column("segment", FIELD_SIZES["segment"] + FIRST, "user"),
            Column("age", FIELD_SIZES["age"] + FIRST, "user"),
            Column("scene", FIELD_SIZES["scene"] + FIRST, "context"),
        ),
        item="item",
        attributes=(
            *(_attribute(f"facet_{f}", values, item_facets[:, f]) for f in range(facets)),
            _attribute("price", FIELD_SIZES["price"], prices),
        ),
        dense_names=(),
        histories=histories,
        fields=np.stack([item, given["segment"], given["age"], scene], 1) + np.int32(FIRST),
        dense=np.zeros((rows, 0), np.float32),
        starts=(ends - events)[user],
        ends=ends[user],
        labels=labels,
        label_mask=np.ones_like(labels),
        group=user,
        time=length + np.tile(np.arange(settings.rows_per_user, dtype=np.int64), users),
        splits=_splits(user, users),
        truth=truth.astype(np.float32),
    )
    return Generated(check_impressions(found, name), chance.astype(np.float32), favourites)


def _attribute(name: str, size: int, of_items: np.ndarray) -> Attribute:
    # An item that is not there has nothing; the item that stands for unseen ones is unknown.
    ids = np.concatenate([[0, 1], of_items + FIRST]).astype(np.int32)
    return Attribute(name, size + FIRST, ids[:, None])


def _splits(user: np.ndarray, users: int) -> dict[str, np.ndarray]:
    """70, 10 and 20 % of the users, with all their rows."""
    edges = (0, 7 * users // 10, 8 * users // 10, users)
    return {
        split: np.flatnonzero((user >= low) & (user < high)).astype(np.int32)
        for split, low, high in zip(SPLITS, edges[:-1], edges[1:], strict=True)
    }
