"""The one exception that means "the user can fix this", and how a command reports it."""

from __future__ import annotations

import argparse
import difflib
import errno
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

# What only the user can mend when a file cannot be written or read.
_OF_THE_DISK = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ESTALE,
}


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


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are `UserError`s, without the usage that argparse prints.

    Options cannot be abbreviated: a misspelt one must not pass for another.
    """

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog=prog, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def run_command(main: Callable[[list[str]], None], argv: list[str] | None = None) -> None:
    """Runs `main(argv)`; a `UserError` becomes one line on stderr and exit code 2.

    So do a full or forbidden disk and too little memory, wherever they strike.
    """
    try:
        main(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        line = _one_line(error)
        if line is None:
            raise
        print(f"error: {' '.join(line.split())}", file=sys.stderr)
        raise SystemExit(2) from None


def _one_line(error: Exception) -> str | None:
    """What to tell the user; None for a mistake of the program, which shows its traceback."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; mend that, and give the same command again"
    # JAX has one class for all that goes wrong on a device; it is not imported for its name alone.
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        reason = (str(error).splitlines() or ["no details"])[0][:200]
        return (
            f"out of memory ({reason}); use a smaller train.batch_size, more train.microbatches or"
            " less data"
        )
    return None
