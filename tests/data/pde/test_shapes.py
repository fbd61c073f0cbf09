"""Polygons: what is inside, and what is no polygon."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from mtl_jax.data.pde.shapes import (
    SHAPES,
    SOURCES,
    TARGETS,
    check_shape,
    inside,
    read_shape,
    signed_area,
)
from mtl_jax.errors import UserError

SQUARE = [[0, 0], [1, 0], [1, 1], [0, 1]]
HOLE = [[0.4, 0.4], [0.6, 0.4], [0.5, 0.6]]
AREAS = {
    "square": 1,
    "disc": np.pi / 4,
    "triangle": 3**0.5 / 4,
    "pentagon": 5 / 8 * np.sin(2 * np.pi / 5),
    "l_shape": 0.75,
    "square_cross": 0.91,
    "square_hole": 1 - np.pi * 0.04,
    "right_triangle": 0.5,
}


@pytest.mark.parametrize("name", SHAPES)
def test_built_in_shapes_are_sound_and_as_large_as_they_should_be(name):
    shape = SHAPES[name]
    check_shape(shape.outer, shape.holes, name)
    assert shape.area == pytest.approx(AREAS[name], rel=5e-4)
    points = np.random.default_rng(0).random((20000, 2))
    assert inside(shape, points).mean() == pytest.approx(AREAS[name], abs=0.012)


def test_every_shape_is_a_source_or_a_target():
    assert set(SOURCES) | set(TARGETS) == set(SHAPES)
    assert len(TARGETS) == 5


@pytest.mark.parametrize("name", SHAPES)
def test_the_boundary_is_inside_also_that_of_a_hole(name):
    shape = SHAPES[name]
    for ring in (shape.outer, *shape.holes):
        between = 0.3 * ring + 0.7 * np.roll(ring, -1, axis=0)
        assert inside(shape, np.concatenate([ring, between])).all()


def test_points_near_the_edge():
    shape = check_shape(SQUARE, [HOLE])
    points = [[0.5, 0.4], [0.5, 0.4 + 1e-6], [0.5, 0.4 - 1e-6], [1, 1], [1 + 1e-6, 1], [0.5, 0.5]]
    assert inside(shape, np.array(points)).tolist() == [True, False, True, True, False, False]


@given(st.lists(st.floats(0.1, 0.49), min_size=3, max_size=12), st.integers(0, 99))
def test_star_shaped_polygons(radii, seed):
    angles = 2 * np.pi * np.arange(len(radii)) / len(radii)
    ring = 0.5 + np.array(radii)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    forth, back = check_shape(ring), check_shape(ring[::-1])
    assert signed_area(forth.outer) == pytest.approx(signed_area(back.outer), rel=1e-12)
    assert signed_area(back.outer) > 0
    points = np.random.default_rng(seed).random((200, 2))
    want = Outline(ring).contains_points(points)
    np.testing.assert_array_equal(inside(forth, points), want)
    np.testing.assert_array_equal(inside(back, points), want)


def test_a_closing_corner_is_dropped():
    assert len(check_shape([*SQUARE, SQUARE[0]]).outer) == 4


@pytest.mark.parametrize(
    ("outer", "holes", "message"),
    [
        (SQUARE[:2], [], r"^polygon: the outline has 2 corners, at least 3 are needed$"),
        ([SQUARE[0], SQUARE[1], SQUARE[0]], [], "has 2 corners"),
        ([[0, 0], [1, 1], [1, 0], [0, 1]], [], "the outline crosses or touches itself: the edges"),
        ([[0, 0], [1, 0], [0.5, 0], [0.5, 1]], [], "the outline crosses or touches itself"),
        ([[0, 0], [1, 0], [0.5, 0]], [], "the outline has no area, its corners are on one line"),
        ([[0, 0], [1, 0], [1, 1], [0.5, 0], [0, 1]], [], "the outline crosses or touches itself"),
        ([[0, 0], [1, 0], [1, 0], [0, 1]], [], r"has the corner \[1\.0, 0\.0\] twice in a row"),
        ([[0, 0], [1.5, 0], [0, 1]], [], r"corner \[1\.5, 0\.0\], coordinates must be in \[0, 1\]"),
        ([[0, 0], [1, -0.1], [0, 1]], [], r"coordinates must be in \[0, 1\]"),
        ([[0, 0], [1, float("nan")], [0, 1]], [], r"corner \[1\.0, nan\]"),
        ([0, 1, 2], [], r"the outline has shape \[3\], it must be corners \[m, 2\]"),
        ([[0, 0], [1], [0, 1]], [], "the outline is not a list of corners"),
        ([["a", 0], [1, 0], [0, 1]], [], "the outline is not a list of corners"),
        (SQUARE, [HOLE[:2]], "hole 1 has 2 corners"),
        (HOLE, [SQUARE], "hole 1 lies outside the outline"),
        (np.array(SQUARE) / 3, [HOLE], "hole 1 lies outside the outline; move it in"),
        (np.array(SQUARE) / 2, [HOLE], "hole 1 crosses or touches the outline: the edges from"),
        (SQUARE, [[[0, 0.5], [0.5, 0.4], [0.5, 0.6]]], "hole 1 crosses or touches the outline"),
        (SQUARE, [HOLE, np.array(HOLE) + 0.05], "hole 2 crosses or touches hole 1"),
        (SQUARE, [np.array(HOLE) / 4 + 0.37, HOLE], "hole 1 lies inside hole 2"),
        (SQUARE, [HOLE, np.array(HOLE) / 4 + 0.37], "hole 2 lies inside hole 1"),
    ],
)
def test_what_is_no_polygon(outer, holes, message):
    with pytest.raises(UserError, match=message) as error:
        check_shape(outer, holes)
    assert "\n" not in str(error.value)


def test_a_polygon_from_a_file(tmp_path):
    path = tmp_path / "star.json"
    path.write_text(json.dumps({"outer": SQUARE, "holes": [HOLE]}))
    shape = read_shape(path)
    assert shape.name == "star"
    assert shape.area == pytest.approx(0.98)
    path.write_text(json.dumps({"outer": HOLE}))
    assert read_shape(path).holes == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a readable JSON file"),
        ("[1, 2]", 'holds list, expected "outer"'),
        ('{"holes": []}', r"holds \['holes'\], expected"),
        ('{"outer": [[0, 0], [1, 0], [0, 1]], "hole": []}', r"holds \['hole', 'outer'\], expected"),
        ('{"outer": [[0, 0], [1, 0], [0, 1]], "holes": 3}', '"holes" must be a list'),
        ('{"outer": [[0, 0], [1, 0]]}', "the outline has 2 corners"),
        ('{"outer": [[0, 0], [1, 0], [0, 1]], "holes": [7]}', r"hole 1 has shape \[\]"),
    ],
)
def test_files_that_hold_no_polygon(tmp_path, text, message):
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"^{path}.*{message}"):
        read_shape(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"none\.json: not a readable JSON file"):
        read_shape(tmp_path / "none.json")
