"""The augmentation's geometry: all fields move together, and depth and normals stay true."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.systems.vision.dense_augment import (
    SCALES,
    View,
    apply_view,
    assemble_augmented,
    augment,
    draw_view,
)

H, W = 12, 18
WINDOWS = {s: (int(H / s), int(W / s)) for s in SCALES}


def view(scale: float, top: int = 0, left: int = 0, flip: bool = False) -> View:
    return View(jnp.float32(scale), top, left, *WINDOWS[scale], jnp.asarray(flip))


def example(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "image": rng.random((H, W, 3), np.float32),
        "label": rng.integers(-1, 7, (H, W)).astype(np.int32),
        "depth": rng.random((H, W, 1), np.float32) + 0.5,
        "normal": rng.normal(size=(H, W, 3)).astype(np.float32),
    }


def by_hand(field: np.ndarray, which: View, linear: bool) -> np.ndarray:
    """One pixel at a time in float64: cut the window out, enlarge it, mirror it."""
    top, left, h, w = (int(v) for v in (which.top, which.left, which.height, which.width))
    window = field[top : top + h, left : left + w].astype(np.float64)
    out = np.zeros(field.shape)
    for i in range(H):
        for j in range(W):
            if not linear:
                out[i, j] = window[i * h // H, j * w // W]
                continue
            y, x = i * (h - 1) / (H - 1), j * (w - 1) / (W - 1)
            a, b = int(min(y, h - 2)), int(min(x, w - 2))
            u, v = y - a, x - b
            above = window[a, b] * (1 - v) + window[a, b + 1] * v
            below = window[a + 1, b] * (1 - v) + window[a + 1, b + 1] * v
            out[i, j] = above * (1 - u) + below * u
    return out[:, ::-1] if which.flip else out


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("scale", "top", "left"), [(1.0, 0, 0), (1.2, 2, 1), (1.5, 0, 6)])
def test_a_view_is_what_one_gets_by_hand(scale: float, top: int, left: int, flip: bool) -> None:
    given, which = example(), view(scale, top, left, flip)
    found = jax.jit(apply_view)(given, which)
    for name in ("image", "label", "depth", "normal"):
        want = by_hand(given[name], which, linear=name in ("image", "normal"))
        if name == "depth":
            want = want / scale
        if name == "normal" and flip:
            want = want * [-1, 1, 1]
        assert found[name].dtype == given[name].dtype
        np.testing.assert_allclose(found[name], want, rtol=1e-5, atol=1e-5, err_msg=name)


def test_the_whole_image_is_left_alone_to_the_bit() -> None:
    given = example()
    found = apply_view(given, view(1.0))
    for name, field in given.items():
        np.testing.assert_array_equal(found[name], field)


def test_mirroring_twice_is_nothing() -> None:
    given = example()
    once = apply_view(given, view(1.0, flip=True))
    assert any((np.asarray(once[name]) != given[name]).any() for name in given)
    twice = apply_view(once, view(1.0, flip=True))
    for name, field in given.items():
        np.testing.assert_array_equal(twice[name], field)


@pytest.mark.parametrize("seed", range(6))
def test_all_fields_show_the_same_place(seed: int) -> None:
    """Every field holds its own coordinates; after any view they agree within a pixel."""
    rows, columns = np.meshgrid(np.arange(H), np.arange(W), indexing="ij")
    place = np.stack([rows, columns, 0 * rows], -1).astype(np.float32) + 1
    given = {
        "image": place,
        "label": (rows * W + columns).astype(np.int32),
        "depth": place[..., 1:2],
        "normal": place[..., [2, 0, 1]],  # not its first component: that one changes sign
    }
    which = draw_view(jax.random.key(seed), H, W)
    found = {name: np.asarray(field) for name, field in apply_view(given, which).items()}
    label_place = np.stack(np.divmod(found["label"], W), -1) + 1
    assert np.abs(found["image"][..., :2] - label_place).max() <= 1
    np.testing.assert_allclose(found["depth"][..., 0] * which.scale, label_place[..., 1], rtol=1e-6)
    np.testing.assert_allclose(found["normal"][..., 1:], found["image"][..., :2], rtol=1e-6)


def surface_normals(depth: np.ndarray) -> np.ndarray:
    """Normals of the surface z = depth(x, y) over the image plane, by differences."""
    dy, dx = np.gradient(depth)
    normal = np.stack([-dx, -dy, np.ones_like(depth)], -1)
    return normal / np.linalg.norm(normal, axis=-1, keepdims=True)


def test_mirrored_normals_are_those_of_the_mirrored_surface() -> None:
    y, x = np.meshgrid(np.linspace(-1, 1, H), np.linspace(-1, 1, W), indexing="ij")
    depth = 3 + 0.8 * x + 0.3 * y + 0.5 * x * y
    given = {
        "image": np.zeros((H, W, 3), np.float32),
        "depth": depth[..., None].astype(np.float32),
        "normal": surface_normals(depth).astype(np.float32),
    }
    found = apply_view(given, view(1.0, flip=True))
    want = surface_normals(np.asarray(found["depth"], np.float64)[..., 0])
    np.testing.assert_allclose(found["normal"], want, atol=1e-5)


def test_what_is_enlarged_is_nearer() -> None:
    """A pinhole camera: a thing of size S at depth z covers S / z pixels."""
    size, far = 18.0, 2.0
    given = {"image": np.zeros((H, W, 3), np.float32), "depth": np.full((H, W, 1), far, np.float32)}
    given["label"] = np.zeros((H, W), np.int32)
    given["label"][:, 4 : 4 + round(size / far)] = 1
    found = apply_view(given, view(1.5, left=3))
    wide = int(np.asarray(found["label"])[0].sum())
    near = float(np.asarray(found["depth"]).mean())
    assert abs(wide - size / near) <= 1
    assert abs(wide - size / far) > 3


def test_unknown_depths_and_labels_stay_unknown() -> None:
    given = example()
    given["depth"][:] = 0
    given["label"][:] = -1
    given["normal"][:] = 0
    found = apply_view(given, view(1.2, 1, 2, flip=True))
    assert (np.asarray(found["depth"]) == 0).all()
    assert (np.asarray(found["label"]) == -1).all()
    assert (np.asarray(found["normal"]) == 0).all()


def test_draws_cover_all_views_and_stay_inside() -> None:
    drawn = jax.vmap(lambda key: draw_view(key, H, W))(jax.random.split(jax.random.key(0), 400))
    drawn = View(*(np.asarray(leaf) for leaf in drawn))
    shares = [float((np.isclose(drawn.scale, s)).mean()) for s in SCALES]
    np.testing.assert_allclose(shares, 1 / 3, atol=0.1)
    assert 0.4 < drawn.flip.mean() < 0.6
    for scale in SCALES:
        mine = np.isclose(drawn.scale, scale)
        rows, columns = WINDOWS[scale]
        assert (drawn.height[mine] == rows).all()
        assert (drawn.width[mine] == columns).all()
        assert set(drawn.top[mine]) == set(range(H - rows + 1))
        assert set(drawn.left[mine]) == set(range(W - columns + 1))


def test_an_example_depends_on_its_own_key_alone() -> None:
    batch = {name: np.stack([example(i)[name] for i in range(4)]) for name in example()}
    keys = jax.random.split(jax.random.key(1), 4)
    whole = augment(batch, keys)
    order = np.array([2, 0, 3, 1])
    mixed = augment({name: field[order] for name, field in batch.items()}, keys[order])
    for name in batch:
        np.testing.assert_array_equal(mixed[name], np.asarray(whole[name])[order])
    assert (np.asarray(whole["image"]) != batch["image"]).any()
    part = assemble_augmented({}, {name: field[2:] for name, field in batch.items()}, keys[2:])
    np.testing.assert_array_equal(part["depth"], np.asarray(whole["depth"])[2:])


def test_nothing_is_changed_in_evaluation() -> None:
    batch = {"image": np.ones((2, H, W, 3)), "mask": np.ones(2)}
    assert assemble_augmented({}, batch, None) is batch
