"""Images that a table names, brought to one size."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mtl_jax.errors import UserError


def read_images(paths: Sequence[Path | None], places: Sequence[str], size: int) -> np.ndarray:
    """Returns [n, size, size, 3] uint8 RGB; black where there is no image.

    An image is squeezed to a square with Pillow's bilinear filter, after it was turned as its
    camera says. What is transparent becomes white. Files are decoded in threads: Pillow lets go of
    the interpreter while it works.

    Args:
      paths: of n images; None for none.
      places: where each path was found, for messages.
      size: height and width.

    Raises:
      UserError: a file that is missing or is no image.
    """
    found = np.zeros((len(paths), size, size, 3), np.uint8)
    own = [place for place, path in enumerate(paths) if path is not None]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        read = pool.map(lambda k: _read(paths[k], places[k], size), own)
        for place, image in zip(own, read, strict=True):
            found[place] = image
    return found


def image_path(cell: str, folder: Path, place: str) -> Path:
    """Returns the file that a cell names, relative to `folder` unless it is absolute.

    Raises:
      UserError: an address, or no such file.
    """
    if "://" in cell:
        raise UserError(f"{place}: {cell[:60]!r}; it must be a file here: fetch the images first")
    path = folder / Path(cell.strip()).expanduser()
    if not path.is_file():
        raise UserError(f"{place}: {cell[:60]!r}; there is no image {path}")
    return path


def _read(path: Path | None, place: str, size: int) -> np.ndarray:
    try:
        with Image.open(str(path)) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                clear = upright.convert("RGBA")
                upright = Image.new("RGBA", clear.size, "white")
                upright.alpha_composite(clear)
            small = upright.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{place}: {path} is not a readable image ({error})") from None
    return np.asarray(small)
