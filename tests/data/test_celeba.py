import numpy as np
import pytest
from PIL import Image

from mtl_jax.data.celeba_files import MEAN_BGR, load_celeba, to_float
from mtl_jax.errors import UserError


def test_official_splits_images_and_labels(celeba_dir, tmp_path):
    for part, split in enumerate(("train", "validation", "test")):
        source = load_celeba(split, tmp_path / "sets", celeba_dir)
        assert len(source) == 4
        for j in range(4):
            i = 4 * part + j
            record = source[j]
            assert record["image"].shape == (64, 64, 3)
            assert record["image"].dtype == np.uint8
            # The fixture's faces have one colour each; JPEG moves it a little.
            colour = np.array([20 * i, 255 - 20 * i, 60])
            assert np.abs(record["image"].astype(int) - colour).max() <= 4
            np.testing.assert_array_equal(record["label"], np.arange(40) % 12 == i)
            assert record["label"].dtype == np.int32


def test_gather_stacks_and_repr_is_stable(celeba_dir, tmp_path):
    source = load_celeba("train", tmp_path / "sets", celeba_dir)
    batch = source.gather(np.array([2, 0, 2]))
    assert batch["image"].shape == (3, 64, 64, 3)
    np.testing.assert_array_equal(batch["label"][0], source[2]["label"])
    np.testing.assert_array_equal(batch["image"][1], source[0]["image"])
    assert repr(source) == "RecordSource(celeba, train, 4 records)"
    with pytest.raises(ValueError, match="no index"):
        source.gather([])


def test_to_float_is_bgr_without_the_mean():
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 0] = 255  # red
    out = to_float(image)
    assert out.dtype == np.float32
    want = (np.array([0, 0, 255]) - np.array(MEAN_BGR)) / 255
    np.testing.assert_allclose(out[5, 7], want, rtol=1e-6)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "list_attr_celeba.txt").unlink(), "list_attr_celeba.txt: no such file"),
        (lambda d: (d / "list_eval_partition.txt").unlink(), "list_eval_partition.txt: no such"),
        (lambda d: (d / "img_align_celeba" / "000003.jpg").unlink(), "000003.jpg: no such file"),
        (
            lambda d: (d / "img_align_celeba" / "000003.jpg").write_bytes(b"x"),
            "000003.jpg: not a readable image",
        ),
        (lambda d: edit(d / "list_attr_celeba.txt", " -1", " -2"), "line 3: the value '-2'"),
        (lambda d: edit(d / "list_attr_celeba.txt", " -1", ""), "line 3: 39 values"),
        (lambda d: edit(d / "list_attr_celeba.txt", "Attribute_3 ", ""), "found 39 names"),
        (lambda d: edit(d / "list_attr_celeba.txt", "12\n", "13\n"), "says 13 images and lists 12"),
        (
            lambda d: edit(d / "list_eval_partition.txt", "1.jpg 0", "1.jpg 3"),
            "line 1: '000001.jpg 3",
        ),
        (
            lambda d: edit(d / "list_eval_partition.txt", "000001.jpg", "000099.jpg"),
            "no line for 000099.jpg",
        ),
        (
            lambda d: (d / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 2\n"),
            "no image for the validation split",
        ),
    ],
)
def test_wrong_files_are_named_and_nothing_is_built(celeba_dir, tmp_path, damage, message):
    damage(celeba_dir)
    with pytest.raises(UserError, match=message):
        load_celeba("train", tmp_path / "sets", celeba_dir)
    assert list((tmp_path / "sets" / "celeba").glob("*")) == []


def test_a_cut_image_is_named(celeba_dir, tmp_path):
    path = celeba_dir / "img_align_celeba" / "000005.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (218, 178, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"000005.jpg: not a readable image"):
        load_celeba("train", tmp_path / "sets", celeba_dir)


def test_wrong_requests(celeba_dir, tmp_path):
    with pytest.raises(UserError, match="no split 'val'; known: train, validation, test"):
        load_celeba("val", tmp_path / "sets", celeba_dir)
    with pytest.raises(UserError, match="built from your own copy"):
        load_celeba("train", tmp_path / "sets")


def test_a_shard_damaged_after_opening_is_named(celeba_dir, tmp_path):
    source = load_celeba("train", tmp_path / "sets", celeba_dir)
    path = next((tmp_path / "sets").rglob("*-train.array_record*"))
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"celeba-train.array_record-\S+ is damaged"):
        source.gather([0, 1, 2, 3])
