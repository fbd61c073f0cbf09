"""Times are what the clock says, compilation apart; a trace window always ends in a file."""

from __future__ import annotations

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from mtl_jax.engine.profiler import StepTimer, Trace


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now

    def run(self, seconds: float) -> None:
        self.now += seconds


def test_compile_first_and_steady_steps_are_apart():
    clock = Clock()
    timer = StepTimer(64, clock)
    assert timer.summary() == {"compile_seconds": 0.0}
    with timer.compile():
        clock.run(20)
    clock.run(0.5)
    assert timer.tick() is None
    assert timer.summary() == pytest.approx({"compile_seconds": 20, "first_step_ms": 500})
    for seconds in (1.0, 2.0, 30.0):  # 10 steps each; the median shrugs off the outlier
        clock.run(seconds)
        assert timer.tick(10) == pytest.approx(seconds / 10)
    assert timer.summary() == pytest.approx(
        {
            "compile_seconds": 20,
            "first_step_ms": 500,
            "step_ms": 200,
            "examples_per_second": 64 / 0.2,
        }
    )


def test_pauses_are_not_step_time():
    clock = Clock()
    timer = StepTimer(1, clock)
    timer.tick()
    clock.run(0.25)
    with timer.pause():
        clock.run(9)
    clock.run(0.25)
    assert timer.tick() == pytest.approx(0.5)

    def fails() -> None:
        with timer.pause():
            clock.run(9)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    clock.run(0.5)
    assert timer.tick() == pytest.approx(0.5)


@jax.jit
def work(x):
    return jnp.sin(x @ x)


def run(trace: Trace, first: int, last: int, fails_at: int | None = None) -> None:
    x = jnp.ones((32, 32))
    with trace:
        for step in range(first, last):
            with trace.step(step):
                x = work(x)
                if step == fails_at:
                    raise ZeroDivisionError


def traced_steps(workdir) -> list[int]:
    steps = set()
    for path in (workdir / "trace").rglob("*.trace.json.gz"):
        for event in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]:
            if event.get("name") == "train":
                steps.add(int(event["args"]["step_num"]))
    return sorted(steps)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (0, 6, [2, 3]),
        (0, 3, [2]),  # the run ends inside the window
        (3, 6, [3]),  # it resumes inside the window
        (4, 6, []),  # after it
        (0, 2, []),  # it ends before it
    ],
)
def test_the_window_holds_the_steps_it_says(tmp_path, first, last, expected):
    trace = Trace(tmp_path, 2, 4)
    run(trace, first, last)
    trace.close()  # again: harmless
    assert traced_steps(tmp_path) == expected
    assert (tmp_path / "trace").exists() == bool(expected)


def test_a_run_that_fails_inside_the_window_leaves_a_trace(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run(Trace(tmp_path, 2, 9), 0, 9, fails_at=4)
    assert traced_steps(tmp_path) == [2, 3, 4]
    run(Trace(tmp_path, 0, 1), 0, 1)  # the profiler is free again


def test_an_empty_window_traces_nothing(tmp_path):
    run(Trace(tmp_path, 0, 0), 0, 3)
    assert not (tmp_path / "trace").exists()


def test_a_window_that_ends_before_it_starts_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"trace window 5\.\.3"):
        Trace(tmp_path, 5, 3)
