"""ERM against flat regions (FS) for eight base methods: `make results-fsmtl`.

One cell = data set x base method x {ERM, FS} x seed, trained by the ordinary loop in its own run
folder; a cell that is done is not run again, so the study can be interrupted at any time. Both
sides of a pair share seed, initial parameters, batches and data. From the per-example outcomes on
the test pairs follow the difference FS - ERM and its interval: a bootstrap over seeds and, within
them, over test images, paired. F-LS (linear scalarisation with flat regions) is the control: it
tells what flatness does without an aggregator.

    make results-fsmtl                                  # LeNet, 5,000 sources, hours on 2 cores
    make results-fsmtl ARGS="--seeds 1 --methods cagrad,pcgrad"     # a part of it
    make results-fsmtl ARGS=--scale=paper               # ResNet-18, 200 epochs, for a GPU
    make results-fsmtl ARGS=--table-only                # only write the table again

Writes `experiments/fsmtl/results/<scale>.json` and the table between the README's markers.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.fsmtl import multi_mnist, multi_mnist_paper
from mtl_jax import run as runs
from mtl_jax.config import FlatConfig, MethodConfig
from mtl_jax.engine.runfolder import public_environment, write_json_atomic
from mtl_jax.errors import Parser, UserError, did_you_mean, run_command
from mtl_jax.reporting.markdown import write_between
from mtl_jax.run import Run
from mtl_jax.systems.vision.config import Config
from mtl_jax.train import train

METHODS = {
    "linear_scalarization": "LS",
    "mgda": "MGDA",
    "pcgrad": "PCGrad",
    "cagrad": "CAGrad",
    "imtl_g": "IMTL-G",
    "nash_mtl": "Nash-MTL",
    "fairgrad": "FairGrad",
    "upgrad": "UPGrad",
}
DATASETS = {"multi_mnist": "Multi-MNIST", "multi_fashion": "Multi-Fashion"}
RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- results:fsmtl:begin -->", "<!-- results:fsmtl:end -->"
RESAMPLES = 2000


def cell_config(scale: str, dataset: str, method: str, flat: bool, seed: int) -> Config:
    """The config of one cell: the experiment file of its scale, with this method and seed."""
    base = (multi_mnist_paper if scale == "paper" else multi_mnist).get_config()
    size = "full" if scale == "paper" else "small"
    flat_config = base.method.flat if flat else FlatConfig(combine="erm")
    config = dataclasses.replace(
        base,
        name=f"{dataset}-{method}-{'fs' if flat else 'erm'}-{seed}",
        seed=seed,
        data=dataclasses.replace(base.data, name=f"{dataset}/{size}"),
        method=MethodConfig(aggregator=method, flat=flat_config),
        train=dataclasses.replace(base.train, report=False, log_every=base.train.log_every * 4),
    )
    config.check()
    return config


def outcomes(run: Run, workdir: Path) -> dict[str, np.ndarray]:
    """Whether each test prediction is right, [N, T] bool, for the best and the last checkpoint."""

    def right(state: Any, resident: Any, host: Any) -> Any:
        batch = run.data.assemble(resident, host, None)
        said = run.system.predict(state.params, state.model_state, batch)["probability"]  # type: ignore[misc]
        return said.argmax(-1) == batch["label"]

    compiled, found = jax.jit(right), {}
    for which in ("best", "last"):
        state, _ = runs.restore(run, workdir, which, log=lambda line: None)
        parts = []
        for host in run.data.eval_batches("test"):
            correct = np.asarray(compiled(state, run.data.resident, host))
            parts.append(correct[np.asarray(host["mask"]) > 0])
        found[which] = np.concatenate(parts)
    return found


def run_cell(root: Path, config: Config) -> None:
    """Trains one cell unless it is done, and keeps its outcomes in `root / config.name`."""
    folder = root / config.name
    done = folder / "outcomes.npz"
    if done.exists():
        return
    began = time.perf_counter()
    train(config, folder)
    right = outcomes(runs.build(config), folder)
    with open(folder / "outcomes.tmp", "wb") as file:
        np.savez_compressed(
            file,
            best=right["best"],
            last=right["last"],
            seconds=time.perf_counter() - began,
        )
    (folder / "outcomes.tmp").rename(done)


def read_cell(root: Path, name: str) -> dict[str, np.ndarray] | None:
    """The outcomes of a cell, or None if it has not been run."""
    path = root / name / "outcomes.npz"
    return dict(np.load(path)) if path.exists() else None


def paired_interval(erm: np.ndarray, fs: np.ndarray) -> tuple[float, float, float]:
    """Difference FS - ERM of the mean accuracy over tasks, in %, with its 95 % interval.

    Args:
      erm: [S, N, T] bool outcomes on the same test pairs for S seeds.
      fs: the same for FS.

    Returns:
      (difference, lower, upper): a paired bootstrap that draws seeds and, for each, test pairs.
      Pairs share source images (two a source), which it does not model.
    """
    gain = 100.0 * (fs.astype(np.float64) - erm).mean(-1)  # [S, N]
    rng = np.random.default_rng(0)
    seeds, pairs = gain.shape
    draws = np.empty(RESAMPLES)
    for k in range(RESAMPLES):
        rows = rng.integers(0, seeds, seeds)
        columns = rng.integers(0, pairs, (seeds, pairs))
        draws[k] = gain[rows[:, None], columns].mean()
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(gain.mean()), float(low), float(high)


def summarise(root: Path, scale: str, seeds: range) -> dict[str, Any]:
    """Everything the table shows, from the cells that are done."""
    rows = []
    for dataset in DATASETS:
        for method in METHODS:
            cells: dict[bool, list[dict[str, np.ndarray]]] = {False: [], True: []}
            used = []
            for seed in seeds:
                pair = [
                    read_cell(root, cell_config(scale, dataset, method, flat, seed).name)
                    for flat in (False, True)
                ]
                if pair[0] is None or pair[1] is None:
                    continue
                used.append(seed)
                cells[False].append(pair[0])
                cells[True].append(pair[1])
            if not used:
                continue
            row: dict[str, Any] = {"dataset": dataset, "method": method, "seeds": used}
            for which in ("best", "last"):
                stacks = {flat: np.stack([cell[which] for cell in cells[flat]]) for flat in cells}
                for flat, name in ((False, "erm"), (True, "fs")):
                    per_seed = 100.0 * stacks[flat].mean(axis=(1, 2))
                    row[f"{name}/{which}"] = per_seed.tolist()
                    row[f"{name}/{which}/tasks"] = (100.0 * stacks[flat].mean(axis=(0, 1))).tolist()
                row[f"gain/{which}"] = paired_interval(stacks[False], stacks[True])
            for flat, name in ((False, "erm"), (True, "fs")):
                row[f"{name}/seconds"] = [float(cell["seconds"]) for cell in cells[flat]]
            row["test_pairs"] = int(cells[False][0]["last"].shape[0])
            rows.append(row)
    return {"scale": scale, "rows": rows, "environment": public_environment()}


def table(summary: dict[str, Any]) -> str:
    """The README's table."""
    if not summary["rows"]:
        return "No results yet: run `make results-fsmtl`."
    example = cell_config(summary["scale"], "multi_mnist", "cagrad", True, 0)
    flat = example.method.flat
    lines = [
        "Test accuracy in %, mean over both tasks and over seeds, +- standard deviation over seeds."
        f" {example.model.name}, {example.train.epochs} epochs of {example.data.pairs} pairs, batch"
        f" {example.train.batch_size}, {example.optim.name} {example.optim.lr:g}; FS:"
        f" {'adaptive ' if flat.adaptive else ''}rho {flat.rho:g}, {flat.norm} norm,"
        f" {flat.combine}. `selected` is the epoch that is best on validation, `last` the last"
        " one. The gain is FS - ERM of the last epoch with a 95 % paired bootstrap interval over"
        " seeds and test pairs; an interval that holds 0 shows no difference. LS with FS is the"
        f" control. Device: {summary['environment']['device_kind']}.",
        "",
        "| data | method | seeds | ERM selected | ERM last | FS selected | FS last | gain (last) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]

    def cell(values: list[float]) -> str:
        if len(values) < 2:
            return f"{values[0]:.2f}"
        return f"{np.mean(values):.2f} +- {np.std(values, ddof=1):.2f}"

    for row in summary["rows"]:
        gain, low, high = row["gain/last"]
        lines.append(
            f"| {DATASETS[row['dataset']]} | {METHODS[row['method']]} | {len(row['seeds'])}"
            f" | {cell(row['erm/best'])} | {cell(row['erm/last'])} | {cell(row['fs/best'])}"
            f" | {cell(row['fs/last'])} | {gain:+.2f} [{low:+.2f}, {high:+.2f}] |"
        )
    counts = sorted({row["test_pairs"] for row in summary["rows"]})
    lines += ["", f"Test pairs: {', '.join(map(str, counts))}. Data: experiments/fsmtl/results/."]
    return "\n".join([*lines, "", in_words(summary["rows"])])


def in_words(rows: list[dict[str, Any]]) -> str:
    """What the gains of the last epoch say together, the control set against the rest."""
    gains = [row["gain/last"] for row in rows]
    parts = []
    for dataset, name in DATASETS.items():
        own = {row["method"]: row["gain/last"][0] for row in rows if row["dataset"] == dataset}
        control = own.pop("linear_scalarization", None)
        if own and control is not None:
            mean = float(np.mean(list(own.values())))
            parts.append(f"{name} {mean:+.2f} over the other methods, {control:+.2f} for LS")
    text = (
        f"In short: FS is ahead in {sum(gain > 0 for gain, _, _ in gains)} of {len(gains)} rows, by"
        f" more than chance (the interval is above 0) in {sum(low > 0 for _, low, _ in gains)}, and"
        f" behind by more than chance in {sum(high < 0 for _, _, high in gains)}."
    )
    if parts:
        text += f" Mean gains: {'; '.join(parts)}."
        text += " LS has no aggregator: its gain is the flat regions' own."
    return text


def cells(datasets: list[str], methods: list[str], seeds: range) -> Iterator[tuple]:
    """All cells, seeds outermost, so that an interrupted study has whole comparisons."""
    for seed in seeds:
        for dataset in datasets:
            for method in methods:
                for flat in (False, True):
                    yield dataset, method, flat, seed


def _names(text: str, known: dict[str, str]) -> list[str]:
    names = text.split(",") if text else list(known)
    for name in names:
        if name not in known:
            raise UserError(f"unknown name {name!r}; {did_you_mean(name, known)}")
    return names


def main(argv: list[str]) -> None:
    """The command."""
    parser = Parser("python -m experiments.fsmtl.study")
    parser.add_argument("--scale", choices=("cpu", "paper"), default="cpu")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default="", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--datasets", default="", help=f"of {', '.join(DATASETS)}")
    parser.add_argument("--root", type=Path, default=Path("runs/study"))
    parser.add_argument("--table-only", action="store_true")
    args = parser.parse_args(argv)
    if args.seeds < 1:
        raise UserError(f"--seeds is {args.seeds}; it must be 1 or more")
    root = args.root / args.scale
    todo = list(
        cells(_names(args.datasets, DATASETS), _names(args.methods, METHODS), range(args.seeds))
    )
    if not args.table_only:
        for k, cell in enumerate(todo):
            print(f"[{k + 1}/{len(todo)}] {cell}", flush=True)
            run_cell(root, cell_config(args.scale, *cell))
    summary = summarise(root, args.scale, range(args.seeds))
    if not summary["rows"]:
        raise UserError(f"no finished pair of cells in {root}; run the study without --table-only")
    RESULTS.mkdir(exist_ok=True)
    write_json_atomic(RESULTS / f"{args.scale}.json", summary)
    if args.scale == "cpu":
        write_between(README, BEGIN, END, table(summary))
    print(table(json.loads(json.dumps(summary))))


if __name__ == "__main__":
    run_command(main)
