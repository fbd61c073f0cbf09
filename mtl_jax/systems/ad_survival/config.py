"""Config of the survival networks: what may be chosen, and what fits together."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

from mtl_jax.config import ExperimentConfig
from mtl_jax.data.registry import base_of, parse
from mtl_jax.data.survival.table_options import TableOptions
from mtl_jax.errors import UserError, did_you_mean
from mtl_jax.survival import Grid, check_score, stitch_grids
from mtl_jax.survival.credit import Credit
from mtl_jax.survival.weights import Transform
from mtl_jax.systems.ad_survival.terms import Term, Views, make_terms, make_views

# Sets that are prepared by name, and those that are read from a file of the user's.
NAMED = ("creatives", "support2", "rhc", "hdfail", "unempdur")
FILES = ("table", "snap_ads", "google_ads", "meta_ads", "petfinder")
ADS = ("snap_ads", "google_ads", "meta_ads")
# Kinds of input, in the order in which they are joined.
INPUTS = ("text", "image", "categories", "numbers", "totals", "history", "vectors")
Terms = Literal["two", "overall", "short", "long"]
Head = Literal["hazard", "cause", "pmf", "mtlr", "deephit", "cox"]
Protocol = Literal["landmark", "paper"]
_AS_NAMED = TableOptions()


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The lifetimes and how they are looked at."""

    name: str = "creatives"
    """creatives (/faithful, large, easy, hard, feedback), support2, rhc, hdfail and unempdur are
    made or fetched by name; table, snap_ads, google_ads, meta_ads and petfinder read `path`."""
    path: str = ""
    """table, *_ads, petfinder: the file."""
    snapshot: str = ""
    """*_ads: when the file was made, such as 2020-09-28; empty for the latest time in it."""
    table: TableOptions = _AS_NAMED
    """table: what its columns are."""
    split: str = ""
    """How rows are split, a way that the set has: group, random, time, ...; empty for the first."""
    protocol: Protocol = "landmark"
    """landmark: a row counts at a landmark if it is alive then. paper: as the paper prints it,
    first days of history without that condition, which shows the network who died early."""
    landmarks: tuple[float, ...] = (0.0,)
    """landmark: times of prediction. The network knows the history up to each, and is trained and
    scored at all of them."""
    short: tuple[float, ...] = (0, 3, 5, 7, 10)
    """Edges of the short term's bins."""
    long: tuple[float, ...] = (0, 10, 30, 60, 90, 120)
    """Edges of the long term's bins; the first bin is the short term."""
    inputs: tuple[str, ...] = ()
    """Kinds of input to use: text, image, categories, numbers, totals (sums of the history up to
    the landmark), history (day by day), vectors; empty for all that the set has."""
    drop: tuple[str, ...] = ()
    """Columns to leave out, by name."""
    min_count: int = 5
    """Training rows that a level of a category needs to count by itself."""
    resident: bool = True
    """Keep the set on the devices; False puts batches together on the host."""
    eval_batch_size: int = 1024
    """Rows a batch of evaluation at most."""
    data_dir: str = ""
    """Where prepared sets are; empty for $MTL_JAX_DATA/sets or ~/.cache/mtl_jax/sets."""
    manual_dir: str = ""
    """Folder with your own copy of the raw files."""

    @property
    def views(self) -> Views:
        """When lifetimes are predicted."""
        return make_views(self.protocol, self.landmarks)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Encoders, trunk and heads. All sizes are ours."""

    terms: Terms = "two"
    """two: a short and a long head (two tasks); overall: one head on the joined grid; short, long:
    one of the two."""
    share: bool = True
    """two: heads on one trunk; False: two networks with nothing in common."""
    head: Head = "hazard"
    """hazard: discrete hazards; cause: those of competing causes; pmf, mtlr, deephit: other
    likelihoods of the bins; cox: proportional hazards (overall only)."""
    censoring: Credit = "midpoint"
    """What a censored row says of the bin it was censored in: midpoint, full, fraction, index."""
    coherence: float = 0.0
    """two: weight of the penalty on heads that disagree about the short term."""
    score: str = "log_rmst"
    """What ranks rows: rmst, log_rmst, median, survival@TIME, cumulative_hazard."""
    text: Literal["bag", "lstm", "bilstm", "transformer"] = "bilstm"
    """Encoder of texts."""
    text_dim: int = 32
    """Numbers a word."""
    text_hidden: int = 32
    """Width of the text encoder."""
    word_vectors: str = ""
    """File of word vectors (.vec, .npz) to start from; empty for none."""
    image_widths: tuple[int, ...] = (16, 32, 64)
    """Channels of the stages of the image encoder."""
    image_stride: int = 2
    """Of the image encoder's first convolution; 4 costs a fifth of 2 on a CPU."""
    image_blocks: int = 1
    """Residual blocks a stage."""
    augment: int = 0
    """Images in training are moved by up to so many pixels and mirrored; 0 for neither."""
    history_hidden: int = 32
    """Width of the recurrent net over days."""
    out: int = 32
    """Numbers an input kind brings to the trunk."""
    trunk: tuple[int, ...] = (128, 128)
    """Hidden widths of the trunk."""
    dropout: float = 0.2
    """Of hidden layers."""
    modality_dropout: float = 0.1
    """Chance that an input kind is hidden from a training row."""


@dataclasses.dataclass(frozen=True)
class WeightConfig:
    """Weights of training rows."""

    kind: Literal["none", "ctr", "impressions"] = "none"
    """ctr: click rate + 1, as in the paper; impressions: normalised impressions."""
    transform: Transform = "raw"
    """ctr: what is made of the rate before 1 is added: raw, minmax, rank, log, eb."""
    mean_one: bool = False
    """Divide by the mean."""
    share: float = 0.5
    """two: lambda, the share of the short term in the loss."""


@dataclasses.dataclass(frozen=True)
class Config(ExperimentConfig):
    """A survival experiment."""

    system: ClassVar[str] = "mtl_jax.systems.ad_survival"

    data: DataConfig = DataConfig()
    """The lifetimes."""
    model: ModelConfig = ModelConfig()
    """The network."""
    weights: WeightConfig = WeightConfig()
    """Weights of rows and terms."""

    @property
    def terms(self) -> tuple[Term, ...]:
        """The tasks."""
        return make_terms(self.model.terms, self.data.short, self.data.long)

    def check(self) -> None:
        """Raises a `UserError` for values that no run can use; touches no data."""
        super().check()
        _check_data(self.data)
        _check_model(self.model, self.data)
        _check_weights(self.weights, self.model)


def _check_data(data: DataConfig) -> None:
    base = base_of(data.name, NAMED + FILES)
    if base in FILES:
        if data.name != base:
            raise UserError(f"config.data.name is {data.name!r}; {base} has no configs")
        if not data.path:
            raise UserError(f"config.data.path is empty; {base} reads a file")
    else:
        parse(data.name)
        if data.path:
            raise UserError(
                f"config.data.path is {data.path!r}, which {data.name} does not have; it belongs"
                f" to {', '.join(FILES)}"
            )
    if data.snapshot and base not in ADS:
        raise UserError(
            f"config.data.snapshot is {data.snapshot!r}, which {data.name} does not have; it"
            f" belongs to {', '.join(ADS)}"
        )
    if base != "table":
        for field in dataclasses.fields(data.table):
            if (value := getattr(data.table, field.name)) != getattr(_AS_NAMED, field.name):
                raise UserError(
                    f"config.data.table.{field.name} is {value!r}, which {data.name} does not have;"
                    " it belongs to table"
                )
    marks = data.landmarks
    ordered = all(map(math.isfinite, marks)) and list(marks) == sorted(set(marks))
    if not marks or not ordered or marks[0] < 0:
        raise UserError(f"config.data.landmarks is {marks}; write times from 0 on, in order")
    for name in data.inputs:
        if name not in INPUTS:
            raise UserError(f"config.data.inputs has {name!r}; {did_you_mean(name, INPUTS)}")
    if len(set(data.inputs)) < len(data.inputs):
        raise UserError(f"config.data.inputs is {' '.join(data.inputs)}; each once")
    for name in ("min_count", "eval_batch_size"):
        if getattr(data, name) < 1:
            raise UserError(f"config.data.{name} is {getattr(data, name)}; it must be 1 or more")
    joined = stitch_grids(_grid("short", data.short), _grid("long", data.long))
    if marks[-1] >= joined.end:
        raise UserError(
            f"config.data.landmarks is {marks}; they must be below {joined.end:g}, the end of"
            " config.data.long"
        )


def _grid(name: str, edges: tuple[float, ...]) -> Grid:
    """The grid of config.data.short or .long; an error says which of them it is."""
    try:
        return Grid(edges)
    except UserError as error:
        raise UserError(f"config.data.{name}: {error}") from None


def _check_model(model: ModelConfig, data: DataConfig) -> None:
    grid = stitch_grids(Grid(data.short), Grid(data.long))
    check_score(model.score, grid)
    for name in (
        "text_dim",
        "text_hidden",
        "image_stride",
        "image_blocks",
        "history_hidden",
        "out",
    ):
        if getattr(model, name) < 1:
            raise UserError(f"config.model.{name} is {getattr(model, name)}; it must be 1 or more")
    for name in ("image_widths", "trunk"):
        widths = getattr(model, name)
        if not widths or any(width < 1 for width in widths):
            raise UserError(f"config.model.{name} is {widths}; give widths of 1 or more")
    for name in ("dropout", "modality_dropout"):
        if not 0 <= getattr(model, name) < 1:
            raise UserError(f"config.model.{name} is {getattr(model, name)}; it must be in 0..1")
    if model.coherence < 0:
        raise UserError(f"config.model.coherence is {model.coherence}; it must be 0 or more")
    if model.augment < 0:
        raise UserError(f"config.model.augment is {model.augment}; it must be 0 or more")
    if model.terms != "two":
        for name, plain in (("coherence", 0), ("share", True)):
            if getattr(model, name) != plain:
                raise UserError(
                    f"config.model.{name} is {getattr(model, name)}, which needs two heads;"
                    " choose config.model.terms=two"
                )
    if model.coherence and (not model.share or model.head == "cox"):
        raise UserError(
            f"config.model.coherence is {model.coherence}; it needs two hazard heads on one trunk"
        )
    if model.head == "cox" and model.terms != "overall":
        raise UserError(
            "config.model.head is cox, which has no bins; choose config.model.terms=overall"
        )
    if data.protocol == "paper" and model.terms == "overall" and model.head == "cox":
        raise UserError("config.model.head is cox; protocol=paper knows heads over bins only")


def _check_weights(weights: WeightConfig, model: ModelConfig) -> None:
    if not 0 < weights.share < 1:
        raise UserError(f"config.weights.share is {weights.share}; it must be between 0 and 1")
    if weights.transform != "raw" and weights.kind != "ctr":
        raise UserError(
            f"config.weights.transform is {weights.transform}, which is made of click rates; choose"
            " config.weights.kind=ctr"
        )
    if weights.mean_one and weights.kind == "none":
        raise UserError(
            "config.weights.mean_one is True, but config.weights.kind is none: there is nothing to"
            " divide; choose ctr or impressions"
        )
    if weights.share != 0.5 and model.terms != "two":
        raise UserError(
            f"config.weights.share is {weights.share}, which needs two heads; choose"
            " config.model.terms=two"
        )
