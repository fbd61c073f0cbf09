"""TorchJD's side of `versus_torchjd_weights`: its weightings of the same Gram matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.solvers import errors_of, families
from mtl_jax.errors import UserError

try:
    import torch
    import torchjd.aggregation as jd
except ImportError as error:
    raise UserError(
        f"the comparison needs torch and torchjd ({error}); run `make bench-torch`, which installs"
        ' them, or: pip install torch==2.13.0 "torchjd[cagrad,quadprog_projector]"'
    ) from None

from benchmarks.side_torch import describe

__all__ = ["Side", "describe"]

# Their defaults, but for what has none: c and alpha are those of `benchmarks.solvers`.
WEIGHTINGS = {
    "mgda": lambda: jd.MGDAWeighting(),
    "upgrad": lambda: jd.UPGradWeighting(),
    "cagrad": lambda: jd.CAGradWeighting(c=0.4),
    "fairgrad": lambda: jd.FairGradWeighting(alpha=2.0),
    "pcgrad": lambda: jd.PCGradWeighting(),
    "imtl_g": lambda: jd.IMTLGWeighting(),
    "aligned_mtl": lambda: jd.AlignedMTLWeighting(),
}


class Side:
    """See `side_jax_weights.Side`. PCGrad draws other orders here, so its errors are left out."""

    def __init__(self) -> None:
        self.calls: dict[str, Any] = {}

    def prepare(self, what: str) -> dict[str, Any]:
        """Sets a call up; returns the relative errors, or why there is none."""
        solver, _, size = what.partition("/")
        found = families(int(size))
        grams = [torch.from_numpy((grads @ grads.T).astype(np.float32)) for grads in found.values()]
        try:
            weighting: Any = WEIGHTINGS[solver]()
            weights = [weighting(gram).double().numpy() for gram in grams]
        except Exception as error:  # A library of theirs that is not there, or that gives up.
            return {"absent": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        self.calls[what] = lambda: [weighting(gram) for gram in grams]
        errors = {} if solver == "pcgrad" else errors_of(solver, found, weights, np.zeros(0))
        return {"errors": errors, "problems": len(grams)}
