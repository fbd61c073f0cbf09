"""Paired timings, the environment that they were taken in, and the files that keep them.

What is compared is called in turns, A B, B A, A B, ..., so that another user of the machine slows
all alike: a ratio is the median of the ratios within a round, and is steadier than the times.
Wall time is reported as median and minimum; process CPU time (all threads) beside it tells a slow
program from a busy machine.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from mtl_jax.engine import parallel
from mtl_jax.engine.runfolder import public_environment, read_json, write_json_atomic
from mtl_jax.errors import Parser

RESULTS = Path(__file__).parent / "results"
Sample = tuple[float, float]
"""Wall and process CPU milliseconds of one call."""


class Timing(NamedTuple):
    """Times of one function, in ms.

    Attributes:
      samples: one entry a round, in the order of the rounds.
    """

    samples: tuple[Sample, ...]

    @property
    def median_ms(self) -> float:
        return statistics.median(wall for wall, _ in self.samples)

    @property
    def min_ms(self) -> float:
        return min(wall for wall, _ in self.samples)

    @property
    def cpu_ms(self) -> float:
        return statistics.median(cpu for _, cpu in self.samples)

    def over(self, other: Timing) -> float:
        """Median over the rounds of this time / the other's time."""
        pairs = zip(self.samples, other.samples, strict=True)
        return statistics.median(mine[0] / its[0] for mine, its in pairs)

    def fields(self) -> dict[str, float]:
        """The JSON fields of a timing."""
        return {
            "median_ms": round(self.median_ms, 4),
            "min_ms": round(self.min_ms, 4),
            "cpu_ms": round(self.cpu_ms, 4),
        }


def timer(call: Callable[[], Any], at_least_ms: float = 1.0) -> Callable[[], Sample]:
    """Returns `time_once() -> Sample` for a call whose result can be waited for.

    The call is warmed up, and repeated within a sample until that lasts `at_least_ms`.
    """

    def sample(repeats: int) -> Sample:
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(repeats):
            jax.block_until_ready(call())
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return 1e3 * wall / repeats, 1e3 * cpu / repeats

    sample(1)
    repeats = max(1, round(at_least_ms / max(sample(1)[0], 1e-6)))
    return lambda: sample(repeats)


def in_turns(
    timers: Mapping[str, Callable[[], Sample]], *, rounds: int = 7, seconds: float = 2.0
) -> dict[str, Timing]:
    """Times several functions in turns, in an order that is reversed every round.

    Args:
      timers: see `timer`.
      rounds: at least so many.
      seconds: and go on for so long, up to ten times as many rounds.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in timers}
    began, done = time.perf_counter(), 0
    while done < rounds or (done < 10 * rounds and time.perf_counter() - began < seconds):
        for name in list(timers) if done % 2 == 0 else reversed(list(timers)):
            samples[name].append(timers[name]())
        done += 1
    return {name: Timing(tuple(taken)) for name, taken in samples.items()}


def paired(
    calls: Mapping[str, Callable[[], Any]], *, rounds: int = 7, seconds: float = 2.0
) -> dict[str, Timing]:
    """Times calls in turns, see `timer` and `in_turns`."""
    timers = {name: timer(call) for name, call in calls.items()}
    return in_turns(timers, rounds=rounds, seconds=seconds)


def without_compile_cache() -> None:
    """Switches JAX's persistent cache off in this process, so that compile times are real."""
    jax.config.update("jax_enable_compilation_cache", False)


def processor() -> str:
    """The processor's name, as the system gives it."""
    try:
        names = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    """How many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def environment() -> dict[str, Any]:
    """Device, versions and how busy the machine was; JSON-ready, without anything of its user."""
    return {
        **public_environment(),
        "device": parallel.describe_devices(),
        "processor": processor(),
        "cores": cores(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def device_slug() -> str:
    """The device as a part of a file name: "intel-xeon-2-cores", "nvidia-h100-80gb-hbm3-x1"."""
    if jax.default_backend() == "cpu":
        name = re.sub(r"\((R|TM|tm)\)|processor|\bcpu\b|@.*", " ", processor(), flags=re.IGNORECASE)
        name = f"{name}-{cores()}-cores"
    else:
        name = f"{jax.devices()[0].device_kind}-x{jax.device_count()}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def busy() -> str | None:
    """A warning when others use the machine, else None.

    The load average counts processes of all users; half a core of it is forgiven.
    """
    load = os.getloadavg()[0]
    if load < 0.5:
        return None
    return (
        f"the load is {load:.1f} on {cores()} cores before the benchmark begins: times come out too"
        " high, most for programs whose threads wait for each other"
    )


def write(
    name: str, rows: Sequence[Mapping[str, Any]], before: Mapping[str, Any], **more: Any
) -> Path:
    """Writes `results/<name>-<device>.json` and returns its path.

    Args:
      name: of the benchmark.
      rows: one mapping a measurement.
      before: `environment()` when the benchmark began; the load at its end is added.
      more: further top-level fields.
    """
    load = [round(value, 2) for value in os.getloadavg()]
    path = RESULTS / f"{name}-{device_slug()}.json"
    RESULTS.mkdir(exist_ok=True)
    value = {
        "benchmark": name,
        "environment": {**before, "load_average_after": load},
        **more,
        "rows": [dict(row) for row in rows],
    }
    write_json_atomic(path, value)
    return path


def command(
    name: str, run: Callable[[bool], Sequence[Mapping[str, Any]]], argv: list[str], full: str
) -> None:
    """The command of a benchmark with a short and a full form: runs it and writes its file.

    Args:
      name: of the module in `benchmarks`, and of the file.
      run: `run(full)` prints and returns the rows.
      argv: arguments of the command line.
      full: what `--full` adds, for `--help`.
    """
    parser = Parser(f"python -m benchmarks.{name}")
    parser.add_argument("--full", action="store_true", help=full)
    args = parser.parse_args(argv)
    without_compile_cache()
    before = environment()
    print(f"written: {write(name, run(args.full), before, full=args.full)}")


def read_results() -> list[dict[str, Any]]:
    """All result files, by name."""
    return [read_json(path) for path in sorted(RESULTS.glob("*.json"))]


def show(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Prints chosen fields of rows as a table, or one line when there is nothing to show."""
    cells = [[_short(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(line[k]) for line in [list(columns), *cells]) for k in range(len(columns))]
    for line in [list(columns), *cells]:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 100 else _whole(value)


def _whole(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)
