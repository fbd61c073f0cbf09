"""Other packages' side of `benchmarks.concordance`: a script of its own, without jax.

    python benchmarks/side_survival.py      # what the benchmark starts; JSON lines in and out

A request names a data file and a call; the answer holds its value and the milliseconds it took.
pycox's module of concordances is loaded alone: the package imports torch.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import sys
import time as clock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Call = Callable[[dict[str, np.ndarray]], float]


def lifelines() -> dict[str, Call]:
    module = importlib.import_module("lifelines.utils")

    def harrell(d: dict[str, np.ndarray]) -> float:
        return module.concordance_index(d["time"], -d["risk"], d["event"])

    return {"concordance": harrell}


def sksurv() -> dict[str, Call]:
    module = importlib.import_module("sksurv.metrics")

    def harrell(d: dict[str, np.ndarray]) -> float:
        return module.concordance_index_censored(d["event"], d["time"], d["risk"])[0]

    return {"concordance": harrell}


def pycox() -> dict[str, Call]:
    package = importlib.util.find_spec("pycox")
    if package is None or not package.submodule_search_locations:
        raise ImportError("No module named 'pycox'")
    path = Path(package.submodule_search_locations[0]) / "evaluation" / "concordance.py"
    spec = importlib.util.spec_from_file_location("pycox_concordance", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def antolini(d: dict[str, np.ndarray]) -> float:
        columns = np.searchsorted(d["grid"], d["time"], "right") - 1
        curves = np.ascontiguousarray(d["survival"].T)
        return module.concordance_td(d["time"], d["event"], curves, columns, "antolini")

    time, ones = np.arange(1.0, 3), np.ones(2)
    few = {"time": time, "event": ones > 0, "survival": ones[:, None], "grid": ones[:1]}
    antolini(few)  # compiles it, which takes seconds and is not what is compared
    return {"antolini": antolini}


PEERS = {
    "lifelines": ("lifelines", lifelines),
    "sksurv": ("scikit-survival", sksurv),
    "pycox": ("pycox", pycox),
}


def main() -> None:
    """Answers requests until the input ends."""
    calls: dict[str, dict[str, Call]] = {}
    found: dict[str, Any] = {"versions": {}, "missing": {}}
    for name, (package, load) in PEERS.items():
        try:
            calls[name] = load()
            found["versions"][name] = importlib.metadata.version(package)
        except ImportError as error:
            found["missing"][name] = str(error)
    print(json.dumps(found), flush=True)
    data: dict[str, np.ndarray] = {}
    held = ""
    for line in sys.stdin:
        message = json.loads(line)
        if message["path"] != held:
            with np.load(message["path"]) as arrays:
                data, held = dict(arrays), message["path"]
        call = calls[message["library"]][message["what"]]
        wall, cpu = clock.perf_counter(), clock.process_time()
        value = float(call(data))
        wall, cpu = clock.perf_counter() - wall, clock.process_time() - cpu
        print(json.dumps({"value": value, "sample": [1e3 * wall, 1e3 * cpu]}), flush=True)


if __name__ == "__main__":
    main()
