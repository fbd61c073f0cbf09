"""CelebA as it is handed out: attribute and partition lists and a folder of aligned faces.

Images are resized to 64x64 with Pillow's bilinear filter, without cropping (178 x 218 pixels are
squeezed), as in Sener and Koltun 2018, whose loader the FS-MTL code uses. That loader takes BGR
minus a fixed mean, then calls a resizer that stretches every image to its own minimum and maximum
(which undoes a common shift), then divides by 255. Here `to_float` is BGR minus the mean, over 255,
without the stretch, so that a pixel's value depends on the pixel alone.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mtl_jax.data.records import Record, RecordSource, open_split
from mtl_jax.errors import UserError

SIZE = 64
NUM_ATTRIBUTES = 40
# What list_attr_celeba.txt calls its columns, in its order.
_NAMES = """
5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose
Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee
Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard
Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair
Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young
"""
ATTRIBUTES = tuple(_NAMES.split())
SPLITS = ("train", "validation", "test")  # 0, 1, 2 in the partition file
ATTRIBUTE_FILE, PARTITION_FILE = "list_attr_celeba.txt", "list_eval_partition.txt"
IMAGE_FOLDER = "img_align_celeba"
# The constant of that loader, in its order B, G, R: the mean of a street data set, not of faces.
MEAN_BGR = (73.15835921, 82.90891754, 72.39239876)


def read_attributes(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Returns the 40 attribute names and, for each image file, its labels [40] uint8 in 0, 1."""
    lines = _lines(path)
    names = lines[1].split() if len(lines) > 1 else []
    if len(names) != NUM_ATTRIBUTES or not lines[0].strip().isdigit():
        raise UserError(
            f"{path}: expected the number of images, then a line of 40 attribute names, "
            f"found {len(names)} names"
        )
    rows = {}
    for number, line in enumerate(lines[2:], start=3):
        file, *values = line.split()
        if len(values) != NUM_ATTRIBUTES or not set(values) <= {"-1", "1"}:
            odd = next((value for value in values if value not in ("-1", "1")), None)
            found = f"the value {odd!r}" if odd else f"{len(values)} values"
            raise UserError(f"{path}, line {number}: {found}, expected 40 values -1 or 1")
        rows[file] = np.array([value == "1" for value in values], np.uint8)
    if len(rows) != int(lines[0]):
        raise UserError(f"{path}: says {lines[0].strip()} images and lists {len(rows)}")
    return names, rows


def read_partition(path: Path) -> dict[str, list[str]]:
    """Returns the image files of each official split, in the order of the file."""
    files: dict[str, list[str]] = {split: [] for split in SPLITS}
    for number, line in enumerate(_lines(path), start=1):
        words = line.split()
        if len(words) != 2 or words[1] not in ("0", "1", "2"):
            raise UserError(f"{path}, line {number}: {line!r}, expected a file name and 0, 1 or 2")
        files[SPLITS[int(words[1])]].append(words[0])
    if empty := [split for split in SPLITS if not files[split]]:
        raise UserError(f"{path}: no image for the {empty[0]} split")
    return files


def examples(
    folder: Path, files: list[str], attributes: dict[str, np.ndarray]
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yields (position, {"image" [64, 64, 3] uint8 RGB, "label" [40] uint8}) for `files`.

    Decoding runs in threads, a chunk at a time: Pillow lets go of the interpreter while it works.
    """
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for start in range(0, len(files), 512):
            chunk = files[start : start + 512]
            images = pool.map(read_image, [folder / IMAGE_FOLDER / file for file in chunk])
            for offset, (file, image) in enumerate(zip(chunk, images, strict=True)):
                yield start + offset, {"image": image, "label": attributes[file]}


def read_image(path: Path) -> np.ndarray:
    """Returns one face as [64, 64, 3] uint8 RGB."""
    try:
        with Image.open(path) as image:
            small = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable image ({error})") from None
    return np.asarray(small)


def to_float(images: Any) -> Any:
    """Returns [..., 64, 64, 3] float32 BGR, mean removed, over 255, of uint8 RGB; numpy or JAX."""
    mean = np.asarray(MEAN_BGR, np.float32).reshape((1,) * (images.ndim - 1) + (3,))
    return (images[..., ::-1].astype(np.float32) - mean) / 255


def load_celeba(
    split: str, data_dir: str | Path | None = None, manual_dir: str | Path | None = None
) -> RecordSource:
    """Returns a split of CelebA: records "image" [64, 64, 3] uint8 RGB, "label" [40] int32 in 0, 1.

    The splits are the official ones, 162,770 / 19,867 / 19,962 images. The FS-MTL code reports
    validation error.
    """
    return open_split("celeba", split, SPLITS, _convert, data_dir, manual_dir)


def _convert(record: dict[str, Any]) -> Record:
    return {"image": record["image"], "label": record["label"].astype(np.int32)}


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text().splitlines() if line.strip()]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; it comes with CelebA") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable text file ({error})") from None
