"""Methods on five quick sets: `make compare METHODS="cagrad,my_method"`.

Any method of `mtl_jax/methods/table.py` can be named, one's own row as well. Linear scalarisation
(LS) and single-task networks are always there, and are trained once for all comparisons in a root.

    make compare METHODS="cagrad,my_method"                # about ten minutes on 2 cores
    make compare METHODS=cagrad SEEDS=1 SETS=yeast,rf1     # a minute
    make compare METHODS=cagrad ARGS=--flat                # with flat regions as further rows

One cell = set x method x seed. A cell that is done is not trained again unless its config or the
file of its method has changed, so that an interrupted comparison goes on, and a method that is
being worked on is measured anew. Writes `experiments/compare/results/compare.{json,md,png}`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from experiments.compare import cells as compare
from experiments.compare import tables
from experiments.compare.sets import SETS
from mtl_jax.config import to_dict
from mtl_jax.engine.runfolder import public_environment, write_atomic, write_json_atomic
from mtl_jax.errors import Parser, UserError, run_command

RESULTS = Path(__file__).parent / "results"


def described(root: Path, name: str) -> dict[str, Any]:
    """Returns what is said of a set, kept in the root for the next time."""
    path, config = root / f"{name}.json", json.loads(json.dumps(to_dict(SETS[name].config())))
    try:
        kept = json.loads(path.read_text())
        if kept["config"] == config:
            return kept["about"]
    except (OSError, ValueError, KeyError):
        pass
    about = compare.describe(name)
    root.mkdir(parents=True, exist_ok=True)
    write_json_atomic(path, {"config": config, "about": about})
    return about


def main(argv: list[str]) -> None:
    """The command."""
    parser = Parser("python -m experiments.compare")
    parser.add_argument("--methods", required=True, help="rows of methods/table.py, with commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", default="", help=f"of {', '.join(SETS)}; all by default")
    parser.add_argument("--flat", action="store_true", help="each method with flat regions, too")
    parser.add_argument("--root", type=Path, default=Path("runs/compare"), help="of the cells")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the table")
    parser.add_argument("--table-only", action="store_true", help="train nothing")
    args = parser.parse_args(argv)
    if args.seeds < 1:
        raise UserError(f"--seeds is {args.seeds}; it must be 1 or more")
    rows = compare.methods_of(args.methods, flat=args.flat)
    names = compare.sets_of(args.sets)
    seeds = list(range(args.seeds))
    todo = [
        compare.cell(name, row, seed)
        for name in names
        for row in (compare.SINGLE, *rows)
        for seed in seeds
    ]
    began = time.perf_counter()
    if args.table_only:
        read = {one.name: compare.read_cell(args.root, one) for one in todo}
        found = {name: record for name, record in read.items() if record is not None}
    else:
        found = compare.run_cells(args.root, todo)
    about = {name: described(args.root, name) for name in names}
    summary = {
        **tables.summarise(found, about, rows, seeds),
        "seconds": time.perf_counter() - began,
        "environment": public_environment(),
    }
    if not summary["sets"]:
        raise UserError(
            f"no set in {args.root} has all its cells; run the comparison without --table-only"
        )
    args.results.mkdir(parents=True, exist_ok=True)
    text = tables.markdown(summary)
    tables.draw(summary, args.results / "compare.png")
    write_atomic(args.results / "compare.md", text + "\n")
    write_json_atomic(args.results / "compare.json", summary)
    print(text)


if __name__ == "__main__":
    run_command(main)
