"""Pets: intervals of adoption, photos, and both layouts of the table."""

import csv

import numpy as np
import pytest
from PIL import Image

from mtl_jax.data.lifetimes import MISSING
from mtl_jax.data.survival.petfinder import (
    PetfinderOptions,
    petfinder_files,
    petfinder_lifetimes,
)
from mtl_jax.data.survival.table_loading import load_file
from mtl_jax.errors import UserError

# The intervals of days in which pets of classes 0 .. 3 were adopted.
INTERVALS = {"0": (0, 1), "1": (1, 8), "2": (8, 31), "3": (31, 91)}


def pets(rows=30):
    """Rows as train.csv of the competition has them."""
    return [
        {
            "Type": str(1 + k % 2),
            "Name": "" if k % 3 == 0 else f"Mo {k}",
            "Age": str(k),
            "Breed1": "307",
            "Breed2": "0",
            "Gender": "1",
            "Color1": "1",
            "Color2": "7",
            "Color3": "0",
            "MaturitySize": "2",
            "FurLength": "1",
            "Vaccinated": "2",
            "Dewormed": "2",
            "Sterilized": "3",
            "Health": "1",
            "Quantity": "1",
            "Fee": str(10 * (k % 4)),
            "State": "41326",
            "RescuerID": f"r{k % 10}",
            "VideoAmt": "0",
            "Description": f"Pet {k} is\nlovely, 可愛い!",
            "PetID": f"p{k}",
            "PhotoAmt": "1.0",
            "AdoptionSpeed": str(k % 5),
        }
        for k in range(rows)
    ]


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_adoption_lies_in_an_interval(tmp_path):
    path = write(tmp_path / "train.csv", pets())
    found, sources = petfinder_lifetimes(PetfinderOptions(path=str(path)))
    assert found.causes == ("adoption",)
    for row, pet in enumerate(pets()):
        if pet["AdoptionSpeed"] == "4":
            assert (found.event[row], found.time[row], found.upper[row]) == (0, 100, 100)
        else:
            assert found.event[row] == 1
            assert (found.time[row], found.upper[row]) == INTERVALS[pet["AdoptionSpeed"]]
    assert found.group_name == "rescuer"
    np.testing.assert_array_equal(found.group, np.arange(30) % 10)
    assert tuple(found.splits) == ("random", "group")
    assert [(n.name, n.scale) for n in found.numbers][:2] == [("age", "log"), ("fee", "log")]
    np.testing.assert_array_equal(found.numbers[0].values, np.arange(30))
    assert len(found.categories) == 14
    name, description = found.texts
    assert [found.words[w] for w in name.words[1] if w] == ["mo", "1"]
    assert not name.words[0].any()
    want = ["pet", "4", "is", "lovely", "可愛", "い", "!"]
    assert [found.words[w] for w in description.words[4] if w] == want
    assert found.image.shape == (30, 0, 0, 3)
    assert sources == [f"{path}: 30 pets"]


def test_photos_beside_the_table(tmp_path):
    path = write(tmp_path / "train.csv", pets())
    rng = np.random.default_rng(0)
    for folder in ("train_images", "other"):
        (tmp_path / folder).mkdir()
    photo = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    flat = np.full((20, 10, 3), 90, np.uint8)
    # A JPEG file's name may hold what is no JPEG: Pillow looks at the contents.
    Image.fromarray(photo).save(tmp_path / "train_images" / "p1-1.jpg", format="png")
    Image.fromarray(flat).save(tmp_path / "train_images" / "p3-1.jpg")
    Image.fromarray(flat).save(tmp_path / "train_images" / "p4-2.jpg")  # Not the first photo.
    options = PetfinderOptions(path=str(path), image_size=8)
    found, sources = petfinder_lifetimes(options)
    np.testing.assert_array_equal(np.flatnonzero(found.has_image), [1, 3])
    np.testing.assert_array_equal(found.image[1], photo)
    assert np.abs(found.image[3].astype(int) - 90).max() <= 2
    assert not found.image[4].any()
    assert sources == [f"{path}: 30 pets, 2 with a photo"]
    assert {file.name for file in petfinder_files(options)} == {
        "train.csv",
        "p1-1.jpg",
        "p3-1.jpg",
    }
    none, _ = petfinder_lifetimes(PetfinderOptions(path=str(path), image_size=0))
    assert none.image.shape == (30, 0, 0, 3)
    other = PetfinderOptions(path=str(path), image_folder=str(tmp_path / "other"))
    assert not petfinder_lifetimes(other)[0].has_image.any()
    (tmp_path / "train_images" / "p0-1.jpg").write_bytes(b"no photo")
    with pytest.raises(UserError, match=r"line 2, column 'PetID': .*p0-1.jpg is not a readable"):
        petfinder_lifetimes(options)


def test_the_small_table_of_the_tutorial(tmp_path):
    mini = [
        {
            "Type": "Cat" if k % 2 else "Dog",
            "Age": "3",
            "Breed1": "Tabby",
            "Gender": "Male",
            "Color1": "Black",
            "Color2": "White",
            "MaturitySize": "Small",
            "FurLength": "Short",
            "Vaccinated": "Not Sure" if k % 3 else "",
            "Sterilized": "No",
            "Health": "Healthy",
            "Fee": "100",
            "Description": "Nibble is a 3+ month old ball of cuteness.",
            "PhotoAmt": "1",
            "AdoptionSpeed": str(k % 5),
        }
        for k in range(20)
    ]
    path = write(tmp_path / "petfinder-mini.csv", mini)
    (tmp_path / "images").mkdir()  # Without a PetID no photo belongs to a row.
    found, _ = petfinder_lifetimes(PetfinderOptions(path=str(path)))
    assert found.group_name == ""
    assert tuple(found.splits) == ("random",)
    assert [n.name for n in found.numbers] == ["age", "fee", "photos"]
    assert found.categories[0].levels == ("Cat", "Dog")
    vaccinated = next(c for c in found.categories if c.name == "vaccinated")
    np.testing.assert_array_equal(vaccinated.codes, np.where(np.arange(20) % 3, 0, MISSING))
    with pytest.raises(UserError, match="no column 'PetID', so no photo can be found"):
        petfinder_lifetimes(PetfinderOptions(path=str(path), image_folder=str(tmp_path)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"AdoptionSpeed": "5"}, r"line 3, column 'AdoptionSpeed': '5'; it must be 0, 1, 2, 3 or"),
        ({"AdoptionSpeed": ""}, "column 'AdoptionSpeed': ''; it must be 0, 1, 2, 3 or 4; a table"),
        ({"Age": "-1"}, "column 'Age': '-1'; it must be 0 or more"),
        ({"Fee": "free"}, "column 'Fee': 'free'; it must be a number"),
    ],
)
def test_bad_cells(tmp_path, change, message):
    rows = pets()
    for row in rows:  # One line a row.
        row["Description"] = ""
    rows[1] |= change
    path = write(tmp_path / "train.csv", rows)
    with pytest.raises(UserError, match=message):
        petfinder_lifetimes(PetfinderOptions(path=str(path)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": ""}, r"path is empty; give train\.csv"),
        ({"path": "none.csv"}, r"no file none\.csv"),
        ({"image_size": -1}, "image_size = -1; it must be 0 or more"),
        ({"max_words": 0}, "max_words = 0; it must be 1 or more"),
        ({"image_folder": "none"}, "image_folder = 'none'; there is no such folder"),
        ({"fractions": (0.5, 0.5)}, "leave something for test"),
    ],
)
def test_bad_options(tmp_path, options, message):
    path = write(tmp_path / "train.csv", pets())
    with pytest.raises(UserError, match=message):
        petfinder_lifetimes(PetfinderOptions(**({"path": str(path)} | options)))


def test_a_test_set_has_no_lifetimes(tmp_path):
    rows = [{name: cell for name, cell in pet.items() if name != "AdoptionSpeed"} for pet in pets()]
    path = write(tmp_path / "test.csv", rows)
    with pytest.raises(UserError, match="no column 'AdoptionSpeed'"):
        petfinder_lifetimes(PetfinderOptions(path=str(path)))


def test_prepared_once_and_read_back(tmp_path):
    path = write(tmp_path / "train.csv", pets())
    (tmp_path / "train_images").mkdir()
    Image.new("RGB", (9, 9), "red").save(tmp_path / "train_images" / "p2-1.jpg")
    want, _ = petfinder_lifetimes(PetfinderOptions(path=str(path)))
    found = load_file("petfinder", str(path), data_dir=tmp_path / "sets")
    for field in ("time", "upper", "event", "image", "has_image", "group"):
        np.testing.assert_array_equal(getattr(found, field), getattr(want, field))
    # Another photo is another set.
    Image.new("RGB", (9, 9), "blue").save(tmp_path / "train_images" / "p2-1.jpg")
    assert (
        load_file("petfinder", str(path), data_dir=tmp_path / "sets").image != found.image
    ).any()
