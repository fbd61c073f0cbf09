"""The common parts of all figures, and the drawing of a surface."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from mtl_jax.reporting import figures
from mtl_jax.reporting.figures import COLOURS, Series

PNG = b"\x89PNG\r\n\x1a\n"


def series(values: list[float], first: int = 1) -> Series:
    return Series(np.arange(first, first + len(values)), np.asarray(values, np.float64))


def test_canvas_writes_a_png_of_page_width_that_depends_on_its_content_alone(tmp_path: Path):
    digests = []
    for name, top in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        path = tmp_path / "new" / f"{name}.png"
        with figures.canvas(path, 1, 2) as (_, axes):
            axes[0, 0].plot([0, top], [0, 1])
        assert path.read_bytes().startswith(PNG)
        assert Image.open(path).size[0] == round(150 * figures.WIDTH)
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]


def test_style_does_not_leak(tmp_path: Path):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    with figures.canvas(tmp_path / "a.png") as (_, axes):
        axes[0, 0].plot([0, 1])
    assert dict(mpl.rcParams) == before


def test_few_tasks_have_their_own_colours_and_names():
    ax = Figure().subplots()
    figures.per_task(ax, {"top_left": series([1, 2]), "b": series([3, 4])}, "--", ", train")
    lines = ax.get_lines()
    assert [line.get_label() for line in lines] == ["top left, train", "b, train"]
    assert [line.get_color() for line in lines] == list(COLOURS[:2])
    np.testing.assert_array_equal(lines[1].get_ydata(), [3, 4])


def test_many_tasks_are_a_bundle_with_their_mean():
    ax = Figure().subplots()
    many = {f"t{k}": series([k, 2 * k]) for k in range(40)}
    figures.per_task(ax, many)
    assert len(ax.get_lines()) == 41
    np.testing.assert_allclose(ax.get_lines()[-1].get_ydata(), [19.5, 39])
    named = [line.get_label() for line in ax.get_lines() if not line.get_label().startswith("_")]
    assert named == ["40 tasks", "mean"]


def test_mean_over_tasks_takes_the_steps_that_all_have():
    found = figures.mean_over_tasks({"a": series([1, 2, 3]), "b": series([10, 20, 30], first=2)})
    np.testing.assert_array_equal(found.steps, [2, 3])
    np.testing.assert_array_equal(found.values, [6, 11.5])


@pytest.mark.parametrize(("values", "scale"), [([1, 2], "linear"), ([0.1, 2], "log")])
def test_finish_takes_a_logarithmic_scale_where_it_helps(values, scale):
    ax = Figure().subplots()
    ax.plot(values)
    figures.finish(ax, "title", "loss", log=True)
    assert ax.get_yscale() == scale
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("loss", "step")


def test_finish_never_takes_a_logarithm_of_what_is_not_positive():
    ax = Figure().subplots()
    ax.plot([-1, 100])
    figures.finish(ax, "title", "loss", log=True)
    assert ax.get_yscale() == "linear"


@given(st.floats(1e-6, 1e6), st.floats(1, 1e4))
def test_round_values_enclose_the_range_and_no_more(low, ratio):
    high = low * ratio
    values = figures._round_values((1, 2, 5), low, high)
    assert values[0] <= low * (1 + 1e-6)
    assert values[-1] >= high * (1 - 1e-6)
    assert (np.diff(values) > 0).all()
    assert len(values) == 2 or (values[1] > low * (1 - 1e-6) and values[-2] < high * (1 + 1e-6))
    mantissa = values / 10.0 ** np.floor(np.log10(values * (1 + 1e-9)))
    assert np.isclose(mantissa[:, None], [[1, 2, 5]]).any(1).all()


@pytest.mark.parametrize("num_tasks", [1, 2, 4])
def test_surface_is_drawn_whatever_the_losses_are(tmp_path: Path, num_tasks, recwarn):
    offsets = np.linspace(-1, 1, 5)
    a, b = np.meshgrid(offsets, offsets, indexing="ij")
    bowl = 0.1 + a**2 + 2 * b**2
    names = [f"t{k}" for k in range(num_tasks)]
    for k, field in enumerate(
        (bowl, np.full_like(bowl, 0.5), np.where(a > 0, np.nan, bowl), -bowl)
    ):
        losses = np.repeat(field[..., None], num_tasks, -1)
        path = figures.draw_surface(offsets, losses, names, tmp_path / f"{k}.png")
        assert path.read_bytes().startswith(PNG)
    assert not [str(w.message) for w in recwarn]


def test_surface_has_the_first_direction_across(monkeypatch):
    offsets = np.linspace(-1, 1, 5)
    losses = np.broadcast_to(np.exp(offsets)[:, None], (5, 5))  # changes along direction 1 only
    ax = Figure().subplots()
    from matplotlib.colors import LogNorm

    seen = {}
    monkeypatch.setattr(ax, "contour", lambda x, y, field, levels, **_: seen.update(field=field))
    monkeypatch.setattr(ax, "clabel", lambda *_, **__: None)
    figures._contours(ax, offsets, losses, np.array([0.5, 1, 2]), LogNorm(0.1, 10))
    # Rows of the field are drawn from bottom to top, columns from left to right.
    np.testing.assert_allclose(seen["field"][0], np.exp(offsets))
    assert ax.get_xlabel() == "direction 1"
