"""The benchmark of embedding tables runs and counts what it says; nothing here is timed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks import embedding_step
from mtl_jax.errors import UserError

QUICK: dict[str, Any] = {"rounds": 1, "seconds": 0}


@pytest.mark.parametrize("update", embedding_step.UPDATES)
def test_every_update_is_a_row_for_each_size(update: str) -> None:
    rows = embedding_step.measure(update, (200, 60), batch_size=8, lookups=3, **QUICK)
    assert [row["rows"] for row in rows] == [60, 200]
    assert all(row["ids"] == 24 and row["median_ms"] > 0 for row in rows)
    assert rows[0]["over_smallest"] == 1
    assert set(embedding_step.COLUMNS) <= set(rows[0])
    # The gradient of the table is what devices would send each other.
    small, large = (row["collective_bytes"]["all-reduce"] for row in rows)
    grown = 140 * embedding_step.DIM * 4 if update == "dense_adam" else 0
    assert large - small == grown


def test_row_updates_learn_as_the_dense_one_does() -> None:
    dense, rows = (embedding_step.Stepper(60, 8, 3, update) for update in ("dense_adam", "sgd"))
    losses = {stepper: np.asarray(stepper()[1]["losses"]) for stepper in (dense, rows)}
    np.testing.assert_allclose(losses[dense], losses[rows], rtol=1e-5)  # of the first batch
    with pytest.raises(UserError, match="did you mean 'lazy_adam'"):
        embedding_step.Stepper(60, 8, 3, "lazy_adams")
