"""What fits together is built; what does not is refused before any data is touched."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path

import numpy as np
import pytest

from mtl_jax.config import TrainConfig
from mtl_jax.data.registry import DATASETS
from mtl_jax.data.survival.survset import RECIPES as SURVSET
from mtl_jax.data.survival.table_loading import FILE_SETS
from mtl_jax.errors import UserError
from mtl_jax.flags import override
from mtl_jax.systems import vision
from mtl_jax.systems.dtrn.config import SETS as IMPRESSIONS
from mtl_jax.systems.molecules.config import SETS as MOLECULES
from mtl_jax.systems.tabular.config import SETS as TABLES
from mtl_jax.systems.vision import builders
from mtl_jax.systems.vision.config import FAMILIES, MODELS, Config, DataConfig, ModelConfig
from tests import raw_files

DENSE = ["--config.data.name=nyuv2", "--config.model.name=segnet_small", "--config.data.holdout=2"]
CELEBA = ["--config.data.name=celeba"]


def test_every_image_set_and_model_is_known() -> None:
    lifetimes = {"creatives", *SURVSET, *FILE_SETS}
    assert (
        FAMILIES.keys()
        | {"fisher", "darcy", "plate", *lifetimes, *IMPRESSIONS, *TABLES, *MOLECULES}
        == DATASETS.keys()
    )
    assert set(typing.get_args(typing.get_type_hints(ModelConfig)["name"])) == MODELS.keys()
    for name in MODELS:
        assert builders.make_trunk(name, (4, 4)) is not None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--config.data.name=multi_mnits"],
            "unknown data set 'multi_mnits'; did you mean 'multi_",
        ),
        (["--config.data.name=celebA"], "did you mean 'celeba'"),
        (["--config.data.name=multi_mnist/huge"], "unknown config 'huge' of multi_mnist"),
        (["--config.data.name=nyuv2/small"], "nyuv2 has one size"),
        (["--config.data.label_noise", "0.1"], "label_noise is 0.1; give two numbers, one a task"),
        (["--config.data.label_noise", "0.1", "0.95"], "label_noise is 0.1 0.95; .* from 0 to 0.9"),
        (["--config.data.label_share", "0", "1"], "label_share is 0.0 1.0; .* above 0 and at most"),
        ([*CELEBA, "--config.data.label_share", "1", "1"], "which celeba does not have"),
        (["--config.model.name=lenet"], "name is 'lenet'; it must be one of .* mean lenet_5x5"),
        (["--config.model.name=segnet_small"], "does not fit multi_mnist; choose of lenet_pareto,"),
        (
            ["--config.model.name=resnet18_celeba"],
            "resnet18_celeba, which does not fit multi_mnist",
        ),
        (
            [*CELEBA, "--config.model.name=segnet_small"],
            "fit celeba; choose of lenet_pareto, .*_cel",
        ),
        ([*DENSE, "--config.model.name=mlp"], "does not fit nyuv2; choose of segnet_small"),
        (["--config.model.name=lenet_5x5", "--config.model.widths", "8"], "8; lenet_5x5 takes two"),
        (
            ["--config.model.name=lenet_5x5", "--config.model.widths", "8", "8", "8"],
            "8 8 8; lenet_5",
        ),
        (
            ["--config.model.name=lenet_5x5", "--config.model.widths", "8", "0"],
            "8 0; lenet_5x5 takes",
        ),
        (
            ["--config.model.name=mlp", "--config.model.widths", "-8"],
            "-8; mlp takes one or more pos",
        ),
        (
            ["--config.model.name=mlp", "--config.model.widths"],
            "widths is empty; it must be one or more",
        ),
        (
            [*DENSE, "--config.model.widths", "4", "0"],
            "4 0; segnet_small takes one or more positive",
        ),
        (
            ["--config.model.widths", "16", "32"],
            "lenet_pareto has widths of its own; leave it at 10 ",
        ),
        (["--config.data.pairs=new"], "pairs is 'new'; it must be one of fresh, fixed"),
        (["--config.data.partners=0"], "partners is 0; it must be 1 or more"),
        (["--config.data.train-size=-5"], "train_size is -5; it must be 3 or more, or 0"),
        (["--config.data.train-size=2"], "train_size is 2; it must be 3 or more, or 0"),
        (
            ["--config.data.holdout=10"],
            "holdout is 10, which multi_mnist does not have; leave it at 0",
        ),
        (["--config.data.augment=False"], "augment is False, which multi_mnist does not have"),
        (
            [*CELEBA, "--config.data.pairs=fixed"],
            "pairs is fixed, which celeba does not have; leave",
        ),
        ([*CELEBA, "--config.data.holdout=3"], "holdout is 3, which celeba does not have"),
        ([*DENSE, "--config.data.partners=3"], "partners is 3, which nyuv2 does not have"),
        ([*DENSE, "--config.data.holdout=0"], "holdout is 0; nyuv2 has no validation split"),
        ([*DENSE, "--config.data.holdout=-1"], "holdout is -1; nyuv2 has no validation split"),
    ],
)
def test_a_wrong_flag_is_one_line(flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        override(Config(), flags)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "model", "message"),
    [
        (DataConfig(name="mnist"), ModelConfig(), "unknown data set 'mnist'; did you mean"),
        (DataConfig(name="celeba"), ModelConfig("segnet_small"), "does not fit celeba"),
        (
            DataConfig(),
            ModelConfig("resnet81"),
            "'resnet81'; it must be one of .* mean resnet18",
        ),
        (DataConfig(), ModelConfig("lenet_5x5", (1,)), "lenet_5x5 takes two positive numbers"),
        (DataConfig(pairs="old"), ModelConfig(), "pairs is 'old'; it must be one of fresh, fixed"),
        (DataConfig(name="nyuv2"), ModelConfig("segnet_small"), "no validation split"),
    ],
)
def test_an_experiment_file_is_checked_before_data_is_touched(
    data: DataConfig, model: ModelConfig, message: str, tmp_path: Path
) -> None:
    where = dataclasses.replace(data, data_dir=str(tmp_path / "sets"))
    with pytest.raises(UserError, match=message):
        vision.build(Config(data=where, model=model))
    assert not (tmp_path / "sets").exists()


def _dense(tmp_path: Path, **model: typing.Any) -> Config:
    return Config(
        data=DataConfig(
            name="nyuv2",
            holdout=1,
            data_dir=str(tmp_path / "sets"),
            manual_dir=str(raw_files.write_dense(tmp_path / "raw", "nyuv2")),
        ),
        model=ModelConfig("segnet_small", **model),
        train=TrainConfig(batch_size=2),
    )


def test_too_many_stages_for_the_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"8 x 12; the 3 stages .* multiples of 8, so give fewer"):
        vision.build(_dense(tmp_path, widths=(2, 2, 2)))


def test_splits_of_different_sizes(tmp_path: Path) -> None:
    config = _dense(tmp_path, widths=(2, 2))
    for folder in (tmp_path / "raw" / "val").iterdir():
        for path in folder.iterdir():
            np.save(path, np.load(path)[:4])
    with pytest.raises(UserError, match=r"of one size, found 8 x 12 in train, .* 4 x 12 in test"):
        vision.build(config)


def test_streamed_batches_are_a_function_of_the_step(tmp_path: Path) -> None:
    system, data = vision.build(_dense(tmp_path, widths=(2, 2)))
    assert system.task_names == ("segmentation", "depth", "normal")
    assert (data.steps_per_epoch, data.splits) == (2, ("validation", "test"))
    assert data.resident == {}
    batches = [data.train_batch(step) for step in range(4)]
    again = data.train_batch(2)
    for name, field in batches[2].items():
        np.testing.assert_array_equal(again[name], field)
    seen = {image.tobytes() for batch in batches[:2] for image in batch["image"]}
    assert len(seen) == 4  # an epoch shows every image that is not held out, once
    held = [image.tobytes() for image in next(iter(data.eval_batches("validation")))["image"]]
    assert held[0] not in seen
    tests = list(data.eval_batches("test"))
    assert [batch["mask"].tolist() for batch in tests] == [[True, True], [True, False]]
    assert {batch["image"].shape for batch in tests} == {(2, 8, 12, 3)}


def test_a_batch_larger_than_the_set(tmp_path: Path) -> None:
    config = dataclasses.replace(_dense(tmp_path, widths=(2, 2)), train=TrainConfig(batch_size=8))
    with pytest.raises(UserError, match="batch size 8 is larger than the 4 training examples"):
        vision.build(config)
