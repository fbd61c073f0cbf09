"""The README's tables of benchmarks, from whatever result files there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks import (
    dtrn_step,
    models,
    operator_step,
    task_grads,
    train_step,
    versus_deepxde,
    versus_rechub,
)
from mtl_jax.reporting.markdown import table

Result = Mapping[str, Any]
Row = Mapping[str, Any]


def label(environment: Mapping[str, Any]) -> str:
    """A device in a table cell."""
    if environment["backend"] == "cpu":
        name = environment["processor"].replace("(R)", "").replace("(TM)", "")
        return f"CPU, {' '.join(name.split())}, {environment['cores']} cores"
    return f"{environment['device_count']} x {environment['device_kind']}"


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _groups(rows: Iterable[Row], *keys: str) -> dict[tuple, list[Row]]:
    out: dict[tuple, list[Row]] = {}
    for row in rows:
        out.setdefault(tuple(row[key] for key in keys), []).append(row)
    return out


def train_step_table(results: Sequence[Result]) -> str:
    """Times of whole steps; behind each the ratio to LS, and that ratio / the counted floor."""
    lines = []
    for result in results:
        rows = [row for row in result["rows"] if row["backend"] == "pmap"]
        for (model, tasks, batch), group in _groups(rows, "model", "tasks", "batch").items():
            by = {row["method"]: row for row in group}
            cells = []
            for method in train_step.METHODS:
                if method not in by:
                    cells.append("-")
                    continue
                row = by[method]
                ratio = (
                    "" if method == "ls" else f" ({row['over_ls']:.2f}, {row['over_floor']:.2f})"
                )
                cells.append(f"{_number(row['median_ms'])}{ratio}")
            best = by.get("fs_cagrad", group[-1])
            lines.append(
                [label(result["environment"]), models.NAMES[model], tasks, batch, *cells]
                + [f"{best['examples_per_second']:.0f}"]
            )
    columns = ["device", "model", "T", "batch", *train_step.NAMES.values(), "examples/s, FS"]
    return table(columns, lines)


def task_grads_table(results: Sequence[Result]) -> str:
    """Ratio to the counted floor, strategy by strategy."""
    lines = []
    for result in results:
        for (model, tasks, batch), group in _groups(
            result["rows"], "model", "tasks", "batch"
        ).items():
            by = {(row["pass"], row["strategy"]): row for row in group}
            cells = [label(result["environment"]), models.NAMES[model], tasks, batch]
            cells.append(_number(by["sum", "-"]["median_ms"]))
            for name in ("first", "fs"):
                found = [by.get((name, how)) for how in task_grads.STRATEGIES]
                cells.append(
                    " / ".join("-" if row is None else f"{row['over_floor']:.2f}" for row in found)
                )
            found = [by.get(("fs", how)) for how in task_grads.STRATEGIES]
            for field in ("compile_seconds", "temp_mb"):
                cells.append(
                    " / ".join("-" if row is None else _number(row[field]) for row in found)
                )
            lines.append(cells)
    how = " / ".join(task_grads.STRATEGIES)
    columns = ["device", "model", "T", "batch", "sum step, ms", f"gradients: {how}", f"FS: {how}"]
    return table([*columns, "FS compile, s", "FS temporary, MB"], lines)


def solvers_table(results: Sequence[Result]) -> str:
    """Microseconds by number of tasks, and the errors."""
    lines = []
    for result in results:
        sizes = [t for t in (2, 10, 40, 128) if any(row["tasks"] == t for row in result["rows"])]
        for (solver,), group in _groups(result["rows"], "solver").items():
            times = {row["tasks"]: row for row in group}
            typical = max(row["median_error"] for row in group)
            worst = max(group, key=lambda row: row["worst_error"])
            lines.append(
                [label(result["environment"]), solver]
                + [" / ".join(_number(times[t]["median_us"]) for t in sizes)]
                + [" / ".join(map(str, sizes)), f"{typical:.0e}"]
                + [f"{worst['worst_error']:.0e} ({worst['worst_family']}, T = {worst['tasks']})"]
            )
    return table(["device", "weights", "us", "at T", "error", "worst error"], lines)


def dispatch_table(results: Sequence[Result]) -> str:
    """Microseconds of a call."""
    lines = [
        [label(result["environment"]), row["leaves"], row["call"], f"{row['median_us']:.0f}"]
        for result in results
        for row in result["rows"]
    ]
    return table(["device", "arrays in the state", "call", "us"], lines)


def versus_table(results: Sequence[Result]) -> str:
    """Milliseconds of both sides, and the ratio, for each memory format of torch's."""
    names = list(dict.fromkeys(row["what"] for result in results for row in result["rows"]))
    lines = []
    keys = ("model", "tasks", "batch", "torch_format")
    for result in results:
        for (model, tasks, batch, form), group in _groups(result["rows"], *keys).items():
            by = {row["what"]: row for row in group}
            cells = [
                f"{_number(by[name]['jax_ms'])} / {_number(by[name]['torch_ms'])}"
                f" = {by[name]['ratio']:.2f}"
                if name in by
                else "-"
                for name in names
            ]
            device = label(result["environment"])
            shown = form.replace("_", " ")
            lines.append([device, models.NAMES[model], tasks, batch, shown, *cells])
    return table(["device", "model", "T", "batch", "torch's layout", *names], lines)


def authors_table(results: Sequence[Result]) -> str:
    """The authors' own FS step beside ours."""
    lines = [
        [label(result["environment"]), models.NAMES[row["model"]], row["batch"]]
        + [_number(row[side]["median_ms"]) for side in ("ours", "theirs")]
        + [f"{row['ratio']:.2f}", row["steps"]]
        for result in results
        for row in result["rows"]
    ]
    return table(["device", "model", "batch", "ours", "theirs", "ratio", "steps timed"], lines)


def deepxde_table(results: Sequence[Result]) -> str:
    """Steps and query points a second of every program, and its time over that of our first."""
    lines = []
    for result in results:
        for row in result["rows"]:
            if row["library"] == "mtl_jax":
                name = f"this package, {versus_deepxde.VARIANTS[row['what']].title}"
            else:
                how = versus_deepxde.BACKENDS[row["library"]][row["what"]]
                name = f"DeepXDE on {row['library']}, {how}"
            lines.append(
                [label(result["environment"]), name, row["batch"], row["points"]]
                + [_number(row[field]) for field in ("ms", "steps_per_second")]
                + [_number(row["points_per_second"] / 1e6), f"{row['over_ours']:.2f}"]
            )
    columns = ["device", "program", "B", "N", "ms a step", "steps/s", "10^6 points/s", "times ours"]
    return table(columns, lines)


def rechub_table(results: Sequence[Result]) -> str:
    """Examples a second of every program, and its time over that of ours of the same kind."""
    lines = []
    for result in results:
        for row in result["rows"]:
            over = "1"
            if row["library"] == "mtl_jax":
                name = f"this package, {versus_rechub.OURS[row['what']]}"
            else:
                name = f"Torch-RecHub, {versus_rechub.THEIRS[row['what']]}"
                low, high = (f"{row[f'over_ours_{end}']:.2f}" for end in ("low", "high"))
                over = f"{row['over_ours']:.2f} ({low} to {high})"
            lines.append(
                [label(result["environment"]), versus_rechub.MODELS[row["model"]], name]
                + [f"{row['parameters']:,}", _number(row["ms"])]
                + [f"{row['examples_per_second']:,}", over]
            )
    columns = ["device", "model", "program", "parameters", "ms a step", "examples/s", "times ours"]
    return table(columns, lines)


def embedding_step_table(results: Sequence[Result]) -> str:
    """Times of a step by number of rows, and the ratio of the largest table to the smallest."""
    lines = []
    for result in results:
        for key, group in _groups(result["rows"], "update", "tables", "devices", "ids").items():
            update, where, devices, ids = key
            by_size = sorted(group, key=lambda row: row["rows"])
            lines.append(
                [label(result["environment"]), ids, update.replace("_", " "), where, devices]
                + [" / ".join(f"{row['rows']:,}" for row in by_size)]
                + [" / ".join(_number(row["median_ms"]) for row in by_size)]
                + [f"{by_size[-1]['over_smallest']:.2f}", _number(by_size[-1]["collective_kb"])]
            )
    columns = ["device", "ids", "update", "tables", "devices", "rows", "ms"]
    return table([*columns, "largest over smallest", "kB sent, largest"], lines)


def dtrn_step_table(results: Sequence[Result]) -> str:
    """Encoders and tops; then numbers of items; then what devices send each other."""
    parts: dict[str, list[list[Any]]] = {"encoders": [], "items": [], "collectives": []}
    for result in results:
        device = label(result["environment"])
        for row in result["rows"]:
            what = [device, dtrn_step.NAMES[row["encoder"]], row["top"].replace("_", " ")]
            how = [f"{row['items']:,}", row["update"].replace("_", " ")]
            if row["part"] == "collectives":
                cells = [*how, row["tables"], row["devices"], _number(row["collective_kb"])]
                parts["collectives"].append([*what[1:], *cells])
                continue
            over = row.get("over_shared" if row["part"] == "encoders" else "over_smallest")
            cells = [*how, _number(row["median_ms"]), f"{row['examples_per_second']:.0f}"]
            parts[row["part"]].append([*what, *cells, "-" if over is None else f"{over:.2f}"])
    columns = ["device", "encoder", "top", "items", "update", "ms", "examples/s"]
    sent = ["encoder", "top", "items", "update", "tables", "devices", "kB a step and device"]
    return "\n\n".join(
        [
            table([*columns, "over shared"], parts["encoders"]),
            "By number of items, with the ratio to the fewest:",
            table([*columns, "over fewest"], parts["items"]),
            "Results of collectives, from the program compiled for so many devices:",
            table(sent, parts["collectives"]),
        ]
    )


def operator_step_table(results: Sequence[Result]) -> str:
    """Times of whole steps of operator networks, and how near LS comes to a matrix product."""
    lines = []
    for result in results:
        for key, group in _groups(result["rows"], "network", "tasks", "batch", "points").items():
            network, *sizes = key
            by = {row["method"]: row for row in group}
            ls = by.pop("ls")
            over = [f"{_number(row['median_ms'])} ({row['over_ls']:.2f})" for row in by.values()]
            lines.append(
                [label(result["environment"]), operator_step.NETWORKS[network].title, *sizes]
                + [_number(ls["median_ms"]), *over]
                + [_number(ls["points_per_second"] / 1e6), _number(ls["gflop_per_second"])]
                + [f"{ls['of_product']:.2f}"]
            )
    columns = ["device", "network", "T", "batch", "points", *train_step.NAMES.values()]
    return table([*columns, "10^6 points/s, LS", "GFLOP/s, LS", "of a product's"], lines)


def pde_solvers_table(results: Sequence[Result]) -> str:
    """Solved problems a minute, and another library's time for its part."""
    lines = [
        [label(result["environment"]), row["problem"], row["part"].replace("_", " and ")]
        + [row["solver"].replace("mtl_jax", "this package"), f"{row['per_minute']:,}"]
        + [f"{row['over_ours']:.2f}"]
        for result in results
        for row in result["rows"]
    ]
    return table(["device", "problem", "part", "program", "a minute", "time over ours"], lines)


def method_step_table(results: Sequence[Result]) -> str:
    """Ratios to LS by method, and those of the compiler's memory behind them; a table a device."""
    parts = []
    for result in results:
        cells = _groups(result["rows"], "model", "tasks")
        head = [f"{models.NAMES[model]}, T = {tasks}" for model, tasks in cells]
        lines = []
        for name in dict.fromkeys(row["method"] for row in result["rows"]):
            rows = [[row for row in group if row["method"] == name] for group in cells.values()]
            shown = [f"{own[0]['over_ls']:.2f} ({own[0]['over_ls_memory']:.2f})" if own else ""
                     for own in rows]  # fmt: skip
            lines.append([f"`{name}`", *shown])
        parts.append(f"{label(result['environment'])}:\n\n{table(['method', *head], lines)}")
    return "\n\n".join(parts)


def aggregation_table(results: Sequence[Result]) -> str:
    """Bytes by collective and time, whole sums beside scattered ones."""
    lines = []
    for result in results:
        for row in result["rows"]:
            parts = [row[f"{kind}_mb"] for kind in ("all_reduce", "reduce_scatter", "all_gather")]
            lines.append(
                [str(row["tasks"]), row["reduce"], " / ".join(_number(part) for part in parts)]
                + [f"{_number(row['sent_mb'])} ({row['sent_over_all']:.2f})"]
                + [f"{_number(row['median_ms'])} ({row['over_all']:.2f})"]
            )
    head = ["T", "reduce", "results of all-reduce / reduce-scatter / all-gather, MB"]
    return table([*head, "sent by a device, MB (over all)", "ms a step (over all)"], lines)


def versus_weights_table(results: Sequence[Result]) -> str:
    """Times and errors of both sides by solver and number of tasks."""
    lines = []
    for result in results:
        for row in result["rows"]:
            theirs = row.get("absent", "")
            if not theirs:
                theirs = f"{_number(row['jax_us'])} / {_number(row['torchjd_us'])} ="
                theirs += f" {row['ratio']:.2g}"
            errors = [
                f"{row[f'{side}_error']:.0e} ({row[f'{side}_worst']:.0e})"
                if f"{side}_error" in row
                else ""
                for side in ("jax", "torchjd")
            ]
            device = label(result["environment"])
            lines.append([device, row["solver"], str(row["tasks"]), theirs, *errors])
    head = ["device", "weights", "T", "us, ours / theirs", "our error (worst)", "their error"]
    return table([*head[:-1], "their error (worst)"], lines)


TABLES: dict[str, tuple[str, Callable[[Sequence[Result]], str]]] = {
    "train_step": (
        "The whole training step, host batch to new parameters, in ms; in brackets the ratio to LS"
        " of the same run, and that ratio over the counted floor (per-task gradients cost"
        " (1 + 2T) / 3 plain steps, flat regions (1 + 5T) / 3).",
        train_step_table,
    ),
    "task_grads": (
        "Gradients alone: time over the counted floor, by strategy (1 is a step in which nothing"
        " but the counted passes takes time; below it are parts that the floor counts too high).",
        task_grads_table,
    ),
    "versus_torchjd": (
        "Against torch and torchjd in one run on the same cores, parameters and batch: JAX ms /"
        " torch ms = ratio (below 1 JAX is faster). Up to the gradient, no optimiser; PCGrad,"
        " UPGrad and MGDA by torchjd, the rest in eager torch, in its default memory format and"
        " channels last.",
        versus_table,
    ),
    "versus_authors": (
        "The whole FS-CAGrad step against that of the FS-MTL authors' own script, both on this"
        " CPU: ms a step, ratio (below 1 this package is faster).",
        authors_table,
    ),
    "versus_deepxde": (
        "Against DeepXDE in one run on the same cores: MT-DeepONet's Fisher network from the same"
        " parameters, B functions at N query points a step, Adam, each in its own training loop."
        " Last, the time over that of this package's same computation (above 1 this"
        " package is faster).",
        deepxde_table,
    ),
    "versus_rechub": (
        "Against Torch-RecHub in one run on the same cores and rows: two tasks,"
        f" {versus_rechub.FIELDS} columns of {versus_rechub.SIZE:,} ids, {versus_rechub.BATCH:,}"
        " examples a step, Adam. Without its batch normalisation it computes the same as this"
        " package, from the same parameters. Last, the time over that of this package's loop"
        " (where its loader runs) or step, and the quartiles over rounds (above 1 this package is"
        " faster).",
        rechub_table,
    ),
    "embedding_step": (
        "The step of a small model with one large embedding table, by number of its rows: dense"
        " Adam moves all of them, the other updates those that a batch touches.",
        embedding_step_table,
    ),
    "dtrn_step": (
        "The whole training step of DTRN, LS, three tasks and three histories of ten events,"
        f" {dtrn_step.BATCH:,} examples, with the ratio to one shared transformer of the same run.",
        dtrn_step_table,
    ),
    "operator_step": (
        "The whole training step of MT-DeepONet's networks on random samples of the experiments'"
        " shapes, in ms, in brackets the ratio to LS of the same run; and the share of the FLOP/s"
        f" of a product of two {operator_step.SIZE} x {operator_step.SIZE} matrices.",
        operator_step_table,
    ),
    "pde_solvers": (
        "Solved problems: a sample of a set as it is made, and the part of it that a library of"
        " finite elements would do.",
        pde_solvers_table,
    ),
    "solvers": (
        "Weights of an aggregator from its T x T Gram matrix in float32, and the relative error of"
        " the direction against float64 references: the median over five families of gradients"
        " (worst T), and the worst of all.",
        solvers_table,
    ),
    "versus_torchjd_weights": (
        "The same weights against TorchJD's, from the same matrices on the same cores: microseconds"
        " and their ratio (below 1 this package is faster); errors of the direction at equal"
        " length, median and worst over the families.",
        versus_weights_table,
    ),
    "aggregation_bytes": (
        "Task gradients summed over eight forced CPU devices, whole (`all`) or shared out"
        " (`scatter`), CAGrad: bytes of the results on a device, read from the compiled program,"
        " what a device sends where collectives run along rings, and the step's time here, which"
        " says nothing of a network.",
        aggregation_table,
    ),
    "method_step": (
        "Every method's whole training step over that of LS in the same turns, without options, and"
        " flat regions (`fs_`) around three of them; in brackets the same of the temporary memory"
        " that the compiler reports.",
        method_step_table,
    ),
    "dispatch": (
        "One call of a step without arithmetic, in microseconds.",
        dispatch_table,
    ),
}


def tables(results: Sequence[Result]) -> str:
    """What stands between the README's markers."""
    if not results:
        return "No results yet: run `make bench`."
    parts = []
    for name, (caption, make) in TABLES.items():
        mine = [result for result in results if result["benchmark"] == name]
        if mine:
            parts += [caption, make(mine)]
    parts.append(_notes(results))
    return "\n\n".join(parts)


def _notes(results: Sequence[Result]) -> str:
    lines = []
    for result in results:
        env = result["environment"]
        versions = f"jax {env['packages']['jax']}, jaxlib {env['packages']['jaxlib']}"
        if "authors" in env:
            versions += f", torch {env['authors']['torch']}"
        if "torch" in env:
            versions += (
                f", torch {env['torch']['torch']}, torchjd {env['torch']['torchjd']},"
                f" {env['threads']} threads each"
            )
        for backend, side in env.get("deepxde", {}).items():
            library = "torch" if backend == "pytorch" else backend
            versions += f", deepxde {side['deepxde']} on {library} {side[library]}"
        if "rechub" in env:
            theirs = env["rechub"]
            versions += f", torch-rechub {theirs['torch_rechub']}, torch {theirs['torch']}"
        if "deepxde" in env or "rechub" in env:
            versions += f", {env['threads']} threads each"
        lines.append(
            f"- `{result['benchmark']}`, {label(env)}: {env['date'][:10]}, {versions},"
            f" Python {env['python']}; load before and after {env['load_average'][0]:g},"
            f" {env['load_average_after'][0]:g}{'' if result['full'] else '; short form'}."
        )
    return "\n".join(
        ["Times are medians over rounds in which all that is compared takes turns.", "", *lines]
    )
