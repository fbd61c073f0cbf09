"""What flat regions did to a trained model: `python -m mtl_jax.analyze --workdir DIR`.

Parts: `gap`, how far each task's loss rises at its worst point nearby; `hessian`, the largest
eigenvalue of each task; `conflict`, cosines between task gradients; `noise`, metrics under noise in
the weights; `calibration`, of classification heads; `landscape`, the loss surface. With `--compare`
a second run of the same tasks, such as one without flat regions, stands beside the first.

It writes DIR/analysis/analysis.json, summary.md and figures, and prints the summary. All of it is
of the last command; numbers follow from the checkpoint and `--seed`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mtl_jax.analysis import calibration, conflict, gap, hessian, noise, saved, surface
from mtl_jax.analysis.subject import NotApplicable, Subject, open_subject, plain
from mtl_jax.engine import parallel
from mtl_jax.engine.runfolder import public_environment, write_atomic, write_json_atomic
from mtl_jax.errors import Parser, UserError, did_you_mean, run_command
from mtl_jax.methods.perturbation import Perturbation
from mtl_jax.reporting import markdown
from mtl_jax.reporting.facts import method_in_words
from mtl_jax.reporting.figures import Section
from mtl_jax.reporting.page import Table

PARTS = ("gap", "hessian", "conflict", "noise", "calibration", "landscape")


class Options(NamedTuple):
    """What is measured; everything but `ball`, `rhos` and `radii` as on the command line.

    Attributes:
      split: evaluation split, besides "train".
      batches: of the training batch size, for the gap and the noise. The Hessian takes half as
        many, whose products are dear; the conflict four times as many, a share of which it counts.
      seed: of examples and directions.
      ball: the perturbation at radius 1.
      rho: radius that tables show.
      rhos: radii of the surrogate gap; `rho` is one of them.
      directions: of the noise.
      radii: of the noise; 0 is the first.
      products: most Hessian-vector products for an eigenvalue.
      other: run folder or data set; "" for none.
    """

    split: str
    batches: int
    seed: int
    ball: Perturbation
    rho: float
    rhos: tuple[float, ...]
    directions: int
    radii: tuple[float, ...]
    products: int
    other: str


class Outcome(NamedTuple):
    """A part that was measured: JSON by label, and how it is shown."""

    values: dict[str, Any]
    section: Section
    table: Table


def main(argv: list[str]) -> None:
    """The command."""
    args = _parser().parse_args(argv)
    parts = _parts(args.parts)
    for name in ("batches", "directions"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} is {getattr(args, name)}; it must be 1 or more")
    if args.products < 2:
        raise UserError(f"--products is {args.products}; it must be 2 or more")
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed is {args.seed}; it must be from 0 to below 2**32")
    rhos = _numbers(args.rhos, "--rhos")
    radii = _numbers(args.radii, "--radii")
    if parallel.process_count() > 1:
        raise UserError("several processes are at work; analyse the run folder in one process")
    subjects = _subjects(args)
    options = _options(args, subjects, rhos, radii)
    folder = subjects[0].workdir / saved.FOLDER
    try:
        folder.mkdir(exist_ok=True)
        for old in folder.glob("*.png"):  # Of another command, and perhaps of other parts.
            old.unlink()
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}; mend or move it") from None
    done, skipped = _measure(parts, subjects, options, folder)
    steps = ", ".join(f"{own.label} {own.step:,}" for own in subjects)
    shown = [
        outcome.section._replace(text=f"{outcome.section.text} Checkpoint: {steps}.")
        for outcome in done.values()
    ]
    write_json_atomic(
        folder / saved.FILE,
        plain(
            {
                "environment": public_environment(),
                "settings": {"which": args.which, "parts": parts, **options._asdict()},
                "runs": {own.label: _describe(own) for own in subjects},
                "parts": {name: outcome.values for name, outcome in done.items()},
                "not_applicable": skipped,
                "sections": saved.as_json(shown),
            }
        ),
    )
    summary = _summary(subjects, done, skipped)
    write_atomic(folder / "summary.md", summary + "\n")
    print(summary)


def _parser() -> Parser:
    parser = Parser("python -m mtl_jax.analyze", description=__doc__)
    parser.add_argument("--workdir", required=True, help="run folder of mtl_jax.train")
    parser.add_argument("--compare", default="", help="second run folder, drawn beside the first")
    parser.add_argument("--which", default="best", help="best, last, or a step number")
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated; default: all")
    parser.add_argument("--split", default="", help="evaluation split; default: test")
    batches = "of the training batch size; half as many for hessian, four times for conflict"
    parser.add_argument("--batches", type=int, default=16, help=batches)
    parser.add_argument("--seed", type=int, default=0, help="of examples and directions")
    parser.add_argument("--rhos", default="", help="radii of the gap; default: around training's")
    ball = "ball of the gap; auto is that of the run with flat regions"
    parser.add_argument("--ball", choices=("auto", "adaptive", "plain"), default="auto", help=ball)
    parser.add_argument("--directions", type=int, default=10, help="of the noise")
    radii = "lengths of the noise; default: shares of the norm of the weights"
    parser.add_argument("--radii", default="", help=radii)
    parser.add_argument("--products", type=int, default=40, help="at most, for an eigenvalue")
    other = "run folder or data set whose test split goes through the same model (calibration)"
    parser.add_argument("--other", default="", help=other)
    return parser


def _parts(text: str) -> tuple[str, ...]:
    parts = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for part in parts:
        if part not in PARTS:
            raise UserError(f"--parts has {part!r}; {did_you_mean(part, PARTS)}")
    return parts


def _numbers(text: str, name: str) -> tuple[float, ...]:
    """Positive numbers in rising order; () for an empty text."""
    if not text:
        return ()
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or not all(0 < x < float("inf") for x in found):
        raise UserError(f"{name} is {text!r}; it must be positive numbers such as 0.5,1,2")
    return tuple(found)


def _subjects(args: Any) -> list[Subject]:
    which = int(args.which) if args.which.isdecimal() else args.which
    if isinstance(which, str) and which not in ("best", "last"):
        raise UserError(f"--which is {which!r}; it must be best, last or a step number")
    folders = [Path(args.workdir)] + ([Path(args.compare)] if args.compare else [])
    names = [folder.resolve().name for folder in folders]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError(f"--compare is {args.compare}, the same folder as --workdir; give another")
    if len(set(names)) < len(names):
        names = [f"{folder.resolve().parent.name}/{folder.resolve().name}" for folder in folders]
    if len(set(names)) < len(names):
        names = ["first", "second"]
    found = [open_subject(folder, which, name) for folder, name in zip(folders, names, strict=True)]
    first, *others = found
    for other in others:
        ours, theirs = first.run.config.system, other.run.config.system
        if ours != theirs or first.tasks != other.tasks:
            raise UserError(
                f"--compare {other.workdir} has the tasks {', '.join(other.tasks)} of {theirs};"
                f" --workdir has {', '.join(first.tasks)} of {ours}; give a run of the same tasks"
            )
    return found


def _options(
    args: Any, subjects: Sequence[Subject], rhos: tuple[float, ...], radii: tuple[float, ...]
) -> Options:
    splits = subjects[0].run.data.splits
    split = args.split or ("test" if "test" in splits else splits[-1])
    if split not in splits:
        raise UserError(f"--split is {split!r}; {did_you_mean(split, splits)}")
    flats = [own.run.config.method.flat for own in subjects]
    ball, rho = gap.common_ball(flats, args.ball)
    if not rhos:
        rhos = gap.radii(rho, ball.adaptive)
        rho = rho if rho in rhos else rhos[gap.FACTORS.index(1.0)]
    elif rho not in rhos:
        rho = rhos[-1]
    if not radii:
        norm = noise.norm_of(subjects[0].params, subjects[0].free)
        radii = tuple(float(f"{share * norm:.4g}") for share in noise.SHARES if share)
    return Options(
        split,
        args.batches,
        args.seed,
        ball,
        rho,
        rhos,
        args.directions,
        (0.0, *radii),
        args.products,
        args.other,
    )


def _measure(
    parts: Sequence[str], subjects: Sequence[Subject], options: Options, folder: Path
) -> tuple[dict[str, Outcome], dict[str, str]]:
    """Returns (what was measured, why the rest does not apply), by part."""
    done: dict[str, Outcome] = {}
    skipped: dict[str, str] = {}
    for part in parts:
        start = time.perf_counter()
        try:
            done[part] = _MEASURE[part](subjects, options, folder)
            _log(f"{part}: {time.perf_counter() - start:.1f} s")
        except NotApplicable as error:
            skipped[part] = str(error)
            _log(f"{part} does not apply: {error}")
    return done, skipped


def _gap(subjects: Sequence[Subject], o: Options, folder: Path) -> Outcome:
    splits = ("train", o.split)
    found = {
        own.label: gap.of_subject(own, splits, o.rhos, o.ball, o.batches, o.seed, _log)
        for own in subjects
    }
    values = {label: gap.as_json(own) for label, own in found.items()}
    return Outcome(values, *gap.present(found, subjects[0].tasks, o.rhos, o.ball, o.rho, folder))


def _hessian(subjects: Sequence[Subject], o: Options, folder: Path) -> Outcome:
    found = {
        own.label: hessian.of_subject(
            own, "train", max(o.batches // 2, 1), o.seed, o.products, _log
        )
        for own in subjects
    }
    values = {label: hessian.as_json(own) for label, own in found.items()}
    return Outcome(values, *hessian.present(found, subjects[0].tasks, folder))


def _conflict(subjects: Sequence[Subject], o: Options, folder: Path) -> Outcome:
    how, tasks = gap.at_radius(o.ball, o.rho), subjects[0].tasks
    found = {own.label: conflict.of_subject(own, how, 4 * o.batches, _log) for own in subjects}
    values = {label: conflict.as_json(own, tasks) for label, own in found.items()}
    return Outcome(values, *conflict.present(found, tasks, folder))


def _noise(subjects: Sequence[Subject], o: Options, folder: Path) -> Outcome:
    splits = ("train", o.split)
    found = {
        own.label: noise.of_subject(own, splits, o.radii, o.directions, o.batches, o.seed, _log)
        for own in subjects
    }
    norms = {own.label: noise.norm_of(own.params, own.free) for own in subjects}
    values = {
        label: {"norm_of_weights": norms[label], **noise.as_json(own)}
        for label, own in found.items()
    }
    return Outcome(values, *noise.present(found, subjects[0].tasks, o.radii, norms, folder))


def _calibration(subjects: Sequence[Subject], o: Options, folder: Path) -> Outcome:
    tasks, found = subjects[0].tasks, {}
    for own in subjects:
        other = calibration.other_data(own, o.other) if o.other else None
        found[own.label] = calibration.of_subject(own, o.split, other, _log)
    values = {label: calibration.as_json(own, tasks) for label, own in found.items()}
    name = Path(o.other).name if Path(o.other).is_dir() else o.other
    return Outcome(values, *calibration.present(found, tasks, o.split, name, folder))


def _landscape(subjects: Sequence[Subject], o: Options, folder: Path) -> Outcome:
    found = {own.label: surface.of_subject(own, o.split, o.seed, _log) for own in subjects}
    values = {label: surface.as_json(own) for label, own in found.items()}
    return Outcome(values, *surface.present(found, subjects[0].tasks, o.split, folder))


_MEASURE: Mapping[str, Callable[[Sequence[Subject], Options, Path], Outcome]] = {
    "gap": _gap,
    "hessian": _hessian,
    "conflict": _conflict,
    "noise": _noise,
    "calibration": _calibration,
    "landscape": _landscape,
}


def _describe(own: Subject) -> dict[str, Any]:
    config = own.run.config
    return {
        "name": config.name,
        "step": own.step,
        "seed": config.seed,
        "method": method_in_words(config),
        "tasks": own.tasks,
        "batch_size": config.train.batch_size,
    }


def _summary(
    subjects: Sequence[Subject], done: Mapping[str, Outcome], skipped: Mapping[str, str]
) -> str:
    """The Markdown summary."""
    lines = [f"# Analysis of {' and '.join(own.label for own in subjects)}", ""]
    for own in subjects:
        lines.append(f"- {own.label}: step {own.step:,}. {method_in_words(own.run.config)}.")
    configs = [own.run.config for own in subjects]
    if any(config.seed != configs[0].seed for config in configs):
        lines.append("- The runs have different seeds, so the mini-batches of the conflict differ.")
    if any(getattr(c, "data", None) != getattr(configs[0], "data", None) for c in configs):
        lines.append("- The runs have different data; each is measured on its own.")
    lines += [f"- {part} does not apply: {why}." for part, why in skipped.items()]
    for outcome in done.values():
        section, table = outcome.section, outcome.table
        lines += ["", f"## {section.title}", "", table.text, ""]
        lines += [markdown.table(table.head, table.rows), ""]
        lines.append(f"Figures: {', '.join(Path(path).name for path in section.figures)}.")
    return "\n".join(lines)


def _log(line: str) -> None:
    """Progress goes to stderr: stdout is the summary."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_command(main)
