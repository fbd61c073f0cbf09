"""Reads the columns of a log block by block: CSV, JSON lines or parquet, packed or not."""

from __future__ import annotations

import bz2
import csv
import glob
import gzip
import io
import lzma
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.json

from mtl_jax.data.event_logs.times import compute
from mtl_jax.errors import UserError, did_you_mean

BLOCK_BYTES = 8 << 20
_OPENERS: Mapping[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}
_MISSING = ["", "NULL", "null", "NaN", "nan", "\\N"]


class Block(NamedTuple):
    """Some consecutive rows.

    Attributes:
      file: for messages.
      first: number of the first row, from 1, without the header; JSON lines count lines.
      columns: {name: values}, text or as the file has them.
    """

    file: str
    first: int
    columns: dict[str, pa.Array]

    def where(self, index: int) -> str:
        """Says where row `index` of the block is."""
        return f"{self.file}: row {self.first + index}"


def find_files(path: str) -> list[Path]:
    """Returns the files that `path` names, a file or a pattern with `*`, in order of name."""
    if not path:
        raise UserError("path is empty; give the log's file")
    whole = Path(path).expanduser()
    if whole.is_file():
        return [whole]
    if whole.is_dir():
        raise UserError(f"{path} is a folder; give a file, or a pattern such as {path}/*.csv")
    found = [Path(name) for name in sorted(glob.glob(str(whole)))]
    if not found:
        raise UserError(f"no file {path}")
    return found


def read_blocks(
    path: Path,
    wanted: Sequence[str],
    form: str = "",
    delimiter: str = ",",
    header: Sequence[str] = (),
    events: str = "",
) -> Iterator[Block]:
    """Yields the columns `wanted` of a file, some ten thousand rows at a time.

    Args:
      path: of the file.
      wanted: names.
      form: "csv", "jsonl", "parquet", or "" to go by the name.
      delimiter: of CSV; a .tsv file has tabs whatever this says.
      header: names of all columns where a CSV file has no line of them.
      events: for JSON lines, the list that holds all wanted columns but the line's own.

    Raises:
      UserError: no such file, a missing column, a row or an archive that cannot be read.
    """
    stem = path.with_suffix("") if path.suffix in _OPENERS else path
    form = form or _SUFFIXES.get(stem.suffix, "")
    if not form:
        raise UserError(
            f"{path}: the name does not tell what it is; set format to csv, jsonl or parquet"
        )
    wanted = list(dict.fromkeys(wanted))
    try:
        if form == "parquet":
            yield from _parquet(path, wanted)
            return
        with _OPENERS.get(path.suffix, open)(path, "rb") as file:
            if form == "csv":
                tab = "\t" if stem.suffix == ".tsv" else delimiter
                yield from _csv(path, file, wanted, tab, header)
            else:
                yield from _json_lines(path, file, wanted, events)
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path}: the archive is damaged or cut off ({error}); fetch or pack it anew"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path}: cannot be read ({reason})") from error
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: {_one_line(error)}") from error


def require_columns(path: Path, wanted: Sequence[str], names: Sequence[str]) -> None:
    """Raises a `UserError` that names the first column that is not there."""
    for name in wanted:
        if name not in names:
            raise UserError(f"{path}: no column {name!r}; {did_you_mean(name, names)}")


def _csv(
    path: Path, file: BinaryIO, wanted: list[str], delimiter: str, header: Sequence[str]
) -> Iterator[Block]:
    names = list(header)
    if not names:
        line = file.readline().decode("utf-8-sig")
        names = next(csv.reader([line], delimiter=delimiter), [])
        names = [name.strip() for name in names]
        if not names:
            raise UserError(f"{path} is empty; a line of column names was expected")
        if repeated := [name for name in names if names.count(name) > 1]:
            raise UserError(f"{path}: column {repeated[0]!r} is there twice")
    require_columns(path, wanted, names)
    reader = pyarrow.csv.open_csv(
        _NotEmpty(path, file),
        pyarrow.csv.ReadOptions(
            column_names=names, use_threads=False, block_size=BLOCK_BYTES, encoding="utf8"
        ),
        pyarrow.csv.ParseOptions(delimiter=delimiter),
        pyarrow.csv.ConvertOptions(
            column_types={name: pa.string() for name in wanted},
            include_columns=wanted,
            null_values=_MISSING,
            strings_can_be_null=True,
        ),
    )
    first = 1
    for batch in reader:
        yield Block(str(path), first, dict(zip(wanted, batch.columns, strict=True)))
        first += batch.num_rows


class _NotEmpty(io.RawIOBase):
    """Hands a file to pyarrow, which cannot say where an empty one came from."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file, self._any = path, file, False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        if not data and not self._any:
            raise UserError(f"{self._path} holds no row")
        self._any = True
        return data


def _json_lines(path: Path, file: BinaryIO, wanted: list[str], events: str) -> Iterator[Block]:
    first = 1
    while lines := file.readlines(BLOCK_BYTES):
        try:
            table = pyarrow.json.read_json(
                io.BytesIO(b"".join(lines)), pyarrow.json.ReadOptions(use_threads=False)
            )
        except pa.ArrowInvalid as error:
            last = first + len(lines) - 1
            raise UserError(f"{path}: lines {first}..{last}: {_one_line(error)}") from error
        if events:
            require_columns(path, [events], table.column_names)
            table = _flat(path, table, events)
        require_columns(path, wanted, table.column_names)
        columns = {name: table[name].combine_chunks() for name in wanted}
        yield Block(str(path), first, columns)
        first += len(table) if events else len(lines)


def _flat(path: Path, table: pa.Table, events: str) -> pa.Table:
    """A row for each event of the lists: its own fields, and those of its line."""
    lists = table[events].combine_chunks()
    if not pa.types.is_list(lists.type) or not pa.types.is_struct(lists.type.value_type):
        raise UserError(f"{path}: {events!r} is not a list of objects")
    parents = compute.list_parent_indices(lists)
    flat = lists.flatten()
    fields = {field.name: flat.field(number) for number, field in enumerate(lists.type.value_type)}
    own = {name: table[name].take(parents) for name in table.column_names if name != events}
    return pa.table(own | fields)


def _parquet(path: Path, wanted: list[str]) -> Iterator[Block]:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    require_columns(path, wanted, file.schema_arrow.names)
    first = 1
    for batch in file.iter_batches(batch_size=1 << 17, columns=wanted, use_threads=False):
        yield Block(str(path), first, {name: batch[name] for name in wanted})
        first += batch.num_rows


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
