"""Predicts with a run folder: `python -m mtl_jax.predict --workdir DIR --input IN --output OUT`.

What the files hold is the system's business: see its `predict_file`.
"""

from __future__ import annotations

from pathlib import Path

from mtl_jax import config as configs
from mtl_jax import run as runs
from mtl_jax.errors import Parser, UserError, run_command


def main(argv: list[str]) -> None:
    """The command: reads the input, writes the output whole or not at all."""
    parser = Parser("python -m mtl_jax.predict", description=__doc__)
    parser.add_argument("--workdir", required=True, help="run folder of mtl_jax.train")
    parser.add_argument("--input", required=True, help="file with the cases to predict")
    parser.add_argument("--output", required=True, help="file to write")
    parser.add_argument("--which", default="best", help="best, last, or a step number")
    args = parser.parse_args(argv)
    if args.which not in ("best", "last") and not args.which.isdecimal():
        raise UserError(f"--which is {args.which!r}; it must be best, last or a step number")
    source, target = Path(args.input), Path(args.output)
    if not target.absolute().parent.is_dir():
        raise UserError(f"--output is {target}, whose folder does not exist; make it first")
    if target.is_dir():
        raise UserError(f"--output is {target}, which is a folder; name a file in it")
    if target.resolve() == source.resolve():
        raise UserError(f"--output is {target}, the input itself; name another file")
    workdir = Path(args.workdir)
    run = runs.open_run(workdir)
    system = configs.system_module(run.config.system)
    if not hasattr(system, "predict_file"):
        raise UserError(f"{workdir} holds a run of {run.config.system}, which reads no files yet")
    which = int(args.which) if args.which.isdecimal() else args.which
    state, step = runs.restore(run, workdir, which)
    print(f"{workdir}: {args.which} checkpoint, step {step}")
    print(system.predict_file(run, state, source, target))


if __name__ == "__main__":
    run_command(main)
