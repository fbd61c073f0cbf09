"""Where scalars go: a table on stdout, `metrics.jsonl`, and TensorBoard if asked for.

`metrics.jsonl` is the record; the table and TensorBoard are views. One line is
`{"step": 10, "kind": "train", "time": 1767225600.0, "values": {"loss/left": 0.69}}`, with time in
seconds since 1970. JSON has no NaN: "NaN", "Infinity" and "-Infinity" are written as strings, and
`read_metrics` turns them into floats again.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TextIO

import jax

from mtl_jax.engine.runfolder import write_atomic
from mtl_jax.errors import UserError

Kind = Literal["train", "eval"]
NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
FILE = "metrics.jsonl"


class Writers:
    """Writes scalars; on processes other than 0 it does nothing.

    Write what belongs to a step before saving its checkpoint: a run that resumes from that
    checkpoint then finds the lines of its past, all of them once.

    Args:
      workdir: the run folder.
      tensorboard: write TensorBoard events to `workdir/events` too.
      resume_step: the step of the restored checkpoint: lines of later steps are dropped, as is a
        half-written last line. None for a run from the start: all old lines are dropped.
      stream: where the table goes; None for stdout.

    Raises:
      UserError: TensorBoard is asked for and tensorboardX is not installed, or the disk is full.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        tensorboard: bool = False,
        *,
        resume_step: int | None = None,
        stream: TextIO | None = None,
    ) -> None:
        self._active = jax.process_index() == 0
        self._events: Any = None
        if not self._active:
            return
        self._path = Path(workdir) / FILE
        self._table = _Table(stream or sys.stdout)
        last = -1 if resume_step is None else resume_step
        _truncate(self._path, last)
        if tensorboard:
            folder = str(Path(workdir) / "events")
            self._events = event_writer_class()(folder, purge_step=last + 1)
        self._file = self._path.open("ab", buffering=0)

    def write(self, step: int, scalars: Mapping[str, float], kind: Kind = "train") -> None:
        """Writes the scalars of one step.

        Args:
          step: number of updates done.
          scalars: real numbers by name.
          kind: "train" for a training interval, "eval" for an evaluation.

        Raises:
          UserError: the disk is full, or the folder is gone.
        """
        if not self._active:
            return
        values = {name: _plain(value) for name, value in scalars.items()}
        record = {
            "step": int(step),
            "kind": kind,
            "time": round(time.time(), 3),
            "values": {name: _to_json(value) for name, value in values.items()},
        }
        self._append(json.dumps(record, allow_nan=False).encode() + b"\n")
        self._table.row(step, kind, values)
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(f"{kind}/{name}", value, step)
            self._events.flush()

    def _append(self, line: bytes) -> None:
        # Unbuffered: what does not fit must not be written later, after the run has stopped.
        size = os.fstat(self._file.fileno()).st_size
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self._file.fileno(), size)
            raise UserError(
                f"cannot write {self._path}: {error.strerror}; make space, and the same command"
                " resumes from the last checkpoint"
            ) from error

    def close(self) -> None:
        """Closes the files."""
        if self._active:
            self._file.close()
            if self._events is not None:
                self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads `metrics.jsonl`: one dict a line, in the order written; [] if there is none.

    A half-written last line, as a killed or a running trainer leaves it, is passed over.

    Raises:
      UserError: another line is not a record.
    """
    path = Path(workdir) / FILE
    records = []
    for number, line in enumerate(_lines(path), 1):
        record = _parse(line)
        if record is None:
            raise UserError(f"{path}, line {number}, is no record of metrics; delete that line")
        values = {name: NON_FINITE.get(v, v) for name, v in record["values"].items()}
        records.append({**record, "values": values})
    return records


def _lines(path: Path) -> list[str]:
    """The whole lines of a file; what follows the last newline is no line yet."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; mend or delete it") from error
    return text.decode("utf-8", "replace").split("\n")[:-1]


def _parse(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
        numbers = [NON_FINITE.get(value, value) for value in record["values"].values()]
        whole = isinstance(record["step"], int) and isinstance(record["kind"], str)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return record if whole and all(isinstance(x, int | float) for x in numbers) else None


def _truncate(path: Path, last: int) -> None:
    """Keeps the records up to step `last`; the file is the old one or the new one at any time."""
    if not path.exists():
        return
    records = ((line, _parse(line)) for line in _lines(path))
    kept = [line for line, record in records if record is not None and record["step"] <= last]
    write_atomic(path, "".join(f"{line}\n" for line in kept))


def _plain(value: Any) -> int | float:
    """A Python number; NumPy and JAX scalars are converted."""
    if isinstance(value, bool | int | float):
        return value
    return value.item()


def _to_json(value: int | float) -> int | float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def event_writer_class() -> Any:
    """Returns tensorboardX's SummaryWriter; a `UserError` where it is not installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UserError(
            "TensorBoard events need tensorboardX, which is not installed;"
            " pip install 'mtl_jax[tensorboard]', or set train.tensorboard=False"
        ) from None
    return SummaryWriter


class _Table:
    """Aligned columns; the header again every 20 rows and whenever the columns change."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._header: tuple[str, ...] = ()
        self._rows = 0

    def row(self, step: int, kind: str, values: Mapping[str, int | float]) -> None:
        tty = self._stream.isatty()
        room = (shutil.get_terminal_size().columns if tty else 160) - 15
        names: list[str] = []
        for name in values:
            room -= _width(name) + 1
            if room < 0:
                break
            names.append(name)
        if (kind, *names) != self._header or self._rows >= 20:
            self._header, self._rows = (kind, *names), 0
            hidden = len(values) - len(names)
            cells = [f"{name:>{_width(name)}}" for name in names]
            line = " ".join([f"{'step':>8} {'':5}", *cells, *([f"+{hidden}"] if hidden else [])])
            bold = tty and not os.environ.get("NO_COLOR")
            print(f"\x1b[1m{line}\x1b[0m" if bold else line, file=self._stream)
        self._rows += 1
        cells = [f"{_format(values[name]):>{_width(name)}}" for name in names]
        print(" ".join([f"{step:>8} {kind:5}", *cells]), file=self._stream, flush=True)


def _width(name: str) -> int:
    return max(len(name), 9)


def _format(value: int | float) -> str:
    """Four digits, in at most nine characters."""
    if isinstance(value, int) and abs(value) < 10**8:
        return str(value)
    size = abs(value)
    if size and not 1e-3 <= size < 1e6:
        return f"{value:.2e}"
    return f"{value:.0f}" if size >= 1e3 else f"{value:.4g}"
