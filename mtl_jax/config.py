"""Typed configs: an experiment file gives one, the command line changes it, JSON keeps it.

An experiment file defines `get_config() -> ExperimentConfig` (a system's own subclass);
`mtl_jax.flags` applies flags such as `--config.optim.lr=3e-4`. Configs stop at the builders: leaf
functions take plain arguments.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import math
import runpy
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from mtl_jax.engine.parallel import Backend
from mtl_jax.errors import UserError, did_you_mean
from mtl_jax.methods import table
from mtl_jax.methods.base import Aggregator, LossWeighting, Method
from mtl_jax.methods.flat_regions import Combine, FlatScale, as_method, flat_regions
from mtl_jax.methods.perturbation import Norm
from mtl_jax.methods.prenormalise import How, prenormalise
from mtl_jax.methods.samo import samo
from mtl_jax.methods.scattered import scattered
from mtl_jax.methods.task_grads import Strategy
from mtl_jax.typed import fits, in_words

Option = float | int | str | bool
Reduce = Literal["all", "scatter"]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class FlatConfig:
    """Flat regions around the base method (`mtl_jax.methods.flat_regions`)."""

    combine: Literal[Combine, "samo"] = "decompose"
    """How gradients and flat parts meet; erm switches flat regions off. samo is another method,
    with worst points from forward passes: of the options below it has rho (1e-3 in its source),
    adaptive (False there), beta and zo_eps only."""
    rho: float = 2.0
    """Radius of the perturbation of the shared parameters."""
    rho_heads: float | None = None
    """Radius of the perturbation of the heads; None for rho."""
    norm: Norm = "joint"
    """Normalise shared and head gradients together or apart."""
    adaptive: bool = True
    """Scale-invariant (ASAM) radius; rho is then about ten times larger."""
    eta: float = 0.0
    """Added to |w| in the adaptive radius."""
    flat_scale: FlatScale = "auto"
    """Length of the aggregated flat part: native, match, or auto by the method's degree."""
    every: int = 1
    """Steps from one perturbed pass to the next; those between use its flat parts again."""
    rows: float = 1.0
    """Share of each device's rows, or of the micro-batches, that flat parts come from."""
    synced: bool = True
    """Perturb by the gradients of all devices; False: each device by those of its own rows."""
    beta: float = 0.5
    """samo: share of each task's own direction in its perturbation."""
    zo_eps: float = 0.01
    """samo: step of the finite differences that estimate this direction."""

    def make(self, base: Aggregator | LossWeighting) -> Method:
        """Wraps a base method; raises a ValueError for options that do not fit."""
        if self.combine == "erm":
            return as_method(base)
        if self.combine == "samo":
            for name in ("rho_heads", "eta", "flat_scale", "every", "rows", "synced"):
                value, default = getattr(self, name), getattr(FlatConfig, name)
                if value != default:
                    raise ValueError(
                        f"flat.{name} is {value}, which combine=samo does not have; leave it at"
                        f" {default}, or choose another combine"
                    )
            return samo(base, self.rho, self.beta, self.zo_eps, self.adaptive)
        return flat_regions(
            base,
            self.rho,
            self.rho_heads,
            norm=self.norm,
            adaptive=self.adaptive,
            eta=self.eta,
            combine=self.combine,
            flat_scale=self.flat_scale,
            every=self.every,
            rows=self.rows,
            synced=self.synced,
        )


@dataclasses.dataclass(frozen=True)
class MethodConfig:
    """The multi-task method."""

    aggregator: str = "cagrad"
    """Name of the base method, a row of `mtl_jax/methods/table.py`."""
    options: Mapping[str, Option] = dataclasses.field(default_factory=dict)
    """Options of the base method; those not given take its own defaults."""
    prenormalise: How = "none"
    """Divide each task's gradient by its norm (l2), loss, or both (loss+) before aggregating."""
    flat: FlatConfig = FlatConfig()
    """Flat regions."""
    strategy: Strategy = "auto"
    """How to walk over the tasks: vmap, scan, unroll; auto picks by device and T."""

    def make(self, reduce: Reduce = "all") -> Method:
        """Builds the method; raises a `UserError` for a wrong name, option or value.

        Args:
          reduce: see `TrainConfig`.
        """
        try:
            base = table.make(self.aggregator, **self.options)
            if self.prenormalise != "none":
                if isinstance(base, LossWeighting):
                    raise ValueError(
                        f"method.prenormalise is {self.prenormalise}, which needs an aggregator;"
                        f" {self.aggregator} weights losses, so leave it at none"
                    )
                base = prenormalise(base, self.prenormalise)
            method = self.flat.make(base)
        except ValueError as error:
            raise UserError(f"method: {error}") from None
        if reduce == "all":
            return method
        if self.flat.combine != "erm":
            raise UserError(
                f"config.train.reduce is scatter, but flat regions (combine {self.flat.combine})"
                " perturb by every task's whole gradient; choose all, or method.flat.combine=erm"
            )
        try:
            return scattered(base)
        except ValueError as error:
            raise UserError(
                f"config.train.reduce is scatter, but {self.aggregator} {error}; choose all, or one"
                f" of {', '.join(table.by_gram())}"
            ) from None


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """How embedding tables are trained (`mtl_jax.engine.tables`), for systems that have them."""

    rule: Literal["dense", "row_adagrad", "lazy_adam", "sgd"] = "dense"
    """dense: by the optimiser of everything else; the others update the rows that a batch touches,
    at a cost that does not depend on how many there are."""
    lr: float | None = None
    """Peak learning rate of the rows, on the schedule of the others; None for theirs."""
    initial: float = 0.0
    """row_adagrad: first value of the accumulators."""
    l2: float = 0.0
    """L2 regularisation of the touched rows."""
    min_rows: int = 20_000
    """Tables with fewer rows are trained densely, which is quicker."""
    capacity: int = 0
    """Most distinct ids of a table in a batch; 0 for as many as there are ids."""
    backend: Literal["replicated", "sharded"] = "replicated"
    """Whether each device has whole tables, or its share of the rows."""


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """The optimiser (`mtl_jax.engine.optim`)."""

    name: Literal["adam", "adamw", "sgd", "momentum", "lion", "muon"] = "adam"
    """Update rule."""
    lr: float = 1e-3
    """Peak learning rate of the shared parameters."""
    heads_lr: float | None = None
    """Peak learning rate of the heads; None for lr."""
    schedule: Literal["constant", "cosine", "linear", "step", "piecewise"] = "constant"
    """Shape of the learning rate after the warm-up."""
    warmup_steps: int = 0
    """Steps of linear warm-up."""
    step_every: int = 1000
    """Steps between two decays of the step schedule."""
    step_factor: float = 0.5
    """Factor of one decay of the step schedule."""
    boundaries: tuple[int, ...] = ()
    """Steps at which the piecewise schedule changes."""
    factors: tuple[float, ...] = ()
    """What it multiplies the peak by from each of them on."""
    b1: float = 0.9
    """Decay of the first moment of adam and adamw."""
    b2: float = 0.999
    """Decay of the second moment of adam and adamw."""
    clip_norm: float = 0.0
    """Clip the global norm of the aggregated gradient; 0 for no clipping."""
    weight_decay: float = 0.0
    """Decoupled for adamw, lion and muon, coupled (L2) for the others."""
    trainable: str = "all"
    """Which parameters are trained: all, globs on their paths with commas between them
    (branch/dense_2/*), or a preset of the system's; the others stay as they are."""
    tables: TableConfig = TableConfig()
    """Embedding tables."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The training loop (`mtl_jax/train.py`)."""

    epochs: int = 10
    """Passes over the training split; ignored when steps is given."""
    steps: int = 0
    """Number of updates; 0 to go by epochs."""
    batch_size: int = 256
    """Examples an update, over all devices and micro-batches."""
    microbatches: int = 1
    """Micro-batches whose task gradients are summed before aggregation."""
    eval_every: int = 0
    """Steps between evaluations and checkpoints; 0 for once an epoch."""
    log_every: int = 50
    """Steps between log lines."""
    steps_per_call: int = 1
    """Steps that the device does before it comes back to the host; more hides the host's part of
    very short steps. Divides steps, eval_every and log_every."""
    select: str = "validation/accuracy"
    """Validation metric that picks the best checkpoint."""
    select_mode: Literal["max", "min"] = "max"
    """Whether more or less of it is better."""
    keep_last: int = 2
    """Newest checkpoints kept, besides the best."""
    backend: Backend = "pmap"
    """How the step is spread over devices."""
    reduce: Reduce = "all"
    """How task gradients are summed over devices. all: every device gets all of them; scatter: each
    its share of the columns, and the one direction is gathered, for about half the bytes; for
    aggregators that look at the Gram matrix only, without flat regions."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the network computes in during training. Parameters, batch statistics, losses, task
    gradients and all that methods do with them, and evaluation stay float32."""
    profile: tuple[int, int] = (0, 0)
    """Trace the steps from the first to before the second with jax.profiler; (0, 0) for none."""
    tensorboard: bool = False
    """Write TensorBoard events too (needs the tensorboard extra)."""
    report: bool = True
    """Write the figures and report.html at the end."""


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """What every experiment has; a system adds its own `data` and `model`.

    `system` is the import path of the module that builds it: it offers `Config`, `build(config)`
    and `report(run)`.
    """

    system: ClassVar[str] = ""

    name: str = "experiment"
    """Name of the experiment, for the run folder and the report."""
    init_from: str = ""
    """Run folder whose best checkpoint gives the first parameters and model state (transfer)."""
    init_constants: Literal["source", "own"] = "source"
    """With init_from: keep what was fitted on the source's training data (scales), or refit it."""
    seed: int = 0
    """Everything random follows from it and from the step."""
    method: MethodConfig = MethodConfig()
    """The multi-task method."""
    optim: OptimConfig = OptimConfig()
    """The optimiser."""
    train: TrainConfig = TrainConfig()
    """The training loop."""

    def check(self) -> None:
        """Raises a `UserError` for values that no run can use."""
        check_types(self)
        for path, value in flatten(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"config.{path} is {value}; it must be a finite number")
        positive = {"train.batch_size", "train.microbatches", "train.log_every", "train.keep_last"}
        positive |= {"train.steps_per_call"}
        positive |= {"optim.lr", "optim.tables.lr", "optim.step_every", "optim.step_factor"}
        non_negative = {"train.epochs", "train.steps", "train.eval_every", "seed"}
        non_negative |= {
            "optim.warmup_steps",
            "optim.clip_norm",
            "optim.weight_decay",
            "optim.heads_lr",
            "optim.tables.l2",
            "optim.tables.initial",
            "optim.tables.min_rows",
            "optim.tables.capacity",
        }
        flat = flatten(self)
        for path in sorted(positive | non_negative):
            value = flat[path]
            if value is None:
                continue
            if value < 0 or (value == 0 and path in positive):
                rule = "positive" if path in positive else "0 or more"
                raise UserError(f"config.{path} is {value}; it must be {rule}")
        if self.seed >= 2**32:
            # JAX keeps the low 32 bits only: two such seeds could start from the same parameters.
            raise UserError(f"config.seed is {self.seed}; it must be below 2**32 = {2**32}")
        if not self.train.steps and not self.train.epochs:
            raise UserError(
                "config.train.epochs and config.train.steps are both 0; give one of them"
            )
        for path in ("optim.b1", "optim.b2"):
            if not 0 <= flat[path] < 1:
                raise UserError(f"config.{path} is {flat[path]}; it must be from 0 to below 1")
        start, stop = self.train.profile
        if not 0 <= start <= stop:
            raise UserError(
                f"config.train.profile is {start} {stop}; give two steps, first <= second"
            )


def check_types(config: Any, path: str = "config") -> None:
    """Raises a `UserError` that names the first field whose value is not of its type."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, hint, name = getattr(config, field.name), hints[field.name], f"{path}.{field.name}"
        if not fits(value, hint):
            raise UserError(f"{name} is {value!r}; it must be {in_words(hint, value)}")
        if dataclasses.is_dataclass(hint):
            check_types(value, name)


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Returns {"optim.lr": 0.001, ...} for every leaf of a config."""
    out: dict[str, Any] = {}
    items: Iterator[tuple[str, Any]]
    if dataclasses.is_dataclass(config):
        items = ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config))
    else:
        items = iter(config.items())
    for name, value in items:
        if dataclasses.is_dataclass(value) or isinstance(value, Mapping):
            out.update(flatten(value, f"{prefix}{name}."))
        else:
            out[prefix + name] = value
    return out


def load(path: str | Path) -> ExperimentConfig:
    """Runs an experiment file and returns what its `get_config()` gives.

    Raises:
      UserError: no such file, no `get_config`, an error inside the file, or not a config.
    """
    path = Path(path)
    if not path.is_file():
        near = difflib.get_close_matches(
            str(path), [str(p) for p in Path("experiments").rglob("*.py")], 1
        )
        hint = f"; did you mean {near[0]}?" if near else "; experiment files are under experiments/"
        raise UserError(f"no experiment file {path}{hint}")
    try:
        names = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        raise UserError(f"{path} does not run: {type(error).__name__}: {error}") from error
    if not callable(names.get("get_config")):
        raise UserError(f"{path} defines no get_config() that returns an ExperimentConfig")
    try:
        config = names["get_config"]()
    except (Exception, SystemExit) as error:
        raise UserError(f"get_config() of {path} fails: {type(error).__name__}: {error}") from error
    if not isinstance(config, ExperimentConfig) or not config.system:
        raise UserError(
            f"get_config() of {path} must return a system's Config, found {type(config).__name__}"
        )
    return config


def to_dict(config: ExperimentConfig) -> dict[str, Any]:
    """A JSON-ready dict, with the system's module under "system"."""
    return {"system": config.system, **dataclasses.asdict(config)}


def from_dict(saved: Mapping[str, Any]) -> ExperimentConfig:
    """Rebuilds a config from `to_dict`.

    A field that is absent, as in the run of an older version, takes its default.

    Raises:
      UserError: it no longer fits the code, or was changed into what no run can use.
    """
    values = dict(saved)
    try:
        kind = system_module(values.pop("system", "")).Config
        config = _rebuild(kind, values, "")
        config.check()
    except UserError as error:
        raise UserError(
            f"the saved config does not fit this version of the code: {error}; use the version"
            " that wrote it, or restore config.json from a copy"
        ) from None
    return config


def _rebuild(kind: type[T], values: Any, path: str) -> T:
    if not isinstance(values, Mapping):
        raise UserError(f"config{path} is {values!r}; it must hold the fields of {kind.__name__}")
    hints = typing.get_type_hints(kind)
    out = {}
    for name, value in values.items():
        if name not in hints or name == "system":
            raise UserError(f"config{path}.{name} is unknown; {did_you_mean(name, hints)}")
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            out[name] = _rebuild(typing.cast(type, hint), value, f"{path}.{name}")
        else:
            out[name] = _tuples(value)
    return kind(**out)


def _tuples(value: Any) -> Any:
    """JSON has lists where configs have tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def system_module(name: str) -> types.ModuleType:
    """Imports a system by its module path; raises a `UserError` when there is none."""
    try:
        module = importlib.import_module(name)
    except (ImportError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"cannot import the system {name!r}: {error}") from None
    if not (hasattr(module, "Config") and hasattr(module, "build")):
        raise UserError(f"the system {name!r} lacks Config and build")
    return module
