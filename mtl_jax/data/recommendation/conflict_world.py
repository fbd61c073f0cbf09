"""What is true in the world of `conflict`: how tasks use their inputs, what a history tells.

`mtl_jax.data.recommendation.conflict` says what the world is and draws from it.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from mtl_jax.data.recommendation.draws import Draws
from mtl_jax.errors import UserError

# Number of values of each field that is no facet. `price` belongs to the item.
FIELD_SIZES = {"segment": 8, "age": 6, "scene": 3, "price": 5}
LESS = 0.4  # Weight of the behaviours and fields that are not in front.
MAX_BEHAVIOURS = 6  # A conversion sums over 4 ** S patterns of matches.
_ROWS_AT_ONCE = 2048


class Settings(NamedTuple):
    """What world to make.

    Attributes:
      users: number of users; the splits take 70, 10 and 20 % of them.
      rows_per_user: impressions of each.
      conflict: c in 0..1, how far the tasks' uses of the same inputs turn away from each other.
      noise: above 0, to 1: chance that a facet of an event tells nothing.
      tasks: T, 3 .. 2 F - 1.
      behaviours: S.
      facets: F.
      values: V, of each facet.
      copies: items of each combination of facets.
      min_events: least length of a history.
      max_events: greatest length of a history.
      match_strength: norm over (s, f) of the weights of matches, in every scene.
      field_strength: standard deviation of the sum of the fields' effects.
      bias: of every logit.
    """

    users: int
    rows_per_user: int = 4
    conflict: float = 1.0
    noise: float = 0.2
    tasks: int = 4
    behaviours: int = 3
    facets: int = 3
    values: int = 4
    copies: int = 1
    min_events: int = 5
    max_events: int = 10
    match_strength: float = 5.0
    field_strength: float = 0.6
    bias: float = -1.0


class Weights(NamedTuple):
    """How the tasks use what there is.

    Attributes:
      match: [T, S, F, scenes] float64.
      effects: for each field of `FIELD_SIZES`, [T, size] float64.
    """

    match: np.ndarray
    effects: dict[str, np.ndarray]


def check_settings(settings: Settings) -> None:
    """Raises a `UserError` that names the first setting out of its range."""
    for holds, found, rule in (
        (settings.users >= 10, f"users = {settings.users}", "at least 10"),
        (
            settings.rows_per_user >= 1,
            f"rows_per_user = {settings.rows_per_user}",
            "at least 1",
        ),
        (0 <= settings.conflict <= 1, f"conflict = {settings.conflict}", "in 0..1"),
        (0 < settings.noise <= 1, f"noise = {settings.noise}", "above 0 and at most 1"),
        (
            1 <= settings.behaviours <= MAX_BEHAVIOURS,
            f"behaviours = {settings.behaviours}",
            f"in 1..{MAX_BEHAVIOURS}",
        ),
        (settings.facets >= 2, f"facets = {settings.facets}", "at least 2"),
        (settings.values >= 2, f"values = {settings.values}", "at least 2"),
        (settings.copies >= 1, f"copies = {settings.copies}", "at least 1"),
        (
            3 <= settings.tasks <= 2 * settings.facets - 1,
            f"tasks = {settings.tasks}",
            f"3..{2 * settings.facets - 1} with {settings.facets} facets",
        ),
        (
            0 <= settings.min_events <= settings.max_events and settings.max_events >= 1,
            f"min_events = {settings.min_events}, max_events = {settings.max_events}",
            "0 <= min_events <= max_events, max_events >= 1",
        ),
    ):
        if not holds:
            raise UserError(f"conflict: {found}; it must be {rule}")


def task_names(tasks: int) -> tuple[str, ...]:
    """Returns the names of T tasks."""
    return ("click", "conversion", *(f"signal_{i}" for i in range(1, tasks - 1)))


def own_pattern(task: int, facets: int) -> tuple[int, float]:
    """Returns what sets a task apart: by how much its facet is shifted, and its sign."""
    if task < facets:
        return task, 1.0
    return 2 * facets - 1 - task, -1.0


def make_weights(settings: Settings, seed: int) -> Weights:
    """Returns the weights and effects of all tasks."""
    tasks, facets, own = settings.tasks, settings.facets, settings.conflict
    scenes = FIELD_SIZES["scene"]
    match = np.zeros((tasks, settings.behaviours, facets, scenes))
    for t, scene in itertools.product(range(tasks), range(scenes)):
        shift, sign = own_pattern(t, facets)
        shared = _reading(settings.behaviours, facets, scene, 0)
        pattern = sign * _reading(settings.behaviours, facets, scene, shift)
        mixed = (1 - own) * shared + own * pattern
        match[t, :, :, scene] = mixed * settings.match_strength / np.linalg.norm(mixed)

    draws = Draws(seed, 1)
    tables = {}  # of each shift: an effect for each value of each field
    for shift in range(facets):
        tables[shift] = {}
        for g, (field, size) in enumerate(FIELD_SIZES.items()):
            raw = draws.uniform(size)
            care = 1.0 if g == shift % len(FIELD_SIZES) else LESS
            tables[shift][field] = care * (raw - raw.mean()) / raw.std()
    effects = {field: np.zeros((tasks, size)) for field, size in FIELD_SIZES.items()}
    for t in range(tasks):
        shift, sign = own_pattern(t, facets)
        mixed = {
            field: (1 - own) * tables[0][field] + own * sign * tables[shift][field]
            for field in FIELD_SIZES
        }
        spread = np.sqrt(sum(table.var() for table in mixed.values()))
        for field, table in mixed.items():
            effects[field][t] = table * settings.field_strength / spread
    return Weights(match, effects)


def _reading(behaviours: int, facets: int, scene: int, shift: int) -> np.ndarray:
    """What a task reads in a scene, [S, F]: one facet of each behaviour, with its sign."""
    pattern = np.zeros((behaviours, facets))
    for s in range(behaviours):
        front = 1.0 if s == (scene + shift) % behaviours else LESS
        against = behaviours > 1 and (s + shift) % behaviours == behaviours - 1
        pattern[s, (s + shift) % facets] = -front if against else front
    return pattern


def match_posterior(
    history: np.ndarray, real: np.ndarray, candidate: np.ndarray, values: int, noise: float
) -> np.ndarray:
    """Returns P(the candidate's facet is the favourite | the history) [N, S, F] float64.

    Args:
      history: [N, S, L, F] int, facets of events, in 0..V-1.
      real: [N, S, L] bool, false where there is no event.
      candidate: [N, F] int in 0..V-1.
      values: V.
      noise: chance that a facet of an event is uniform.
    """
    per_event = np.log1p(values * (1 - noise) / noise)
    seen = np.stack([((history == v) & real[..., None]).sum(2) for v in range(values)], -1)
    score = np.exp(per_event * (seen - seen.max(-1, keepdims=True)))
    chosen = np.take_along_axis(score, candidate[:, None, :, None], -1)[..., 0]
    return chosen / score.sum(-1)


def label_probabilities(
    match: np.ndarray, scene: np.ndarray, offset: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Returns P(label of every task), the funnel applied, given the probability of each match.

    Args:
      match: [N, S, F] probabilities of independent matches; 0 or 1 where a match is known.
      scene: [N] int.
      offset: [N, T] what the logits are without a match.
      weights: [T, S, F, scenes] what a match adds.

    Returns:
      [N, T] float64.
    """
    tasks = offset.shape[1]
    flat = weights.reshape(tasks, -1, weights.shape[-1])
    match = match.reshape(len(offset), flat.shape[1])
    found = np.empty(offset.shape)
    for t in range(tasks):
        together = [0, 1] if t == 1 else [t]  # The funnel's second label needs both at once.
        used = np.flatnonzero(np.any(flat[together] != 0, axis=(0, 2)))
        patterns = np.array(list(itertools.product((0.0, 1.0), repeat=len(used))))
        logits = np.einsum("pu,tuc->ctp", patterns, flat[together][:, used])
        for start in range(0, len(offset), _ROWS_AT_ONCE):
            block = slice(start, start + _ROWS_AT_ONCE)
            chance = np.ones((len(offset[block]), 1))
            for u in used:  # The last one varies fastest, as in `product`.
                q = match[block, u, None]
                chance = np.stack([chance * (1 - q), chance * q], -1).reshape(len(q), -1)
            p = 1 / (1 + np.exp(-(logits[scene[block]] + offset[block, together, None])))
            found[block, t] = (chance * p.prod(1)).sum(1)
    return found
