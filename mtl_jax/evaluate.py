"""Scores a run folder: `python -m mtl_jax.evaluate --workdir DIR [--split test] [--which best]`."""

from __future__ import annotations

from pathlib import Path

from mtl_jax import run as runs
from mtl_jax.engine.runfolder import write_json_atomic
from mtl_jax.errors import Parser, UserError, did_you_mean, run_command


def main(argv: list[str]) -> None:
    """The command: prints every metric and writes them to `evaluation.json`."""
    parser = Parser("python -m mtl_jax.evaluate", description=__doc__)
    parser.add_argument("--workdir", required=True, help="run folder of mtl_jax.train")
    parser.add_argument("--split", default="", help="one split; default: all of them")
    parser.add_argument("--which", default="best", help="best, last, or a step number")
    args = parser.parse_args(argv)
    workdir = Path(args.workdir)
    which = int(args.which) if args.which.isdecimal() else args.which
    if isinstance(which, str) and which not in ("best", "last"):
        raise UserError(f"--which is {which!r}; it must be best, last or a step number")
    run = runs.open_run(workdir)
    if args.split and args.split not in run.data.splits:
        raise UserError(f"--split is {args.split!r}; {did_you_mean(args.split, run.data.splits)}")
    state, step = runs.restore(run, workdir, which)
    out: dict[str, float] = {"step": step}
    print(f"{workdir}: {args.which} checkpoint, step {step}")
    for split in [args.split] if args.split else run.data.splits:
        values, _ = runs.evaluate(run, state, split)
        for name, value in values.items():
            out[f"{split}/{name}"] = value
            print(f"{split + '/' + name:<32} {value:.5f}")
    write_json_atomic(workdir / "evaluation.json", out)


if __name__ == "__main__":
    run_command(main)
