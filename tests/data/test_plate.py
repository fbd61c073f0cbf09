"""The heated plate: its shape, its solver against other solutions, and the set on disk."""

from __future__ import annotations

import sys

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from mtl_jax.data import plate_geometry as geometry
from mtl_jax.data import plate_meshing, plate_solver
from mtl_jax.data.plate import plate_dataset_builder
from mtl_jax.data.plate_mesh import FlatMesh, load_mesh, outline
from mtl_jax.data.plate_set import load_plate
from mtl_jax.data.prepare import prepare, verify
from mtl_jax.errors import UserError

COARSE = (1, 3)


def solve(mesh, counts=COARSE, **kwargs):
    return plate_solver.solve(mesh, plate_solver.layers(counts), **kwargs)


def areas(mesh):
    a, b, c = (mesh.points[mesh.triangles[:, k]] for k in range(3))
    return ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2


def lengths(mesh, edges):
    return np.hypot(*(mesh.points[edges[:, 1]] - mesh.points[edges[:, 0]]).T)


def notch_area(position):
    """Of the part of a hole that lies in the hub's circle: two circular segments."""
    big, small = geometry.HUB_RADIUS, geometry.HOLE_RADIUS
    if position - small >= big:
        return 0.0
    foot = (position**2 + big**2 - small**2) / (2 * position)
    segments = [
        r**2 * np.arccos(d / r) - d * np.sqrt(r**2 - d**2)
        for r, d in ((big, foot), (small, position - foot))
    ]
    return sum(segments)


# Geometry


@pytest.mark.parametrize(("holes", "position"), geometry.DESIGNS)
def test_each_shipped_mesh_fills_its_half_sector(holes, position):
    mesh = load_mesh(holes, position)
    bored = holes * np.pi * geometry.HOLE_RADIUS**2
    assert areas(mesh).min() > 0
    assert len(np.unique(mesh.triangles)) == len(mesh.points)
    assert 2 * holes * areas(mesh).sum() == pytest.approx(
        np.pi * geometry.RADIUS**2 - bored, rel=5e-4
    )
    hub = np.pi * geometry.HUB_RADIUS**2 - holes * notch_area(position)
    assert 2 * holes * areas(mesh)[mesh.hub].sum() == pytest.approx(hub, rel=2e-3)
    half_rim = np.pi * geometry.RADIUS / holes
    assert lengths(mesh, mesh.rim).sum() == pytest.approx(half_rim, rel=1e-3)
    assert lengths(mesh, mesh.hole).sum() == pytest.approx(np.pi * geometry.HOLE_RADIUS, rel=1e-3)


@given(
    st.sampled_from(geometry.DESIGNS),
    st.floats(-np.pi, np.pi),
    st.floats(0.01, 2.5),
    st.integers(0, 8),
)
def test_turning_and_mirroring_change_nothing(design, angle, radius, turns):
    holes, position = design

    def at(phi):
        x, y = np.array(radius * np.cos(phi)), np.array(radius * np.sin(phi))
        return [*geometry.fold(x, y, holes)], geometry.inside(x, y, np.array(0.5), *design)

    (across, along), _ = here = at(angle)
    assert np.hypot(across, along) == pytest.approx(radius)
    assert -1e-9 <= np.arctan2(along, across) <= np.pi / holes + 1e-9
    wall = np.abs(np.hypot(across - position, along) - geometry.HOLE_RADIUS) < 1e-6
    for other in (at(angle + 2 * np.pi * turns / holes), at(-angle)):
        np.testing.assert_allclose(other[0], here[0], atol=1e-9)
        assert wall or other[1] == here[1]


def test_the_first_hole_is_at_angle_pi_and_the_hub_is_below():
    x, y = np.array([-1.2, 1.2, 0.0]), np.array([0.0, 0.0, 1.2])
    assert geometry.inside(x, y, np.array(0.5), 3, 1.2).tolist() == [False, True, True]
    assert geometry.inside(x, y, np.array(0.5), 4, 1.2).tolist() == [False, False, False]
    z = np.array([-0.26, -0.25, -0.1, 0.0, 1.0, 1.01])
    assert geometry.inside(np.array(0.7), np.array(0), z, 3, 1.2).tolist() == [0, 1, 1, 1, 1, 0]
    assert geometry.inside(np.array(0.8), np.array(0), z, 3, 1.2).tolist() == [0, 0, 0, 1, 1, 0]


@pytest.mark.parametrize(("holes", "position"), [(2, 1.6), (9, 0.9)])
def test_the_mask_has_the_volume_of_the_plate(holes, position):
    grid = (101, 101, 80)
    x, y, z = geometry.axes(grid)
    middle = z[:-1] + np.diff(z) / 2
    mask = geometry.inside(x[:, None, None], y[None, :, None], middle, holes, position)
    cell = np.diff(x)[0] * np.diff(y)[0] * np.diff(z)[0]
    flat = np.pi * geometry.RADIUS**2 - holes * np.pi * geometry.HOLE_RADIUS**2
    hub = np.pi * geometry.HUB_RADIUS**2 - holes * notch_area(position)
    volume = flat * geometry.HEIGHT + hub * geometry.HUB_HEIGHT
    assert mask.sum() * cell == pytest.approx(volume, rel=0.01)


# Solver


def test_all_holes_look_the_same_from_their_own_axis():
    rng = np.random.default_rng(0)
    y = rng.uniform((-2, -2, -0.25), (2, 2, 1), (500, 3))
    params = np.array([[2.0, 0.9], [5.0, 1.3], [9.0, 1.6]])
    seen = geometry.around_hole(np, params, y)
    assert seen.shape == (3, 500, 5)
    for row, (holes, position) in enumerate(params):
        turn = 2 * np.pi / holes
        c, s = np.cos(turn), np.sin(turn)
        turned = np.stack([c * y[:, 0] - s * y[:, 1], s * y[:, 0] + c * y[:, 1], y[:, 2]], 1)
        again = geometry.around_hole(np, params[row : row + 1], turned)[0]
        np.testing.assert_allclose(again, seen[row], atol=1e-12)
        centres = [
            position * np.array([np.cos(np.pi + k * turn), np.sin(np.pi + k * turn)])
            for k in range(int(holes))
        ]
        nearest = cKDTree(centres).query(y[:, :2])[0]
        np.testing.assert_allclose(2 * seen[row, :, 2], nearest, atol=1e-12)
        in_a_hole = nearest < geometry.HOLE_RADIUS - 1e-9
        assert not (geometry.inside(*y.T, int(holes), position) & in_a_hole).any()
    np.testing.assert_allclose(2 * seen[0, :, 3:], np.stack([np.hypot(*y[:, :2].T), y[:, 2]], 1))
    on_device = geometry.around_hole(jnp, jnp.asarray(params), jnp.asarray(y))
    np.testing.assert_allclose(on_device, seen, atol=2e-5)


def annulus(inner, outer, angle, rings):
    """A sector of a ring, heated inside and cooled outside, without a hub."""
    radius = np.linspace(inner, outer, rings + 1)
    phi = np.linspace(0, angle, rings + 1)
    points = np.stack([np.outer(radius, np.cos(phi)), np.outer(radius, np.sin(phi))], -1)
    number = np.arange((rings + 1) ** 2).reshape(rings + 1, rings + 1)
    a, b, c, d = number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]
    triangles = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))])
    return FlatMesh(
        points.reshape(-1, 2),
        triangles,
        np.zeros(len(triangles), bool),
        rim=np.stack([number[-1, :-1], number[-1, 1:]], 1),
        hole=np.stack([number[0, :-1], number[0, 1:]], 1),
    )


def test_a_ring_has_its_exact_solution_with_second_order():
    errors = []
    for rings in (6, 12, 24):
        mesh = annulus(0.4, 2.0, 0.7, rings)
        found = plate_solver.solve(mesh, np.array([0.0, 0.3, 1.0]))
        radius = np.hypot(*mesh.points.T)
        wall = plate_solver.FLUX * 0.4 / (plate_solver.TRANSFER * 2.0)
        inside = plate_solver.FLUX * 0.4 / plate_solver.CONDUCTIVITY * np.log(2.0 / radius)
        errors.append(np.abs(found.temperature - (plate_solver.AIR + wall + inside)).max())
    assert np.log2(errors[0] / errors[1]) > 1.8
    assert np.log2(errors[1] / errors[2]) > 1.9
    assert errors[2] < 1e-3 * plate_solver.FLUX


def test_the_matrices_integrate_exactly():
    """Of linear functions: the volume from their gradients, moments of the faces from products."""
    mesh, z = load_mesh(9, 0.9), plate_solver.layers((2, 3))
    conduct, cooled, heated = plate_solver.matrices(mesh, z)
    area, low = areas(mesh).sum(), areas(mesh)[mesh.hub].sum()
    one = np.ones(len(z) * len(mesh.points))
    height = np.repeat(z, len(mesh.points))
    across = np.tile(mesh.points[:, 0], len(z))
    volume = area * geometry.HEIGHT + low * geometry.HUB_HEIGHT
    assert height @ conduct @ height == pytest.approx(volume, rel=1e-12)
    assert across @ conduct @ across == pytest.approx(volume, rel=1e-12)
    np.testing.assert_allclose(conduct @ one, 0, atol=1e-11)
    rim = lengths(mesh, mesh.rim).sum()
    h, depth = plate_solver.TRANSFER, geometry.HUB_HEIGHT
    assert one @ cooled @ one == pytest.approx(h * (rim + low), rel=1e-12)
    assert height @ cooled @ height == pytest.approx(h * (rim / 3 + low * depth**2), rel=1e-12)
    below = lengths(mesh, mesh.hole[(mesh.points[mesh.hole][..., 0] < 0.75).all(1)])
    inner = np.hypot(*mesh.points[mesh.hole].mean(1).T) < geometry.HUB_RADIUS
    notch = lengths(mesh, mesh.hole[inner]).sum()
    assert 0.1 < notch <= below.sum()
    walls = lengths(mesh, mesh.hole).sum() + depth * notch
    assert one @ heated @ one == pytest.approx(walls, rel=1e-12)


@pytest.mark.parametrize(("holes", "position"), [(9, 0.9), (6, 1.6)])
def test_what_enters_leaves_and_the_hottest_place_is_a_hole(holes, position):
    mesh = load_mesh(holes, position)
    found = solve(mesh)
    exact = np.pi * geometry.HOLE_RADIUS * plate_solver.FLUX * geometry.HEIGHT
    if position > 0.95:  # No hole meets the hub.
        assert found.heat_in == pytest.approx(exact, rel=1e-3)
    else:
        assert found.heat_in > 1.04 * exact
    assert found.heat_out == pytest.approx(found.heat_in, rel=1e-9)
    assert np.nanmin(found.temperature) > plate_solver.AIR
    assert np.nanargmax(found.temperature[-1]) in mesh.hole
    assert np.nanmax(found.temperature) == np.nanmax(found.temperature[-1])


def test_no_heat_is_the_air_and_the_rest_is_linear_in_the_heat():
    mesh = load_mesh(7, 1.1)
    cold, one, three = (solve(mesh, flux=q).temperature for q in (0.0, 0.1, 0.3))
    used = np.isfinite(cold)
    np.testing.assert_allclose(cold[used], plate_solver.AIR, rtol=1e-10)
    np.testing.assert_allclose((three - cold)[used], 3 * (one - cold)[used], rtol=1e-8)
    warm = solve(mesh, flux=0.1, air=0.9).temperature
    np.testing.assert_allclose((warm - one)[used], 0.9 - plate_solver.AIR, rtol=1e-8)
    assert np.array_equal(used, np.isfinite(warm))
    assert not used[0].all()


def unfolded(mesh, holes):
    """The whole plate of a half-sector: turned and mirrored copies, common points merged."""
    parts, flips = [], []
    for turn in range(holes):
        angle = 2 * np.pi * turn / holes
        rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        for flip in (1, -1):
            parts.append((mesh.points * (1, flip)) @ rotation)
            flips.append(flip)
    points = np.concatenate(parts)
    near = cKDTree(points).query_ball_point(points, 1e-5)  # The file's points are in float32.
    first, number = np.unique([min(copies) for copies in near], return_inverse=True)

    def copies(elements):
        return np.concatenate([number[elements + k * len(mesh.points)] for k in range(len(parts))])

    triangles = np.concatenate(
        [number[mesh.triangles[:, ::flip] + k * len(mesh.points)] for k, flip in enumerate(flips)]
    )
    whole = FlatMesh(
        points[first],
        triangles,
        np.tile(mesh.hub, len(parts)),
        copies(mesh.rim),
        copies(mesh.hole),
    )
    return whole, number[: len(mesh.points)]


def test_the_whole_plate_has_the_temperature_of_its_half_sector():
    holes = 3
    half = load_mesh(holes, 1.4)
    whole, where = unfolded(half, holes)
    assert len(outline(whole.triangles)) == len(whole.rim) + len(whole.hole)
    assert areas(whole).sum() == pytest.approx(2 * holes * areas(half).sum())
    sector, full = solve(half), solve(whole)
    np.testing.assert_allclose(full.temperature[:, where], sector.temperature, rtol=1e-8)
    assert full.heat_in == pytest.approx(2 * holes * sector.heat_in)


def refined(mesh, position):
    """Each triangle cut in four; new points of walls lie on their circles."""
    sides = np.concatenate([mesh.triangles[:, [k, (k + 1) % 3]] for k in range(3)])
    edges, number = np.unique(np.sort(sides, axis=1), axis=0, return_inverse=True)
    number = number.ravel().reshape(3, -1) + len(mesh.points)
    middle = mesh.points[edges].mean(1)
    low = outline(mesh.triangles[mesh.hub])
    arc = low[(np.abs(np.hypot(*mesh.points[low].transpose(2, 0, 1)) - 0.75) < 1e-9).all(1)]
    index = {tuple(edge): k for k, edge in enumerate(edges.tolist())}
    new = {}
    for wall, centre, radius in ((mesh.rim, 0, 2.0), (arc, 0, 0.75), (mesh.hole, position, 0.2)):
        chosen = np.array([index[tuple(sorted(edge))] for edge in wall.tolist()])
        arm = middle[chosen] - (centre, 0)
        middle[chosen] = arm * (radius / np.hypot(*arm.T))[:, None] + (centre, 0)
        halves = [(a, chosen[k] + len(mesh.points)) for k, e in enumerate(wall) for a in e]
        new[radius] = np.array(halves)
    a, b, c = mesh.triangles.T
    ab, bc, ca = number
    four = ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))
    return FlatMesh(
        np.concatenate([mesh.points, middle]),
        np.concatenate([np.stack(t, 1) for t in four]),
        np.tile(mesh.hub, 4),
        rim=new[2.0],
        hole=new[0.2],
    )


@pytest.mark.parametrize("position", [0.9, 1.2])
def test_finer_triangles_converge(position):
    meshes = [load_mesh(9, position)]
    for _ in range(2):
        meshes.append(refined(meshes[-1], position))
    rims = [lengths(mesh, mesh.rim).sum() for mesh in meshes]
    assert np.pi * 2 / 9 - rims[2] == pytest.approx((np.pi * 2 / 9 - rims[0]) / 16, rel=0.03)
    first = len(meshes[0].points)
    found = [solve(mesh).temperature[:, :first] for mesh in meshes]
    errors = [np.nanmax(np.abs(coarse - found[2])) for coarse in found[:2]]
    assert errors[0] < 2e-3
    assert errors[0] / errors[1] > 3.5  # 5 if the order were 2; the hub's edge costs some.


def test_finer_layers_converge():
    mesh = load_mesh(9, 0.9)
    found = [solve(mesh, (2 * n, 3 * n)) for n in (1, 2, 4, 8)]
    ends = [solution.temperature[[0, -1]] for solution in found]  # Away from the hub's edge.
    errors = [np.nanmax(np.abs(end - ends[3])) for end in ends[:3]]
    assert errors[0] / errors[1] > 2.5
    assert errors[1] / errors[2] > 2.5


def test_an_independent_solution_in_three_dimensions():
    """scikit-fem, quadratic tetrahedra on netgen's mesh of the whole plate.

    Its walls are flat facets of 0.05, which lets 0.16 % less heat in: hence the tolerance.
    """
    places = [
        (0, 0, 0.5),
        (0.5, 0.1, -0.2),
        (0.3, -0.4, 0.03),
        (1.3, 0.5, 0.9),
        (-1.5, 0.2, 0.1),
        (-1.8, 0, 0.5),
    ]
    for design, want in (
        ((9, 0.9), [0.95923, 0.81885, 0.89118, 0.81916, 0.79234, 0.74217]),
        ((3, 1.3), [0.70668, 0.68050, 0.69609, 0.69591, 0.73123, 0.70161]),
    ):
        found = solve(load_mesh(*design), plate_solver.LAYERS)
        got = [
            plate_solver.evaluate(found, *(np.array([float(v)]) for v in place), design[0]).item()
            for place in places
        ]
        rise = np.array(want) - plate_solver.AIR
        np.testing.assert_allclose(np.array(got) - plate_solver.AIR, rise, rtol=4e-3, atol=1e-4)


def test_evaluation_is_exact_for_linear_fields():
    holes, position = 4, 1.3
    mesh, z = load_mesh(holes, position), plate_solver.layers(COARSE)
    field = 2 * mesh.points[:, 0] - mesh.points[:, 1] + z[:, None]
    outside = ~np.isin(np.arange(len(mesh.points)), mesh.triangles[mesh.hub])
    field[np.ix_(z < 0, outside)] = np.nan
    found = plate_solver.Solution(mesh, z, field, 0.0, 0.0)
    x, y, heights = geometry.axes((12, 11, 9))
    got = plate_solver.evaluate(found, x, y, heights, holes)
    across, along = geometry.fold(x[:, None], y[None, :], holes)
    want = (2 * across - along)[..., None] + heights
    mask = geometry.inside(x[:, None, None], y[None, :, None], heights, holes, position)
    assert mask[:, :, 0].any()
    np.testing.assert_allclose(got[mask], want[mask], atol=1e-9)


def test_the_hottest_and_the_coldest_design():
    """Temperatures are in units of about the hottest point that the paper trains on."""
    hot, mask = plate_solver.solve_design(9, 0.9, (50, 50, 8))
    cold, _ = plate_solver.solve_design(2, 1.6, (50, 50, 8))
    assert hot.max() == pytest.approx(1.024, abs=0.003)
    assert cold.max() == pytest.approx(0.739, abs=0.003)
    assert not hot[~mask].any()
    assert hot[mask].min() > plate_solver.AIR
    np.testing.assert_allclose(hot, hot[:, ::-1], atol=1e-6)  # Mirrored at y = 0.


def test_a_design_without_a_mesh():
    with pytest.raises(UserError, match=r"no mesh of a plate with 10 holes at 1\.2"):
        load_mesh(10, 1.2)
    with pytest.raises(UserError, match=r"with 4 holes at 1\.25; there are meshes of 2\.\.9"):
        load_mesh(4, 1.25)


def test_meshing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "netgen.occ", None)
    with pytest.raises(UserError, match=r"needs netgen .*mtl_jax\[meshing\]"):
        plate_meshing.make_sector(3, 1.2)
    with pytest.raises(UserError, match="unexpected argument 'x'"):
        plate_meshing.main(["x"])


def test_meshing_makes_the_shipped_mesh():
    pytest.importorskip("netgen.occ", exc_type=ImportError)
    points, triangles = plate_meshing.make_sector(9, 1.2)
    shipped = load_mesh(9, 1.2)
    assert len(triangles) == pytest.approx(len(shipped.triangles), rel=0.1)
    assert np.abs(points).max() == pytest.approx(2)


# The set


@pytest.fixture
def tiny(monkeypatch):
    """A grid and layers that solve in a second."""
    monkeypatch.setitem(geometry.GRIDS, "default", (14, 14, 6))
    monkeypatch.setattr(plate_solver, "LAYERS", (1, 2))


def test_the_set(tiny, tmp_path, capsys):
    found = load_plate("default", tmp_path)
    assert "40 of 40 designs solved" in capsys.readouterr().err
    assert verify("plate", tmp_path) == {"train": 24, "test": 40}
    assert found.task_names == tuple(f"holes_{n}" for n in range(2, 10))
    assert found.params.tolist() == np.array(geometry.DESIGNS, np.float32).tolist()
    assert found.field.shape == (64, 0)
    assert found.grid == (14, 14, 6)
    assert np.array_equal(found.task, found.params[:, 0] - 2)
    x, y, z = found.coords.astype(np.float64).T
    for sample in (0, 33, 63):
        holes, position = geometry.DESIGNS[sample]
        mask = geometry.inside(x, y, z, holes, position)
        assert np.array_equal(found.masks[found.geometry[sample]], mask)
        field, _ = plate_solver.solve_design(holes, position, (14, 14, 6))
        np.testing.assert_array_equal(found.solutions[sample], field.ravel())
    positions = {
        split: sorted(set(found.params[rows, 1].round(1).tolist()))
        for split, rows in found.splits.items()
    }
    want = {"train": (0.9, 1.2, 1.6), "validation": (1.0, 1.4), "test": (1.1, 1.3, 1.5)}
    for split, values in want.items():
        np.testing.assert_allclose(positions[split], values, rtol=1e-6)
        assert len(found.splits[split]) == 8 * len(values)

    paper = load_plate("default", tmp_path, paper_split=True)
    assert {split: len(rows) for split, rows in paper.splits.items()} == {
        "train": 16,
        "validation": 8,
        "test": 40,
    }
    both = np.concatenate(list(paper.splits.values()))
    assert sorted(both.tolist()) == list(range(64))
    trained = np.concatenate([paper.splits["train"], paper.splits["validation"]])
    assert sorted(trained.tolist()) == found.splits["train"].tolist()
    assert paper.params[paper.splits["validation"], 0].tolist() == [2, 3, 4, 5, 6, 7, 8, 9]
    assert set(paper.task[paper.splits["train"]]) == set(range(8))


def test_an_interrupted_build_is_not_taken_for_a_set(tiny, tmp_path, monkeypatch):
    whole = plate_solver.solve_design
    calls = []

    def stop(*arguments):
        calls.append(arguments)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(plate_dataset_builder.plate_solver, "solve_design", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare("plate", tmp_path)
    assert list((tmp_path / "plate" / "default").iterdir()) == []


def test_an_unknown_size(tmp_path):
    with pytest.raises(UserError, match=r"unknown config 'ful' of plate; did you mean 'full'"):
        load_plate("ful", tmp_path)
