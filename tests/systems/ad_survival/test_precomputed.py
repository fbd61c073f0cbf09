"""Files of vectors are told apart from those of other rows, and the command writes such files."""

import numpy as np
import pytest
from PIL import Image

from mtl_jax.data.survival.creatives import CONFIGS, generate
from mtl_jax.errors import UserError
from mtl_jax.systems.ad_survival import precomputed, pretrained_image, pretrained_text
from mtl_jax.systems.ad_survival.precomputed import (
    fingerprints,
    load_vectors,
    main,
    save_vectors,
    texts_of,
    with_vectors,
)


@pytest.fixture(scope="module")
def creatives():
    return generate(CONFIGS["tiny"])


def vectors(rows=5, width=3, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width))


def test_arrays_come_back_by_name(tmp_path):
    values = vectors()
    save_vectors(tmp_path / "a.npz", {"one": values, "two": values[:, :1]})
    found = load_vectors(tmp_path / "a.npz", 5)
    assert list(found) == ["one", "two"]
    np.testing.assert_array_equal(found["one"], values.astype(np.float32))
    np.save(tmp_path / "clip.npy", values)
    np.testing.assert_array_equal(load_vectors(tmp_path / "clip.npy", 5)["clip"], found["one"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "clip.npy"]


def test_rows_say_where_vectors_belong(tmp_path):
    values, rows = vectors(), np.array([6, 0, 3, 2, 5])
    save_vectors(tmp_path / "a.npz", {"x": values, "x.rows": rows})
    found = load_vectors(tmp_path / "a.npz", 8)["x"]
    np.testing.assert_array_equal(found[rows], values.astype(np.float32))
    assert not found[[1, 4, 7]].any()


def _with(values, row, value):
    values = values.copy()
    values[row, 1] = value
    return values


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": vectors()[:4]}, "'x' has 4 rows, the set has 5; add 'x.rows'"),
        ({"x": _with(vectors(), 3, np.nan)}, "not finite in row 3"),
        ({"x": _with(vectors(), 2, 1e300)}, "not finite in row 2"),
        ({"x": vectors()[:, 0]}, r"has shape \[5\]"),
        ({"x": vectors()[:, :0]}, r"has shape \[5, 0\]"),
        ({"x": vectors().astype(str)}, "numbers"),
        ({}, "holds no array"),
        ({"y.rows": np.arange(5)}, "'y.rows' belongs to no array 'y'"),
        ({"x": vectors(), "x.rows": np.array([0, 1, 2, 3, 5])}, r"rows'\[4\] is 5; rows are from"),
        ({"x": vectors(), "x.rows": np.array([0, 1, 2, -1, 4])}, r"rows'\[3\] is -1"),
        ({"x": vectors(), "x.rows": np.array([0, 1, 2, 2, 4])}, "row 2 2 times"),
        ({"x": vectors(), "x.rows": np.arange(4)}, r"must be \[5\] whole"),
        ({"x": vectors(), "x.rows": np.arange(5.0)}, r"of float64; it must be \[5\] whole"),
    ],
)
def test_vectors_that_do_not_fit_are_told_with_their_row(tmp_path, arrays, message):
    save_vectors(tmp_path / "a.npz", arrays)
    with pytest.raises(UserError, match=message):
        load_vectors(tmp_path / "a.npz", 5)


def test_other_files_are_told_apart(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"not an \.npy or \.npz file"):
        load_vectors(tmp_path / "a.npz", 5)
    with pytest.raises(UserError, match="no file"):
        load_vectors(tmp_path / "b.npz", 5)
    objects = np.array([{}, None], object)
    np.save(tmp_path / "c.npy", objects, allow_pickle=True)
    with pytest.raises(UserError, match="plain arrays"):
        load_vectors(tmp_path / "c.npy", 2)


def test_vectors_of_another_version_of_the_set_are_refused(tmp_path, creatives):
    rows, path = len(creatives.time), tmp_path / "a.npz"
    arrays = {"title_embedding": vectors(rows), "image_embedding": vectors(rows, 2)}
    for source in ("title", "image"):
        arrays[f"{source}_embedding.crc"] = fingerprints(creatives, source)
    save_vectors(path, arrays)
    found = with_vectors(creatives, path)
    assert set(found.vectors) == {"title_embedding", "image_embedding"}
    with pytest.raises(UserError, match="already"):
        with_vectors(found, path)
    words = creatives.texts[0].words.copy()
    words[7, 0] = 1 + words[7, 0] % 5
    changed = creatives._replace(
        texts=(creatives.texts[0]._replace(words=words), *creatives.texts[1:])
    )
    with pytest.raises(UserError, match="row 7 of 'title_embedding' was computed from another ti"):
        with_vectors(changed, path)
    image = creatives.image.copy()
    image[9, 0, 0, 0] += 1
    with pytest.raises(UserError, match="row 9 of 'image_embedding'"):
        with_vectors(creatives._replace(image=image), path)
    save_vectors(path, {**arrays, "title_embedding.crc": np.zeros(3, np.uint32)})
    with pytest.raises(UserError, match="compute the vectors anew"):
        with_vectors(creatives, path)
    save_vectors(path, {"what": vectors(rows), "what.crc": np.zeros(rows, np.uint32)})
    with pytest.raises(UserError, match="of no input"):
        with_vectors(creatives, path)


def test_texts_are_words_with_spaces_between_them(creatives):
    title = creatives.texts[0]
    first = [creatives.words[w] for w in title.words[0] if w]
    assert texts_of(creatives, "title")[0] == " ".join(first)
    with pytest.raises(UserError, match="did you mean 'title'"):
        texts_of(creatives, "titel")


@pytest.fixture
def fakes(monkeypatch, creatives):
    """Encoders that need no weights: the length of a text, the mean of an image."""
    monkeypatch.setattr(pretrained_text, "load_text_model", lambda path: None)
    monkeypatch.setattr(pretrained_image, "load_image_model", lambda path: None)
    monkeypatch.setattr(
        pretrained_text,
        "embed_texts",
        lambda model, texts: np.array([[len(t), 1.0 * bool(t)] for t in texts], np.float32),
    )
    monkeypatch.setattr(
        pretrained_image,
        "embed_images",
        lambda params, images: np.repeat(images.mean((1, 2, 3), keepdims=True)[..., 0, 0], 1280, 1),
    )
    monkeypatch.setattr(precomputed, "load_lifetimes", lambda name, data_dir: creatives)


def test_the_command_writes_what_a_set_can_take(tmp_path, fakes, creatives, capsys):
    out = tmp_path / "a.npz"
    own = ["--set", "creatives", "--output", str(out)]
    main(["text", *own, "--column", "title", "--column", "description"])
    assert "title_embedding [300, 2], 300 rows have one" in capsys.readouterr().out
    found = with_vectors(creatives, out)
    assert set(found.vectors) == {"title_embedding", "description_embedding"}
    lengths = [len(text) for text in texts_of(creatives, "title")]
    np.testing.assert_array_equal(found.vectors["title_embedding"][:, 0], lengths)
    main(["image", *own])
    image = with_vectors(creatives, out).vectors["image_embedding"]
    assert image.shape == (300, 1280)
    np.testing.assert_allclose(image[:, 0], creatives.image.mean((1, 2, 3)), rtol=1e-4)


def test_the_command_writes_what_a_table_can_take(tmp_path, fakes):
    table, out = tmp_path / "ads.csv", tmp_path / "a.npz"
    table.write_text("title,file\nhello,one.png\nNA,\n,two.png\n")
    for name, grey in (("one", 10), ("two", 200)):
        Image.new("RGB", (40, 30), (grey, grey, grey)).save(tmp_path / f"{name}.png")
    own = ["--table", str(table), "--output", str(out)]
    main(["text", *own, "--column", "title"])
    found = load_vectors(out, 3)
    np.testing.assert_array_equal(found["title_embedding"], [[5, 1], [0, 0], [0, 0]])
    main(["image", *own, "--column", "file"])
    with np.load(out) as file:
        assert file.files == ["file_embedding"]
        np.testing.assert_allclose(file["file_embedding"][:, 0], [10, 0, 200])


def test_mistakes_are_told_before_anything_is_computed(tmp_path, fakes, monkeypatch):
    for name in ("_of_set", "_of_table"):
        monkeypatch.setattr(precomputed, name, lambda args: pytest.fail("it began"))
    out = ["--output", str(tmp_path / "a.npz")]
    for argv, message in (
        (["text", "--column", "a", *out], "one of --set and --table"),
        (["text", "--set", "s", "--table", "t", "--column", "a", *out], "one of --set and --ta"),
        (["text", "--set", "s", *out], "needs --column"),
        (["image", "--table", "t", *out], "needs one --column"),
        (["image", "--set", "s", "--output", "a.csv"], "must end in .npz"),
        (["image", "--set", "s", "--output", str(tmp_path / "b" / "a.npz")], "does not exist"),
        (["sound", "--set", "s", *out], "--help"),
    ):
        with pytest.raises(UserError, match=message):
            main(argv)
    assert not list(tmp_path.iterdir())
