"""Random gradient weighting: weights drawn anew every step (Lin et al.)."""

from __future__ import annotations

from mtl_jax.methods.base import Aggregator, Array, Traits, Tree
from mtl_jax.methods.trained import random_logits, softmax
from mtl_jax.methods.weighting import gram_aggregator


def random_gradient_weighting() -> Aggregator:
    """Random gradient weighting (RGW): d = J^T softmax(standard normal numbers).

    Source: Lin et al., "Reasonable Effectiveness of Random Weighting", arXiv 2111.10603, the
    variant on gradients; the normal distribution is that of the authors' library. The shared
    parameters move as with `random_loss_weighting`, at the price of one backward pass for each
    task; the heads differ: here their gradients are not weighted.
    """

    def weights_fn(
        gram: Array, state: Tree, *, losses: Array, active: Array, key: Array
    ) -> tuple[Array, Tree]:
        del losses
        return softmax(random_logits(key, gram.shape[0], gram.dtype), active), state

    return gram_aggregator(weights_fn, traits=Traits(symmetric=False, linear=True))
