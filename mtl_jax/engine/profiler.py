"""How long a step takes, and what it does: a timer and a trace window."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import jax


class StepTimer:
    """Times a training loop: compilation, the first step, and the steady steps apart.

    Devices run behind the host, so only the end of work that was waited for can be timed: call
    `tick` right after fetching results to the host. What it measures is the wall time between two
    ticks, data loading included; evaluations and checkpoints go into `pause`.

    Args:
      examples_per_step: global batch size.
      clock: seconds.
    """

    def __init__(
        self, examples_per_step: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._examples = examples_per_step
        self._clock = clock
        self._last = clock()
        self._first: float | None = None
        self._compile = 0.0
        self._seconds: list[float] = []  # a steady step, one entry an interval

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """What runs inside is not step time."""
        start = self._clock()
        try:
            yield
        finally:
            self._last += self._clock() - start

    @contextlib.contextmanager
    def compile(self) -> Iterator[None]:
        """What runs inside is compile time, and not step time."""
        start = self._clock()
        try:
            with self.pause():
                yield
        finally:
            self._compile += self._clock() - start

    def tick(self, steps: int = 1) -> float | None:
        """The results of `steps` more steps are on the host.

        The first tick closes the first step (tick after it alone), or the first interval; it is
        never a steady one.

        Returns:
          Seconds a step in this interval; None for the first one.
        """
        now = self._clock()
        seconds, self._last = (now - self._last) / steps, now
        if self._first is None:
            self._first = seconds
            return None
        self._seconds.append(seconds)
        return seconds

    def summary(self) -> dict[str, float]:
        """Times so far: those that are not known yet are left out.

        Keys: `compile_seconds`; `first_step_ms`; `step_ms`, the median over the intervals of the
        steady steps; `examples_per_second` at that pace.
        """
        out = {"compile_seconds": self._compile}
        if self._first is not None:
            out["first_step_ms"] = 1e3 * self._first
        if self._seconds:
            median = statistics.median(self._seconds)
            out["step_ms"] = 1e3 * median
            out["examples_per_second"] = self._examples / median if median else float("inf")
        return out


class Trace:
    """Traces the steps start <= step < stop with jax.profiler, into `workdir/trace`.

    A run that begins inside the window traces the rest of it, one that begins after it nothing,
    one that ends or fails inside it writes what it has. Use:

        with Trace(workdir, 100, 110) as trace:
            for step in range(first, last):
                with trace.step(step):
                    ...

    Args:
      workdir: the run folder.
      start: first step to trace.
      stop: first step not to trace; start == stop traces nothing.
    """

    def __init__(self, workdir: str | os.PathLike[str], start: int, stop: int) -> None:
        if not 0 <= start <= stop:
            raise ValueError(f"trace window {start}..{stop} must be 0 <= start <= stop")
        self.folder = Path(workdir) / "trace"
        self._start, self._stop = start, stop
        self._running = False

    @contextlib.contextmanager
    def step(self, step: int, count: int = 1) -> Iterator[None]:
        """Runs `count` steps from `step` on, inside the window or outside it.

        They are in the window if the first of them is.
        """
        inside = self._start <= step < self._stop
        if inside and not self._running:
            # No Python call stacks: they are most of the file and slow the traced steps down.
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0
            _wait_for_device()
            jax.profiler.start_trace(str(self.folder), profiler_options=options)
            self._running = True
        annotation: Any = contextlib.nullcontext()
        if inside:
            annotation = jax.profiler.StepTraceAnnotation("train", step_num=step)
        with annotation:
            yield
        if step + count >= self._stop:
            self.close()

    def close(self) -> None:
        """Writes the trace, if one is running."""
        if self._running:
            self._running = False
            try:
                _wait_for_device()
            finally:
                jax.profiler.stop_trace()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _wait_for_device() -> None:
    """Steps are dispatched ahead: without this the window holds other steps than it says."""
    jax.block_until_ready([array for array in jax.live_arrays() if not array.is_deleted()])
