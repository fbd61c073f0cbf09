"""The meshes that are shipped, evaluation on a grid, and netgen's absence."""

import importlib.resources
import importlib.util
import sys

import numpy as np
import pytest
import scipy.spatial

from mtl_jax.data.pde import meshing
from mtl_jax.data.pde.darcy import grid_points
from mtl_jax.data.pde.mesh import (
    H,
    TriangleMesh,
    boundary_nodes,
    double_areas,
    interpolation,
    load_mesh,
)
from mtl_jax.data.pde.shapes import SHAPES, check_shape, inside
from mtl_jax.errors import UserError

if NETGEN := importlib.util.find_spec("netgen") is not None:
    # Now, because the fixtures of this folder hide from it what is installed.
    importlib.import_module("netgen.geom2d")
needs_netgen = pytest.mark.skipif(not NETGEN, reason="needs the extra `meshing`")
TRIANGLE = [[0.1, 0.1], [0.9, 0.2], [0.4, 0.8]]


def edges(mesh):
    """The two ends of each edge of each triangle [3 E, 2]."""
    t = mesh.triangles
    return np.concatenate([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]])


def to_edges(shape, points):
    """Distance of each point [n] to the nearest edge of a shape."""
    distances = []
    for ring in (shape.outer, *shape.holes):
        for a, b in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            place = np.clip((points - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
            distances.append(np.linalg.norm(points - a - place[:, None] * (b - a), axis=1))
    return np.min(distances, axis=0)


def check_mesh(mesh, shape, h):
    area = double_areas(mesh) / 2
    assert area.min() > 0  # Counter-clockwise.
    assert area.sum() == pytest.approx(shape.area, rel=1e-5)
    both = np.sort(edges(mesh), axis=1)
    unique, count = np.unique(both, axis=0, return_counts=True)
    assert count.max() == 2
    # Euler: a connected region, and so many holes.
    assert len(mesh.points) - len(unique) + len(area) == 1 - len(shape.holes)
    assert len(np.unique(mesh.triangles)) == len(mesh.points)
    boundary = boundary_nodes(mesh)
    on_edge = to_edges(shape, mesh.points) < 1e-6
    np.testing.assert_array_equal(boundary, np.flatnonzero(on_edge))
    lengths = np.linalg.norm(mesh.points[both[:, 0]] - mesh.points[both[:, 1]], axis=1)
    assert lengths.max() < 2 * h
    assert np.median(lengths) < 1.1 * h


@pytest.mark.parametrize("name", SHAPES)
def test_shipped_meshes(name):
    file = importlib.resources.files("mtl_jax.data.pde") / "meshes" / f"{name}.npz"
    assert len(file.read_bytes()) <= 60_000
    mesh = load_mesh(name)
    assert (mesh.points.dtype, mesh.triangles.dtype) == (np.float64, np.int32)
    check_mesh(mesh, SHAPES[name], H)
    sides = mesh.points[mesh.triangles] - mesh.points[np.roll(mesh.triangles, 1, axis=1)]
    longest = np.square(sides).sum(2).max(1)
    assert (double_areas(mesh) / longest).min() > 0.25  # No slivers: angles of 15 degrees and up.


def test_no_mesh_is_shipped_without_a_shape():
    folder = importlib.resources.files("mtl_jax.data.pde") / "meshes"
    assert {file.name for file in folder.iterdir()} == {f"{name}.npz" for name in SHAPES}


# Evaluation on a grid


def random_mesh(seed):
    """Triangles of all sizes over the unit square."""
    rng = np.random.default_rng(seed)
    corners = [[0, 0], [1, 0], [0, 1], [1, 1]]
    points = np.concatenate([corners, rng.random((6, 2)), 0.3 + 0.05 * rng.random((40, 2))])
    triangles = scipy.spatial.Delaunay(points).simplices.astype(np.int32)
    turned = double_areas(TriangleMesh(points, triangles)) < 0
    triangles[turned] = triangles[turned][:, ::-1]
    return TriangleMesh(points, triangles)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [2, 7, 40])
def test_linear_functions_are_exact_on_any_mesh(seed, size):
    mesh = random_mesh(seed)
    matrix = interpolation(mesh, size, np.ones(size * size, bool))
    for slope in ([0, 0, 1], [1, -2, 0.5]):
        values = mesh.points @ slope[:2] + slope[2]
        want = grid_points(size) @ slope[:2] + slope[2]
        np.testing.assert_allclose(matrix @ values, want, atol=1e-12)


def test_values_follow_the_triangle_that_holds_the_point():
    mesh = random_mesh(9)
    values = np.random.default_rng(0).random(len(mesh.points))
    finder = scipy.spatial.Delaunay(mesh.points)  # The same triangles, found another way.
    points = grid_points(30)
    simplex = finder.find_simplex(points, tol=1e-12)
    transform = finder.transform[simplex]
    first = np.einsum("nij,nj->ni", transform[:, :2], points - transform[:, 2])
    weights = np.concatenate([first, 1 - first.sum(1, keepdims=True)], axis=1)
    want = np.sum(weights * values[finder.simplices[simplex]], axis=1)
    found = interpolation(mesh, 30, np.ones(900, bool)) @ values
    np.testing.assert_allclose(found, want, atol=1e-12)


def test_rows_that_are_not_wanted_are_empty():
    shape = SHAPES["triangle"]
    wanted = inside(shape, grid_points(20))
    matrix = interpolation(load_mesh("triangle"), 20, wanted)
    np.testing.assert_allclose(np.asarray(matrix.sum(axis=1)).ravel(), wanted)
    assert matrix.min() >= 0


def test_a_wanted_point_far_outside_is_refused():
    wanted = np.ones(400, bool)
    with pytest.raises(ValueError, match="of 400 wanted grid points are outside"):
        interpolation(load_mesh("triangle"), 20, wanted)


# New meshes


def test_netgen_is_asked_for_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "netgen", None)
    monkeypatch.setitem(sys.modules, "netgen.geom2d", None)
    with pytest.raises(UserError, match=r"^star: .*needs netgen.*pip install 'mtl_jax\[meshing\]'"):
        meshing.mesh_polygon(TRIANGLE, name="star")


def test_a_bad_polygon_is_refused_before_netgen_is_missed(monkeypatch):
    monkeypatch.setitem(sys.modules, "netgen.geom2d", None)
    with pytest.raises(UserError, match="the outline has 2 corners"):
        meshing.mesh_polygon(TRIANGLE[:2])


@pytest.mark.parametrize("h", [0.0, 0.001, 0.3, float("nan")])
def test_edge_lengths_out_of_range(h):
    with pytest.raises(UserError, match=r"it must be 0\.005 \.\. 0\.25"):
        meshing.mesh_polygon(TRIANGLE, h=h)


def test_tidying_changes_numbers_not_the_mesh():
    mesh = load_mesh("triangle")
    rng = np.random.default_rng(0)
    order, rows = rng.permutation(len(mesh.points)), rng.permutation(len(mesh.triangles))
    messy = TriangleMesh(mesh.points[order], np.argsort(order)[mesh.triangles][rows])
    messy.triangles[::2] = messy.triangles[::2, [1, 0, 2]]
    tidy, want = meshing._tidy(messy), meshing._tidy(mesh)
    np.testing.assert_array_equal(tidy.triangles, want.triangles)
    np.testing.assert_array_equal(tidy.points, want.points)
    assert double_areas(tidy).min() > 0
    assert double_areas(tidy).sum() == pytest.approx(2 * SHAPES["triangle"].area, rel=1e-6)


@needs_netgen
def test_netgen_meshes_a_polygon_with_a_hole():
    shape = check_shape(TRIANGLE, [[[0.4, 0.3], [0.5, 0.3], [0.45, 0.45]]])
    mesh = meshing.mesh_polygon(shape.outer[::-1], shape.holes, h=0.05)
    check_mesh(mesh, shape, 0.05)


@needs_netgen
def test_netgen_makes_the_shipped_meshes(tmp_path):
    meshing.main([str(tmp_path)])
    for name in SHAPES:
        with np.load(tmp_path / f"{name}.npz") as found:
            np.testing.assert_array_equal(found["triangles"], load_mesh(name).triangles)
