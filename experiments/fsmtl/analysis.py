"""What flat regions do to a network: `make results-analysis`.

Two parts, both CAGrad with and without flat regions (FS), on the LeNet of `multi_mnist.py`:

  flatness    pairs of runs measured by `mtl_jax.analyze`: how far each task's loss rises nearby,
              the largest eigenvalue of its Hessian, conflicts, accuracy under noise in the weights,
              calibration, entropy at home and on the other data set
  robustness  training labels of one or of both tasks that are wrong, or that are missing

Paper: FS-MTL (arXiv 2211.13723), appendix D (calibration, surfaces, entropy). That flat regions
help with few or noisy labels is what this study asks; the rates are chosen here. Epochs are a
quarter of those of `make results-fsmtl`, so that two cores need two hours for three seeds.

    make results-analysis
    make results-analysis ARGS="--parts robustness --seeds 1 --jobs 2"
    make results-analysis ARGS=--table-only

Writes `experiments/fsmtl/results/analysis.json`, figures, and tables between the README's markers.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.fsmtl.study import (
    DATASETS,
    README,
    RESULTS,
    cell_config,
    outcomes,
    paired_interval,
)
from experiments.study_runs import (
    DONE,
    Cell,
    check_flags,
    only_sets,
    run_all,
    save_arrays,
    study_parser,
    train_cell,
)
from mtl_jax import analyze
from mtl_jax.analysis import saved
from mtl_jax.engine.runfolder import public_environment, read_json, write_json_atomic
from mtl_jax.errors import UserError, run_command
from mtl_jax.reporting import markdown

BEGIN, END = "<!-- results:analysis:begin -->", "<!-- results:analysis:end -->"
PARTS = ("flatness", "robustness")
EPOCHS = 10
SEEDS = 3
METHOD = "cagrad"
# (words, label_noise, label_share): the second task alone, and both.
SETTINGS: dict[str, tuple[str, tuple[float, ...], tuple[float, ...]]] = {
    "clean": ("all labels right", (), ()),
    "noise_one": ("40 % of one task's labels wrong", (0.0, 0.4), ()),
    "noise_both": ("40 % of both tasks' labels wrong", (0.4, 0.4), ()),
    "few_one": ("10 % of one task's labels known", (), (1.0, 0.1)),
    "few_both": ("10 % of both tasks' labels known", (), (0.1, 0.1)),
}
# Sections of an analysis that are shown in the README, first seed.
FIGURES = ("gap.png", "noise.png", "reliability.png")


def cell(dataset: str, setting: str, flat: bool, seed: int) -> Cell:
    """A run: the study's, for fewer epochs, with labels damaged as the setting says."""
    base = cell_config("cpu", dataset, METHOD, flat, seed)
    _, noise, share = SETTINGS[setting]
    name = f"{dataset}-{setting}-{_side(flat)}-{seed}"
    data = dataclasses.replace(base.data, label_noise=noise, label_share=share)
    # As many epochs for all: with a tenth of the labels, a step has a tenth of the labels too.
    train = dataclasses.replace(base.train, epochs=EPOCHS)
    config = dataclasses.replace(base, name=name, data=data, train=train)
    config.check()
    return Cell(name, config)


def _side(flat: bool) -> str:
    return "fs" if flat else "erm"


def _cells(part: str, seed: int) -> list[Cell]:
    if part == "flatness":
        return [cell(d, "clean", flat, seed) for d in DATASETS for flat in (False, True)]
    return [cell("multi_mnist", s, flat, seed) for s in SETTINGS for flat in (False, True)]


def run_cell(root: Path, cell: Cell) -> None:
    """Trains one cell unless it is done; keeps whether each test prediction is right."""
    folder = root / cell.name
    if (folder / DONE).exists():
        return
    run, _, record = train_cell(cell, folder)
    save_arrays(folder, outcomes(run, folder))
    write_json_atomic(folder / DONE, record)


def analyse(root: Path, dataset: str, seed: int) -> None:
    """Measures the pair of a seed unless that is done; the analysis is in the folder of FS."""
    fs, erm = (root / cell(dataset, "clean", flat, seed).name for flat in (True, False))
    other = next(name for name in DATASETS if name != dataset)
    if not all((folder / DONE).exists() for folder in (fs, erm)):
        return
    if (fs / saved.FOLDER / "summary.md").exists():
        return
    print(f"analysis of {fs.name} beside {erm.name}", flush=True)
    flags = {"workdir": fs, "compare": erm, "which": "last", "seed": seed, "other": other}
    analyze.main([f"--{name}={value}" for name, value in flags.items()])


def measures(analysis: Mapping[str, Any], label: str) -> dict[str, float]:
    """The numbers of one run that the table has, means over its tasks."""
    parts, at = analysis["parts"], analysis["settings"]
    rho = at["rhos"].index(at["rho"])
    gap, noise = parts["gap"][label], parts["noise"][label]
    home = list(parts["calibration"][label]["tasks"].values())
    top = [own["value"] for own in parts["hessian"][label]["top"]["shared"].values()]
    return {
        "train loss": float(np.mean(gap["train"]["loss"])),
        f"rise of the train loss at rho {at['rho']:g}": float(
            np.mean(gap["train"]["gap_mean"][rho])
        ),
        f"rise of the test loss at rho {at['rho']:g}": float(np.mean(gap["test"]["gap_mean"][rho])),
        "largest eigenvalue": float(np.mean(top)),
        "share of conflicts, %": 100 * parts["conflict"][label]["conflict"],
        "test accuracy, %": 100 * float(np.mean([own["accuracy"] for own in home])),
        "test accuracy under the largest noise, %": 100 * float(np.mean(noise["test"]["mean"][-1])),
        "ECE": float(np.mean([own["ece"] for own in home])),
        "Brier": float(np.mean([own["brier"] for own in home])),
        "entropy at home, nats": float(np.mean([own["entropy"] for own in home])),
        "entropy on the other set, nats": float(np.mean([own["entropy_other"] for own in home])),
        "AUROC of that entropy": float(np.mean([own["entropy_auroc"] for own in home])),
    }


def flatness(root: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Measures by data set, side and seed, of the pairs that have been analysed."""
    found: dict[str, Any] = {}
    for dataset in DATASETS:
        for seed in seeds:
            fs, erm = (cell(dataset, "clean", flat, seed).name for flat in (True, False))
            path = root / fs / saved.FOLDER / saved.FILE
            if not path.exists():
                continue
            analysis = read_json(path)
            own = found.setdefault(dataset, {"seeds": [], "erm": [], "fs": []})
            own["seeds"].append(seed)
            for side, name in (("erm", erm), ("fs", fs)):
                own[side].append(measures(analysis, name))
    return found


def robustness(root: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Test accuracies by setting, and the paired gain of FS, of the pairs that are done."""
    found: dict[str, Any] = {}
    for setting in SETTINGS:
        pairs = []
        for seed in seeds:
            paths = [
                root / cell("multi_mnist", setting, flat, seed).name / "cell.npz"
                for flat in (False, True)
            ]
            if all((path.parent / DONE).exists() for path in paths):
                pairs.append([dict(np.load(path)) for path in paths])
        if not pairs:
            continue
        found[setting] = {"seeds": len(pairs)}
        for which in ("best", "last"):
            erm, fs = (np.stack([pair[k][which] for pair in pairs]) for k in (0, 1))
            found[setting][which] = {
                "erm": (100 * erm.mean(1)).tolist(),
                "fs": (100 * fs.mean(1)).tolist(),
                "gain": paired_interval(erm, fs),
                # Of each task: where one task alone is hit, the other shows what leaks over.
                "gains": [paired_interval(erm[..., [t]], fs[..., [t]]) for t in range(2)],
                "test": int(erm.shape[1]),
            }
    return found


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.4g}"
    return f"{np.mean(values):.4g} ± {np.std(values, ddof=1):.2g}"


def _percent(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.2f}"
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def _interval(found: Sequence[float]) -> str:
    gain, low, high = found
    return f"{gain:+.2f} [{low:+.2f}, {high:+.2f}]"


def tables(found: Mapping[str, Any]) -> str:
    """The README's text."""
    lines = []
    config: Any = cell("multi_mnist", "clean", True, 0).config
    about = (
        f"{config.model.name}, CAGrad, {EPOCHS} epochs of {config.data.pairs} pairs, batch"
        f" {config.train.batch_size}, device {found['environment']['device_kind']}"
    )
    for dataset, own in found["flatness"].items():
        lines += [
            f"{DATASETS[dataset]}, checkpoint of the last epoch, means over both tasks and over"
            f" {len(own['seeds'])} seed(s), ± standard deviation over seeds ({about}). In how many"
            " seeds FS is lower stands last.",
            "",
        ]
        rows = []
        for name in own["erm"][0]:
            erm, fs = ([one[name] for one in own[side]] for side in ("erm", "fs"))
            lower = sum(b < a for a, b in zip(erm, fs, strict=True))
            rows.append([name, _spread(erm), _spread(fs), f"{lower} of {len(erm)}"])
        lines += [markdown.table(["measure", "ERM", "FS", "FS lower"], rows), ""]
        lines += [
            f"![{DATASETS[dataset]}: {name.partition('.')[0]}]"
            f"(experiments/fsmtl/results/analysis_{dataset}_{name})"
            for name in FIGURES
        ] + [""]
    if found["robustness"]:
        first = next(iter(found["robustness"].values()))
        lines += [
            f"Damaged training labels on Multi-MNIST, test accuracy in % ({about}; test pairs"
            f" {first['last']['test']}, labels of validation and test are right). The second task"
            " is the one that is hit alone. Gains are FS - ERM of the last epoch, paired bootstrap"
            " over seeds and test pairs.",
            "",
        ]
        rows = []
        for setting, own in found["robustness"].items():
            last = own["last"]
            rows.append(
                [
                    SETTINGS[setting][0],
                    str(own["seeds"]),
                    *(_percent(np.mean(own[w][s], 1).tolist()) for w, s in _SIDES),
                    *(_interval(gain) for gain in (last["gain"], *last["gains"])),
                ]
            )
        head = ["labels", "seeds", "ERM selected", "FS selected", "ERM last", "FS last"]
        head += ["gain", "first task", "second task"]
        lines += [markdown.table(head, rows), ""]
    return "\n".join(lines).rstrip()


_SIDES = (("best", "erm"), ("best", "fs"), ("last", "erm"), ("last", "fs"))


def main(argv: list[str]) -> None:
    """The command."""
    parser = study_parser("python -m experiments.fsmtl.analysis", PARTS, SEEDS, "runs/analysis")
    parser.set_defaults(name="analysis")
    args = parser.parse_args(argv)
    chosen, seeds = check_flags(args, PARTS), range(args.seeds)
    if not args.table_only:
        todo = {c.name: c for seed in seeds for part in chosen for c in _cells(part, seed)}
        run_all(run_cell, args.root, only_sets(list(todo.values()), args.sets), args.jobs)
        if "flatness" in chosen:
            for seed in seeds:
                for dataset in DATASETS:
                    analyse(args.root, dataset, seed)
    found: dict[str, Any] = {
        "epochs": EPOCHS,
        "flatness": flatness(args.root, seeds),
        "robustness": robustness(args.root, seeds),
        "environment": public_environment(),
    }
    if not found["flatness"] and not found["robustness"]:
        raise UserError(f"no finished pair in {args.root}; run the study without --table-only")
    RESULTS.mkdir(exist_ok=True)
    write_json_atomic(RESULTS / f"{args.name}.json", found)
    for dataset, own in found["flatness"].items():
        folder = args.root / cell(dataset, "clean", True, own["seeds"][0]).name / saved.FOLDER
        for name in FIGURES:
            shutil.copyfile(folder / name, RESULTS / f"analysis_{dataset}_{name}")
    text = tables(found)
    markdown.write_between(README, BEGIN, END, text)
    print(text)


if __name__ == "__main__":
    run_command(main)
