"""The one exception that means "the user can fix this", and how a command reports it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """A mistake in what the user gave: a config, a data file, a run folder.

    The message is one line that names the value found, the rule it breaks and the way out.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns `"known: a, b, c"`, led by the nearest spelling when there is one."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(names)}"


def run_command(main: Callable[[list[str]], None], argv: list[str] | None = None) -> None:
    """Runs `main(argv)`; a `UserError` becomes one line on stderr and exit code 2."""
    try:
        main(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
