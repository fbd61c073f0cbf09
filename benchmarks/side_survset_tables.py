"""How survset_tables.json was made: tables in SurvSet's form, pickled by pandas itself.

    python benchmarks/side_survset_tables.py > tests/data/survival/survset_tables.json

Needs pandas 2 and numpy 2; no test imports it. The tables hold one of every kind of column that the
pickles of SurvSet 0.2.11 have. "old" names numpy's private module as numpy 1 did, as SurvSet does.
"""

from __future__ import annotations

import base64
import json
import pickle
import sys
import warnings

import numpy as np
import pandas as pd

UNKNOWN = float("nan")


def patients() -> pd.DataFrame:
    masked = pd.Series([0, 1, 1, 0, 1, 0, 0, 1, 1, 0], dtype="Int32")
    return pd.DataFrame(
        {
            "pid": np.arange(10),
            "event": [1, 0, 1, 1, 0, 1, 0, 1, 1, 1],
            "time": [3.0, 0.5, 12.0, 7.0, 30.0, 2.0, 2.0, 9.0, 41.0, 1.0],
            "num_age": [50.5, 61.0, UNKNOWN, 47.0, 80.0, 66.0, 71.0, 39.0, 58.0, 64.0],
            "num_dose": [0, 1, 2, 0, 900, 3, 1, 2, 1, 0],
            "fac_sex": pd.Categorical(["f", "m", "f", "m", "m", "f", "f", "m", "f", "m"]),
            "fac_care": pd.Categorical(
                ["none", "missing", "some", "none", "all", "some", "all", "none", "missing", "all"],
                categories=["some", "missing", "unused", "none", "all"],
            ),
            "fac_count": pd.Categorical([10, 2, 0, 2, 10, 0, 2, 10, 0, 2]),
            "fac_flag": masked.astype("category"),
            "fac_yes": pd.Series([True, False] * 5, dtype="boolean").astype("category"),
            "fac_word": pd.Series(["a", "b"] * 5, dtype="string").astype("category"),
            "fac_lack": pd.Categorical([None, "x", "y", None, "x", "y", "x", "x", "y", "y"]),
            "num_late": [1.0] * 9 + [UNKNOWN],
        }
    )


def visits() -> pd.DataFrame:
    """Of subjects whose covariates change, rows by a list of numbers, values by column."""
    table = pd.DataFrame(
        {
            "pid": ["a", "a", "b"],
            "event": [0, 1, 0],
            "time": [0, 4, 0],
            "time2": [4, 9, 5],
            "num_part": pd.array([1, None, 3], dtype="Int64"),
        }
    )
    return table.iloc[[0, 2, 1]]


def encoded(table: pd.DataFrame) -> str:
    return base64.b64encode(pickle.dumps(table, protocol=5)).decode()


def main() -> None:
    found = {"patients": encoded(patients()), "visits": encoded(visits())}
    warnings.simplefilter("ignore", DeprecationWarning)
    numpy_core = sys.modules["numpy._core"]
    numpy_core.numeric._frombuffer.__module__ = "numpy.core.numeric"
    numpy_core.multiarray._reconstruct.__module__ = "numpy.core.multiarray"
    found["old patients"] = encoded(patients())
    found["csv patients"] = patients().to_csv(index=False)
    versions = {"pandas": pd.__version__, "numpy": np.__version__}
    print(json.dumps({"versions": versions, **found}, indent=1))


if __name__ == "__main__":
    main()
