"""Small experiments, and files in the real layouts for every recommendation experiment."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any

import numpy as np

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TrainConfig
from mtl_jax.systems.dtrn.config import Config, DataConfig, ModelConfig
from tests.data.recommendation import test_kuairand as kuairand
from tests.data.recommendation_sets import samples

# Whatever is compiled here is small: of two tasks, without dropout.
MODEL: dict[str, Any] = {
    "top": "shared_bottom",
    "dim": 4,
    "width": 4,
    "heads": 1,
    "bottom": (8,),
    "tower": (4,),
    "experts": 2,
    "dropout": 0.0,
    "hyper_hidden": 4,
}
PLAIN: dict[str, Any] = {"model__encoder": "mean", "model__trm": False}


def config_of(folder: Path, **changes: Any) -> Config:
    """A small experiment on conflict/tiny with sets under `folder`; `data__length=3` changes it."""
    base = Config(
        name="small",
        data=DataConfig(
            name="conflict/tiny",
            tasks=("click", "signal_1"),
            length=4,
            data_dir=str(folder / "sets"),
        ),
        model=ModelConfig(**MODEL),
        method=MethodConfig(
            aggregator="linear_scalarization", flat=FlatConfig(combine="erm"), strategy="scan"
        ),
        optim=OptimConfig(name="adamw", lr=1e-2, weight_decay=0.01),
        train=TrainConfig(
            steps=4,
            batch_size=64,
            eval_every=2,
            log_every=2,
            select="validation/auc",
            report=False,
        ),
    )
    return changed(base, **changes)


def changed(config: Any, **changes: Any) -> Any:
    """Returns a config with other values: `optim__tables__rule="sgd"`."""
    for path, value in changes.items():
        name, _, rest = path.partition("__")
        new = changed(getattr(config, name), **{rest: value}) if rest else value
        config = dataclasses.replace(config, **{name: new})
    return config


def write_tmall2014(path: Path, seed: int = 0, events: int = 1500) -> Path:
    """The contest of 2014: user_id, brand_id, type, day; each user prefers some brands."""
    rng = np.random.default_rng(seed)
    lines = ["user_id,brand_id,type,day"]
    for _ in range(events):
        user = int(rng.integers(1000, 1016))
        brand = 20 + (user + int(rng.integers(4))) % 12
        lines.append(f"{user},{brand},{rng.choice(4, p=[0.6, 0.2, 0.1, 0.1])},{rng.integers(123)}")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_user_behavior(folder: Path, seed: int = 0, events: int = 3000) -> Path:
    """Taobao UserBehavior: no line of names, seconds, some of them out of range."""
    rng = np.random.default_rng(seed)
    first = int(datetime.datetime(2017, 11, 24, 16, tzinfo=datetime.UTC).timestamp())
    lines = []
    for _ in range(events):
        item = int(rng.integers(500, 512))
        kind = rng.choice(["pv", "cart", "fav", "buy"], p=[0.7, 0.1, 0.1, 0.1])
        when = first + int(rng.integers(-3600, 9 * 86_400))
        lines.append(f"{rng.integers(1, 9)},{item},{item % 3},{kind},{when}")
    folder.mkdir(exist_ok=True)
    (folder / "UserBehavior.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_ijcai15(folder: Path, seed: int = 0, events: int = 3000) -> Path:
    """Tmall of IJCAI-15: month and day, and what is known of the users."""
    rng = np.random.default_rng(seed)
    lines = ["user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type"]
    first = datetime.date(2014, 5, 11)
    for _ in range(events):
        day = first + datetime.timedelta(int(rng.integers(185)))
        item = int(rng.integers(500, 520))
        brand = "" if item == 503 else item % 5
        action = rng.choice(4, p=[0.7, 0.1, 0.1, 0.1])
        user = rng.integers(1, 9)
        lines.append(f"{user},{item},{item % 3},{item % 4},{brand},{day:%m%d},{action}")
    folder.mkdir(exist_ok=True)
    (folder / "user_log_format1.csv").write_text("\n".join(lines) + "\n")
    people = ["user_id,age_range,gender", *(f"{u},{u % 8},{u % 3}" for u in range(1, 9))]
    (folder / "user_info_format1.csv").write_text("\n".join(people) + "\n")
    return folder


def write_kuairand(folder: Path) -> Path:
    """KuaiRand: 31 days of milliseconds, more than 2**31 of them."""
    folder.mkdir()
    kuairand.write(folder / "log_standard_4_08_to_5_08_pure.csv", kuairand.exposures(31, 800))
    return folder


def write_files(experiment: str, folder: Path) -> dict[str, str]:
    """Writes what an experiment reads; returns the fields of its DataConfig that name it."""
    raw = folder / experiment
    if experiment == "conflict":
        return {"name": "conflict/tiny"}
    if experiment == "event_log":
        return {"path": str(write_tmall2014(folder / "events.csv"))}
    if experiment == "taobao_userbehavior":
        write_user_behavior(raw)
    elif experiment == "tmall":
        write_ijcai15(raw)
    elif experiment == "kuairand":
        write_kuairand(raw)
    elif experiment == "ali_ccp":
        samples.write_ali_ccp(raw)
    elif experiment == "aliexpress":
        samples.write_aliexpress(raw)
    elif experiment == "census":
        samples.write_census(raw, train=400, test=60)
    elif experiment == "movielens":
        samples.write_recbole(raw, samples.rating_table(0))
    else:
        samples.write_movielens1m(raw, samples.rating_table(0))
    return {"manual_dir": str(raw)}
