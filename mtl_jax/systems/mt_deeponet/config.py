"""Config of the operator networks: what may be chosen, and what fits together."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from mtl_jax.config import ExperimentConfig
from mtl_jax.errors import UserError, did_you_mean
from mtl_jax.systems.mt_deeponet.losses import Loss
from mtl_jax.systems.mt_deeponet.networks import ACTIVATIONS, Norm
from mtl_jax.systems.mt_deeponet.normaliser import CoordScale, ParamScale, SolutionScale

# Sets that this project makes, and those that are read from files of the user's.
GENERATED = ("fisher", "fisher/paper", "darcy", "plate", "plate/full")
FILES = (
    "file",
    "mtdeeponet_fisher",
    "mtdeeponet_darcy",
    "mtdeeponet_plate",
    "pdebench_reacdiff",
    "pdebench_darcy",
    "neuralop_darcy16",
)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The problems and their solutions."""

    name: str = "fisher"
    """fisher, fisher/paper, darcy, plate, plate/full are made here; file reads `path`;
    mtdeeponet_fisher, mtdeeponet_darcy, mtdeeponet_plate, pdebench_reacdiff, pdebench_darcy and
    neuralop_darcy16 read your own copy in `manual_dir`."""
    geometry: tuple[str, ...] = ("square", "disc", "triangle")
    """darcy: the geometries, each a task; a name or a JSON file with a polygon of your own."""
    full: bool = False
    """darcy: the 100 x 100 grid and as many samples as the paper, not every third point."""
    tasks: tuple[str, ...] = ()
    """Keep these tasks only, by name; empty for all. For nets of their own to compare with."""
    paper_split: bool = False
    """plate: all 40 other designs make the test split, as in the paper, and 8 of the 24 training
    designs are held out; else some of the 40 make the validation split."""
    train_size: int = 0
    """Use so many training samples of each task only; 0 for all."""
    batches: Literal["stratified", "mixed"] = "stratified"
    """As many samples of each task in every batch, or samples of all tasks as they come."""
    points_per_step: int = 0
    """Train on so many query points a step, drawn anew each time; 0 for all."""
    mask_channel: bool = True
    """cnn: show the branch the geometry's mask as a second channel."""
    mask_input: bool = True
    """Fields on the solution's own grid: hide what lies outside the geometry from the branch."""
    scale_params: ParamScale = "none"
    """Parameters as they are (none), or each to 0..1 over the training samples (point)."""
    scale_solution: SolutionScale = "point"
    """Standardise the solution at every query point (point) or by one mean and deviation of all
    points (standard), divide it by one number (global: its root mean square; max: its largest
    absolute value), or none."""
    scale_coords: CoordScale = "box"
    """Coordinates to -1..1 over their box, or as they are (none)."""
    path: str = ""
    """file: the .npz or .h5 file."""
    validation: float = 0.1
    """file: share of the samples that makes the validation split, unless the file says."""
    test: float = 0.2
    """file: share of the samples that makes the test split, unless the file says."""
    data_dir: str = ""
    """Where prepared sets are; empty for $MTL_JAX_DATA/sets or ~/.cache/mtl_jax/sets."""
    manual_dir: str = ""
    """Folder with your own copy of the raw files."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Branch and trunk."""

    branch: Literal["mlp", "cnn"] = "mlp"
    """mlp reads parameters and field as one vector; cnn reads the field as an image."""
    branch_channels: tuple[int, ...] = (16, 32, 64, 64)
    """cnn: channels of the 5x5 convolutions, each followed by 2x2 pooling."""
    branch_widths: tuple[int, ...] = (128, 128)
    """Hidden dense layers of the branch."""
    branch_activation: str = "leaky_relu"
    """Of the branch's hidden dense layers: leaky_relu (slope 0.2), tanh, swish, gelu, selu."""
    branch_last: str = "linear"
    """Activation of the branch's output."""
    branch_norm: Norm = "layer"
    """After each hidden dense layer of the branch: layer, batch (over samples), or none, the best
    where the branch reads only a few numbers and has to be smooth in them (`plate3d.py`)."""
    branch_dropout: tuple[float, ...] = ()
    """Dropout rates of the branch's hidden dense layers."""
    branch_l2: float = 0.0
    """Coefficient of the sum of squares of the branch's kernels in the loss."""
    trunk_widths: tuple[int, ...] = (128, 128, 128)
    """Hidden layers of the trunk."""
    trunk_activation: str = "leaky_relu"
    """Of the trunk's hidden layers."""
    trunk_norm: Norm = "none"
    """After each hidden layer of the trunk; batch normalises over query points (the paper's plate),
    which couples them."""
    trunk_skip: bool = False
    """Dense projections of the output two layers back are added from the third hidden layer on."""
    trunk_coords: Literal["given", "hole"] = "given"
    """given: the query points' own coordinates, one evaluation for the whole batch. hole: plate, as
    seen from the nearest hole of each design, an evaluation for every sample (not the paper's)."""
    trunk_frequencies: int = 0
    """Fourier features of the coordinates: sin and cos of pi 2^k y, k below this."""
    init_std: float = 0.0
    """Initial kernels and biases are N(0, this^2); 0 for Glorot normal kernels and biases of
    N(0, 0.01^2)."""
    latent: int = 300
    """p, the number of basis functions."""
    film: bool = False
    """A scale and a shift of the latent product for each task (not the paper's)."""


@dataclasses.dataclass(frozen=True)
class Config(ExperimentConfig):
    """An operator-learning experiment."""

    system: ClassVar[str] = "mtl_jax.systems.mt_deeponet"

    data: DataConfig = DataConfig()
    """The problems and their solutions."""
    model: ModelConfig = ModelConfig()
    """Branch and trunk."""
    loss: Loss = "relative_l2"
    """relative_l2 (each sample's relative error), interior_mse, or grid_mse (the paper's)."""

    def check(self) -> None:
        """Raises a `UserError` for values that no run can use; touches no data."""
        super().check()
        _check_data(self.data)
        _check_model(self.model)
        plates = ("plate", "plate/full", "mtdeeponet_plate")
        if self.model.trunk_coords == "hole" and self.data.name not in plates:
            raise UserError(
                f"config.model.trunk_coords is hole, but {self.data.name} has no holes that its"
                f" parameters describe; it is for {', '.join(plates)}"
            )


def _check_data(data: DataConfig) -> None:
    known = (*GENERATED, *FILES)
    if data.name not in known:
        raise UserError(f"config.data.name is {data.name!r}; {did_you_mean(data.name, known)}")
    if data.name == "file" and not data.path:
        raise UserError("config.data.path is empty; give the .npz or .h5 file to read")
    if data.name in FILES[1:] and not data.manual_dir:
        raise UserError(
            f"config.data.manual_dir is empty; {data.name} is read from your own copy: give its"
            " folder"
        )
    if data.name == "darcy" and (not data.geometry or len(set(data.geometry)) < len(data.geometry)):
        raise UserError(
            f"config.data.geometry is {' '.join(data.geometry) or 'empty'}; name one or more"
            " geometries, each once"
        )
    for name in ("train_size", "points_per_step"):
        if getattr(data, name) < 0:
            raise UserError(
                f"config.data.{name} is {getattr(data, name)}; it must be positive, or 0 for all"
            )
    if not (0 < data.validation < 1 and 0 < data.test < 1 and data.validation + data.test < 1):
        raise UserError(
            f"config.data.validation and test are {data.validation} and {data.test}; they must be"
            " shares above 0 that leave something to train on"
        )


def _check_model(model: ModelConfig) -> None:
    for name in ("branch_activation", "branch_last", "trunk_activation"):
        value = getattr(model, name)
        if value not in ACTIVATIONS:
            raise UserError(f"config.model.{name} is {value!r}; {did_you_mean(value, ACTIVATIONS)}")
    for name in ("branch_channels", "branch_widths", "trunk_widths"):
        widths = getattr(model, name)
        if not widths or min(widths) < 1:
            found = " ".join(map(str, widths)) or "empty"
            raise UserError(
                f"config.model.{name} is {found}; it takes one or more positive numbers"
            )
    if model.latent < 1:
        raise UserError(f"config.model.latent is {model.latent}; it must be 1 or more")
    for name in ("branch_l2", "trunk_frequencies", "init_std"):
        if getattr(model, name) < 0:
            raise UserError(f"config.model.{name} is {getattr(model, name)}; it must be 0 or more")
    if any(not 0 <= rate < 1 for rate in model.branch_dropout):
        found = " ".join(map(str, model.branch_dropout))
        raise UserError(f"config.model.branch_dropout is {found}; rates must be from 0 to below 1")
    if len(model.branch_dropout) > len(model.branch_widths):
        raise UserError(
            f"config.model.branch_dropout has {len(model.branch_dropout)} rates, but the branch has"
            f" {len(model.branch_widths)} hidden dense layers; give at most as many"
        )
