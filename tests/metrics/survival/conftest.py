"""What the tests of survival metrics share."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

FILE = pathlib.Path(__file__).parent / "golden" / "survival_golden.json"


def read(kind: str) -> list[dict[str, Any]]:
    """The cases of other packages' numbers, "single" or "competing"; lists as arrays."""
    cases = json.loads(FILE.read_text())[kind]
    ragged = "sksurv_auc"
    return [
        {k: np.asarray(v) if isinstance(v, list) and k != ragged else v for k, v in case.items()}
        for case in cases
    ]


@pytest.fixture(params=[0, 1, 2])
def single(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A case with one kind of event."""
    return read("single")[request.param]


@pytest.fixture(params=[0, 1])
def competing(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A case with two causes."""
    return read("competing")[request.param]
