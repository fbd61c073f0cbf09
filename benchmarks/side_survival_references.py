"""Other packages' side of `benchmarks.survival_references`: a script of its own, without jax.

    python benchmarks/side_survival_references.py FOLDER    # what the benchmark starts

Reads FOLDER/data.npz (columns of training and test rows, their times and events) and
FOLDER/options.json, fits each model on the training rows, writes FOLDER/risks.npz (risks of test
rows, higher for shorter lives) and prints one JSON line: seconds, scikit-survival's own
concordance of each, and versions.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
import time as clock
from pathlib import Path
from typing import Any

import numpy as np

MODELS = {
    "cox": ("linear_model", "CoxPHSurvivalAnalysis"),
    "rsf": ("ensemble", "RandomSurvivalForest"),
}


def sksurv(module: str, name: str) -> Any:
    """A function or class of scikit-survival, which this package does not depend on."""
    return getattr(importlib.import_module(f"sksurv.{module}"), name)


def main(folder: Path) -> None:
    with np.load(folder / "data.npz") as arrays:
        data = dict(arrays)
    options: dict[str, dict[str, Any]] = json.loads((folder / "options.json").read_text())
    target = sksurv("util", "Surv").from_arrays(data["train_event"], data["train_time"])
    judge = sksurv("metrics", "concordance_index_censored")
    risks, answers = {}, {}
    for name, settings in options.items():
        began = clock.perf_counter()
        model = sksurv(*MODELS[name])(**settings).fit(data["train_x"], target)
        risks[name] = np.asarray(model.predict(data["test_x"]), np.float64)
        seconds = clock.perf_counter() - began
        own = judge(data["test_event"], data["test_time"], risks[name])
        answers[name] = {"seconds": seconds, "concordance": float(own[0])}
    np.savez(folder / "risks.npz", **risks)  # type: ignore[arg-type]
    packages = ("scikit-survival", "scikit-learn", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    print(json.dumps({"models": answers, "versions": versions}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
