"""Pets of a shelter site until adoption, with a description and a photo; the time is an interval.

Reads `train.csv` of the competition "PetFinder.my Adoption Prediction" (14,993 pets), with the
folder `train_images` beside it if there is one, and `petfinder-mini.csv`, the smaller table of a
well-known tutorial. The files are their owners'; none is shipped.

`AdoptionSpeed` is all that is known of the time, so an adoption lies in an interval of days:

    AdoptionSpeed    adopted                     event   (time, upper]
    0                on the day of the listing   1       (0, 1]
    1                on days 1 to 7              1       (1, 8]
    2                on days 8 to 30             1       (8, 31]
    3                on days 31 to 90            1       (31, 91]
    4                not within 100 days         0       censored at 100

A day d is the time from d to d + 1 days after the listing. That nobody was adopted on days 91 to
99 is how the competition chose its pets, not a fact about pets: the last ten days before the
censoring carry no information, and 91 as the end of a grid is the safe choice. Scores that need
exact times (C) take the lower end; pets of one class are tied then.

Numbers (log): age in months, fee, quantity, photos, videos. Categories: type, breeds, colours,
sizes, health and so on, with the file's own codes as levels. Texts: name and description. The image
is the first photo, <PetID>-1.jpg. A group is a rescuer, where the file has them; the competition's
own test set has other rescuers than its training set, so "group" is the split that resembles it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from mtl_jax.data.fetch import Report, say
from mtl_jax.data.lifetimes import LifetimeSet
from mtl_jax.data.survival.table_cells import Levels, read_choice, read_numbers
from mtl_jax.data.survival.table_files import read_blocks, read_header
from mtl_jax.data.survival.table_images import read_images
from mtl_jax.data.survival.table_options import check_fractions
from mtl_jax.data.survival.table_set import Columns, make_set
from mtl_jax.errors import UserError

SPEED = "AdoptionSpeed"
LOWER = np.array([0.0, 1.0, 8.0, 31.0, 100.0])
UPPER = np.array([1.0, 8.0, 31.0, 91.0, 100.0])
NUMBERS = {
    "age": "Age",
    "fee": "Fee",
    "quantity": "Quantity",
    "photos": "PhotoAmt",
    "videos": "VideoAmt",
}
CATEGORIES = {
    "type": "Type",
    "breed": "Breed1",
    "breed_2": "Breed2",
    "gender": "Gender",
    "color": "Color1",
    "color_2": "Color2",
    "color_3": "Color3",
    "size": "MaturitySize",
    "fur": "FurLength",
    "vaccinated": "Vaccinated",
    "dewormed": "Dewormed",
    "sterilized": "Sterilized",
    "health": "Health",
    "state": "State",
}
TEXTS = {"name": "Name", "description": "Description"}
_PET, _RESCUER = "PetID", "RescuerID"
_FOLDERS = ("train_images", "images")


@dataclasses.dataclass(frozen=True)
class PetfinderOptions:
    """A table of pets."""

    path: str = ""
    """train.csv of the competition, or petfinder-mini.csv."""
    image_folder: str = ""
    """Folder of the photos; empty for train_images or images beside the table, if there."""
    image_size: int = 32
    """Height and width that photos are brought to; 0 for no photos."""
    max_words: int = 80
    """Words of a text that are kept."""
    fractions: tuple[float, float] = (0.6, 0.2)
    """Shares of train and validation."""
    seed: int = 0
    """Of the splits."""


def petfinder_files(options: PetfinderOptions) -> list[Path]:
    """Returns the files that the set is made of, the photos included."""
    path = _check(options)
    folder = _image_folder(options, path)
    photos = []
    if folder is not None:
        for block in read_blocks(path, [_PET]):
            photos += [_photo(folder, pet) for pet in block.cells[_PET]]
    return [path, *(photo for photo in photos if photo)]


def petfinder_lifetimes(
    options: PetfinderOptions, name: str = "petfinder", report: Report = say
) -> tuple[LifetimeSet, list[str]]:
    """Returns the lifetimes of a table of pets, and lines about where they came from.

    Raises:
      UserError: an option, a file or a cell that is wrong.
    """
    path = _check(options)
    folder, header = _image_folder(options, path), read_header(path)
    known = (*NUMBERS.values(), *CATEGORIES.values(), *TEXTS.values(), _PET, _RESCUER)
    columns, groups = Columns(options.max_words), Levels()
    speeds, codes, images, some = [], [], [], []
    for block in read_blocks(path, [SPEED, *(column for column in known if column in header)]):
        cells = block.cells
        speeds.append(read_choice(block, SPEED, {str(k): k for k in range(5)}, _speed_rule))
        if _RESCUER in cells:
            codes.append(groups.add(cells[_RESCUER]))
        for own, column in NUMBERS.items():
            if column in cells:
                columns.number(own, read_numbers(block, column, least=0), "log")
        for own, column in CATEGORIES.items():
            if column in cells:
                columns.category(own, cells[column])
        for own, column in TEXTS.items():
            if column in cells:
                columns.text(own, cells[column])
        if folder is not None:
            photos = [_photo(folder, pet) for pet in cells[_PET]]
            places = [block.where(index, _PET) for index in range(len(photos))]
            images.append(read_images(photos, places, options.image_size))
            some.append(np.array([photo is not None for photo in photos]))
    speed = np.concatenate(speeds)
    has_image = np.concatenate(some) if some else None
    found = make_set(
        columns,
        name=name,
        causes=("adoption",),
        event=(speed < 4).astype(np.int32),
        time=LOWER[speed],
        upper=UPPER[speed],
        group=np.concatenate(codes) if codes else None,
        group_name="rescuer",
        image=np.concatenate(images) if images else None,
        has_image=has_image,
        splits=("random", "group") if codes else ("random",),
        lenient=True,
        fractions=options.fractions,
        seed=options.seed,
        report=report,
    )
    photos = f", {int(has_image.sum())} with a photo" if has_image is not None else ""
    return found, [f"{path}: {len(speed)} pets{photos}"]


def _check(options: PetfinderOptions) -> Path:
    if not options.path:
        raise UserError("path is empty; give train.csv or petfinder-mini.csv")
    for name, value, least in (
        ("image_size", options.image_size, 0),
        ("max_words", options.max_words, 1),
        ("seed", options.seed, 0),
    ):
        if value < least:
            raise UserError(f"{name} = {value}; it must be {least} or more")
    check_fractions(options.fractions)
    path = Path(options.path).expanduser()
    if not path.is_file():
        raise UserError(f"no file {path}; give train.csv or petfinder-mini.csv")
    return path


def _image_folder(options: PetfinderOptions, path: Path) -> Path | None:
    """The folder of photos; None where there is none or no pet has a number."""
    if not options.image_size:
        return None
    named = Path(options.image_folder).expanduser() if options.image_folder else None
    if named is not None and not named.is_dir():
        raise UserError(f"image_folder = {options.image_folder!r}; there is no such folder")
    found = named or next((path.parent / f for f in _FOLDERS if (path.parent / f).is_dir()), None)
    if found is None or _PET in read_header(path):
        return found
    if named is not None:
        raise UserError(f"{path}: no column {_PET!r}, so no photo can be found; leave image_folder")
    return None


def _photo(folder: Path, pet: str) -> Path | None:
    path = folder / f"{pet.strip()}-1.jpg"
    return path if path.is_file() else None


def _speed_rule(value: str) -> str:
    del value
    return "it must be 0, 1, 2, 3 or 4; a table without it is a test set and has no lifetimes"
