"""`python -m mtl_jax.data prepare|verify|list`: the data sets on this machine."""

from __future__ import annotations

from mtl_jax.data.prepare import default_data_dir, prepare, status, verify
from mtl_jax.data.registry import DATASETS
from mtl_jax.errors import Parser, run_command


def _parser() -> Parser:
    parser = Parser("python -m mtl_jax.data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, about in (
        ("prepare", "build a set unless it is whole, and check it"),
        ("verify", "read every record of a set and compare checksums"),
        ("list", "what there is, what it needs and what is prepared"),
    ):
        sub = commands.add_parser(command, help=about, description=about)
        if command != "list":
            sub.add_argument("name", metavar="NAME", help=f"{', '.join(DATASETS)}, or NAME/full")
        sub.add_argument("--data-dir", help=f"where sets are (default {default_data_dir()})")
        if command == "prepare":
            sub.add_argument("--manual-dir", help="a folder with your own raw files")
    return parser


def main(argv: list[str]) -> None:
    """Runs one command line."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "prepare":
        folder = prepare(arguments.name, arguments.data_dir, arguments.manual_dir)
        print(f"{arguments.name}: whole in {folder}")
    elif arguments.command == "verify":
        counts = verify(arguments.name, arguments.data_dir)
        records = ", ".join(f"{count} {split}" for split, count in counts.items())
        print(f"{arguments.name}: every record read, checksums match ({records})")
    else:
        for name, state in status(arguments.data_dir).items():
            spec = DATASETS[name.partition("/")[0]]
            print(f"{name}: {spec.about}; {state}")
            if spec.needs_manual and not state.startswith("whole"):
                print(f"  needs --manual-dir: {spec.manual}")


if __name__ == "__main__":
    run_command(main)
