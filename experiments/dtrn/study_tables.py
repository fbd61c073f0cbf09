"""Tables and the figure of the recommendation study, from its cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.dtrn.study_cells import (
    CONDITIONINGS,
    METHODS,
    TOPS,
    VARIANTS,
)
from experiments.study_runs import seeds_of, stem_of
from mtl_jax.config import from_dict
from mtl_jax.data.impressions import ImpressionSet
from mtl_jax.data.recommendation.floors import logistic_floor, smoothed_means_floor
from mtl_jax.engine.runfolder import read_json
from mtl_jax.metrics.bootstrap import bootstrap_auc
from mtl_jax.metrics.multitask import delta_m
from mtl_jax.metrics.ranking import auc
from mtl_jax.reporting import figures
from mtl_jax.reporting.markdown import table
from mtl_jax.systems.dtrn.builders import load

Cells = Mapping[str, Mapping[str, Any]]
Found = Mapping[str, Any]

REPLICATES = 400
NAMES = {
    "movielens": "MovieLens-100K",
    "mild": "conflict, mild",
    "medium": "conflict, medium",
    "strong": "conflict, strong",
    "tmall2014": "tmall2014_events.csv",
    "kuairand": "kuairand27k_explicit.csv",
    "census": "Census-Income",
}


def sets_of(cells: Cells) -> list[str]:
    """Returns the sets that have cells, in the order of the tables."""
    there = {name.partition("-")[0] for name in cells}
    return [word for word in NAMES if word in there]


def _values(cells: Sequence[Mapping[str, Any]], metric: str) -> list[float]:
    """A measure of each cell that has it; NaN stands for none."""
    found = [cell["scores"].get(f"best/test/{metric}", math.nan) for cell in cells]
    return [value for value in found if not math.isnan(value)]


def _spread(values: Sequence[float], digits: int = 4) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{np.mean(values):.{digits}f} +- {np.std(values, ddof=1):.{digits}f}"


def differences(root: Path, cells: Cells) -> dict[str, dict[str, Any]]:
    """AUC of each variant minus that of its base, the mean over seeds and tasks, with intervals.

    95 % over resampled users of the test split and resampled seeds, the same for both sides: other
    users and other trainings. "seeds" has the difference of each seed.
    """
    out: dict[str, dict[str, Any]] = {}
    for word in sets_of(cells):
        for top in TOPS:
            base = _logits(root, cells, f"{word}-{top}-base")
            if base is None:
                continue
            for variant in VARIANTS:
                other = _logits(root, cells, f"{word}-{top}-{variant}")
                if variant != "base" and other is not None:
                    out[f"{word}-{top}-{variant}"] = _difference(other, base)
    return out


def _logits(root: Path, cells: Cells, stem: str) -> dict[str, np.ndarray] | None:
    """The test logits [seeds, N, T] of a configuration, and the rows' labels and users."""
    names = [n for n in sorted(cells) if stem_of(n) == stem and (root / n / "cell.npz").exists()]
    if not names:
        return None
    logits = []
    for name in names:
        with np.load(root / name / "cell.npz") as arrays:
            rows = arrays["rows"]
            logits.append(arrays["logits"])
    found = _impressions(root, names[0])
    return {
        "logits": np.stack(logits),
        "labels": found.labels[rows],
        "weights": found.label_mask[rows],
        "group": found.group[rows],
    }


def _impressions(root: Path, name: str) -> ImpressionSet:
    """The set that a cell was trained on."""
    config: Any = from_dict(read_json(root / name / "config.json"))
    return load(config.data)


def _difference(one: Mapping[str, np.ndarray], two: Mapping[str, np.ndarray]) -> dict[str, Any]:
    count = min(len(one["logits"]), len(two["logits"]))
    tasks = one["logits"].shape[2]
    drawn, by_seed = [], np.zeros(count)
    picks = np.random.default_rng(0).integers(count, size=(REPLICATES, count))
    for t in range(tasks):
        rows = one["labels"][:, t], one["group"], one["weights"][:, t]
        both = np.concatenate([one["logits"][:count, :, t], two["logits"][:count, :, t]])
        replicates = bootstrap_auc(both, *rows, replicates=REPLICATES, seed=0)
        gains = replicates[:, :count] - replicates[:, count:]
        drawn.append(np.take_along_axis(gains, picks, axis=1).mean(axis=1))
        for s in range(count):
            own, other = (auc(side, rows[0], rows[2]) for side in (both[s], both[count + s]))
            by_seed[s] += (own - other) / tasks
    whole = np.mean(drawn, axis=0)
    low, high = np.nanquantile(whole, [0.025, 0.975])
    return {
        "value": float(by_seed.mean()),
        "low": float(low),
        "high": float(high),
        "seeds": [float(value) for value in by_seed],
    }


def floors(root: Path, cells: Cells) -> dict[str, dict[str, Any]]:
    """What smoothed means of users and items reach, by set, from labels of training alone."""
    out: dict[str, dict[str, Any]] = {}
    for word in sets_of(cells):
        name = next(name for name in sorted(cells) if name.startswith(f"{word}-"))
        found = _impressions(root, name)
        if found.item:
            both = smoothed_means_floor(found)["user + item means"]
            out[word] = {"user + item means": both, "logistic": logistic_floor(found)}
    return out


def variants_table(found: Found, word: str) -> str:
    """One set: tops by variants."""
    cells, rows = found["cells"], []
    tasks: list[str] = []
    for top, top_name in {"single": "single tasks", **TOPS}.items():
        for variant, variant_name in VARIANTS.items():
            own = seeds_of(cells, f"{word}-{top}-{variant}")
            if not own:
                continue
            tasks = own[0]["tasks"]
            gain = found["differences"].get(f"{word}-{top}-{variant}")
            delta = ""
            if gain is not None:
                delta = "{value:+.4f} ({low:+.4f} .. {high:+.4f})".format(**gain)
            attained = _values(own, "attained")
            rows.append(
                [
                    top_name,
                    variant_name,
                    len(own),
                    *(_spread(_values(own, f"{task}/auc")) for task in tasks),
                    _spread(_values(own, "auc")),
                    delta,
                    _spread(_values(own, "gauc")),
                    *([_spread(attained, 3)] if attained else []),
                    _delta_m(cells, word, own, tasks),
                    f"{np.mean([cell['parameters'] for cell in own]):,.0f}",
                ]
            )
    if not rows:
        return ""
    attains = len(rows[0]) == len(tasks) + 9
    floor = found["floors"].get(word)
    blank = [""] * (3 + attains)
    for kind, words in (
        ("user + item means", "smoothed user + item means"),
        ("logistic", "the same, logistic"),
    ):
        if floor:
            values = [floor[kind][task] for task in tasks]
            mean = f"{np.mean(values):.4f}"
            rows.append(["floor", words, "", *(f"{v:.4f}" for v in values), mean, *blank, ""])
    if attains:
        first = next(cells[name] for name in sorted(cells) if name.startswith(f"{word}-mmoe"))
        best = [first["scores"][f"best/test/{task}/bayes_auc"] for task in tasks]
        shown = [f"{value:.4f}" for value in (*best, np.mean(best))]
        rows.append(["best possible", "", "", *shown, *blank[:2], "1", "", ""])
    head = ["network", "variant", "seeds", *tasks, "mean AUC", "against base (95 %)", "GAUC"]
    head += (["attained"] if attains else []) + ["Delta_m, %", "parameters"]
    return f"**{NAMES[word]}.** Test AUC.\n\n{table(head, rows)}"


def _delta_m(
    cells: Cells, word: str, own: Sequence[Mapping[str, Any]], tasks: Sequence[str]
) -> str:
    single = seeds_of(cells, f"{word}-single-base")
    if not single:
        return ""
    better = dict.fromkeys(tasks, True)
    both = [
        {task: float(np.mean(_values(side, f"{task}/auc"))) for task in tasks}
        for side in (own, single)
    ]
    return f"{delta_m(both[0], both[1], better):+.2f}"


def conditioning_table(found: Found) -> str:
    """What the transformer's condition costs and brings."""
    rows = []
    for word in sets_of(found["cells"]):
        for how, words in CONDITIONINGS.items():
            stem = {"none": "encoder", "hyper": "tim"}.get(how, how)
            own = seeds_of(found["cells"], f"{word}-mmoe-{stem}")
            if own and seeds_of(found["cells"], f"{word}-mmoe-separate"):
                times = [cell["step_ms"] for cell in own if cell["step_ms"]]
                count = f"{np.mean([cell['parameters'] for cell in own]):,.0f}"
                shown = f"{np.mean(times):.1f}" if times else ""
                auc_ = _spread(_values(own, "auc"))
                rows.append([NAMES[word], words, len(own), auc_, count, shown])
    if not rows:
        return ""
    head = ["set", "transformer", "seeds", "mean AUC", "parameters", "ms a step"]
    note = (
        "**Conditioning.** MMoE with a transformer, without TRM. Times a step are of runs that may"
        " have shared their machine with others; `make bench` measures them in one run."
    )
    return f"{note}\n\n{table(head, rows)}"


def methods_table(found: Found) -> str:
    """Aggregators and flat regions."""
    rows = []
    for word in sets_of(found["cells"]):
        for method, words in METHODS.items():
            for flat in ("erm", "fs"):
                plain = (method, flat) == ("linear_scalarization", "erm")
                stem = f"{word}-mmoe-dtrn" if plain else f"{word}-{method}-{flat}"
                own = seeds_of(found["cells"], stem)
                if own and seeds_of(found["cells"], f"{word}-linear_scalarization-fs"):
                    name = f"FS-{words}" if flat == "fs" else words
                    values = [_spread(_values(own, m)) for m in ("auc", "gauc", "logloss")]
                    rows.append([NAMES[word], name, len(own), *values])
    if not rows:
        return ""
    head = ["set", "method", "seeds", "mean AUC", "GAUC", "log loss"]
    note = "**Methods.** DTRN over MMoE; flat regions with radius 0.05, not tuned."
    return f"{note}\n\n{table(head, rows)}"


NOTE = (
    "Our configurations: the paper's sets, sizes and tables are not known to us. Every row has the"
    " same optimiser, steps and batch, and its checkpoint is picked by the validation AUC; nothing"
    " was tuned for one variant alone. Mean over seeds +- standard deviation. `against base` is the"
    " difference of mean AUC to the same network with the mean of events, with a 95 % interval over"
    " resampled test users and seeds together; `attained` is the share of the AUC above chance that"
    " the best possible prediction has; Delta_m is against single-task networks of the base's size,"
    " less is better."
)


def in_words(found: Found) -> str:
    """On which sets and networks DTRN is ahead of its base, counted."""
    said = []
    for word in sets_of(found["cells"]):
        own = {top: found["differences"].get(f"{word}-{top}-dtrn") for top in TOPS}
        there = {top: gain for top, gain in own.items() if gain is not None}
        if there:
            ahead = [TOPS[t] for t, g in there.items() if g["low"] > 0]
            behind = [TOPS[t] for t, g in there.items() if g["high"] < 0]
            text = f"{NAMES[word]}: ahead under {', '.join(ahead) or 'none'}"
            said.append(text + (f", behind under {', '.join(behind)}" if behind else ""))
    if not said:
        return ""
    return f"DTRN against its base, where the interval excludes 0. {'; '.join(said)}."


def tables(found: Found) -> str:
    """All tables, as far as there are cells."""
    parts = [variants_table(found, word) for word in sets_of(found["cells"])]
    parts += [conditioning_table(found), methods_table(found), in_words(found)]
    devices = {c["environment"]["device_kind"] for c in found["cells"].values()}
    where = f" Trained on {', '.join(sorted(devices))}."
    return "\n\n".join([NOTE + where, *filter(None, parts)])


def draw_gains(found: Found, path: Path) -> bool:
    """Draws what each part adds to its base, with intervals; False without cells."""
    gains = found["differences"]
    words = [w for w in sets_of(found["cells"]) if any(name.startswith(f"{w}-") for name in gains)]
    if not words:
        return False
    columns = min(len(words), 3)
    rows = -(-len(words) // columns)
    with figures.canvas(path, rows, columns, 2.6 * rows + 0.3) as (figure, axes):
        for ax, word in zip(axes.flat, words, strict=False):
            for k, variant in enumerate(list(VARIANTS)[1:]):
                own = [(t, gains.get(f"{word}-{top}-{variant}")) for t, top in enumerate(TOPS)]
                colour = figures.COLOURS[k]
                for t, gain in own:
                    if gain is not None:
                        at = t + 0.17 * (k - 1.5)
                        ax.plot([at, at], [gain["low"], gain["high"]], color=colour, linewidth=2)
                        ax.plot(at, gain["value"], "o", color=colour, markersize=4)
            ax.axhline(0, color=figures.GREY, linewidth=0.8)
            ax.set_title(NAMES[word].partition("_")[0])
            ax.set_xlim(-0.5, len(TOPS) - 0.5)
            ax.set_xticks(range(len(TOPS)), ["Shared\nBottom", "MMoE", "PLE"])
        for ax in axes.flat[len(words) :]:
            ax.set_axis_off()
        for ax in axes[:, 0]:
            ax.set_ylabel("mean AUC minus base")
        for k, label in enumerate(list(VARIANTS.values())[1:]):
            axes[0, 0].plot([], [], "o-", color=figures.COLOURS[k], label=label)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    return True
