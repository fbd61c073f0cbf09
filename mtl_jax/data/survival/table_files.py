"""Reads tables of the user's, block by block: CSV, TSV or parquet, packed or not.

Every cell is text here, with the line it stands in, so that whatever is wrong with it later can be
said exactly. A CSV file is read in the form of RFC 4180: a cell in double quotes may hold the
delimiter, doubled quotes and line ends. A quote that is never closed is an error, not a long cell.
"""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from mtl_jax.errors import UserError, did_you_mean

ROWS = 8192
"""Rows a block at most."""
_OPENERS: Mapping[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_TABLES = (".csv", ".tsv", ".txt", ".parquet")


class Block(NamedTuple):
    """Some consecutive rows.

    Attributes:
      path: of the file.
      counted: "line" or, in parquet, "row".
      numbers: [n] where each row begins, from 1; the header of a CSV file is line 1.
      cells: {column: [n] texts}.
    """

    path: Path
    counted: str
    numbers: Sequence[int]
    cells: dict[str, Sequence[str]]

    def where(self, index: int, column: str = "") -> str:
        """Says where row `index` of the block is, for messages."""
        place = f"{self.path}, {self.counted} {self.numbers[index]}"
        return f"{place}, column {column!r}" if column else place


def find_tables(folder: Path, patterns: Sequence[str]) -> Path:
    """Returns the one file in `folder` that fits a pattern, trying one pattern after the other.

    Raises:
      UserError: none, or several.
    """
    for pattern in patterns:
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found[:5])
            raise UserError(f"{folder} holds several tables ({names}); give one by its path")
    raise UserError(f"{folder} holds no {' or '.join(patterns)}; give the table by its path")


def read_header(path: Path, delimiter: str = "") -> list[str]:
    """Returns the names of a table's columns; "" for one without a name.

    Raises:
      UserError: as `read_blocks`.
    """
    with _reading(path):
        if _is_parquet(path):
            return list(_parquet(path).schema_arrow.names)
        with _open_text(path) as (file, name):
            return _header(path, _csv_reader(file, name, delimiter))


def read_blocks(
    path: Path, wanted: Sequence[str] | None = None, delimiter: str = ""
) -> Iterator[Block]:
    """Yields the columns `wanted` of a table, `ROWS` rows at a time.

    Args:
      path: .csv, .tsv, .txt or .parquet; the first three perhaps packed (.gz, .bz2, .xz) or the
        only table in a .zip.
      wanted: names; None for every column that has one.
      delimiter: of CSV; "" for tabs in .tsv files and commas in others.

    Raises:
      UserError: no such file, no rows, a missing or repeated column, a line with too few or too
        many cells, a quote that is not closed, no UTF-8, a damaged archive.
    """
    with _reading(path):
        read = _parquet_blocks if _is_parquet(path) else _csv_blocks
        some = False
        for block in read(path, wanted, delimiter):
            some = True
            yield block
        if not some:
            raise UserError(f"{path} holds no row; its first line names the columns")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what reading a file raises into one line that names it."""
    try:
        yield
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: the archive is damaged or cut off ({error}); fetch or pack it anew"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason}); save it in UTF-8") from error
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def _is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"


@contextlib.contextmanager
def _open_text(path: Path) -> Iterator[tuple[io.TextIOWrapper, str]]:
    """Opens a file for reading; also yields its name without the archive's suffix."""
    with contextlib.ExitStack() as stack:
        if path.suffix == ".zip":
            archive = stack.enter_context(zipfile.ZipFile(path))
            name = _member(path, archive)
            raw: Any = stack.enter_context(archive.open(name))
        else:
            raw = stack.enter_context(_OPENERS.get(path.suffix, open)(path, "rb"))
            name = path.stem if path.suffix in _OPENERS else path.name
        yield stack.enter_context(io.TextIOWrapper(raw, "utf-8-sig", newline="")), name


def _member(path: Path, archive: zipfile.ZipFile) -> str:
    names = [name for name in archive.namelist() if not name.startswith("__MACOSX/")]
    for suffixes in (_TABLES[:2], _TABLES[2:3]):
        found = [name for name in names if PurePosixPath(name).suffix.lower() in suffixes]
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"{path} holds several tables ({', '.join(found[:5])}); unpack it")
    raise UserError(f"{path} holds no .csv, .tsv or .txt file")


def _csv_reader(file: io.TextIOWrapper, name: str, delimiter: str) -> Any:
    tab = "\t" if PurePosixPath(name).suffix == ".tsv" else ","
    return csv.reader(file, delimiter=delimiter or tab, strict=True)


def _header(path: Path, reader: Any) -> list[str]:
    try:
        names = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise UserError(f"{path}, line 1: {_csv_fault(error)}") from None
    if not any(names):
        raise UserError(f"{path} is empty; a first line with the names of columns was expected")
    _check_names(path, names)
    return names


def _check_names(path: Path, names: Sequence[str]) -> None:
    seen = set()
    for name in names:
        if name and name in seen:
            raise UserError(f"{path}: column {name!r} is there twice; name each once")
        seen.add(name)


def _chosen(path: Path, names: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """The columns to read, each once."""
    if wanted is None:
        return [name for name in names if name]
    for name in wanted:
        if name not in names:
            raise UserError(
                f"{path}: no column {name!r}; {did_you_mean(name, filter(None, names))}"
            )
    return list(dict.fromkeys(wanted))


def _csv_blocks(path: Path, wanted: Sequence[str] | None, delimiter: str) -> Iterator[Block]:
    with _open_text(path) as (file, name):
        reader = _csv_reader(file, name, delimiter)
        names = _header(path, reader)
        columns = _chosen(path, names, wanted)
        places = [names.index(column) for column in columns]
        numbers: list[int] = []
        rows: list[list[str]] = []
        for number, row in _csv_rows(path, reader, names):
            numbers.append(number)
            rows.append([row[place] for place in places])
            if len(rows) == ROWS:
                yield _csv_block(path, numbers, columns, rows)
                numbers, rows = [], []
        if rows:
            yield _csv_block(path, numbers, columns, rows)


def _csv_block(path: Path, numbers: list[int], columns: list[str], rows: list[list[str]]) -> Block:
    cells = zip(*rows, strict=True) if columns else ()
    return Block(path, "line", numbers, dict(zip(columns, cells, strict=True)))


def _csv_rows(path: Path, reader: Any, names: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yields rows and the lines that they begin in; empty lines are passed over."""
    begins = reader.line_num + 1
    try:
        for row in reader:
            if row:
                if len(row) != len(names):
                    raise UserError(
                        f"{path}, line {begins}: {len(row)} cells, but {len(names)} columns have"
                        " names; put cells that hold the delimiter or line ends in double quotes"
                    )
                yield begins, row
            begins = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {begins}: {_csv_fault(error)}") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}, at line {begins} or soon after: not UTF-8 ({error.reason}); save it in UTF-8"
        ) from error


def _csv_fault(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end of data" in text or "field larger" in text:
        return f"a quote that begins in this row is never closed ({text})"
    return f"not CSV ({text}); double the quotes inside of a quoted cell"


def _parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: not parquet ({' '.join(str(error).split())[:200]})") from error


def _parquet_blocks(path: Path, wanted: Sequence[str] | None, delimiter: str) -> Iterator[Block]:
    del delimiter
    import pyarrow as pa

    file = _parquet(path)
    names = file.schema_arrow.names
    _check_names(path, names)
    columns = _chosen(path, names, wanted)
    first = 1
    for batch in file.iter_batches(batch_size=ROWS, columns=columns, use_threads=False):
        cells = {}
        for column in columns:
            try:
                texts = batch[column].cast(pa.string())
            except pa.ArrowException:
                kind = batch[column].type
                raise UserError(
                    f"{path}: column {column!r} is of type {kind}, which has no text; write it as"
                    " numbers, text or dates"
                ) from None
            cells[column] = texts.fill_null("").to_pylist()
        if batch.num_rows:
            yield Block(path, "row", range(first, first + batch.num_rows), cells)
        first += batch.num_rows
