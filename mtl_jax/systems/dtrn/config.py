"""Config of the recommendation networks: what may be chosen, and what fits together."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from mtl_jax.config import ExperimentConfig
from mtl_jax.data.event_logs.options import EventLogOptions
from mtl_jax.data.registry import base_of, parse
from mtl_jax.errors import UserError
from mtl_jax.systems.dtrn.interest import Conditioning, Pool
from mtl_jax.systems.dtrn.model import Encoder
from mtl_jax.systems.dtrn.refine import Gate, Granularity, Squeeze
from mtl_jax.systems.dtrn.tops import TopName

SETS = (
    "movielens100k",
    "movielens1m",
    "census_income",
    "kuairand",
    "ali_ccp",
    "aliexpress",
    "conflict",
    "event_log",
)
FUNNELS = ("esmm", "aitm")
_AS_THE_PRESET = EventLogOptions()


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The impressions."""

    name: str = "movielens100k"
    """movielens100k, movielens1m, census_income, kuairand, ali_ccp, aliexpress or conflict, with
    /config where there are several (`python -m mtl_jax.data list`); event_log reads `path`."""
    tasks: tuple[str, ...] = ()
    """Keep these tasks only, in this order; empty for all."""
    condition: tuple[str, ...] = ()
    """Tasks learned and scored where another label is 1 only, as conversion|click."""
    length: int = 10
    """Newest events of a behaviour type that a history shows."""
    history_sizes: bool = False
    """Show also how many events each history has in all, those beyond `length` included."""
    resident: bool = True
    """Keep the set on the devices; False puts batches together on the host."""
    eval_batch_size: int = 8192
    """Rows a batch of evaluation at most."""
    path: str = ""
    """event_log: the file, or a pattern of files."""
    preset: str = ""
    """event_log: tmall2014, tmall2014_b, taobao_userbehavior, tmall, otto, retailrocket; empty
    where `log` says everything."""
    log: EventLogOptions = _AS_THE_PRESET
    """event_log: what differs from the preset."""
    data_dir: str = ""
    """Where prepared sets are; empty for $MTL_JAX_DATA/sets or ~/.cache/mtl_jax/sets."""
    manual_dir: str = ""
    """Folder with your own copy of the raw files; of event_log that of the preset's file, where
    `path` is empty."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network: embeddings, TIM, TRM and the upper network. All sizes are ours."""

    top: TopName = "mmoe"
    """single (a network for each task), shared_bottom, mmoe, ple (CGC for one level), esmm and aitm
    (tasks in the order of a funnel), or stem (embedding tables for each task as well)."""
    encoder: Encoder = "transformer"
    """Histories: none, the mean of the events, or a transformer (TIM)."""
    conditioning: Conditioning = "hyper"
    """transformer: how it depends on task and behaviour type: hyper (DTRN), table, none (one shared
    encoder) or separate (one for each pair)."""
    trm: bool = True
    """Weigh the embeddings task by task (DTRN)."""
    dim: int = 16
    """Numbers an embedding."""
    embedding_std: float = 0.05
    """Standard deviation of the first embeddings; larger ones leave the plateau of training sooner,
    and overfit sooner where there are many ids."""
    width: int = 16
    """Width of the transformer."""
    heads: int = 2
    """Attention heads."""
    layers: int = 1
    """Transformer layers."""
    pool: Pool = "target"
    """How events become one interest: target (the candidate attends to them), mean, cand_token."""
    norm_first: bool = True
    """Normalise before attention and feed-forward part, or after."""
    residual: bool = True
    """Add the mean of the events to the interest; needs `width` to be `dim` or more."""
    fold: bool = True
    """Fold the conditional normalisation into the matrices; False is slower and equal."""
    task_embedding: int = 8
    """hyper: numbers of the embeddings of tasks and behaviour types."""
    hyper_hidden: int = 32
    """hyper: width of the hypernetwork."""
    trm_reduction: int = 2
    """TRM: how much narrower than its input its hidden layer is."""
    trm_granularity: Granularity = "field"
    """TRM: a weight for each embedding, or for each of its elements."""
    trm_gate: Gate = "2sigmoid"
    """TRM: 2 sigmoid, or ReLU."""
    trm_squeeze: Squeeze = "mean"
    """TRM: it sees the mean of each embedding, or all elements."""
    bottom: tuple[int, ...] = (128, 64)
    """Hidden widths of the shared bottom, or of each expert."""
    tower: tuple[int, ...] = (32,)
    """Hidden widths of a task's tower."""
    experts: int = 4
    """mmoe: experts; ple, stem: shared experts."""
    own_experts: int = 1
    """ple, stem: experts of each task."""
    levels: int = 1
    """ple: levels."""
    dropout: float = 0.2
    """Of hidden layers."""
    embedding_dropout: float = 0.0
    """Of embeddings and events."""
    attention_dropout: float = 0.0
    """Of tokens and after attention."""
    calibrator: float = 0.6
    """aitm: weight of max(0, p_t - p_{t-1})."""


@dataclasses.dataclass(frozen=True)
class Config(ExperimentConfig):
    """A recommendation experiment."""

    system: ClassVar[str] = "mtl_jax.systems.dtrn"

    data: DataConfig = DataConfig()
    """The impressions."""
    model: ModelConfig = ModelConfig()
    """The network."""

    def check(self) -> None:
        """Raises a `UserError` for values that no run can use; touches no data."""
        super().check()
        _check_data(self.data)
        _check_model(self.model)


def _check_data(data: DataConfig) -> None:
    base = base_of(data.name, SETS)
    if base == "event_log":
        if data.name != base:
            raise UserError("config.data.name is event_log alone; choose with config.data.preset")
        if not (data.path or data.log.path or (data.preset and data.manual_dir)):
            raise UserError(
                "config.data.path is empty; event_log needs a file of events, or with a preset"
                " the folder that holds it as config.data.manual_dir"
            )
    else:
        parse(data.name)
        for name, value in (("path", data.path), ("preset", data.preset)):
            if value:
                raise UserError(
                    f"config.data.{name} is {value!r}, which {data.name} does not have; it belongs"
                    " to event_log"
                )
    for name in ("length", "eval_batch_size"):
        if getattr(data, name) < 1:
            raise UserError(f"config.data.{name} is {getattr(data, name)}; it must be 1 or more")
    for rule in data.condition:
        target, bar, given = rule.partition("|")
        if not (bar and target and given) or target == given:
            raise UserError(
                f"config.data.condition has {rule!r}; write TASK|OTHER, as in conversion|click"
            )


def _check_model(model: ModelConfig) -> None:
    positive = ("dim", "width", "heads", "layers", "task_embedding", "hyper_hidden")
    for name in (*positive, "trm_reduction", "experts", "own_experts", "levels"):
        if getattr(model, name) < 1:
            raise UserError(f"config.model.{name} is {getattr(model, name)}; it must be 1 or more")
    for name in ("bottom", "tower"):
        widths = getattr(model, name)
        if any(width < 1 for width in widths) or (name == "bottom" and not widths):
            found = " ".join(map(str, widths)) or "empty"
            raise UserError(f"config.model.{name} is {found}; give positive widths")
    for name in ("dropout", "embedding_dropout", "attention_dropout"):
        if not 0 <= getattr(model, name) < 1:
            raise UserError(
                f"config.model.{name} is {getattr(model, name)}; it must be from 0 to below 1"
            )
    if model.embedding_std <= 0:
        raise UserError(f"config.model.embedding_std is {model.embedding_std}; it must be positive")
    if model.width % model.heads:
        raise UserError(
            f"config.model.width is {model.width}, which does not divide into"
            f" {model.heads} heads; choose a multiple"
        )
    if model.encoder == "transformer" and model.residual and model.width < model.dim:
        raise UserError(
            f"config.model.width is {model.width}, which must be config.model.dim = {model.dim} or"
            " more to add the mean of the events; or set config.model.residual to False"
        )
    if model.calibrator < 0:
        raise UserError(f"config.model.calibrator is {model.calibrator}; it must be 0 or more")
    if model.levels > 1 and model.top != "ple":
        raise UserError(
            f"config.model.levels is {model.levels}, but only ple has levels; {model.top} does not"
        )
