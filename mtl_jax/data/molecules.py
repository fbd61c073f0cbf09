"""QM9: 130,831 small molecules, each with eleven properties computed by density functional theory.

Molecules have up to 29 atoms, of which up to nine are C, N, O or F; the rest is hydrogen. Geometry
and properties are those of Ramakrishnan et al., Scientific Data 1, 140022 (2014), without the 3,054
molecules that their authors found to be inconsistent (`B3LYP/6-31G(2df,p)`). The raw files are the
three .csv of the package `qm9pack` by the first author of the data.

The tasks are the eleven of the multi-task literature (LibMTL, Nash-MTL, FAMO, FS-MTL), the gap
being left out. The four energies U0, U, H and G are energies of atomisation: the reference energies
of the isolated atoms, from `atomref.txt` of the data's publication, are subtracted. Units are those
of the files; `TARGETS` says in which the literature gives errors.

Config `small` takes every 13th molecule, 10,064; `full` all. Test and validation are 10,000
molecules each, or a tenth where there are fewer than 100,000; the rest trains. Which molecules is a
fixed function of their number, so runs of all seeds are scored on the same. The literature's own
draws are not public: its test molecules are others.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtl_jax.data import fetch
from mtl_jax.data.blocks import prepared_name, read_records
from mtl_jax.data.fetch import Report
from mtl_jax.data.overlay import stable_permutation
from mtl_jax.data.prepare import open_set, prepare, reading
from mtl_jax.data.recommendation.package_files import Member, Shipment, shipped_files
from mtl_jax.data.recommendation.tables import header_positions, read_bytes
from mtl_jax.errors import UserError

_FOLDER = "qm9pack/data"
SHIPMENT = Shipment(
    "qm9pack",
    "1.0.3",
    {
        f"qm9_part{part}.csv": Member(f"{_FOLDER}/qm9_part{part}.csv", sha256)
        for part, sha256 in (
            (1, "19f0a5d595462d52cd82eef3370f3e9eb55a1f52cb14985657200349568deff3"),
            (2, "2bca113fdc0b28a13563c80ed9b240e934f3da6c64c64fe74ddb4f0f36036e61"),
            (3, "9c5efb5733d2af149db8d95d36ff198b4ffed12d9f7b344220a1e5877d5c6a43"),
        )
    },
    wheel=True,
    licence="QM9, package under MIT",
    seconds=900,  # 104 MB
)
FILES = tuple(SHIPMENT.members)
SPLITS = ("train", "validation", "test")
EVERY = {"small": 13, "full": 1}
MAX_ATOMS = 29
HELD_OUT = 10_000
BLOCK = 1000
COMMON_FILE = "molecules.json"

ELEMENTS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
_MEV = 27_211.386246  # millielectronvolts a Hartree (CODATA 2018)


class Target(NamedTuple):
    """A property.

    Attributes:
      name: of the task.
      column: of the raw files.
      unit: of the values, as published.
      reported: unit in which errors are given.
      scale: what turns the one into the other.
      metric: name of the mean absolute error in that unit.
    """

    name: str
    column: str
    unit: str
    reported: str
    scale: float
    metric: str


def _energy(name: str, column: str) -> Target:
    return Target(name, column, "Hartree", "meV", _MEV, "mae_mev")


TARGETS = (
    Target("mu", "Dipole_debye", "D", "D", 1.0, "mae_debye"),
    Target("alpha", "Polarizability_bohr3", "a0^3", "a0^3", 1.0, "mae_bohr3"),
    _energy("homo", "HOMO_au"),
    _energy("lumo", "LUMO_au"),
    Target("r2", "R2_bohr2", "a0^2", "a0^2", 1.0, "mae_bohr2"),
    _energy("zpve", "ZPVE_au"),
    _energy("u0", "InternalEnergy_0K_au"),
    _energy("u", "InternalEnergy_298K_au"),
    _energy("h", "Enthalphy_298K_au"),  # spelt so in the files
    _energy("g", "GibbsFreeEnergy_298K_au"),
    Target("cv", "Heatcapacity_Cv_cal_mol_K", "cal/(mol K)", "cal/(mol K)", 1.0, "mae_cal_mol_k"),
)
TARGET_NAMES = tuple(target.name for target in TARGETS)

# Energies of the isolated atoms in Hartree, atomref.txt of the data's publication.
REFERENCES: Mapping[str, Mapping[str, float]] = {
    "u0": {"H": -0.500273, "C": -37.846772, "N": -54.583861, "O": -75.064579, "F": -99.718730},
    "u": {"H": -0.498857, "C": -37.845355, "N": -54.582445, "O": -75.063163, "F": -99.717314},
    "h": {"H": -0.497912, "C": -37.844411, "N": -54.581501, "O": -75.062219, "F": -99.716370},
    "g": {"H": -0.510927, "C": -37.861317, "N": -54.598897, "O": -75.079532, "F": -99.733544},
}


class Molecules(NamedTuple):
    """Molecules as read, the atoms of all of them one after the other.

    Attributes:
      ids: [N] int32, the publication's numbers.
      counts: [N] int32, atoms of each.
      charges: [sum of counts] uint8, atomic numbers.
      positions: [sum of counts, 3] float32, in Angstrom.
      targets: [N, 11] float32, in the order and the units of `TARGETS`.
    """

    ids: np.ndarray
    counts: np.ndarray
    charges: np.ndarray
    positions: np.ndarray
    targets: np.ndarray


class MoleculeSet(NamedTuple):
    """A set of molecules, padded to a common number of atoms A.

    Attributes:
      name: of the set.
      target_names: of the T tasks.
      ids: [N] int32, the publication's numbers.
      charges: [N, A] uint8, atomic numbers, 0 for padding.
      positions: [N, A, 3] float32, in Angstrom, 0 for padding.
      targets: [N, T] float32, in the units of `TARGETS`.
      splits: rows of "train", "validation" and "test", int32.
    """

    name: str
    target_names: tuple[str, ...]
    ids: np.ndarray
    charges: np.ndarray
    positions: np.ndarray
    targets: np.ndarray
    splits: Mapping[str, np.ndarray]


def find_qm9(
    manual_dir: Path | None = None, every: int = 1, report: Report = fetch.say
) -> tuple[Molecules, str]:
    """Returns molecules and where they came from: `manual_dir`, or the package `qm9pack`.

    Args:
      manual_dir: a folder with `FILES`; None for the package.
      every: takes each so-manieth molecule, the first one included.
      report: called with a line for each source tried.

    Raises:
      UserError: no source, or wrong files in `manual_dir`.
    """
    if manual_dir is not None:
        files = {name: read_bytes(manual_dir / name, "the package qm9pack") for name in FILES}
        return read_molecules(files, str(manual_dir), every), str(manual_dir)
    files, origin = shipped_files("qm9", SHIPMENT, ", ".join(FILES), report)
    return read_molecules(files, SHIPMENT.package, every), origin


def read_molecules(files: Mapping[str, bytes], where: str, every: int = 1) -> Molecules:
    """Reads the .csv files: a header each, then a molecule a row.

    Args:
      files: their contents by name.
      where: for messages.
      every: takes each so-manieth row of all files, the first one included.

    Raises:
      UserError: a missing column, a molecule that cannot be; file, line and rule are named.
    """
    ids: list[int] = []
    counts: list[int] = []
    charges: list[int] = []
    positions: list[float] = []
    targets: list[list[float]] = []
    skip = 0  # rows until the next one that is taken
    for name, data in files.items():
        for line, cells in _rows(data, f"{where}/{name}"):
            if skip:
                skip -= 1
                continue
            skip = every - 1
            number, elements, xyz, values = _molecule(cells, line)
            ids.append(number)
            counts.append(len(elements))
            charges += elements
            positions += xyz
            targets.append(values)
    if not ids:
        raise UserError(f"{where}: no molecules in {', '.join(files)}")
    unique, times = np.unique(ids, return_counts=True)
    if times.max() > 1:
        twice = unique[times > 1][0]
        raise UserError(f"{where}: the molecule of Index {twice} is there twice; keep one of them")
    found = Molecules(
        np.array(ids, np.int32),
        np.array(counts, np.int32),
        np.array(charges, np.uint8),
        np.array(positions, np.float32).reshape(-1, 3),
        np.zeros((len(ids), len(TARGETS)), np.float32),
    )
    bare = atomic_energies(found)
    return found._replace(targets=(np.array(targets, np.float64) - bare).astype(np.float32))


def atomic_energies(found: Molecules) -> np.ndarray:
    """Returns what the isolated atoms of each molecule have [N, 11] float64; 0 but for energies."""
    starts = np.concatenate([[0], np.cumsum(found.counts)[:-1]])
    out = np.zeros((len(found.ids), len(TARGETS)))
    for name, energies in REFERENCES.items():
        of_charge = np.zeros(max(ELEMENTS.values()) + 1)
        for element, energy in energies.items():
            of_charge[ELEMENTS[element]] = energy
        out[:, TARGET_NAMES.index(name)] = np.add.reduceat(of_charge[found.charges], starts)
    return out


def _rows(data: bytes, where: str) -> Iterator[tuple[str, list[str]]]:
    """Yields (file and line, the cells that are used) of each row."""
    columns = ["Index", "N_atoms", "Elements", "XYZ_Ang", *(target.column for target in TARGETS)]
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8", newline=""))
    try:
        header = next(reader, [])
        at = header_positions(header, columns, where)
        for cells in reader:
            if not cells:
                continue
            line = f"{where}, line {reader.line_num}"
            if len(cells) != len(header):
                raise UserError(f"{line}: {len(cells)} cells, the header has {len(header)}")
            yield line, [cells[place] for place in at]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{where}: not a .csv file of utf-8 text ({error})") from None


def _molecule(cells: Sequence[str], line: str) -> tuple[int, list[int], list[float], list[float]]:
    """Returns number, atomic numbers, coordinates and properties of a row."""
    number, count, elements, xyz, *properties = cells
    found = []
    for element in elements.strip().removeprefix("[").removesuffix("]").split(","):
        symbol = element.strip(" '\"")
        if symbol not in ELEMENTS:
            raise UserError(
                f"{line}: Elements has {symbol!r}, expected one of {', '.join(ELEMENTS)} an atom"
            )
        found.append(ELEMENTS[symbol])
    places = _numbers(xyz.replace("[", "").replace("]", "").split(","), "XYZ_Ang", line)
    atoms = _whole(count, "N_atoms", line)
    if not 1 <= atoms <= MAX_ATOMS:
        raise UserError(f"{line}: N_atoms is {atoms}, expected 1 to {MAX_ATOMS}")
    if len(found) != atoms or len(places) != 3 * atoms:
        raise UserError(
            f"{line}: N_atoms is {atoms}, but there are {len(found)} Elements and {len(places)}"
            " numbers in XYZ_Ang; expected one element and three numbers an atom"
        )
    values = [
        _numbers([cell], target.column, line)[0]
        for cell, target in zip(properties, TARGETS, strict=True)
    ]
    return _whole(number, "Index", line), found, places, values


def _numbers(cells: Sequence[str], column: str, line: str) -> list[float]:
    """Reads numbers; the original files write small ones as 1.5*^-6."""
    found = []
    for cell in cells:
        try:
            value = float(cell.replace("*^", "e"))
        except ValueError:
            value = float("nan")
        if not np.isfinite(value):
            raise UserError(f"{line}: {column} has {cell.strip()!r}, expected a finite number")
        found.append(value)
    return found


def _whole(cell: str, column: str, line: str) -> int:
    if not cell.strip().isdecimal():
        raise UserError(f"{line}: {column} is {cell.strip()!r}, expected a whole number")
    return int(cell)


def split_rows(count: int) -> dict[str, np.ndarray]:
    """Returns which of `count` molecules are in each split, int64, each in rising order.

    Raises:
      UserError: fewer than three molecules.
    """
    if count < 3:
        raise UserError(f"qm9: {count} molecules; the three splits need one each at least")
    held = max(min(HELD_OUT, count // 10), 1)
    order = stable_permutation(count, 0)
    parts = {"test": order[:held], "validation": order[held : 2 * held], "train": order[2 * held :]}
    return {split: np.sort(parts[split]) for split in SPLITS}


def blocks(found: Molecules, rows: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """Yields the records of some rows, `BLOCK` molecules each, with the fields of `Molecules`."""
    starts = np.concatenate([[0], np.cumsum(found.counts)])
    for start in range(0, len(rows), BLOCK):
        own = rows[start : start + BLOCK]
        atoms = np.concatenate([np.arange(starts[row], starts[row + 1]) for row in own])
        yield {
            "ids": found.ids[own],
            "counts": found.counts[own],
            "charges": found.charges[atoms],
            "positions": found.positions[atoms],
            "targets": found.targets[own],
        }


def padded(counts: np.ndarray, atoms: np.ndarray, width: int = MAX_ATOMS) -> np.ndarray:
    """Returns what belongs to atoms [sum of counts, ...] as [N, width, ...], 0 for padding."""
    out = np.zeros((len(counts), width, *atoms.shape[1:]), atoms.dtype)
    out[np.arange(width)[None] < counts[:, None]] = atoms
    return out


def load_molecules(
    name: str = "qm9", data_dir: str | Path | None = None, manual_dir: str | Path | None = None
) -> MoleculeSet:
    """Returns set "qm9/small" or "qm9/full", preparing it first where it is missing.

    Rows are in the order train, validation, test.

    Args:
      name: of the set.
      data_dir: where sets are; None for the default.
      manual_dir: a folder with `FILES`; None for the package `qm9pack`.

    Raises:
      UserError: unknown name, no source, wrong files, a set that is damaged.
    """
    folder = prepare(name, data_dir, manual_dir)
    builder, _, _ = open_set(name, data_dir)
    with reading(name, folder):
        parts = [read_records(builder, [split]) for split in SPLITS]
    records = [record for part in parts for record in part]
    whole = {key: np.concatenate([record[key] for record in records]) for key in records[0]}
    sizes = [sum(len(record["ids"]) for record in part) for part in parts]
    ends = np.cumsum([0, *sizes])
    return MoleculeSet(
        name=prepared_name(name, folder),
        target_names=TARGET_NAMES,
        ids=whole["ids"],
        charges=padded(whole["counts"], whole["charges"]),
        positions=padded(whole["counts"], whole["positions"]),
        targets=whole["targets"],
        splits={
            split: np.arange(ends[k], ends[k + 1], dtype=np.int32) for k, split in enumerate(SPLITS)
        },
    )
