"""Writes survival_golden.json: what lifelines, scikit-survival, pycox and hazardous say of cases.

None of them is a dependency of this repository: install them in an environment of its own,

    pip install lifelines scikit-survival numba tqdm && pip install --no-deps pycox hazardous

and run, from anywhere, `python make_golden.py`. pycox's module of concordances is loaded alone:
the package imports torch. The cases hold many ties of times and of risks, whole-number weights,
late entries and two causes.
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from hazardous.metrics import brier_score_incidence, concordance_index_incidence
from lifelines import KaplanMeierFitter, NelsonAalenFitter
from lifelines.utils import concordance_index, restricted_mean_survival_time
from sksurv.metrics import (
    brier_score,
    concordance_index_censored,
    concordance_index_ipcw,
    cumulative_dynamic_auc,
    integrated_brier_score,
)
from sksurv.nonparametric import (
    CensoringDistributionEstimator,
    cumulative_incidence_competing_risks,
    kaplan_meier_estimator,
)
from sksurv.util import Surv

FILE = Path(__file__).with_name("survival_golden.json")
PACKAGES = ("lifelines", "scikit-survival", "pycox", "hazardous", "numpy")


def pycox_concordance() -> Any:
    """The function `concordance_td` of pycox, without the rest of it."""
    package = importlib.util.find_spec("pycox")
    path = Path(package.submodule_search_locations[0]) / "evaluation" / "concordance.py"
    spec = importlib.util.spec_from_file_location("pycox_concordance", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.concordance_td


def rows(seed: int, n: int, unit: float, causes: int = 1) -> dict[str, np.ndarray]:
    """Lifetimes of which a third is censored, in multiples of `unit`; risks of one decimal."""
    rng = np.random.default_rng(seed)
    risk = np.round(rng.normal(size=n), 1)
    life = rng.exponential(10 * np.exp(-risk))
    gone = rng.exponential(15, n)
    time = np.maximum(np.ceil(np.minimum(life, gone) / unit) * unit, unit)
    end = np.minimum(time, 30 * unit)
    event = (life <= gone) * rng.integers(1, causes + 1, n)
    return {
        "time": end,
        "event": np.where(time > 30 * unit, 0, event),
        "risk": risk,
        "weights": rng.integers(1, 5, n),
        "entry": np.where(rng.random(n) < 0.4, np.floor(end * rng.random(n) / unit) * unit, 0),
    }


def curves(risk: np.ndarray, grid: np.ndarray, seed: int) -> np.ndarray:
    """Survival curves of two decimals that cross."""
    rng = np.random.default_rng(seed)
    shape = rng.choice([0.7, 1.0, 1.4], len(risk))
    return np.round(np.exp(-((grid[None] * np.exp(risk[:, None]) / 10) ** shape[:, None])), 2)


def single(seed: int, n: int, unit: float) -> dict[str, Any]:
    """A case with one kind of event; scikit-survival weights by a training set."""
    test, train = rows(seed, n, unit), rows(seed + 100, n, unit)
    time, event, risk = test["time"], test["event"] > 0, test["risk"]
    inside = time < train["time"].max()
    test = {name: column[inside] for name, column in test.items()}
    time, event, risk = test["time"], test["event"] > 0, test["risk"]
    grid = np.quantile(time, [0.1, 0.3, 0.5, 0.7, 0.9])
    grid = np.unique(np.clip(grid, time.min() + 0.01, time.max() - 0.01))
    survival = curves(risk, grid, seed)
    known = Surv.from_arrays(event, time)
    past = Surv.from_arrays(train["event"] > 0, train["time"])
    tau = float(np.quantile(time, 0.8))
    harrell = concordance_index_censored(event, time, risk)
    uno = concordance_index_ipcw(past, known, risk, tau)
    aucs, mean_auc = cumulative_dynamic_auc(past, known, risk, grid)
    censoring = CensoringDistributionEstimator().fit(past)
    step = np.searchsorted(grid, time, "right") - 1
    antolini = pycox_concordance()
    padded = np.concatenate([np.ones((1, len(time))), survival.T])
    again = np.repeat(np.arange(len(time)), test["weights"])
    km = KaplanMeierFitter().fit(time, event, weights=test["weights"])
    late = kaplan_meier_estimator(event, time, test["entry"], conf_type="log-log")
    plain = kaplan_meier_estimator(event, time, conf_type="log-log")
    hazard = NelsonAalenFitter(nelson_aalen_smoothing=False).fit(
        time, event, weights=test["weights"]
    )
    late_lines = KaplanMeierFitter().fit(time, event, entry=test["entry"], weights=test["weights"])
    # Its variance is that of the lifetime and not of the estimate: it is not recorded.
    rmst = restricted_mean_survival_time(KaplanMeierFitter().fit(time, event), t=tau)
    return {
        **{name: column.tolist() for name, column in test.items()},
        "train_time": train["time"].tolist(),
        "train_event": train["event"].tolist(),
        "grid": grid.tolist(),
        "survival": survival.tolist(),
        "tau": tau,
        "lifelines_concordance": concordance_index(time, -risk, event),
        "lifelines_repeated": concordance_index(time[again], -risk[again], event[again]),
        "sksurv_concordance": [float(value) for value in harrell],
        "sksurv_uno": [float(value) for value in uno],
        "sksurv_brier": brier_score(past, known, survival, grid)[1].tolist(),
        "sksurv_ibs": integrated_brier_score(past, known, survival, grid),
        "sksurv_auc": [aucs.tolist(), float(mean_auc)],
        "sksurv_censoring": censoring.predict_proba(grid).tolist(),
        "pycox_antolini": antolini(time, event, padded, step + 1, "antolini"),
        "pycox_adjusted": antolini(time, event, padded, step + 1, "adj_antolini"),
        "lifelines_weighted_km": km.survival_function_at_times(grid).tolist(),
        "lifelines_weighted_interval": np.asarray(
            km.confidence_interval_survival_function_.reindex(grid, method="pad")
        ).T.tolist(),
        "lifelines_weighted_hazard": hazard.cumulative_hazard_at_times(grid).tolist(),
        "lifelines_late_km": late_lines.survival_function_at_times(grid).tolist(),
        "sksurv_late_km": at(late[0], late[1], grid),
        "sksurv_late_interval": [at(late[0], limit, grid) for limit in late[2]],
        "sksurv_interval": [at(plain[0], limit, grid) for limit in plain[2]],
        "lifelines_rmst": float(rmst),
    }


def competing(seed: int, n: int, unit: float) -> dict[str, Any]:
    """A case with two causes."""
    test = rows(seed, n, unit, causes=2)
    time, event = test["time"], test["event"]
    grid = np.unique(np.quantile(time, [0.2, 0.5, 0.8]))
    frames = importlib.import_module("pandas")  # what hazardous takes; needed nowhere else
    frame = frames.DataFrame({"event": event, "duration": time})
    times, curve, limits = cumulative_incidence_competing_risks(
        event, time, conf_type="log-log", var_type="Dinse_Approx"
    )
    incidence = np.round((1 - curves(test["risk"], grid, seed)) / 2, 2)
    # Without censoring all weights are 1: what is left is the handling of causes.
    whole = frame[frame["event"] > 0]
    kept = np.asarray(frame["event"] > 0)
    brier = brier_score_incidence(whole, whole, incidence[kept], grid, event_of_interest=2)
    return {
        "time": time.tolist(),
        "event": event.tolist(),
        "risk": test["risk"].tolist(),
        "grid": grid.tolist(),
        "incidence": incidence.tolist(),
        "hazardous_concordance": float(
            concordance_index_incidence(
                frame, test["risk"][:, None], ipcw_estimator=None, event_of_interest=1
            )[0]
        ),
        "hazardous_uncensored_brier": np.asarray(brier).tolist(),
        "sksurv_incidence": at(times, curve[2], grid),
        "sksurv_incidence_interval": [at(times, limit, grid) for limit in limits[2]],
    }


def at(times: np.ndarray, values: np.ndarray, grid: np.ndarray) -> list[float]:
    """The values of a step function on the grid."""
    return np.asarray(values)[np.searchsorted(times, grid, "right") - 1].tolist()


def main() -> None:
    """Writes the file."""
    warnings.simplefilter("ignore")
    value = {
        "versions": {name: version(name) for name in PACKAGES},
        "single": [single(0, 60, 2.0), single(1, 120, 0.5), single(2, 80, 5.0)],
        "competing": [competing(5, 80, 1.0), competing(4, 100, 0.5)],
    }
    rounded = json.loads(json.dumps(value), parse_float=lambda text: float(f"{float(text):.14g}"))
    FILE.write_text(json.dumps(rounded, separators=(",", ":")) + "\n")
    print(f"{FILE.name}: {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
