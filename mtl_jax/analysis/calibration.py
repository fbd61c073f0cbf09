"""Calibration of classification heads, and how uncertain they are in and out of their domain.

ECE, Brier score and reliability as everywhere in this package (`metrics.classification`), and the
predictive entropy -sum p log p, in nats: on the test split, and on that of another data set through
the same model (FS-MTL's cross-domain entropies: train on A, test on B). A model that knows what it
does not know has more entropy there; `auroc` is how often an example of the other set has more than
one of its own. The labels of the other set are not used: its classes need not be those of training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import config as configs
from mtl_jax import run as runs
from mtl_jax.analysis import drawing
from mtl_jax.analysis.subject import Log, NotApplicable, Subject
from mtl_jax.engine import parallel
from mtl_jax.engine.runfolder import read_json
from mtl_jax.engine.state import TrainState
from mtl_jax.engine.step import init_shapes
from mtl_jax.errors import UserError
from mtl_jax.metrics.base import accumulate, unstack
from mtl_jax.metrics.classification import Classification, classification
from mtl_jax.metrics.ranking import auc
from mtl_jax.reporting import figures
from mtl_jax.reporting.figures import COLOURS, MEAN, Section, pretty
from mtl_jax.reporting.page import Table
from mtl_jax.reporting.reliability import draw_reliability
from mtl_jax.systems.base import Data

Array = jax.Array
Tree = Any

PANELS = 6  # tasks drawn one by one
BINS = 40  # of the entropy
CHUNK = 4096  # examples a call


class Found(NamedTuple):
    """What was found of one run.

    Attributes:
      examples: of the split.
      states: by task, on the host.
      entropy: [N, T] nats.
      classes: how many each task has.
      other: [M, T] entropies on the other data set; None without one.
    """

    examples: int
    states: dict[str, Classification]
    entropy: np.ndarray
    classes: int
    other: np.ndarray | None


def entropy(log_probs: np.ndarray) -> np.ndarray:
    """Returns -sum p log p [...] of log probabilities [..., C], in nats; p = 0 counts as 0."""
    probs = np.exp(log_probs)
    return -np.where(probs > 0, probs * np.where(probs > 0, log_probs, 0), 0).sum(-1)


def log_probabilities(out: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Returns log probabilities [B, T, C] float64 of what a system predicts; None without any.

    `probability` [B, T, C] is taken as it is, and `logit` [B, T] as two classes.
    """
    if "probability" in out:
        probs = np.asarray(out["probability"], np.float64)
        return np.log(np.maximum(probs, np.finfo(np.float32).tiny))
    if "logit" in out:
        logit = np.asarray(out["logit"], np.float64)
        return -np.stack([np.logaddexp(0, logit), np.logaddexp(0, -logit)], -1)
    return None


def labels_of(batch: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (labels [B, T] int, which of them are known [B, T] bool) of an assembled batch."""
    labels = np.asarray(batch["label"] if "label" in batch else batch["labels"])
    known = np.asarray(batch["label_mask"]) != 0 if "label_mask" in batch else labels >= 0
    return np.where(known, labels, 0).astype(np.int32), known


def predicted(subject: Subject, data: Data, split: str) -> Iterator[tuple[dict, np.ndarray]]:
    """Yields (assembled batch, log probabilities [B, T, C]) over a split.

    Raises:
      NotApplicable: a system whose tasks are not all classifications of examples.
    """
    run = subject.run._replace(data=data)
    why = "its tasks are not classifications of whole examples; see the system's own report"
    if run.system.predict is None:
        raise NotApplicable(why)
    step = jnp.zeros((), jnp.int32)
    state = TrainState(step, subject.params, (), subject.model_state, ())
    # Tables have been collected: nothing is to be dealt out again.
    for batch, out in runs.predictions(run._replace(tables=None), state, split):
        found = log_probabilities(out)
        if found is None:
            raise NotApplicable(why)
        yield batch, found


def score(log_probs: np.ndarray, labels: np.ndarray, known: np.ndarray) -> Tree:
    """Returns the classification states, leading axis T, of examples [N, T, C] on the host."""
    total = None
    for start in range(0, len(labels), CHUNK):
        # One shape of call: the last one is padded with rows that do not count.
        rows = np.arange(start, start + CHUNK)
        real = rows < len(labels)
        rows = np.minimum(rows, len(labels) - 1)
        moved = (
            np.moveaxis(log_probs[rows], 1, 0).astype(np.float32),
            labels[rows].T,
            (known[rows] & real[:, None]).T,
        )
        total = accumulate(total, _states(*moved))
    return total


_states = jax.jit(jax.vmap(classification))


def of_subject(subject: Subject, split: str, other: Data | None, log: Log) -> Found:
    """Scores the heads of a checkpoint on a whole split.

    Args:
      subject: the checkpoint.
      split: of its own data.
      other: data whose "test" split goes through the same model; None for none.
      log: told of each step.

    Raises:
      NotApplicable: see `predicted`.
    """
    log(f"{subject.label}: predictions on {split}")
    parts = [(*labels_of(batch), out) for batch, out in predicted(subject, subject.run.data, split)]
    labels, known, log_probs = (np.concatenate(leaves) for leaves in zip(*parts, strict=True))
    elsewhere = None
    if other is not None:
        log(f"{subject.label}: predictions on the other data set")
        at = "test" if "test" in other.splits else other.splits[-1]
        elsewhere = np.concatenate([entropy(out) for _, out in predicted(subject, other, at)])
    states = unstack(score(log_probs, labels, known), subject.tasks)
    return Found(len(labels), states, entropy(log_probs), log_probs.shape[-1], elsewhere)


def other_data(subject: Subject, other: str) -> Data:
    """Returns the data of another run, or of a data set by name, for a subject's model.

    Raises:
      UserError: no such run or data set, or data that the model does not take.
    """
    config: Any = subject.run.config
    if (Path(other) / "config.json").is_file():
        theirs: Any = configs.from_dict(read_json(Path(other) / "config.json"))
        if theirs.system != config.system:
            raise UserError(
                f"--other {other} is a run of {theirs.system}, not of {config.system}; give one of"
                " the same system"
            )
        chosen = theirs.data
    else:
        chosen = dataclasses.replace(config.data, name=other)
    changed = dataclasses.replace(config, data=chosen)
    system, data = configs.system_module(config.system).build(changed)
    ours = jax.tree.map(jnp.shape, subject.params)
    if jax.tree.map(lambda leaf: leaf.shape, init_shapes(system, data)[0]) != ours:
        raise UserError(
            f"--other {other} has inputs or classes of other shapes than those of"
            f" {subject.workdir}; give a data set that the same model takes"
        )
    return data._replace(resident=parallel.replicate(data.resident))


def separation(found: Found) -> np.ndarray:
    """Returns [T]: how often an example of the other set has more entropy than one of its own."""
    assert found.other is not None
    out = []
    for own, other in zip(found.entropy.T, found.other.T, strict=True):
        label = np.concatenate([np.zeros(len(own)), np.ones(len(other))])
        out.append(auc(np.concatenate([own, other]), label))
    return np.asarray(out)


def as_json(found: Found, tasks: Sequence[str]) -> dict[str, Any]:
    """Scores, reliability tables and entropies by task."""
    own: dict[str, Any] = {"examples": found.examples, "classes": found.classes, "tasks": {}}
    apart = None if found.other is None else separation(found)
    for t, task in enumerate(tasks):
        state = found.states[task]
        bins = state.calibration._asdict()
        row = {**state.compute(), "reliability": bins, "entropy": found.entropy[:, t].mean()}
        if found.other is not None and apart is not None:
            row |= {"entropy_other": found.other[:, t].mean(), "entropy_auroc": apart[t]}
        own["tasks"][task] = row
    return own


def present(
    found: Mapping[str, Found], tasks: Sequence[str], split: str, other: str, folder: Path
) -> tuple[Section, Table]:
    """Draws reliability and entropies of one run or two.

    Args:
      found: by label of the run.
      tasks: names of the tasks.
      split: what was scored.
      other: name of the other data set, "" for none.
      folder: where the figures go.
    """
    shown = list(tasks)
    if len(shown) * len(found) > PANELS:
        first = next(iter(found.values()))
        error = {task: first.states[task].calibration.compute()["ece"] for task in tasks}
        shown = sorted(tasks, key=lambda task: -error[task])[: max(PANELS // len(found), 1)]
    states = {
        task + drawing.suffix(label, found): own.states[task].calibration
        for task in shown
        for label, own in found.items()
    }
    ece = {name: state.compute()["ece"] for name, state in states.items()}
    paths = [draw_reliability(states, ece, folder / "reliability.png")]
    paths.append(_draw_entropies(found, tasks, shown, other, folder / "entropy.png"))
    rows = []
    for t, task in enumerate(tasks):
        for label, own in found.items():
            values = own.states[task].compute()
            cells = [drawing.percent(values["accuracy"])]
            cells += [drawing.number(values[name]) for name in ("ece", "brier", "nll")]
            cells.append(drawing.number(own.entropy[:, t].mean()))
            if own.other is not None:
                cells.append(drawing.number(own.other[:, t].mean()))
                cells.append(drawing.number(separation(own)[t]))
            rows.append([f"{split}, {pretty(task)}", label, *cells])
    head = ["", "run", "accuracy", "ECE", "Brier", "NLL (nats)", "entropy (nats)"]
    text = (
        f"Top-1 confidence against accuracy on {split} ({next(iter(found.values())).examples:,}"
        " examples), and the entropy of the predicted probabilities."
    )
    if other:
        head += ["entropy elsewhere", "AUROC"]
        text += (
            f" Elsewhere is {other} through the same model; the AUROC is how often an example of it"
            " has more entropy than one of the model's own data."
        )
    title = "Calibration"
    return Section(title, text, paths), Table(title, text, head, rows)


def _draw_entropies(
    found: Mapping[str, Found], tasks: Sequence[str], shown: Sequence[str], other: str, path: Path
) -> Path:
    columns = min(max(len(shown), 2), 3)
    rows = -(-len(shown) // columns)
    edges = np.linspace(0, np.log(max(own.classes for own in found.values())), BINS + 1)
    with figures.canvas(path, rows, columns, 2.5 * rows) as (_, axes):
        for ax in axes.flat[len(shown) :]:
            ax.axis("off")
        for ax, task in zip(axes.flat, shown, strict=False):
            t = list(tasks).index(task)
            for style, (label, own) in drawing.styled(found):
                for values, colour, where in (
                    (own.entropy, COLOURS[0], "own data"),
                    (own.other, COLOURS[1], other),
                ):
                    if values is not None:
                        counts, _ = np.histogram(np.clip(values[:, t], 0, edges[-1]), edges)
                        name = where + drawing.suffix(label, found)
                        share = counts / len(values)
                        ax.stairs(share, edges, color=colour, ls=style, lw=1.2, label=name)
            ax.axvline(edges[-1], color=MEAN, lw=0.7, ls=":")
            ax.set(title=pretty(task), xlabel="entropy (nats)", ylabel="share of examples")
            ax.set_yscale("log")
            figures.legend(ax)
    return path
