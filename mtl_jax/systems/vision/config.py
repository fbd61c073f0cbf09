"""Config of the image systems: what may be chosen, and what fits together."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal, NamedTuple

from mtl_jax.config import ExperimentConfig
from mtl_jax.data.registry import parse
from mtl_jax.errors import UserError, did_you_mean


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The images."""

    name: str = "multi_mnist"
    """multi_mnist, multi_fashion or multi_fashion_mnist, with /small (default) or /full; celeba,
    nyuv2 or cityscapes, which are built from your own copy in manual_dir."""
    pairs: Literal["fresh", "fixed"] = "fresh"
    """multi_*: new training pairs every epoch, or the fixed two a source image of the original."""
    partners: int = 2
    """multi_*: pairs a source image, in an epoch and in every split."""
    train_size: int = 0
    """multi_*: use so many training sources only, balanced over classes; 0 for all."""
    label_noise: tuple[float, ...] = ()
    """multi_*: for each task, the share of training sources that get a wrong label; empty for 0."""
    label_share: tuple[float, ...] = ()
    """multi_*: for each task, the share of training sources with a known label; empty for all."""
    holdout: int = 0
    """nyuv2, cityscapes: how many training images make the validation split, which they lack."""
    augment: bool = True
    """nyuv2, cityscapes: train on randomly enlarged and mirrored images."""
    data_dir: str = ""
    """Where prepared sets are; empty for $MTL_JAX_DATA/sets or ~/.cache/mtl_jax/sets."""
    manual_dir: str = ""
    """Folder with your own copy of the raw files, tried first."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The trunk; every task gets a head of its own."""

    name: Literal[
        "lenet_pareto", "lenet_5x5", "resnet18", "mlp", "resnet18_celeba", "segnet_small"
    ] = "lenet_pareto"
    """lenet_pareto and the resnet18s are the papers'; lenet_5x5 is the benchmarks', segnet_small
    (nyuv2, cityscapes) stands in for the papers' SegNet-MTAN."""
    widths: tuple[int, ...] = (10, 20)
    """Channels of lenet_5x5, layers of mlp or stages of segnet_small; the others have their own."""


@dataclasses.dataclass(frozen=True)
class Config(ExperimentConfig):
    """An image experiment."""

    system: ClassVar[str] = "mtl_jax.systems.vision"

    data: DataConfig = DataConfig()
    """The images."""
    model: ModelConfig = ModelConfig()
    """The trunk."""

    def check(self) -> None:
        """Raises a `UserError` for values that no run can use; touches no data."""
        super().check()
        check_data(self.data)
        check_model(self.model.name, self.model.widths, self.data.name)


class Model(NamedTuple):
    """What a trunk is for.

    Attributes:
      families: of the data sets that it fits.
      widths: whether it takes `model.widths`: how many, 0 for any number from 1 on, None for none.
    """

    families: tuple[str, ...]
    widths: int | None = None


FAMILIES = {
    "multi_mnist": "pairs",
    "multi_fashion": "pairs",
    "multi_fashion_mnist": "pairs",
    "celeba": "celeba",
    "nyuv2": "dense",
    "cityscapes": "dense",
}
MODELS = {
    "lenet_pareto": Model(("pairs", "celeba")),
    "lenet_5x5": Model(("pairs", "celeba"), widths=2),
    "resnet18": Model(("pairs", "celeba")),
    "mlp": Model(("pairs", "celeba"), widths=0),
    # Its pooling would drop the border of the last map of any size but 64 x 64.
    "resnet18_celeba": Model(("celeba",)),
    "segnet_small": Model(("dense",), widths=0),
}
# Options that mean something for one family only.
OPTIONS = {
    "pairs": "pairs",
    "partners": "pairs",
    "train_size": "pairs",
    "label_noise": "pairs",
    "label_share": "pairs",
    "holdout": "dense",
    "augment": "dense",
}


def family(name: str) -> str:
    """Returns "pairs", "celeba" or "dense" for a data set "NAME" or "NAME/CONFIG".

    Raises:
      UserError: no such data set, or none of images.
    """
    base = parse(name)[0].name
    if base not in FAMILIES:
        raise UserError(f"data set {base!r} is not one of images; {did_you_mean(base, FAMILIES)}")
    return FAMILIES[base]


def check_data(data: DataConfig) -> None:
    """Raises a `UserError` for options that are out of range or that the data set does not have."""
    kind = family(data.name)
    for field in dataclasses.fields(data):
        value = getattr(data, field.name)
        if OPTIONS.get(field.name, kind) != kind and value != field.default:
            raise UserError(
                f"config.data.{field.name} is {value}, which {data.name} does not have;"
                f" leave it at {field.default}"
            )
    if data.partners < 1:
        raise UserError(f"config.data.partners is {data.partners}; it must be 1 or more")
    if data.train_size and data.train_size < 3:
        raise UserError(
            f"config.data.train_size is {data.train_size}; it must be 3 or more, or 0 for all"
        )
    for field, low, high, rule in (
        ("label_noise", 0.0, 0.9, "from 0 to 0.9, at which labels of ten classes say nothing"),
        ("label_share", 1e-9, 1.0, "above 0 and at most 1"),
    ):
        values = getattr(data, field)
        if values and (len(values) != 2 or not all(low <= x <= high for x in values)):
            shown = " ".join(map(str, values))
            raise UserError(
                f"config.data.{field} is {shown}; give two numbers, one a task, each {rule}"
            )
    if kind == "dense" and data.holdout < 1:
        raise UserError(
            f"config.data.holdout is {data.holdout}; {data.name} has no validation split, so give"
            " the number of training images that are to make it, 1 or more"
        )


def check_model(name: str, widths: tuple[int, ...], data: str) -> None:
    """Raises a `UserError` unless a trunk of this name and these widths fits the data set."""
    model, kind = MODELS[name], family(data)
    if kind not in model.families:
        fit = ", ".join(other for other in MODELS if kind in MODELS[other].families)
        raise UserError(f"config.model.name is {name}, which does not fit {data}; choose of {fit}")
    found, default = " ".join(map(str, widths)) or "empty", ModelConfig.widths
    if model.widths is None and tuple(widths) != default:
        free = ", ".join(other for other in MODELS if MODELS[other].widths is not None)
        raise UserError(
            f"config.model.widths is {found}, but {name} has widths of its own; leave it at"
            f" {' '.join(map(str, default))}, or choose of {free}"
        )
    if not widths or min(widths) < 1 or (model.widths and len(widths) != model.widths):
        count = {None: "", 0: "one or more ", 2: "two "}[model.widths]
        raise UserError(f"config.model.widths is {found}; {name} takes {count}positive numbers")
