"""Delta_m of NYUv2 and CityScapes: the one number by which the papers rank methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mtl_jax.metrics.base import compute
from mtl_jax.metrics.multitask import delta_m

# Single-task rows of the tables (FS-MTL, after Nash-MTL, Navon et al. 2022; SegNet networks), in
# our units: fractions in place of %. The tables' "mean" and "median" are of the angle.
_COMMON = ("segmentation/miou", "segmentation/pixel_accuracy")
_COMMON += ("depth/absolute_error", "depth/relative_error")
_NORMAL = ("normal/angle_mean", "normal/angle_median")
_NORMAL += ("normal/within_11.25", "normal/within_22.5", "normal/within_30")
CITYSCAPES = dict(zip(_COMMON, (0.7401, 0.9316, 0.0125, 27.77), strict=True))
NYUV2 = dict(
    zip(
        _COMMON + _NORMAL,
        (0.3830, 0.6376, 0.6754, 0.2780, 25.01, 19.21, 0.3014, 0.5720, 0.6915),
        strict=True,
    )
)


def _higher_is_better(metric: str) -> bool:
    return not metric.endswith(("error", "angle_mean", "angle_median"))


class DeltaM(NamedTuple):
    """Mean relative change of all metrics against the single-task row of the papers' tables.

    Attributes:
      states: "segmentation" and "depth" for CityScapes, "normal" as well for NYUv2: the tasks'
        own metric states (`dense_metrics`).
    """

    states: Mapping[str, Any]

    def compute(self) -> dict[str, float]:
        """Returns Delta_m in %, negative is better; see `metrics.multitask.delta_m`.

        The reference is of the papers' networks and of MTAN's test images: on other splits the
        number only orders checkpoints, by a fixed weighting of the metrics.
        """
        reference = NYUV2 if "normal" in self.states else CITYSCAPES
        values = compute(self.states)
        better = {name: _higher_is_better(name) for name in reference}
        return {"": delta_m({name: values[name] for name in reference}, reference, better)}
