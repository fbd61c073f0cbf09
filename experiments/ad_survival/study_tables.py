"""Tables and the figure of the survival study, from its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.ad_survival.study_cells import (
    METHODS,
    NETWORKS,
    REMOVALS,
    SETS,
    SNAP_SPLITS,
    TERMS,
    WEIGHTS,
)
from experiments.study_runs import seeds_of
from mtl_jax.config import from_dict
from mtl_jax.data.survival.oracles import ADDITIVE, known_of
from mtl_jax.engine.runfolder import read_json
from mtl_jax.reporting import figures
from mtl_jax.reporting.markdown import table
from mtl_jax.systems.ad_survival.builders import load
from mtl_jax.systems.ad_survival.data import split_of
from mtl_jax.systems.ad_survival.oracle_scores import oracle_concordance
from mtl_jax.systems.ad_survival.scores import cut

Cells = Mapping[str, Mapping[str, Any]]
Found = Mapping[str, Any]

REFERENCES = Path(__file__).parents[2] / "benchmarks" / "results" / "survival_references.json"
LANDMARKS = (0, 3, 10)
DAYS = 120
OVERALL = tuple(f"overall@{day}" for day in LANDMARKS)
PARTS = ("text", "image", "categories", "numbers")
WORDS = {
    "full": "all inputs, two terms, click rate + 1",
    "without_text": "without texts",
    "without_image": "without image",
    "without_categories": "without categories",
    "without_numbers": "without numbers",
    "without_history": "without history",
    "stat_only": "categories and numbers alone",
    "unweighted": "no weights",
    "impressions": "impressions",
    "ctr_minmax": "click rate, scaled to 0..1",
    "ctr_rank": "click rate, its rank",
    "ctr_log": "click rate, its logarithm",
    "ctr_eb": "click rate, shrunk to the mean",
    "separate": "two networks, one a term",
    "overall": "one head for all",
    "short": "short term alone",
    "long": "long term alone",
    "coherent": "penalty on disagreement, 0.3",
    "lambda25": "share of the short term 0.25",
    "lambda75": "share of the short term 0.75",
}
NETWORK_WORDS = {"two": "two terms", "overall": "one head", "cox": "Cox's likelihood"}
SET_WORDS = {"support2": "SUPPORT2", "rhc": "rhc", "unempdur": "UnempDur", "hdfail": "hdfail"}


def value(own: Sequence[Mapping[str, Any]], *keys: str) -> str:
    """Mean over keys and seeds +- standard deviation over seeds; "" where a term is not scored."""
    if not own or any(key not in cell["concordance"] for cell in own for key in keys):
        return ""
    by_seed = [np.mean([cell["concordance"][key] for key in keys]) for cell in own]
    if len(by_seed) == 1:
        return f"{by_seed[0]:.3f}"
    return f"{np.mean(by_seed):.3f} +- {np.std(by_seed, ddof=1):.3f}"


def _drawn(own: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> np.ndarray:
    """[R, S] resamples of the mean over keys."""
    return np.stack([np.mean([cell["drawn"][k] for k in keys], axis=0) for cell in own], axis=1)


def interval(
    own: Sequence[Mapping[str, Any]],
    keys: Sequence[str],
    base: Sequence[Mapping[str, Any]] | None = None,
) -> tuple[float, float, float] | None:
    """Returns (value, low, high) of a concordance, or of its difference to a base's.

    95 % over resampled groups of test rows and resampled seeds, the same for both sides; None
    where one of them has no such score.
    """
    sides = [own] if base is None else [own, base]
    if any(k not in cell["concordance"] for side in sides for cell in side for k in keys):
        return None
    count = min(map(len, sides))
    if not count:
        return None
    drawn = _drawn(own[:count], keys)
    by_seed = [np.mean([c["concordance"][k] for k in keys]) for c in own[:count]]
    if base is not None:
        drawn = drawn - _drawn(base[:count], keys)
        others = [np.mean([c["concordance"][k] for k in keys]) for c in base[:count]]
        by_seed = np.subtract(by_seed, others).tolist()
    picks = np.random.default_rng(0).integers(count, size=drawn.shape)
    whole = np.take_along_axis(drawn, picks, axis=1).mean(axis=1)
    low, high = np.nanquantile(whole, [0.025, 0.975])
    return float(np.mean(by_seed)), float(low), float(high)


def shown(found: tuple[float, float, float] | None, sign: str = "+") -> str:
    """An interval in words."""
    if found is None:
        return ""
    return "{:{s}.3f} ({:{s}.3f} .. {:{s}.3f})".format(*found, s=sign)


def best_possible(root: Path, cells: Cells) -> dict[str, dict[str, float]]:
    """What who knows the formulas reaches on the test rows, by row of the table of inputs.

    "additive" is the best of predictions that see all but the match of text and image.
    """
    name = next((name for name in sorted(cells) if name.startswith("creatives-full-")), None)
    if name is None:
        return {}
    config: Any = from_dict(read_json(root / name / "config.json"))
    data = load(config.data)
    rows = split_of(data, config.data.split)["test"]
    out: dict[str, dict[str, float]] = {}
    for kind, gone in {**REMOVALS, "additive": ()}.items():
        known = ADDITIVE if kind == "additive" else known_of([p for p in PARTS if p not in gone])
        out[kind] = {}
        for day in LANDMARKS:
            own = cut(data, rows, "overall", float(day), float(config.data.short[-1]))
            out[kind][f"overall@{day}"] = oracle_concordance(
                data,
                own.rows,
                own.time,
                own.event,
                landmark=day,
                first=day,
                last=DAYS,
                known=known,
                history="history" not in gone,
            )
    return out


def inputs_table(found: Found) -> str:
    """Kinds of input taken away, beside what the best possible prediction loses."""
    cells, best = found["cells"], found["best"]
    full = seeds_of(cells, "creatives-full")
    rows = []
    for kind in REMOVALS:
        own = seeds_of(cells, f"creatives-{kind}")
        if own:
            drop = "" if kind == "full" else shown(interval(own, OVERALL, full))
            lost = np.mean([best[kind][k] - best["full"][k] for k in OVERALL])
            oracles = ", ".join(f"{best[kind][k]:.3f}" for k in OVERALL)
            rows.append(
                [
                    WORDS[kind] if kind != "full" else "all inputs",
                    len(own),
                    *(value(own, key) for key in OVERALL),
                    drop,
                    oracles,
                    "" if kind == "full" else f"{lost:+.3f}",
                ]
            )
    if not rows:
        return ""
    ceiling = best["additive"]
    rows.append(["best without the match of text and image", "", "", "", "", ""])
    rows[-1] += [", ".join(f"{ceiling[k]:.3f}" for k in OVERALL)]
    rows[-1] += [f"{np.mean([ceiling[k] - best['full'][k] for k in OVERALL]):+.3f}"]
    reached = [
        np.mean([c["concordance"][k] - 0.5 for c in full]) / (best["full"][k] - 0.5)
        for k in OVERALL
    ]
    share = ", ".join(f"{100 * one:.0f} %" for one in reached)
    head = ["inputs", "seeds", *(f"C at {day} d" for day in LANDMARKS), "against all (95 %)"]
    head += ["best possible", "its loss"]
    note = (
        "**Inputs.** Generated creatives (`creatives/large`, a split by campaigns), test"
        " concordance of everything after 0, 3 and 10 days among those alive then. The best"
        " possible prediction knows the formulas and the same inputs. With all inputs the network"
        f" comes {share} of the way from 0.5 to it."
    )
    return f"{note}\n\n{table(head, rows)}"


def subsets_table(found: Found) -> str:
    """Terms, all creatives and the quarter that sold the most, and the paper's protocol."""
    cells, rows = found["cells"], []
    for kind in REMOVALS:
        own = seeds_of(cells, f"creatives-{kind}")
        if own:
            row: list[object] = ["landmark", WORDS[kind] if kind != "full" else "all inputs"]
            for term in ("short@0", "short@3", "long@10", "overall@0"):
                row += [value(own, term), value(own, f"top/{term}")]
            rows.append(row)
    if not rows:
        return ""
    head = ["protocol", "inputs"]
    for name in ("short at 0 d", "short at 3 d", "long at 10 d", "all at 0 d"):
        head += [name, "top quarter"]
    return f"**Terms and the creatives that sold the most.**\n\n{table(head, rows)}"


def paper_table(found: Found) -> str:
    """The paper's protocol, beside what the history's length alone says."""
    cells, rows, keys = found["cells"], [], ("short@3", "long@10")
    for kind, words in (("full", "all inputs"), ("without_history", "without history")):
        own = seeds_of(cells, f"creatives-paper_{kind}")
        if own:
            rows.append([words, len(own), *(value(own, key) for key in keys)])
    if not rows:
        return ""
    head = ["inputs", "seeds", "short, history of 3 days", "long, history of 10 days"]
    note = (
        "**The paper's protocol.** Histories of 3 and 10 days without the condition that a creative"
        " lived so long: the length of a history tells who ended early, so that these numbers are"
        " no forecast (`report.html` of such a run says what the length alone reaches)."
    )
    return f"{note}\n\n{table(head, rows)}"


def changes_table(found: Found, kinds: Sequence[str], title: str) -> str:
    """Changes of the full network, by term."""
    cells = found["cells"]
    full = seeds_of(cells, "creatives-full")
    rows = []
    for kind in kinds:
        own = seeds_of(cells, f"creatives-{kind}")
        if own:
            short = [k for k in ("short@0", "short@3") if k in own[0]["concordance"]]
            late = [f"long@{day}" for day in LANDMARKS if f"long@{day}" in own[0]["concordance"]]
            all_ = [k for k in OVERALL if k in own[0]["concordance"]]
            row: list[object] = [WORDS.get(kind) or _method_words(kind), len(own)]
            for keys in (short, late, all_):
                row += [value(own, *keys) if keys else ""]
                same = kind == "full" or not keys
                row += ["" if same else shown(interval(own, keys, full))]
            rows.append(row)
    if len(rows) < 2:
        return ""
    head = ["network", "seeds", "short", "against the first", "long", "against the first"]
    head += ["overall", "against the first"]
    return f"{title}\n\n{table(head, rows)}"


def _method_words(kind: str) -> str:
    method, _, flat = kind.rpartition("_")
    return f"FS-{METHODS[method]}" if flat == "fs" else METHODS[method]


def sets_table(found: Found) -> str:
    """Real sets by name, beside Cox's model and a random survival forest on the same splits."""
    cells, rows = found["cells"], []
    references = read_json(REFERENCES)["rows"]
    for word in SETS:
        count = 0
        for network in NETWORKS:
            own = seeds_of(cells, f"{word}-{network}")
            count = max(count, len(own))
            if own:
                terms = ("overall@0", "short@0", "long@0")
                spread = shown(interval(own, terms[:1]), "")
                others = [value(own, term) for term in terms[1:]]
                size = f"{np.mean([cell['parameters'] for cell in own]):,.0f}"
                rows.append([SET_WORDS[word], NETWORK_WORDS[network], len(own), spread, *others])
                rows[-1].append(size)
        for model, name in (("cox", "Cox (scikit-survival)"), ("rsf", "random survival forest")):
            row: list[object] = [SET_WORDS[word], name, count]
            for term in ("overall", "short", "long"):
                values = [
                    one["c"]
                    for one in references
                    if one["set"] in (word, f"{word}/default")
                    and (one["model"], one["term"]) == (model, term)
                ][:count]
                row.append(f"{np.mean(values):.3f}" if values else "")
            if count:
                rows.append([*row, ""])
    if not rows:
        return ""
    head = ["set", "model", "splits", "overall C (95 %)", "short", "long", "parameters"]
    note = (
        "**Real sets.** Test concordance, mean over splits into 60, 20 and 20 % of the rows, with"
        " an interval over resampled rows and splits. One setting of network and optimiser, chosen"
        " on the validation rows of the first split of SUPPORT2; hdfail has larger batches. The two"
        " lower lines of a set are of `python -m benchmarks.survival_references`, same rows."
    )
    return f"{note}\n\n{table(head, rows)}"


def snap_table(found: Found) -> str:
    """Snap's political ads."""
    rows = []
    for split in SNAP_SPLITS:
        own = seeds_of(found["cells"], f"snap_ads-{split}")
        if own:
            terms = ("short@0", "long@0")
            spread = shown(interval(own, ("overall@0",)), "")
            rows.append([split, len(own), spread, *(value(own, t) for t in terms)])
    if not rows:
        return ""
    head = ["split", "seeds", "overall C (95 %, over organisations)", "short", "long"]
    return f"**Snap's political ads** (the user's file).\n\n{table(head, rows)}"


def policies_table(found: Found) -> str:
    """What policies earn on generated creatives, of the first full network."""
    own = [cell for cell in seeds_of(found["cells"], "creatives-full") if "policies" in cell]
    if not own:
        return ""
    first = own[0]["policies"]
    quantities = {
        "net_value": "value less cost, a creative",
        "cost_freed": "cost freed",
        "value_lost": "sales lost",
        "early_top_stops": "top quarter stopped early",
    }
    kept = [name for name in quantities if all(name in row for row in first.values())]
    rows = []
    for policy, row in first.items():
        shown_ = [
            "{value:.3g} ({low:.3g} .. {high:.3g})".format(**row[quantity]) for quantity in kept
        ]
        over = [cell["policies"][policy]["net_value"]["value"] for cell in own]
        rows.append([policy, *shown_, f"{np.mean(over):.3g}"])
    head = ["policy", *(quantities[name] for name in kept), f"net value, mean of {len(own)} seeds"]
    note = f"**Policies.** The first seed. {own[0]['policy_note']}"
    return f"{note}\n\n{table(head, rows)}"


NOTE = (
    "Our configurations: the paper's creatives are not public and its sizes are not known to us."
    " Every row of a table has the same optimiser, steps and batch, and its checkpoint is that of"
    " the least validation loss; mean over seeds +- standard deviation. Intervals are of 95 %, over"
    " resampled groups of test rows and seeds together."
)


def tables(found: Found) -> str:
    """All tables, as far as there are cells."""
    methods = ["full", *(f"{m}_{f}" for m in METHODS for f in ("erm", "fs"))]
    parts = [
        sets_table(found),
        inputs_table(found),
        subsets_table(found),
        paper_table(found),
        changes_table(found, list(TERMS), "**Terms.** Mean over 0, 3 and 10 days."),
        changes_table(found, list(WEIGHTS), "**Weights of rows.** Mean over 0, 3 and 10 days."),
        changes_table(
            found, methods, "**Methods.** Two terms; flat regions with radius 0.05, not tuned."
        ),
        snap_table(found),
        policies_table(found),
    ]
    devices = {cell["environment"]["device_kind"] for cell in found["cells"].values()}
    return "\n\n".join([f"{NOTE} Trained on {', '.join(sorted(devices))}.", *filter(None, parts)])


def draw_inputs(found: Found, path: Path) -> bool:
    """Draws what each input adds, beside what it could; False without cells."""
    cells, best = found["cells"], found["best"]
    full = seeds_of(cells, "creatives-full")
    kinds = [k for k in REMOVALS if k != "full" and seeds_of(cells, f"creatives-{k}")]
    if not full or not kinds:
        return False
    with figures.canvas(path, height=1.0 + 0.42 * len(kinds)) as (_, axes):
        ax = axes[0, 0]
        for k, kind in enumerate(kinds):
            found_ = interval(seeds_of(cells, f"creatives-{kind}"), OVERALL, full)
            if found_ is not None:
                ax.plot(found_[1:], [k, k], color=figures.COLOURS[0], linewidth=2)
                ax.plot(found_[0], k, "o", color=figures.COLOURS[0], markersize=5)
            lost = np.mean([best[kind][key] - best["full"][key] for key in OVERALL])
            ax.plot(lost, k, "D", color=figures.GREY, markersize=5)
        ax.plot([], [], "o-", color=figures.COLOURS[0], label="network, 95 %")
        ax.plot([], [], "D", color=figures.GREY, linestyle="", label="best possible")
        ax.set_yticks(range(len(kinds)), [WORDS[kind] for kind in kinds])
        ax.set_ylim(len(kinds) - 0.5, -0.5)
        ax.axvline(0, color=figures.GREY, linewidth=0.8)
        ax.set_xlabel("concordance less that of all inputs")
        figures.legend(ax, loc="lower left")
    return True
