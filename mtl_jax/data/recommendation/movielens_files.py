"""MovieLens-100K and -1M as they are handed out, read into plain arrays.

MovieLens-100K comes from the package `recbole`, which ships it, or from the user's own copy of the
original archive (`u.data`, `u.user`, `u.item`) or of the package's files. MovieLens-1M comes from
the user's own copy only. Both are GroupLens's: for research, not to be passed on, so neither is
part of this repository.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtl_jax.data import fetch
from mtl_jax.data.fetch import Report
from mtl_jax.data.recommendation.package_files import Member, Shipment, shipped_files
from mtl_jax.data.recommendation.tables import (
    decode,
    header_positions,
    read_bytes,
    split_lines,
    whole_numbers,
)
from mtl_jax.errors import UserError

_FOLDER = "recbole/dataset_example/ml-100k"
SHIPMENT = Shipment(
    "recbole",
    "1.2.1",
    {
        "ml-100k.inter": Member(
            f"{_FOLDER}/ml-100k.inter",
            "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
        ),
        "ml-100k.user": Member(
            f"{_FOLDER}/ml-100k.user",
            "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
        ),
        "ml-100k.item": Member(
            f"{_FOLDER}/ml-100k.item",
            "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
        ),
    },
    wheel=True,
    licence="MovieLens-100K of GroupLens, for research, not to be passed on",
)
MANUAL_100K = "u.data, u.user, u.item, or ml-100k.inter, ml-100k.user, ml-100k.item"
MANUAL_1M = "ratings.dat, users.dat, movies.dat"

# The flags of u.item, in its order.
_GENRES = """
    unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy
    Film-Noir Horror Musical Mystery Romance Sci-Fi Thriller War Western
"""
GENRES: tuple[str, ...] = tuple(_GENRES.split())


class Ratings(NamedTuple):
    """A log of ratings with what is known of users and items.

    Attributes:
      name: of the set.
      user, item: [N] int64 raw ids.
      rating: [N] int64 in 1..5.
      time: [N] int64, Unix seconds.
      users: {user: (age, gender, occupation, first character of the postal code)}.
      items: {item: (year of release or "", genres)}.
    """

    name: str
    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    time: np.ndarray
    users: dict[int, tuple[int, str, str, str]]
    items: dict[int, tuple[str, list[str]]]


def find_movielens100k(
    manual_dir: Path | None = None, report: Report = fetch.say
) -> tuple[Ratings, str]:
    """Returns MovieLens-100K and where it came from.

    Raises:
      UserError: no source, or wrong files in `manual_dir`.
    """
    if manual_dir is None:
        files, origin = shipped_files("movielens100k", SHIPMENT, MANUAL_100K, report)
        return atomic_files(files, SHIPMENT.package), origin
    if (manual_dir / "u.data").exists():
        return original_100k(manual_dir), str(manual_dir)
    if (manual_dir / "ml-100k.inter").exists():
        files = {name: read_bytes(manual_dir / name, "MovieLens-100K") for name in SHIPMENT.members}
        return atomic_files(files, str(manual_dir)), str(manual_dir)
    raise UserError(f"{manual_dir}: no MovieLens-100K in it; give a folder with {MANUAL_100K}")


def atomic_files(files: dict[str, bytes], where: str) -> Ratings:
    """Reads the package's tables: tabs, a header of `name:type`, genres separated by blanks."""

    def table(name: str, wanted: tuple[str, ...]) -> list[list[str]]:
        place = f"{where}/{name}"
        lines = decode(files[name], place)
        header = [cell.partition(":")[0] for cell in lines[0].split("\t")] if lines else []
        columns = header_positions(header, wanted, place)
        rows = split_lines(lines[1:], "\t", len(header), place, 2)
        return [[row[column] for column in columns] for row in rows]

    events = table("ml-100k.inter", ("user_id", "item_id", "rating", "timestamp"))
    users = table("ml-100k.user", ("user_id", "age", "gender", "occupation", "zip_code"))
    items = table("ml-100k.item", ("item_id", "release_year", "class"))
    return _ratings(
        "movielens100k",
        events,
        users,
        [(item, year, genres.split()) for item, year, genres in items],
        (f"{where}/ml-100k.inter", f"{where}/ml-100k.user", f"{where}/ml-100k.item"),
        2,
    )


def original_100k(folder: Path) -> Ratings:
    """Reads the original archive: tabs in u.data, bars in u.user and u.item, 19 genre flags."""
    names = [folder / name for name in ("u.data", "u.user", "u.item")]
    data, users, items = (
        decode(read_bytes(path, "MovieLens-100K"), str(path), "latin-1") for path in names
    )
    listed = []
    for row in split_lines(items, "|", 5 + len(GENRES), str(names[2])):
        flags = zip(GENRES, row[5:], strict=True)
        listed.append((row[0], row[2][-4:], [genre for genre, flag in flags if flag == "1"]))
    return _ratings(
        "movielens100k",
        split_lines(data, "\t", 4, str(names[0])),
        split_lines(users, "|", 5, str(names[1])),
        listed,
        tuple(str(path) for path in names),
        1,
    )


def original_1m(folder: Path | None) -> Ratings:
    """Reads MovieLens-1M: cells separated by "::", latin-1, the year at the end of the title."""
    if folder is None:
        raise UserError(f"movielens1m is built from your own copy: --manual-dir with {MANUAL_1M}")
    names = [folder / name for name in ("ratings.dat", "users.dat", "movies.dat")]
    data, users, movies = (
        decode(read_bytes(path, "MovieLens-1M"), str(path), "latin-1") for path in names
    )
    listed = []
    for item, title, genres in split_lines(movies, "::", 3, str(names[2])):
        year = re.search(r"\((\d{4})\)$", title)
        listed.append((item, year.group(1) if year else "", genres.split("|")))
    people = split_lines(users, "::", 5, str(names[1]))
    return _ratings(
        "movielens1m",
        split_lines(data, "::", 4, str(names[0])),
        [[user, age, gender, job, code] for user, gender, age, job, code in people],
        listed,
        tuple(str(path) for path in names),
        1,
    )


def _ratings(
    name: str,
    events: list[list[str]],
    users: list[list[str]],
    items: list[tuple[str, str, list[str]]],
    where: tuple[str, ...],
    first: int,
) -> Ratings:
    """Checks the cells and that every rating's user and item are listed."""
    labels = ("user", "item", "rating", "timestamp")
    user, item, rating, time = (
        whole_numbers((row[i] for row in events), where[0], label, first)
        for i, label in enumerate(labels)
    )
    odd = np.flatnonzero((rating < 1) | (rating > 5))
    if len(odd):
        raise UserError(
            f"{where[0]}, line {first + odd[0]}: the rating is {rating[odd[0]]}, expected 1..5"
        )
    people = whole_numbers((row[0] for row in users), where[1], "user", first)
    ages = whole_numbers((row[1] for row in users), where[1], "age", first)
    films = whole_numbers((row[0] for row in items), where[2], "item", first)
    known = {
        number: (age, row[2], row[3], row[4][:1])
        for number, age, row in zip(people.tolist(), ages.tolist(), users, strict=True)
    }
    listed = {
        number: (year if year.isdigit() else "", genres)
        for number, (_, year, genres) in zip(films.tolist(), items, strict=True)
    }
    for values, table, place, what in ((user, known, 1, "user"), (item, listed, 2, "item")):
        for value in np.unique(values).tolist():
            if value not in table:
                raise UserError(f"{where[place]}: no line for {what} {value}, which has ratings")
    return Ratings(name, user, item, rating, time, known, listed)
