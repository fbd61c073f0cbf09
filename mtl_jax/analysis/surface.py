"""The loss surfaces of one run or two, by `reporting.landscape`, which the report draws too.

Different from the report on purpose: the examples are drawn from the whole split and not its first
ones, which in a split that is sorted by task belong to one task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_jax.analysis import drawing
from mtl_jax.analysis.subject import Log, Subject, sampled_batches
from mtl_jax.engine import parallel
from mtl_jax.reporting import landscape
from mtl_jax.reporting.figures import Section, pretty
from mtl_jax.reporting.landscape import Landscape
from mtl_jax.reporting.page import Table

EXAMPLES = 256


def of_subject(subject: Subject, split: str, seed: int, log: Log) -> Landscape:
    """Evaluates the losses on a plane of filter-normalised directions around a checkpoint."""
    log(f"{subject.label}: loss surface on {split}")
    params, model_state = parallel.to_host((subject.params, subject.model_state))
    run = subject.run
    drawn = sampled_batches(run.data, split, 1, EXAMPLES, seed)
    data = run.data._replace(eval_batches=lambda split: iter(drawn))
    return landscape.measure(run.system, data, params, model_state, split=split, examples=EXAMPLES)


def as_json(found: Landscape) -> dict[str, Any]:
    """The surface, and its mean rise within half of its reach and within all of it."""
    reach = float(found.offsets[-1])
    rises = {f"{radius:g}": found.rise(radius) for radius in (reach / 2, reach)}
    return {**found._asdict(), "mean_rise_within": rises}


def present(
    found: Mapping[str, Landscape], tasks: Sequence[str], split: str, folder: Path
) -> tuple[Section, Table]:
    """Draws a surface a run and tabulates how far they rise.

    Args:
      found: by label of the run.
      tasks: names of the tasks.
      split: whose examples.
      folder: where the figures go.
    """
    paths: list[Path] = []
    for k, (label, own) in enumerate(found.items()):
        path = folder / f"surface_{k + 1}.png"
        paths += landscape.section(own, tasks, label, split, path).figures
    one, rows = next(iter(found.values())), []
    reach = one.offsets[-1]
    for t, task in enumerate(tasks):
        for label, own in found.items():
            values = own.centre[t], own.rise(reach / 2)[t], own.rise(reach)[t]
            rows.append([pretty(task), label, *map(drawing.number, values)])
    size = len(one.offsets)
    text = (
        "Loss of each task along two random filter-normalised directions (Li et al. 2018):"
        f" {size} x {size} points, each over {one.examples:,} {split} examples. One unit moves"
        " every filter by its own norm; biases and normalisation layers stay."
    )
    if len(found) > 1:
        text += f" Figures in the order {', '.join(found)}; contours lie at round values."
    title = "Loss surface"
    head = ["", "run", "loss", f"mean rise within {reach / 2:g}", f"within {reach:g}"]
    return Section(title, text, paths), Table(title, text, head, rows)
