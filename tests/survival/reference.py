"""Likelihoods row by row and bin by bin, in float64 probabilities, from the table in `credit`."""

from __future__ import annotations

import jax
import numpy as np
from scipy.special import expit

from mtl_jax.survival import Grid, cause_loss, hazard_loss, piecewise_exponential_loss

GRID = Grid((1.0, 2.0, 4.0, 5.5, 9.0))
# Edges, midpoints, points between, before the first edge and beyond the last.
TIMES = np.array([0.0, 0.5, 1.0, 1.5, 1.75, 2.0, 2.5, 3.0, 3.75, 4.0, 4.75, 5.0, 5.5, 7.25, 8.0])
TIMES = np.concatenate([TIMES, [8.9, 9.0, 9.5, 40.0]])


ROWS = 600


def lifetimes(seed: int = 0, rows: int = ROWS) -> dict[str, np.ndarray]:
    """Every kind of row: entries in, before and after the event's bin, intervals, causes 1 to 3."""
    rng = np.random.default_rng(seed)
    draw = rng.choice(TIMES, (3, rows))
    found = {
        "time": draw[0],
        "event": rng.integers(0, 4, rows),
        "entry": np.where(rng.random(rows) < 0.5, 0.0, draw[1]),
        "upper": np.where(rng.random(rows) < 0.5, draw[0], np.maximum(draw[0], draw[2])),
    }
    found["upper"][::17] = np.inf
    return found


def overlap(lo: float, hi: float, grid: Grid, k: int) -> float:
    a, b = grid.edges[k], grid.edges[k + 1]
    return max(min(hi, b) - max(lo, a), 0.0) / (b - a)


def lived(rule: str, c: float, grid: Grid, k: int) -> bool:
    a, b = grid.edges[k], grid.edges[k + 1]
    return {"midpoint": (a + b) / 2 <= c, "full": b <= c, "index": a <= c}[rule]


def present(rule: str, a: float, grid: Grid, k: int) -> bool:
    start, end = grid.edges[k], grid.edges[k + 1]
    return {"midpoint": (start + end) / 2 > a, "full": start >= a, "index": end > a}[rule]


def event_bin(t: float, grid: Grid, before: bool = False) -> int:
    """Bin of t; with `before`, the bin that ends with t if t is an edge."""
    return int(np.searchsorted(grid.edges, t, "left" if before else "right")) - 1


def likelihood(hazards, q, rule, grid, time, event, entry=-np.inf, upper=None) -> float:
    """P of what is known of one row.

    Args:
      hazards: [K] of any cause.
      q: [K] share of the row's cause in each bin.
      rule: of credit.
      grid: K bins.
      time: of the row, and so on.
      event: whether it had one.
      entry: of it.
      upper: of it.
    """
    upper = time if upper is None else upper
    bins = range(grid.bins)
    between = event and upper > time
    if (upper if between else time) < entry or (between and upper == entry):
        return 1.0
    last = event_bin(upper, grid, before=True) if between else event_bin(time, grid)
    inside = event and 0 <= last < grid.bins
    alive = 1 - hazards
    if rule == "fraction":
        low, high = time, upper
        if inside and not between:
            low, high = grid.edges[last], grid.edges[last + 1]
        p = np.prod([alive[k] ** overlap(entry, low, grid, k) for k in bins])
        if not inside:
            return p
        start, total = max(low, entry), 0.0
        for k in bins:
            # To the part of bin k in which the event may lie, then the event in it.
            reach = np.prod([alive[i] ** overlap(start, high, grid, i) for i in range(k)])
            total += reach * (1 - alive[k] ** overlap(start, high, grid, k)) * q[k]
        return p * total
    credited = [k for k in bins if lived(rule, time, grid, k)]
    if inside:
        whole = credited if between else list(range(last))
        credited = [k for k in whole if k < last]
    p = np.prod([alive[k] for k in credited if present(rule, entry, grid, k)])
    if not inside:
        return p
    window = range(len(credited), last + 1)
    window = [k for k in window if present(rule, entry, grid, k)] or [last]
    total = 0.0
    for k in window:
        reach = np.prod([alive[i] for i in window if i < k])
        total += reach * hazards[k] * q[k]
    return p * total


def losses(logits, rule, grid, rows, names=("entry", "upper")) -> np.ndarray:
    """-log likelihood of rows whose logits are [N, K] or, with causes, [N, K, C]."""
    logits = np.asarray(logits, np.float64)
    found = []
    for i, x in enumerate(logits):
        cause = rows["event"][i]
        if x.ndim == 1:
            hazards, q = expit(x), np.ones(grid.bins)
        else:
            odds = np.exp(x)
            hazards = odds.sum(1) / (1 + odds.sum(1))
            q = odds[:, max(cause - 1, 0)] / odds.sum(1)
        known = {name: rows[name][i] for name in names}
        p = likelihood(hazards, q, rule, grid, rows["time"][i], cause != 0, **known)
        found.append(-np.log(p))
    return np.array(found)


def assert_finite(tree) -> None:
    """Every number of a tree."""
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(tree))


def survival_curve(x, grid, t) -> np.ndarray:
    """S at times [T] for hazards [N, K] in float64: log S is linear between the edges; [N, T]."""
    log_s = -np.logaddexp(0, x).cumsum(1)
    log_s = np.concatenate([np.zeros((len(x), 1)), log_s], axis=1)
    return np.exp([np.interp(t, grid.edges, row) for row in log_s])


_STATIC = ("censoring",)
_HAZARD = jax.jit(
    lambda x, censoring, **rows: hazard_loss(x, grid=GRID, censoring=censoring, **rows),
    static_argnames=_STATIC,
)
_CAUSE = jax.jit(
    lambda x, censoring, **rows: cause_loss(x, grid=GRID, censoring=censoring, **rows),
    static_argnames=_STATIC,
)
_DENSITY = jax.jit(lambda x, **rows: piecewise_exponential_loss(x, grid=GRID, **rows))


def nll(x, time, event, rule="midpoint", entry=None, upper=None, causes=False) -> np.ndarray:
    """The library's loss on `GRID` in float64; "density" is a rule too.

    Rows are repeated to one length, so that few shapes are compiled.
    """
    rows = {"time": time, "event": event}
    rows["entry"] = np.full(len(time), -np.inf) if entry is None else entry
    rows["upper"] = time if upper is None else upper
    fill = {n: np.resize(np.asarray(v, float), ROWS) for n, v in rows.items()}
    x = np.resize(np.asarray(x, float), (ROWS, *np.shape(x)[1:]))
    with jax.enable_x64(True):
        if rule == "density":
            found = _DENSITY(x, **fill)
        else:
            found = (_CAUSE if causes else _HAZARD)(x, rule, **fill)
        assert found.dtype == np.float64
        return np.asarray(found)[: len(time)]
