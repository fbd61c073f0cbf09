"""The tables of the study on molecules, from its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.molecules.study_cells import METHODS, RADIUS, SCALES, WORDS
from experiments.study_runs import seeds_of
from mtl_jax.data.molecules import TARGETS
from mtl_jax.metrics.multitask import delta_m
from mtl_jax.reporting.markdown import table

Cells = Mapping[str, Mapping[str, Any]]

UNITS = {target.name: f"{target.name}, {target.reported}" for target in TARGETS}
BETTER = dict.fromkeys(UNITS, False)
NOTE = (
    "Our configurations and our splits: not comparable with the papers' tables. Every row has the"
    " same network, optimiser, steps and batch; its checkpoint is the one of the lowest validation"
    " error in standard deviations. FS: flat regions of plain joint radius"
    f" {RADIUS:g}, not tuned. Mean absolute error of the test molecules, mean over seeds +-"
    " standard deviation; `error / std` is in standard deviations, the mean over properties;"
    " Delta_m compares with a network for each property of the same size, steps and seed, in %:"
    " less is better. Seconds of a cell are of a machine that may have done other things as well."
)


def errors(cell: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    """Returns the test error of each named property of a cell, in the literature's units."""
    metrics = {target.name: target.metric for target in TARGETS}
    return {name: cell["scores"][f"best/test/{name}/{metrics[name]}"] for name in names}


def references(cells: Cells, word: str) -> dict[int, dict[str, float]]:
    """Returns the single-task errors of each seed that has a network for every property."""
    found: dict[int, dict[str, float]] = {}
    for name in UNITS:
        for cell in seeds_of(cells, f"{word}-single-{name}"):
            found.setdefault(cell["seed"], {}).update(errors(cell, [name]))
    return {seed: own for seed, own in found.items() if len(own) == len(UNITS)}


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Returns "mean +- standard deviation", to so many significant digits of the mean."""
    if not values:
        return ""
    mean = float(np.mean(values))
    places = max(digits - 1 - int(np.floor(np.log10(abs(mean) or 1.0))), 0)
    shown = f"{mean:.{places}f}"
    return shown if len(values) == 1 else f"{shown} +- {np.std(values, ddof=1):.{places}f}"


def methods_table(cells: Cells, word: str) -> str:
    """One set: single-task networks, then each method, plain and with flat regions."""
    alone = references(cells, word)
    rows = []
    if alone:
        shown = [spread([own[name] for own in alone.values()]) for name in UNITS]
        shares, seconds = [], []
        for seed in alone:
            own = [cells[f"{word}-single-{name}-{seed}"] for name in UNITS]
            shares.append(float(np.mean([cell["scores"]["best/test/std_mae"] for cell in own])))
            seconds.append(sum(cell["seconds"] for cell in own))
        all_of = ["single tasks", len(alone), *shown, spread(shares), "0"]
        rows.append([*all_of, f"{np.mean(seconds):.0f}"])
    for method, words in METHODS.items():
        for flat in ("erm", "fs"):
            own = seeds_of(cells, f"{word}-{method}-{flat}")
            if not own:
                continue
            found = [errors(cell, list(UNITS)) for cell in own]
            gains = [
                delta_m(values, alone[cell["seed"]], BETTER)
                for cell, values in zip(own, found, strict=True)
                if cell["seed"] in alone
            ]
            delta = f"{np.mean(gains):+.1f}" if gains else ""
            delta += f" +- {np.std(gains, ddof=1):.1f}" if len(gains) > 1 else ""
            rows.append(
                [
                    f"FS-{words}" if flat == "fs" else words,
                    len(own),
                    *(spread([values[name] for values in found]) for name in UNITS),
                    spread([cell["scores"]["best/test/std_mae"] for cell in own]),
                    delta,
                    f"{np.mean([cell['seconds'] for cell in own]):.0f}",
                ]
            )
    if not rows:
        return ""
    head = ["method", "seeds", *UNITS.values(), "error / std", "Delta_m, %", "seconds"]
    return f"{_sizes(cells, word)}\n\n{table(head, rows)}"


def _sizes(cells: Cells, word: str) -> str:
    """What the cells of a set were trained on, for how long and on what."""
    own = [cell for name, cell in cells.items() if name.partition("-")[0] == word]
    first = own[0]
    sizes = ", ".join(f"{count:,} {split}" for split, count in first["molecules"].items())
    many = [cell for cell in own if cell["tasks"] > 1] or own
    devices = ", ".join(sorted({cell["environment"]["device_kind"] for cell in own}))
    return (
        f"**{first['set']}.** {sizes} molecules; {first['steps']:,} steps of"
        f" {first['batch_size']}; {many[0]['parameters']:,} parameters; on {devices}."
    )


def in_words(cells: Cells, word: str) -> str:
    """For how many methods flat regions err less than without them, counted."""
    less = many = 0
    for method in METHODS:
        pairs = []
        plain = {cell["seed"]: cell for cell in seeds_of(cells, f"{word}-{method}-erm")}
        for cell in seeds_of(cells, f"{word}-{method}-fs"):
            if cell["seed"] in plain:
                both = [c["scores"]["best/test/std_mae"] for c in (cell, plain[cell["seed"]])]
                pairs.append(both[0] < both[1])
        many += bool(pairs)
        less += bool(pairs) and all(pairs)
    if not many:
        return ""
    return f"Flat regions err less, in standard deviations and in every seed, for {less} of {many}."


def tables(cells: Cells) -> str:
    """All tables, as far as there are cells."""
    parts = [NOTE]
    for scale in SCALES:
        parts += [methods_table(cells, WORDS[scale]), in_words(cells, WORDS[scale])]
    return "\n\n".join(filter(None, parts))
