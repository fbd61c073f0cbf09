"""The benchmark of aggregation in parts runs and counts what it says; nothing here is timed."""

from __future__ import annotations

import pytest

from benchmarks import aggregation_bytes
from mtl_jax.engine.collectives import collective_bytes, ring_bytes
from mtl_jax.errors import UserError


def test_both_ways_are_a_row() -> None:
    rows = aggregation_bytes.measure(2, widths=(4,), batch_size=8, rounds=1, seconds=0)
    assert [row["reduce"] for row in rows] == ["all", "scatter"]
    assert all(row["median_ms"] > 0 and row["shared"] == 36 * 36 * 4 + 4 for row in rows)
    assert set(aggregation_bytes.COLUMNS) <= set(rows[0])
    assert rows[0]["over_all"] == 1
    with pytest.raises(UserError, match="one device"):
        aggregation_bytes.run()


def test_rings_send_what_is_summed_twice_and_what_is_shared_out_once() -> None:
    text = """
  %a = f32[3,80]{1,0} all-reduce(%x), channel_id=1
  %b = f32[3,10]{1,0} reduce-scatter(%x), channel_id=2
  %c = f32[80]{0} all-gather(%y), channel_id=3
"""
    found = collective_bytes(text)
    assert found == {"all-gather": 320, "all-reduce": 960, "reduce-scatter": 120}
    each = {kind: ring_bytes({kind: size}, 8) for kind, size in found.items()}
    assert each == {"all-gather": 280, "all-reduce": 1680, "reduce-scatter": 840}
    assert ring_bytes(found, 8) == 2800
    assert ring_bytes(found, 1) == 0
