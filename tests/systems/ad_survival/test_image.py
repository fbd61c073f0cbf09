"""The image encoder against a float64 numpy one, and what it must not lose."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.systems.ad_survival.image import (
    ImageSetting,
    augment,
    encode_image,
    group_norm,
    init_image,
)

SMALL = ImageSetting(widths=(2, 4), groups=2, out=3, rate=0.5)


def images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def noisy(params, seed=0):
    """Parameters away from their initial ones and zeros."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    moved = [p + 0.3 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def conv64(x, kernel, stride, pad):
    x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
    size = len(kernel)
    rows = range(0, x.shape[0] - size + 1, stride)
    columns = range(0, x.shape[1] - size + 1, stride)
    return np.array(
        [
            [np.einsum("ijc,ijco->o", x[r : r + size, c : c + size], kernel) for c in columns]
            for r in rows
        ]
    )


def norm64(x, params, groups):
    parts = np.split(x, math.gcd(groups, x.shape[-1]), axis=-1)
    parts = [(part - part.mean()) / np.sqrt(part.var() + 1e-5) for part in parts]
    return np.concatenate(parts, -1) * params["scale"] + params["shift"]


def statistics64(x):
    return np.concatenate([x.mean((0, 1)), np.sqrt(x.var((0, 1)) + 1e-5)])


def encode64(params, image, setting):
    """The encoder by its definition, one image, float64."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x = (image / 255 - 0.5) / 0.25
    pooled = [statistics64(x)]
    if setting.stride > 2:  # every pixel once, zeros where the last window is not full
        x = np.pad(x, [(0, -side % setting.stride) for side in x.shape[:2]] + [(0, 0)])
    x = conv64(x, params["stem"], setting.stride, 1 if setting.stride < 3 else 0)
    pooled.append(statistics64(x))
    for stage, blocks in enumerate(params["stages"]):
        for number, block in enumerate(blocks):
            stride = 2 if stage and not number else 1
            y = np.maximum(norm64(x, block["norm_a"], setting.groups), 0)
            y = conv64(y, block["conv_a"], stride, 1)
            y = np.maximum(norm64(y, block["norm_b"], setting.groups), 0)
            y = conv64(y, block["conv_b"], 1, 1)
            if stride == 2:
                x = np.pad(x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2), (0, 0)))
            x = y + (conv64(x, block["past"], stride, 0) if "past" in block else x)
    pooled.append(statistics64(np.maximum(norm64(x, params["norm"], setting.groups), 0)))
    return np.concatenate(pooled) @ params["out"]["kernel"] + params["out"]["bias"]


# 18 x 12: both stages see an odd side, and a stride of 4 a side that it does not divide.
@pytest.mark.parametrize(
    "setting",
    [SMALL, SMALL._replace(widths=(3, 3), blocks=2, stride=1), SMALL._replace(stride=4)],
)
def test_encoder_is_that_of_its_definition(setting):
    params = noisy(init_image(jax.random.key(1), setting))
    found = images(2, 18, 12, 3)
    expected = [encode64(params, image, setting) for image in found]
    np.testing.assert_allclose(encode_image(params, found, setting), expected, atol=3e-5)


def test_group_norm_of_a_large_mean_keeps_its_digits():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 5, 7, 6)).astype(np.float32) + 1000
    scale, shift = rng.normal(size=(2, 6)).astype(np.float32)
    params = {"scale": scale.astype(np.float64), "shift": shift.astype(np.float64)}
    expected = [norm64(each.astype(np.float64), params, 3) for each in x]
    found = group_norm(jnp.asarray(x), jnp.asarray(scale), jnp.asarray(shift), 3)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    half = group_norm(jnp.asarray(x, jnp.bfloat16), jnp.asarray(scale), jnp.asarray(shift), 3)
    assert half.dtype == jnp.bfloat16


def test_uint8_is_floats_from_0_to_1_and_images_do_not_meet():
    params = noisy(init_image(jax.random.key(0), SMALL))
    found = images(3, 16, 16, 3)
    both = encode_image(params, found, SMALL)
    as_floats = encode_image(params, jnp.asarray(found / np.float32(255)), SMALL)
    np.testing.assert_allclose(both, as_floats, rtol=1e-5, atol=1e-6)
    alone = encode_image(params, found[1:2], SMALL)
    np.testing.assert_allclose(both[1:2], alone, rtol=1e-5, atol=1e-6)


def test_contrast_reaches_the_encoding():
    # With a normalisation right after the first convolution both would be the same to 1e-4.
    setting = ImageSetting(widths=(4, 8), rate=0.0)
    params = init_image(jax.random.key(0), setting)
    strong = jnp.asarray(images(4, 16, 16, 3) / np.float32(255))
    weak = 0.5 + 0.4 * (strong - 0.5)
    a, b = encode_image(params, strong, setting), encode_image(params, weak, setting)
    moved = jnp.linalg.norm(a - b, axis=-1) / jnp.linalg.norm(a, axis=-1)
    assert float(moved.min()) > 0.03


def test_every_parameter_is_trained_and_a_blank_image_is_no_trap():
    setting = SMALL._replace(rate=0.0)
    params = noisy(init_image(jax.random.key(0), setting))

    def loss(params, found):
        return jnp.square(encode_image(params, found, setting)).sum()

    for leaf in jax.tree.leaves(jax.grad(loss)(params, images(4, 16, 16, 3))):
        assert bool(jnp.isfinite(leaf).all())
        assert float(jnp.abs(leaf).max()) > 0
    blank = jax.grad(loss)(params, np.full((1, 16, 16, 3), 200, np.uint8))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(blank))


def test_dropout_goes_with_the_key_of_the_example():
    params = noisy(init_image(jax.random.key(0), SMALL))
    found, keys = images(4, 8, 8, 3), jax.random.split(jax.random.key(5), 4)
    order = np.array([2, 0, 3, 1])
    dropped = encode_image(params, found, SMALL, keys)
    again = encode_image(params, found[order], SMALL, keys[order])
    np.testing.assert_allclose(dropped[order], again, rtol=1e-5, atol=1e-6)
    other = encode_image(params, found, SMALL, keys, site=1)
    assert float(jnp.abs(dropped - other).max()) > 1e-3


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="widths"):
        init_image(jax.random.key(0), ImageSetting(widths=()))
    with pytest.raises(ValueError, match="1 or more"):
        init_image(jax.random.key(0), ImageSetting(groups=0))
    params = init_image(jax.random.key(0), SMALL)
    for shape in ((8, 8, 3), (2, 8, 8, 1), (2, 0, 0, 3)):
        with pytest.raises(ValueError, match="images must be"):
            encode_image(params, jnp.zeros(shape), SMALL)


def test_augment_gives_each_shift_and_mirror_of_the_image():
    image = images(5, 6, 3)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    moved = [padded[r : r + 5, c : c + 6] for r in range(3) for c in range(3)]
    candidates = np.array([*moved, *(each[:, ::-1] for each in moved)])
    keys = jax.random.split(jax.random.key(0), 200)
    made = jax.vmap(lambda key, one: augment(key, one, 1))(keys, jnp.tile(image, (200, 1, 1, 1)))
    assert made.dtype == jnp.uint8
    same = (np.asarray(made)[:, None] == candidates[None]).all((2, 3, 4))
    assert same.any(1).all(), "an image that is no shift of the original"
    assert same.any(0).all(), "a shift that never comes"
    np.testing.assert_array_equal(augment(keys[0], image, 0, False), image)
