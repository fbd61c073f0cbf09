"""Whether code is being traced inside a named device axis."""

from __future__ import annotations

from jax import lax


def bound_axis(axis_name: str | None) -> str | None:
    """Returns `axis_name` where the caller runs inside an axis of that name, else None."""
    if axis_name is None:
        return None
    try:
        lax.axis_index(axis_name)
    except NameError:
        return None
    return axis_name
