"""Weights out of torch files without torch, and the network that they belong to."""

import importlib.util
import io
import os
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from jax import lax
from PIL import Image

from mtl_jax.errors import UserError
from mtl_jax.systems.ad_survival import pretrained_image as pi


@pytest.fixture
def torch_names(monkeypatch):
    """Modules with the names that a torch file calls, so that pickle can write them."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def rebuild(*_):
        raise AssertionError("reading must not call this")

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild
    for name in ("FloatStorage", "LongStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return torch


class Stored:
    """A tensor as torch pickles it."""

    def __init__(self, torch, key, values, offset=0, strides=None):
        self.kind = torch.LongStorage if values.dtype.kind == "i" else torch.FloatStorage
        self.key, self.values, self.offset = key, values, offset
        steps = [s // values.itemsize for s in values.strides]
        self.strides = tuple(steps) if strides is None else strides
        self.flat = values.ravel(order="K")
        self.rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2

    def __reduce__(self):
        shape = self.values.shape
        return self.rebuild, (Handle(self), self.offset, shape, self.strides, False, {})


class Handle:
    def __init__(self, stored):
        self.stored = stored


class Writer(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, Handle):
            own = value.stored
            return ("storage", own.kind, own.key, "cpu", own.flat.size)
        return None


def dumped(value):
    file = io.BytesIO()
    Writer(file, 2).dump(value)
    return file.getvalue()


def as_archive(tensors):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("any/data.pkl", dumped(tensors))
        archive.writestr("any/byteorder", "little")
        for own in tensors.values():
            archive.writestr(f"any/data/{own.key}", own.flat.tobytes())
    return file.getvalue()


def as_stream(tensors):
    # 10 bytes for an int of 80 bits: pickle writes it as torch does.
    parts = [dumped(v) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, tensors)]
    own = sorted(tensors.values(), key=lambda tensor: tensor.key)
    parts.append(dumped([tensor.key for tensor in own]))
    parts += [struct.pack("<q", t.flat.size) + t.flat.tobytes() for t in own]
    return b"".join(parts)


@pytest.mark.parametrize("write", [as_archive, as_stream])
def test_tensors_come_back_bit_for_bit(tmp_path, torch_names, write):
    rng = np.random.default_rng(0)
    arrays = {
        "plain": rng.normal(size=(3, 4)).astype(np.float32),
        "turned": np.asfortranarray(rng.normal(size=(2, 3, 4)).astype(np.float32)),
        "scalar": np.array(7, np.int64),
        "none": np.zeros((0, 3), np.float32),
    }
    tensors = {n: Stored(torch_names, str(k), v) for k, (n, v) in enumerate(arrays.items())}
    path = tmp_path / "weights.pth"
    path.write_bytes(write(tensors))
    found = pi.read_torch(path)
    assert list(found) == list(arrays)
    for name, values in arrays.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("bang",)


@pytest.mark.parametrize("write", [as_archive, as_stream])
def test_a_file_runs_nothing_and_damage_is_told(tmp_path, torch_names, write, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = np.arange(6, dtype=np.float32)
    good = write({"a": Stored(torch_names, "0", values)})
    whole = dumped({"a": Bomb()})
    bad = (
        (whole, "names '.*mkdir', which no tensor needs"),
        (good[:-3], "not a readable torch file|no torch file|announced|size"),
        (b"text", "not a readable torch file"),
        (dumped(5), "not a readable torch file|no torch file"),
        (write({"a": Stored(torch_names, "0", values, strides=(2,))}), "out of its storage"),
        (write({"a": Stored(torch_names, "0", values, offset=-1)}), "out of its storage"),
        (write({"a": Stored(torch_names, "0", values, offset=1)}), "out of its storage"),
    )
    for data, message in bad:
        Path("bad.pth").write_bytes(data)
        with pytest.raises(UserError, match=message):
            pi.read_torch("bad.pth")
    assert not Path("bang").exists()
    with pytest.raises(UserError, match="name the file of weights"):
        pi.read_torch("nothing.pth")


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_depthwise_is_the_grouped_convolution(size, stride):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 6, 5, 3)).astype(np.float32)
    kernel = rng.normal(size=(size, size, 3)).astype(np.float32)
    expected = lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=3,
    )
    found = pi.depthwise(jnp.asarray(x), jnp.asarray(kernel), stride)
    np.testing.assert_allclose(found, expected, atol=1e-5)


# Blocks of EfficientNet-B0: kernel, stride, whether there is an expansion, whether it is a sum.
_BLOCKS = "3100 3210 3111 5210 5111 3210 3111 3111 5110 5111 5111 5210 5111 5111 5111 3110"


def random_state(seed=0):
    """Weights of the network with 2 to 6 channels, by the names in the file."""
    rng, state = np.random.default_rng(seed), {}

    def conv(name, norm, outputs, inputs, size):
        scale = 1.5 / np.sqrt(inputs * size**2)
        state[f"{name}.weight"] = scale * rng.normal(size=(outputs, inputs, size, size))
        for part in ("weight", "bias", "running_mean"):
            state[f"{norm}.{part}"] = 0.3 * rng.normal(size=outputs) + (part == "weight")
        state[f"{norm}.running_var"] = rng.uniform(0.5, 2, outputs)

    conv("_conv_stem", "_bn0", 2, 3, 3)
    inputs = 2
    for number, block in enumerate(_BLOCKS.split()):
        size, _, expanded, same = (int(digit) for digit in block)
        here, inner = f"_blocks.{number}", inputs
        outputs = inputs if same else 2 + number % 3
        if outputs == inputs and not same:
            outputs += 1
        if expanded:
            inner = 2 * inputs
            conv(f"{here}._expand_conv", f"{here}._bn0", inner, inputs, 1)
        conv(f"{here}._depthwise_conv", f"{here}._bn1", inner, 1, size)
        conv(f"{here}._project_conv", f"{here}._bn2", outputs, inner, 1)
        inputs = outputs
    conv("_conv_head", "_bn1", 5, inputs, 1)
    return {name: values.astype(np.float32) for name, values in state.items()}


def forward(state, x):
    """The network as the original writes it: grouped convolutions, normalisations by themselves."""

    def conv(x, name, norm, stride=1, groups=1):
        kernel = state[f"{name}.weight"].transpose(2, 3, 1, 0)
        x = lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        own = {k: state[f"{norm}.{k}"].reshape(1, 1, 1, -1) for k in ("weight", "bias")}
        mean, var = (state[f"{norm}.running_{k}"].reshape(1, 1, 1, -1) for k in ("mean", "var"))
        return (x - mean) / jnp.sqrt(var + 1e-3) * own["weight"] + own["bias"]

    x = jnp.clip(conv((x - 127) / 128, "_conv_stem", "_bn0", 2), 0, 6)
    for number, block in enumerate(_BLOCKS.split()):
        here, y = f"_blocks.{number}", x
        if block[2] == "1":
            y = jnp.clip(conv(y, f"{here}._expand_conv", f"{here}._bn0"), 0, 6)
        own = f"{here}._depthwise_conv", f"{here}._bn1", int(block[1]), y.shape[-1]
        y = jnp.clip(conv(y, *own), 0, 6)
        y = conv(y, f"{here}._project_conv", f"{here}._bn2")
        x = x + y if block[3] == "1" else y
    return jnp.clip(conv(x, "_conv_head", "_bn1"), 0, 6).mean((1, 2))


def test_network_is_that_of_its_definition(tmp_path, torch_names):
    state = random_state()
    tensors = {n: Stored(torch_names, str(k), v) for k, (n, v) in enumerate(state.items())}
    path = tmp_path / "weights.pth"
    path.write_bytes(as_archive(tensors))
    params = pi.load_image_model(path)
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    found = jax.jit(pi.image_vectors)(params, images)
    expected = jax.jit(lambda x: forward(state, x))(images)
    assert float(expected.std()) > 0.05
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_weights_of_another_network_are_refused(tmp_path, torch_names):
    path = tmp_path / "weights.pth"
    path.write_bytes(as_archive({"a": Stored(torch_names, "0", np.zeros(3, np.float32))}))
    with pytest.raises(UserError, match="give the weights of EfficientNet-Lite0"):
        pi.load_image_model(path)


@pytest.mark.skipif(
    importlib.util.find_spec(pi.PACKAGE) is None, reason="needs the package of the weights"
)
def test_a_photograph_is_recognised():
    data = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    with Image.open(data) as photo:
        square = photo.convert("RGB").crop((0, 0, photo.width, photo.width))
        image = np.asarray(square.resize((224, 224), Image.Resampling.BILINEAR))
    vectors = pi.embed_images(pi.load_image_model(), image[None])
    state = pi.read_torch(pi.find_weights(pi.PACKAGE, pi.FILE))
    logits = vectors @ state["_fc.weight"].T + state["_fc.bias"]
    assert logits[0].argmax() == 652  # "military uniform" of ImageNet
