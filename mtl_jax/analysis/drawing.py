"""What the figures and tables of one run, or of two side by side, have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

STYLES = ("-", "--")


def styled(found: Mapping[str, Any]) -> Iterable[tuple[str, tuple[str, Any]]]:
    """Yields (line style, (label, what was found)) run by run."""
    return zip(STYLES, found.items(), strict=False)


def suffix(label: str, found: Mapping[str, Any]) -> str:
    """What a legend adds to a task's name: the run, where there are two."""
    return f", {label}" if len(found) > 1 else ""


def number(value: float) -> str:
    """A number for a table: four digits, or a dash for what is not there."""
    return f"{value:.4g}" if np.isfinite(value) else "-"


def percent(value: float) -> str:
    """A share for a table."""
    return f"{100 * value:.2f} %" if np.isfinite(value) else "-"
