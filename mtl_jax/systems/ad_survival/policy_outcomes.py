"""What a policy costs and earns: replay of stop days on what creatives would have delivered.

A creative runs on days 1..min(T - 1, end) for a stop day T. Generated sets know what it would have
delivered on each of them, whoever stopped it (`path`), so that every policy can be replayed. A log
knows the days before the operator's stop only: with `source="history"` these are the end, and what
is replayed are policies that stop earlier than he did.

Freed impressions are those of the days from the stop to the end. What becomes of them:

    none      they are not bought.
    campaign  they go, on the same calendar day, to the creatives of the campaign that run on that
              day under the same policy, in proportion to their impressions: each freed impression
              costs, converts and sells as the mean impression of those does, that is the sum of
              their cost (conversions, value) over the sum of their impressions. Where none runs,
              they are not bought. That more impressions may tire the others is left out.

What replaces a creative's impressions counts as the creative's own, so that sums over campaigns
stay independent of each other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.survival import creatives_delivery as delivery
from mtl_jax.data.survival.creatives_world import require_truth
from mtl_jax.errors import UserError
from mtl_jax.metrics.survival.inputs import check_choice, dense_rank

REPLACEMENTS = ("none", "campaign")
SOURCES = ("path", "expected", "history")


class Paths(NamedTuple):
    """What N creatives deliver on each of D days, were they not stopped.

    Attributes:
      impressions: [N, D] float64.
      conversions: [N, D] float64.
      cost: [N, D] float64, in currency.
      value: [N, D] float64, of the conversions, in currency.
      end: [N] int64, the last day that a creative may run, 0..D; amounts after it do not count.
      start: [N] int64, calendar day of day 1.
      group: [N] campaign ids.
    """

    impressions: np.ndarray
    conversions: np.ndarray
    cost: np.ndarray
    value: np.ndarray
    end: np.ndarray
    start: np.ndarray
    group: np.ndarray

    @property
    def net(self) -> np.ndarray:
        """Value less cost of each day, [N, D]."""
        return self.value - self.cost

    def rows(self, chosen: Any) -> Paths:
        """The creatives of a mask or of row numbers."""
        return Paths(*(field[chosen] for field in self))


class Outcome(NamedTuple):
    """What N creatives delivered under a policy, and what replaced them, [N] each.

    Attributes:
      impressions: float64.
      conversions: float64.
      cost: float64.
      value: float64.
      freed_impressions: float64, of the days from the stop to the end.
      freed_cost: float64, likewise; before anything replaces them.
      ran: int64, whole days run.
      stopped: bool, whether the policy stopped it before its end: one decision of an operator.
    """

    impressions: np.ndarray
    conversions: np.ndarray
    cost: np.ndarray
    value: np.ndarray
    freed_impressions: np.ndarray
    freed_cost: np.ndarray
    ran: np.ndarray
    stopped: np.ndarray

    @property
    def net(self) -> np.ndarray:
        """Value less cost, [N]."""
        return self.value - self.cost


def paths_of(
    found: LifetimeSet,
    source: str = "path",
    *,
    rows: Any = None,
    value_per_conversion: Any = None,
    window: float | None = None,
) -> Paths:
    """Returns the paths of a set whose history has impressions, conversions and cost.

    Args:
      found: the set.
      source: "path": as they were drawn, of a generated set; "expected": what was to be expected of
        them by the truth, without the noise of draws; "history": as they were logged, up to the end
        of the log of each row.
      rows: which rows; all by default.
      value_per_conversion: [N] of all rows; by default that of the truth.
      window: calendar day on which the data end, for "path" and "expected". By default the latest
        day on which any row was seen, which is right if the data censored a row.

    Raises:
      UserError: a set without what is asked for.
    """
    check_choice("source", source, SOURCES)
    if value_per_conversion is None:
        value_per_conversion = found.truth.get("value_per_conversion")
    if value_per_conversion is None:
        raise UserError(
            f"{found.name} does not know what conversions sell for; give one value a row"
        )
    worth = np.asarray(value_per_conversion, np.float64)
    chosen = np.arange(len(found.time)) if rows is None else np.asarray(rows)
    if chosen.dtype == bool:
        chosen = np.flatnonzero(chosen)
    start = found.start.astype(np.int64)
    if source == "expected":
        shown, converted, cost = _expected(found, chosen)
    else:
        amounts = found.path if source == "path" else found.history
        if not amounts.shape[1]:
            raise UserError(f"{found.name} has no {source}; take source='history', or another set")
        names = found.history_names
        wanted = ("impressions", "conversions", "cost")
        if missing := [name for name in wanted if name not in names]:
            raise UserError(
                f"{found.name} logs {', '.join(names)}; a policy needs {missing[0]}, too"
            )
        shown, converted, cost = (
            amounts[chosen, :, names.index(name)].astype(np.float64) for name in wanted
        )
    if source == "history":
        end = found.history_days.astype(np.int64)
    else:
        last = float((start + found.time).max()) if window is None else window
        end = np.clip(last - start, 0, shown.shape[1]).astype(np.int64)
    value = converted * worth[chosen, None]
    return Paths(shown, converted, cost, value, end[chosen], start[chosen], found.group[chosen])


def outcome(stop: Any, paths: Paths, replacement: str = "none") -> Outcome:
    """Returns what creatives deliver under a policy; see the module.

    Args:
      stop: [N] days, D + 1 for never.
      paths: of N creatives.
      replacement: what becomes of freed impressions, "none" or "campaign".
    """
    check_choice("replacement", replacement, REPLACEMENTS)
    stop = checked_stop(stop, paths)
    ran = np.minimum(stop - 1, paths.end)
    day = np.arange(paths.cost.shape[1])
    runs = day < ran[:, None]
    freed = (day < paths.end[:, None]) & ~runs
    each = (paths.impressions, paths.conversions, paths.cost, paths.value)
    own = [np.where(runs, amounts, 0.0).sum(1) for amounts in each]
    lost = [np.where(freed, amounts, 0.0).sum(1) for amounts in (paths.impressions, paths.cost)]
    if replacement == "campaign":
        own = [a + b for a, b in zip(own, _replaced(each, runs, freed, paths), strict=True)]
    shown, converted, cost, value = own
    return Outcome(shown, converted, cost, value, lost[0], lost[1], ran, stop <= paths.end)


def top_share(paths: Paths, share: float = 0.25) -> np.ndarray:
    """Returns which creatives sell the most up to their end if nobody stops them, [N] bool.

    Args:
      paths: of N creatives.
      share: of the rows; ties at the edge are all within.
    """
    if not 0 < share <= 1:
        raise UserError(f"share is {share}; it must be above 0 and at most 1")
    value = outcome(np.full(len(paths.end), paths.cost.shape[1] + 1), paths).value
    least = np.sort(value)[::-1][max(round(share * len(value)), 1) - 1]
    return value >= least


def checked_stop(stop: Any, paths: Paths) -> np.ndarray:
    """Returns stop days [N] int64.

    Raises:
      UserError: another number of rows, or days outside 1..D + 1.
    """
    stop, days = np.asarray(stop), paths.cost.shape[1]
    if stop.shape != paths.end.shape:
        raise UserError(f"stop days are {stop.shape}, the creatives {paths.end.shape}; one a row")
    wrong = ~((stop >= 1) & (stop <= days + 1) & (stop == np.floor(stop)))
    if wrong.any():
        raise UserError(
            f"row {wrong.argmax()} stops on day {stop[wrong][0]}; it must be one of 1..{days + 1},"
            f" and {days + 1} is never"
        )
    return stop.astype(np.int64)


def _replaced(
    each: tuple[np.ndarray, ...], runs: np.ndarray, freed: np.ndarray, paths: Paths
) -> list[np.ndarray]:
    """Amounts [N] that freed impressions buy from the creatives of the campaign that run."""
    days = runs.shape[1]
    calendar = (paths.start - paths.start.min())[:, None] + np.arange(days)
    length = int(calendar.max()) + 1
    cell = dense_rank(paths.group)[:, None] * length + calendar
    cells = int(cell.max()) + 1
    # A creative whose impressions are freed does not run that day: the sums are of others.
    sums = [np.bincount(cell[runs], amounts[runs], cells) for amounts in each]
    shown = sums[0]
    some = shown > 0
    safe = np.where(some, shown, 1.0)
    bought = paths.impressions[freed]
    row = np.broadcast_to(np.arange(len(runs))[:, None], runs.shape)[freed]
    where = cell[freed]
    return [
        np.bincount(row, bought * np.where(some, one / safe, 0.0)[where], len(runs)) for one in sums
    ]


def _expected(found: LifetimeSet, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expected impressions, conversions and cost [n, D] of a generated set."""
    require_truth(found)
    truth = {name: values[rows].astype(np.float64) for name, values in found.truth.items()}
    days = found.path.shape[1]
    shown = delivery.expected_impressions(truth["impressions_per_day"], found.start[rows], days)
    clicks = shown * delivery.click_rates(truth["q"], truth["f"], days)
    rate = delivery.conversion_rate(truth["q"], truth["conversion_noise"])
    bid = next(number.values for number in found.numbers if number.name == "bid")
    return shown, clicks * rate[:, None], shown * (bid[rows].astype(np.float64)[:, None] / 1000)
