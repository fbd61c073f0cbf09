"""Tiny raw files in their real layout: digits, garments, CelebA, NYUv2, CityScapes, QM9."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mtl_jax.data.molecules import ELEMENTS, FILES, TARGETS


def write_images(folder: Path, count: int = 400) -> Path:
    """Writes mnist.npz and fashion_mnist.npz: ten random templates each, with noise."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(("mnist", "fashion_mnist")):
        rng = np.random.default_rng(seed)
        labels = np.arange(count) % 10
        templates = rng.integers(0, 200, (10, 28, 28))
        images = templates[labels] + rng.integers(0, 56, (count, 28, 28))
        np.savez(folder / f"{name}.npz", x=images.astype(np.uint8), y=labels)
    return folder


def write_celeba(folder: Path, each: int = 4) -> Path:
    """Writes CelebA's layout, `each` images a split; image i has the attributes k, k % N = i.

    N is the number of images; every face has one colour.
    """
    total = 3 * each
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i + 1:06d}.jpg" for i in range(total)]
    lines = [str(total), " ".join(f"Attribute_{k}" for k in range(40)) + " "]
    for i, name in enumerate(names):
        lines.append(name + " " + " ".join(f"{1 if k % total == i else -1:2d}" for k in range(40)))
        colour = np.array([20 * i, 255 - 20 * i, 60], np.uint8)
        face = np.broadcast_to(colour, (218, 178, 3)).copy()
        Image.fromarray(face).save(folder / "img_align_celeba" / name, quality=95)
    (folder / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    parts = "".join(f"{name} {i // each}\n" for i, name in enumerate(names))
    (folder / "list_eval_partition.txt").write_text(parts)
    return folder


def write_dense(
    folder: Path, name: str, counts: tuple[int, int] = (5, 3), size: tuple[int, int] = (8, 12)
) -> Path:
    """Writes MTAN's layout of "nyuv2" or "cityscapes": `counts` images in train/ and val/."""
    rng = np.random.default_rng(0)
    fields = {"image": 3, "depth": 1} | ({"normal": 3} if name == "nyuv2" else {})
    label = "label" if name == "nyuv2" else "label_7"
    for part, count in zip(("train", "val"), counts, strict=True):
        for field in (*fields, label):
            place = folder / part / field
            place.mkdir(parents=True)
            for i in range(count):
                if field == label:
                    array = rng.integers(-1, 7, size).astype(np.float64)
                else:
                    array = rng.random((*size, fields[field]))
                np.save(place / f"{i}.npy", array)
    return folder


QM9_COLUMNS = ("XYZ_file", "Index", "N_atoms", "Elements", "XYZ_Ang", "HOMO_LUMO_gap_au")
QM9_COLUMNS += tuple(target.column for target in TARGETS)


def qm9_row(
    index: int, elements: Sequence[str], xyz: Sequence[Sequence[object]], values: Sequence[object]
) -> list[str]:
    """The cells of a molecule, in the order of `QM9_COLUMNS`."""
    symbols = f"[{','.join(repr(symbol) for symbol in elements)}]"
    places = f"[{','.join('[' + ','.join(map(str, place)) + ']' for place in xyz)}]"
    numbers = [str(index), str(len(elements)), symbols, places, "0.1"]
    return [f"dsgdb9nsd_{index:06d}.xyz", *numbers, *map(str, values)]


def qm9_csv(rows: Iterable[Sequence[str]], columns: Sequence[str] = QM9_COLUMNS) -> bytes:
    """A file of QM9: text is quoted, as there are commas in it."""
    lines = [",".join(columns)]
    lines += [",".join(f'"{cell}"' if "," in cell else cell for cell in row) for row in rows]
    return ("\n".join(lines) + "\n").encode()


def write_qm9(folder: Path, count: int = 60) -> Path:
    """Writes the three files of QM9 with `count` made-up molecules of 2 to 7 atoms.

    Energies are about those of the atoms; each property is learnable from atoms and positions.
    """
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(1, count + 1):
        elements = rng.choice(list(ELEMENTS), rng.integers(2, 8))
        xyz = rng.normal(0, 1.5, (len(elements), 3)).round(6)
        size = float(np.square(xyz - xyz.mean(0)).sum())
        values = [len(elements) + 0.1 * t * size for t in range(len(TARGETS))]
        rows.append(qm9_row(index, elements.tolist(), xyz.tolist(), values))
    for part, name in enumerate(FILES):
        (folder / name).write_bytes(qm9_csv(rows[part * count // 3 : (part + 1) * count // 3]))
    return folder
