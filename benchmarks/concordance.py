"""Concordance of a risk with lifetimes: this package against lifelines, scikit-survival and pycox.

Lifetimes with a third censored, risks that know something of them, of two kinds: "ties", whole days
and risks of two decimals, and "distinct", where nearly all numbers differ. For every size the
programs take turns; all must give the same value, or the run ends.

  concordance  host      `metrics.survival.concordance`, checks and sorting included
               jit       `concordance_sums`, sorting included, data on the device
               lifelines, sksurv
  antolini     host      `antolini_concordance` of curves on a grid of 8 times
               pycox     its "antolini", which counts ties as nothing; so does ours here
  replicate    vmap      one replicate of `bootstrap_concordance`, of 64

`over_host` is the time over that of ours on the host, above 1 ours is faster. A package is left out
from the size on at which it would take more than 20 s. Other packages may live in an environment of
their own: name its Python.

    python -m benchmarks.concordance                          # 1e3 to 1e6 rows
    python -m benchmarks.concordance --quick                  # to 2e4 rows
    python -m benchmarks.concordance --peers PATH/bin/python
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import timing
from benchmarks.peers import Peers
from mtl_jax.engine.runfolder import write_json_atomic
from mtl_jax.errors import Parser, UserError, run_command
from mtl_jax.metrics import survival

SIZES = (1_000, 10_000, 20_000, 100_000, 1_000_000)
QUICK = (1_000, 20_000)
COLUMNS = (
    "what", "data", "rows", "library", "median_ms", "min_ms", "cpu_ms", "over_host", "value",
)  # fmt: skip
LIMIT_MS, LONG_MS = 20_000.0, 3_000.0
REPLICATES = 64
# By how much ten times the rows lengthen a call, for the choice of what to leave out.
GROWTH = {"lifelines": 12.0, "sksurv": 100.0, "pycox": 100.0}


def lifetimes(kind: str, rows: int) -> dict[str, np.ndarray]:
    """Data of a kind, "ties" or "distinct"; in numbers that float32 holds."""
    rng = np.random.default_rng(rows)
    risk = rng.normal(size=rows)
    life = rng.exponential(30 * np.exp(-risk))
    gone = rng.exponential(60, rows)
    time, event = np.minimum(life, gone), life <= gone
    seen = risk + rng.normal(size=rows)
    if kind == "ties":
        time, seen = np.ceil(time), np.round(seen, 2)
    grid = np.asarray([0.0, 2, 5, 10, 20, 40, 80, 160])
    spread = rng.uniform(0.6, 1.6, (rows, 1))
    survival = np.exp(-((grid * np.exp(seen[:, None]) / 30) ** spread))
    numbers = {"time": time, "risk": seen, "survival": np.round(survival, 3), "grid": grid}
    return {"event": event} | {k: v.astype(np.float32).astype(float) for k, v in numbers.items()}


def concordance_calls(data: dict[str, np.ndarray]) -> dict[str, Callable[[], Any]]:
    """Our calls; each returns the value in the end."""
    count = jax.jit(survival.concordance_sums)
    columns = [jax.device_put(np.float32(data[name])) for name in ("time", "event", "risk")]

    def compiled() -> float:
        won, tied, whole = (int(survival.total(field)) for field in count(*columns))
        return (won + tied / 2) / whole

    def host() -> float:
        return survival.concordance(data["time"], data["event"], data["risk"]).value

    return {"host": host, "jit": compiled}


def antolini_calls(data: dict[str, np.ndarray]) -> dict[str, Callable[[], Any]]:
    """Our call."""
    rows = data["time"], data["event"], data["survival"], data["grid"]
    return {"host": lambda: survival.antolini_concordance(*rows, ties="zero").value}


def ask(peers: Peers, library: str, what: str, path: Path) -> tuple[float, timing.Sample]:
    """Returns the value and the times of another package's call."""
    answer = peers.ask(library=library, what=what, path=str(path))
    wall, cpu = answer["sample"]
    return answer["value"], (wall, cpu)


def measure(
    what: str, kind: str, rows: int, peers: Peers, names: list[str], rounds: int
) -> list[dict[str, Any]]:
    """Times one task of one size; `names` are the packages to ask, those too slow are removed."""
    data = lifetimes(kind, rows)
    ours = concordance_calls(data) if what == "concordance" else antolini_calls(data)
    values = {name: call() for name, call in ours.items()}
    timers = {name: timing.timer(call) for name, call in ours.items()}
    long: dict[str, timing.Timing] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{what}-{kind}-{rows}.npz"
        np.savez(path, **data)  # type: ignore[arg-type]
        for name in list(names):
            # Once for what is compiled or read on the first call.
            values[name], first = ask(peers, name, what, path)
            if first[0] > LONG_MS:
                long[name] = timing.Timing((first,))
            else:
                timers[name] = lambda name=name: ask(peers, name, what, path)[1]
        taken = timing.in_turns(timers, rounds=rounds, seconds=0.0) | long
    for name, value in values.items():
        if abs(value - values["host"]) > 1e-9:
            raise UserError(
                f"{what} of {rows} rows ({kind}): {name} says {value!r}, ours {values['host']!r};"
                " they must agree, report this"
            )
    out = []
    for name, found in taken.items():
        row = {"what": what, "data": kind, "rows": rows, "library": name, **found.fields()}
        if name != "host":
            alone = found.median_ms / taken["host"].median_ms
            row["over_host"] = round(alone if name in long else found.over(taken["host"]), 3)
        out.append(row | {"value": float(f"{values[name]:.12g}"), "rounds": len(found.samples)})
    return out


def replicate(rows: int) -> dict[str, Any]:
    """Times a replicate of the bootstrap."""
    data = lifetimes("ties", rows)
    arguments = data["time"], data["event"], data["risk"][None]

    def call() -> Any:
        return survival.bootstrap_concordance(*arguments, replicates=REPLICATES)

    found = timing.in_turns({"vmap": timing.timer(call)}, rounds=3, seconds=0.0)["vmap"]
    each = timing.Timing(
        tuple((wall / REPLICATES, cpu / REPLICATES) for wall, cpu in found.samples)
    )
    return {"what": "replicate", "data": "ties", "rows": rows, "library": "vmap", **each.fields()}


def run(peers: Peers, quick: bool) -> list[dict[str, Any]]:
    """Runs everything, prints as it goes, and returns all rows."""
    sizes, found = QUICK if quick else SIZES, []
    for what, kinds, asked in (
        ("concordance", ("ties",) if quick else ("ties", "distinct"), ("lifelines", "sksurv")),
        ("antolini", ("ties",), ("pycox",)),
    ):
        for kind in kinds:
            last: dict[str, tuple[int, float]] = {}
            for rows in sizes:
                names = []
                for name in asked:
                    if name not in peers.versions:
                        continue
                    before, ms = last.get(name, (rows, 0.0))
                    if ms * GROWTH[name] ** np.log10(rows / before) < LIMIT_MS:
                        names.append(name)
                new = measure(what, kind, rows, peers, names, rounds=3 if quick else 7)
                last |= {row["library"]: (rows, row["median_ms"]) for row in new}
                timing.show(new, COLUMNS)
                found += new
    new = [replicate(rows) for rows in (QUICK[:1] if quick else (1_000, 10_000, 100_000))]
    timing.show(new, COLUMNS)
    return found + new


def main(argv: list[str]) -> None:
    """The command."""
    parser = Parser("python -m benchmarks.concordance")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller sizes")
    parser.add_argument(
        "--peers", default=sys.executable, help="Python with the other packages; default: this one"
    )
    args = parser.parse_args(argv)
    timing.without_compile_cache()
    if warning := timing.busy():
        print(f"warning: {warning}")
    before, peers = timing.environment(), Peers(args.peers, "side_survival.py")
    try:
        for name, reason in peers.missing.items():
            print(f"without {name}: {reason}; install it, or name a Python that has it: --peers")
        rows = run(peers, args.quick)
    finally:
        peers.close()
    load = [round(value, 2) for value in os.getloadavg()]
    path = timing.RESULTS / f"concordance_{jax.default_backend()}.json"
    timing.RESULTS.mkdir(exist_ok=True)
    value = {
        "benchmark": "concordance",
        "environment": {**before, "peers": peers.versions, "load_average_after": load},
        "full": not args.quick,
        "rows": rows,
    }
    write_json_atomic(path, value)
    print(f"written: {path}")


if __name__ == "__main__":
    run_command(main)
