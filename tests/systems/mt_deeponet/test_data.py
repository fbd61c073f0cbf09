"""Boundaries, packing, scales, and the relative errors against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_jax.errors import UserError
from mtl_jax.metrics.base import accumulate, compute
from mtl_jax.metrics.operators import operator_error, relative_l2
from mtl_jax.systems.mt_deeponet import losses, normaliser
from mtl_jax.systems.mt_deeponet.builders import cut, only_tasks
from mtl_jax.systems.mt_deeponet.data import boundary, operator_data, pack, time_axes
from tests import operator_sets


def test_the_boundary_of_a_square_is_its_rim() -> None:
    mask = np.zeros((6, 7), bool)
    mask[1:5, 2:7] = True
    rim = mask.copy()
    rim[2:4, 3:6] = False
    np.testing.assert_array_equal(boundary(mask.reshape(1, -1), (6, 7))[0].reshape(6, 7), rim)
    assert not boundary(mask.reshape(1, -1), ()).any()


def test_the_first_and_the_last_time_are_no_boundary() -> None:
    found = operator_sets.families()._replace(coord_names=("t", "x"))
    axes = time_axes(found)
    assert axes == (0,)
    ends = boundary(found.masks, found.grid, axes).reshape(found.grid)
    assert ends[:, [0, -1]].all()
    assert not ends[:, 1:-1].any()
    assert time_axes(found._replace(coord_names=("y", "x"))) == ()
    assert time_axes(found._replace(coord_names=("x", "t"))) == (1,)


def test_packing_keeps_the_points_of_all_geometries() -> None:
    found = operator_sets.designs()
    packed, kept = pack(found)
    np.testing.assert_array_equal(kept, np.flatnonzero(found.masks.any(0)))
    assert len(kept) < found.masks.shape[1]
    np.testing.assert_array_equal(packed.coords, found.coords[kept])
    np.testing.assert_array_equal(packed.solutions, found.solutions[:, kept])
    again, everything = pack(packed)
    assert again is packed
    assert len(everything) == len(kept)


@pytest.mark.parametrize("solution", ["point", "standard", "global", "max", "none"])
def test_scales_come_from_training_samples_inside_their_masks(solution: str) -> None:
    found = operator_sets.geometries()
    scales = normaliser.fit(found, params="point", solution=solution)
    train = found.splits["train"]
    inside = found.masks[found.geometry[train]]
    values = found.solutions[train].astype(np.float64)
    if solution == "point":
        for n in range(0, found.masks.shape[1], 17):
            own = values[inside[:, n], n]
            np.testing.assert_allclose(scales["solution_mean"][n], own.mean(), rtol=1e-5, atol=1e-7)
            if own.std() > 1e-6:
                np.testing.assert_allclose(scales["solution_std"][n], own.std(), rtol=1e-4)
            else:
                assert scales["solution_std"][n] == scales["solution_std"].max()
    elif solution == "standard":
        np.testing.assert_allclose(scales["solution_mean"], [values[inside].mean()], rtol=1e-5)
        np.testing.assert_allclose(scales["solution_std"], [values[inside].std()], rtol=1e-5)
        flat = normaliser.fit(
            found._replace(solutions=np.full_like(found.solutions, 0.1)),
            params="point",
            solution=solution,
        )
        assert flat["solution_std"] == [1]  # Nothing varies: not divided by a rounding error.
    elif solution == "global":
        np.testing.assert_allclose(
            scales["solution_std"], np.sqrt(np.square(values[inside]).mean()), rtol=1e-5
        )
    elif solution == "max":
        np.testing.assert_allclose(scales["solution_std"], np.abs(values[inside]).max(), rtol=1e-6)
    else:
        assert (scales["solution_std"] == 1).all()
    other = found._replace(splits={**found.splits, "train": train[:3]})
    moved = normaliser.fit(other, params="point", solution=solution)
    assert not np.allclose(moved["field_mean"], scales["field_mean"])


def test_coordinates_fill_the_unit_box() -> None:
    found = operator_sets.designs()
    scales = normaliser.fit(found, params="none", solution="none")
    y = np.asarray(normaliser.coordinates(scales, found.coords))
    np.testing.assert_allclose(y.min(0), -1)
    np.testing.assert_allclose(y.max(0), 1)
    scales = normaliser.fit(found, params="none", solution="none", coords="none")
    as_is = normaliser.coordinates(scales, found.coords)
    np.testing.assert_allclose(as_is, found.coords, rtol=1e-6, atol=1e-6)


def test_relative_errors_are_numpys_whatever_the_batches() -> None:
    rng = np.random.default_rng(0)
    truth, said = rng.normal(size=(2, 7, 9)).astype(np.float32)
    inside = rng.random((7, 9)) < 0.7
    edge = inside & (rng.random((7, 9)) < 0.3)
    weight = np.array([1, 1, 0, 1, 1, 1, 0])
    total = None
    for rows in (slice(0, 4), slice(4, 7)):
        bad = np.where((inside & (weight != 0)[:, None])[rows], said[rows], np.nan)
        parts = (truth[rows], inside[rows], edge[rows], weight[rows])
        total = accumulate(total, operator_error(bad, *parts))
    values = compute(total)
    use = np.flatnonzero(weight)
    gap, size = np.where(inside, said - truth, 0)[use], np.where(inside, truth, 0)[use]
    norms = np.linalg.norm(gap, axis=1) / np.linalg.norm(size, axis=1)
    np.testing.assert_allclose(values["rel_l2_mean"], norms.mean(), rtol=1e-6)
    np.testing.assert_allclose(
        values["rel_l2_global"], np.linalg.norm(gap) / np.linalg.norm(size), rtol=1e-6
    )
    np.testing.assert_allclose(
        values["rmse"], np.sqrt((gap**2).sum() / inside[use].sum()), rtol=1e-6
    )
    border = np.where(edge, said - truth, 0)[use]
    np.testing.assert_allclose(
        values["boundary_rmse"], np.sqrt((border**2).sum() / edge[use].sum()), rtol=1e-6
    )


def test_errors_relative_to_what_exceeds_a_background() -> None:
    rng = np.random.default_rng(1)
    rise, said = rng.normal(size=(2, 5, 9)).astype(np.float32)
    inside = rng.random((5, 9)) < 0.7
    none, weight = np.zeros((5, 9), bool), np.array([1, 1, 0, 1, 1])
    bare = operator_error(said, rise, inside, none, weight)
    assert not any(name.endswith("excess") for name in bare.compute())
    above = operator_error(said + 4, rise + 4, inside, none, weight, background=4.0).compute()
    want = bare.compute()
    assert above["rel_l2_mean"] < 0.5 * want["rel_l2_mean"]
    for name in ("rel_l2_mean", "rel_l2_global"):
        np.testing.assert_allclose(above[f"{name}_excess"], want[name], rtol=1e-5)
    np.testing.assert_allclose(above["rmse"], want["rmse"], rtol=1e-5)


def test_a_perfect_prediction_has_a_gradient() -> None:
    import jax

    u = np.ones((2, 3), np.float32)
    inside = np.ones((2, 3), bool)
    gradient = jax.grad(lambda p: relative_l2(p, u, inside).sum())(u)
    np.testing.assert_array_equal(gradient, 0)


def test_a_loss_on_drawn_points_divides_by_the_whole_solution() -> None:
    rng = np.random.default_rng(2)
    whole, gap = rng.normal(size=(2, 4, 50)).astype(np.float32)
    whole[0, :10] = 0  # nothing to divide by among the points drawn
    inside = np.ones((4, 50), bool)
    inside[1, :10] = False  # and no point inside among them
    size = np.sqrt((whole**2 * inside).sum(1) / inside.sum(1))
    std, weight = np.full(1, 2, np.float32), np.array([1, 1, 1, 0], np.float32)

    def loss(points: slice) -> tuple[float, float]:
        u = whole[:, points] / std
        return losses.loss_sum(
            "relative_l2", u + gap[:, points], u, std, inside[:, points], size, weight, 50.0
        )

    error = np.linalg.norm(2 * gap * inside, axis=1) / np.linalg.norm(whole * inside, axis=1)
    np.testing.assert_allclose(loss(slice(None)), (error[:3].sum(), 3), rtol=1e-5)
    few = np.sqrt(np.square(2 * gap[:, :10]).mean(1)) / size
    np.testing.assert_allclose(loss(slice(10)), (few[0] + few[2], 2), rtol=1e-5)
    size[2] = 0  # a solution that is 0 everywhere
    assert np.isfinite(loss(slice(None))).all()


def test_cutting_takes_the_same_number_of_each_task() -> None:
    found = operator_sets.families()
    small = cut(found, 4)
    np.testing.assert_array_equal(np.bincount(found.task[small.splits["train"]]), [4, 4, 4])
    assert set(small.splits["train"]) <= set(found.splits["train"])
    with pytest.raises(UserError, match="train_size is 400, but task"):
        cut(found, 400)


def test_batches_that_do_not_fit() -> None:
    found = operator_sets.families()
    with pytest.raises(UserError, match="needs a multiple of 6: choose 12"):
        operator_data(found, batch_size=16, seed=0, devices=2)
    with pytest.raises(UserError, match=r"takes 20 samples of task .*choose a batch of at most"):
        operator_data(found, batch_size=60, seed=0)
    with pytest.raises(UserError, match="2 micro-batches needs a multiple of 6: choose 12"):
        operator_data(found, batch_size=15, seed=0, microbatches=2)
    with pytest.raises(UserError, match="there are 40 query points"):
        operator_data(found, batch_size=6, seed=0, points_per_step=41)


def test_some_tasks_only() -> None:
    found = operator_sets.families()
    some = only_tasks(found, ("third", "first"))
    assert some.task_names == ("third", "first")
    for name, t in (("third", 0), ("first", 1)):
        for split, own in some.splits.items():
            was = found.splits[split]
            want = found.solutions[was[found.task[was] == found.task_names.index(name)]]
            np.testing.assert_array_equal(some.solutions[own[some.task[own] == t]], want)
    for names in (("first", "first"), ("fourth",)):
        with pytest.raises(UserError, match="each once"):
            only_tasks(found, names)


def test_a_prediction_that_is_no_number_is_no_perfect_one() -> None:
    u, inside = np.ones((2, 3), np.float32), np.ones((2, 3), bool)
    said = np.array([[1, np.nan, 1], [1, 1, 2]], np.float32)
    errors = np.asarray(relative_l2(said, u, inside))
    assert np.isnan(errors[0])
    np.testing.assert_allclose(errors[1], 1 / np.sqrt(3), rtol=1e-6)


def test_scales_do_not_depend_on_the_unit_of_the_solution() -> None:
    """At t = 0 the two ends hold the same number in every sample: constant points."""
    found = operator_sets.families()
    small = found._replace(solutions=(found.solutions * np.float32(2.0**-30)))
    one, other = (normaliser.fit(s, params="none", solution="point") for s in (found, small))
    np.testing.assert_allclose(other["solution_std"] * 2.0**30, one["solution_std"], rtol=1e-5)
    assert found.solutions[found.splits["train"]].std(0).min() == 0
    assert one["solution_std"].min() > 0.01


def test_coordinates_outside_a_mask_have_no_part_in_their_box() -> None:
    found = operator_sets.scattered()
    masks = np.ones((2, 12), bool)
    masks[1, 9:] = False
    geometry = np.arange(20, dtype=np.int32) % 2
    coords = np.where(masks[geometry][..., None], found.coords, 1e6).astype(np.float32)
    padded = found._replace(masks=masks, geometry=geometry, coords=coords)
    scales = normaliser.fit(padded, params="none", solution="none")
    assert (scales["coords_range"] <= 1).all()
