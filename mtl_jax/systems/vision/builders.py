"""From a config to a system with its data: one short builder a family of data sets."""

from __future__ import annotations

from flax import linen as nn

from mtl_jax.data.celeba_files import ATTRIBUTES, load_celeba, to_float
from mtl_jax.data.damage import damaged
from mtl_jax.data.dense_files import SPECS, SPLITS, load_dense
from mtl_jax.data.pairs import load_pairs
from mtl_jax.data.records import RecordSource
from mtl_jax.engine import parallel
from mtl_jax.errors import UserError
from mtl_jax.systems.base import Data, System
from mtl_jax.systems.vision import lenet, mlp, resnet, segnet
from mtl_jax.systems.vision.classification import make_system
from mtl_jax.systems.vision.config import Config, family
from mtl_jax.systems.vision.dense import TASKS, make_dense_system
from mtl_jax.systems.vision.dense_augment import assemble_augmented
from mtl_jax.systems.vision.heads import Head
from mtl_jax.systems.vision.pair_data import pair_data
from mtl_jax.systems.vision.streams import as_read, stream_data


def build(config: Config) -> tuple[System, Data]:
    """Checks the config, loads its data set, preparing it where it is missing, builds the system.

    Raises:
      UserError: what the user can mend; a wrong config before any data is touched.
    """
    config.check()
    return {"pairs": _pairs, "celeba": _celeba, "dense": _dense}[family(config.data.name)](config)


def make_trunk(name: str, widths: tuple[int, ...]) -> nn.Module:
    """Builds a trunk by name; batch statistics are taken over all devices."""
    if name == "lenet_pareto":
        return lenet.lenet_pareto()
    if name == "lenet_5x5":
        return lenet.lenet_5x5((widths[0], widths[1]))
    if name == "resnet18":
        return resnet.resnet18_multimnist(axis_name=parallel.AXIS)
    if name == "resnet18_celeba":
        return resnet.resnet18_celeba(axis_name=parallel.AXIS)
    if name == "segnet_small":
        return segnet.SegNetSmall(widths, axis_name=parallel.AXIS)
    if name == "mlp":
        return mlp.MLP(widths)
    raise ValueError(f"no trunk is called {name!r}")


def _pairs(config: Config) -> tuple[System, Data]:
    """Two of ten classes on one canvas; images live on the devices."""
    pairs = load_pairs(
        config.data.name,
        config.data.data_dir or None,
        config.data.manual_dir or None,
        train_size=config.data.train_size or None,
        partners=config.data.partners,
    )
    if config.data.label_noise or config.data.label_share:
        pairs = damaged(pairs, config.data.label_noise, config.data.label_share, config.seed)
    data = pair_data(
        pairs,
        fresh=config.data.pairs == "fresh",
        batch_size=config.train.batch_size,
        seed=config.seed,
        shard=parallel.process_index(),
        shards=parallel.process_count(),
    )
    trunk = make_trunk(config.model.name, config.model.widths)
    return make_system(trunk, Head(10), pairs.tasks), data


def _celeba(config: Config) -> tuple[System, Data]:
    """40 attributes, two classes each; faces are read from disk and scaled inside the model.

    Batches keep the uint8 images, for reports show them.
    """
    folders = config.data.data_dir or None, config.data.manual_dir or None
    data = stream_data(
        {split: load_celeba(split, *folders) for split in ("train", "validation", "test")},
        batch_size=config.train.batch_size,
        seed=config.seed,
        shard=parallel.process_index(),
        shards=parallel.process_count(),
    )
    trunk = make_trunk(config.model.name, config.model.widths)
    return make_system(trunk, Head(2), ATTRIBUTES, to_input=to_float), data


def _dense(config: Config) -> tuple[System, Data]:
    """Classes and depths, for NYUv2 normals as well, at every pixel; images are read from disk."""
    name = config.data.name
    folders = config.data.data_dir or None, config.data.manual_dir or None
    # Which images are held out is the same for all seeds, so that runs are compared on the same.
    sources = {s: load_dense(name, s, *folders, holdout=config.data.holdout) for s in SPLITS}
    _check_size(sources, config.model.widths)
    data = stream_data(
        sources,
        batch_size=config.train.batch_size,
        seed=config.seed,
        shard=parallel.process_index(),
        shards=parallel.process_count(),
        assemble=assemble_augmented if config.data.augment else as_read,
    )
    spec = SPECS[name]
    tasks = tuple(task for task in TASKS if TASKS[task].field in ("label", *spec.channels))
    trunk = make_trunk(config.model.name, config.model.widths)
    return make_dense_system(trunk, tasks, spec.num_classes), data


def _check_size(sources: dict[str, RecordSource], widths: tuple[int, ...]) -> None:
    """Raises a `UserError` unless all splits have images of one size that the stages can halve."""
    sizes = {split: source[0]["image"].shape[:2] for split, source in sources.items()}
    name = sources["train"].name
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{h} x {w} in {split}" for split, (h, w) in sizes.items())
        raise UserError(f"images of {name} must be of one size, found {found}; prepare them anew")
    height, width = sizes["train"]
    step = 2 ** len(widths)
    if height % step or width % step:
        raise UserError(
            f"images of {name} are {height} x {width}; the {len(widths)} stages of"
            f" config.model.widths need multiples of {step}, so give fewer"
        )
