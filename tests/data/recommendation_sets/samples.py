"""Raw files of public recommendation sets in their real layout, filled at random."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from mtl_jax.data.recommendation.census import COLLEGE, COLUMNS, INCOMES, NEVER_MARRIED
from mtl_jax.data.recommendation.movielens_files import GENRES


def rating_table(seed: int, users: int = 6, items: int = 12, rows: int = 150) -> dict:
    """A random log in which many ratings share their second; item 12 is met by user 1 last."""
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(users * (items - 1))[: min(rows, users * (items - 1))]
    events = np.stack(
        [
            pairs // (items - 1) + 1,
            pairs % (items - 1) + 1,
            rng.integers(1, 6, len(pairs)),
            880_000_000 + rng.integers(0, 40, len(pairs)) * 1800,
        ],
        1,
    )
    events = np.concatenate([events, [[1, items, 5, 900_000_000]]])
    jobs = ("artist", "other", "writer")
    people = {
        u: (int(rng.integers(7, 70)), "MF"[u % 2], jobs[u % 3], ["85711", "V3N4P", "02110"][u % 3])
        for u in range(1, users + 1)
    }
    films = {
        i: (
            "" if i == 3 else str(int(rng.integers(1930, 1999))),
            [GENRES[1:][g] for g in sorted(rng.permutation(18)[: int(rng.integers(0, 7))])],
        )
        for i in range(1, items + 1)
    }
    return {"events": events, "people": people, "films": films}


def write_recbole(folder: Path, table: dict) -> Path:
    """The layout of the package `recbole`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    lines += ["\t".join(map(str, row)) for row in table["events"].tolist()]
    (folder / "ml-100k.inter").write_text("\n".join(lines) + "\n")
    lines = ["user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token"]
    lines += ["\t".join(map(str, (u, *person))) for u, person in table["people"].items()]
    (folder / "ml-100k.user").write_text("\n".join(lines) + "\n")
    lines = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"]
    lines += [
        f"{i}\tFilm {i}\t{y}\t{' '.join(genres)}" for i, (y, genres) in table["films"].items()
    ]
    (folder / "ml-100k.item").write_text("\n".join(lines) + "\n")
    return folder


def write_original_100k(folder: Path, table: dict) -> Path:
    """The layout of the original MovieLens-100K archive."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(map(str, row)) for row in table["events"].tolist()]
    (folder / "u.data").write_text("\n".join(lines) + "\n")
    lines = ["|".join(map(str, (u, *person))) for u, person in table["people"].items()]
    (folder / "u.user").write_text("\n".join(lines) + "\n")
    lines = []
    for i, (year, genres) in table["films"].items():
        flags = "|".join("1" if genre in genres else "0" for genre in GENRES)
        lines.append(f"{i}|Café {i} ({year})|{f'01-Jan-{year}' if year else ''}||http://x|{flags}")
    (folder / "u.item").write_text("\n".join(lines) + "\n", encoding="latin-1")
    return folder


def write_movielens1m(folder: Path, table: dict) -> Path:
    """The layout of MovieLens-1M."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["::".join(map(str, row)) for row in table["events"].tolist()]
    (folder / "ratings.dat").write_text("\n".join(lines) + "\n")
    lines = [f"{u}::{g}::{age}::{job}::{z}" for u, (age, g, job, z) in table["people"].items()]
    (folder / "users.dat").write_text("\n".join(lines) + "\n")
    lines = []
    for i, (year, genres) in table["films"].items():
        title = f"Amélie, part {i}" + (f" ({year})" if year else "")
        lines.append(f"{i}::{title}::{'|'.join(genres) or 'Drama'}")
    (folder / "movies.dat").write_text("\n".join(lines) + "\n", encoding="latin-1")
    return folder


def census_rows(seed: int, count: int) -> list[list[str]]:
    """Rows of Census-Income: 42 cells."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        row = [f"{name} {rng.integers(0, 3)}" for name in COLUMNS]

        def put(name, value, row=row):
            row[COLUMNS.index(name)] = str(value)

        put("age", rng.integers(0, 91))
        put("weeks_worked", rng.integers(0, 53))
        put("instance_weight", "1700.09")
        for name in ("hourly_wage", "capital_gains", "capital_losses", "dividends"):
            put(name, rng.integers(1, 5000) if rng.random() < 0.3 else 0)
        put("income", INCOMES[int(rng.random() < 0.2)])
        put("marital_status", NEVER_MARRIED if rng.random() < 0.4 else "Divorced")
        put("education", COLLEGE[2] if rng.random() < 0.3 else "High school graduate")
        put("born_in", "?")
        rows.append(row)
    return rows


def write_census(folder: Path, train: int = 80, test: int = 30) -> Path:
    """The layout of UCI's archive."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, seed, count in (("data", 0, train), ("test", 1, test)):
        lines = [", ".join(row) for row in census_rows(seed, count)]
        (folder / f"census-income.{name}").write_text("\n".join(lines) + "\n")
    return folder


ALI_OWN = ("205", "206", "207", "210", "216", "301", "508", "509", "702", "853")
ALI_USER = ("101", "121", "122", "124", "125", "126", "127", "128", "129")
ALI_BAGS = ("109_14", "110_14", "127_14", "150_14")


def ali_features(features: list[tuple[str, int, float]]) -> str:
    return "\x01".join(f"{field}\x02{name}\x03{value}" for field, name, value in features)


def write_ali_ccp(folder: Path, seed: int = 0, users: int = 40, rows: int = 300) -> dict:
    """Writes the publisher's layout; returns what was written, {side: (samples, common)}."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for side, top in (("train", 15), ("test", 20)):  # Some ids of the test are not in training.
        common = {}
        for _ in range(users):
            key = f"{rng.integers(0, 2**63):016x}"
            features = [("101", int(rng.integers(0, 30)), 1.0)]
            features += [
                (f, int(rng.integers(0, 4)), 1.0) for f in ALI_USER[1:] if rng.random() < 0.9
            ]
            for field in ALI_BAGS:
                count = int(rng.integers(0, 6))
                ids = rng.permutation(top)[:count].tolist()
                features += [(field, i, float(rng.integers(1, 100)) / 10 + i / 1000) for i in ids]
            common[key] = features
        samples = []
        for number in range(rows):
            click = int(rng.random() < 0.3)
            bought = int(rng.random() < (0.4 if click else 0.05))
            features = [(f, int(rng.integers(0, top)), 1.0) for f in ALI_OWN if rng.random() < 0.95]
            key = list(common)[int(rng.integers(0, users))]
            samples.append((number + 1, click, bought, key, features))
        lines = [
            f"{n},{click},{bought},{key},{len(f)},{ali_features(f)}"
            for n, click, bought, key, f in samples
        ]
        (folder / f"sample_skeleton_{side}.csv").write_text("\n".join(lines) + "\n")
        lines = [f"{key},{len(f)},{ali_features(f)}" for key, f in common.items()]
        (folder / f"common_features_{side}.csv").write_text("\n".join(lines) + "\n")
        written[side] = (samples, common)
    return written


def write_aliexpress(folder: Path, seed: int = 0, train: int = 120, test: int = 40) -> dict:
    """Writes the processed layout; returns {side: (search, categories, numbers, labels)}."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    header = ["search_id", *(f"categorical_{i}" for i in range(1, 17))]
    header += [*(f"numerical_{i}" for i in range(1, 64)), "click", "conversion"]
    written = {}
    for side, count in (("train", train), ("test", test)):
        search = [f"query-{i}" for i in rng.integers(0, 40, count)]
        categories = rng.integers(0, 9 if side == "test" else 7, (count, 16))
        numbers = np.round(rng.normal(5, 3, (count, 63)), 4)
        numbers[:, 5] = 2.5
        click = rng.random(count) < 0.4
        labels = np.stack([click, click & (rng.random(count) < 0.3)], 1).astype(int)
        with open(folder / f"{side}.csv", "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            for i in range(count):
                writer.writerow(
                    [search[i], *categories[i].tolist(), *numbers[i].tolist(), *labels[i].tolist()]
                )
        written[side] = (search, categories, numbers, labels)
    return written


def edit(path: Path, old: str, new: str) -> None:
    """Replaces the first `old` in a file."""
    text = path.read_text(encoding="latin-1")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="latin-1")
