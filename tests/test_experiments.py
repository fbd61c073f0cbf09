"""Every experiment file, made tiny, runs from the first step to its scores."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax import config as configs
from mtl_jax import evaluate, flags
from mtl_jax.config import ExperimentConfig
from mtl_jax.engine.state import TrainState
from mtl_jax.engine.step import make_train_step
from mtl_jax.engine.writers import read_metrics
from mtl_jax.methods.ownership import owner_tree
from mtl_jax.systems import vision
from mtl_jax.systems.vision.config import MODELS, family
from mtl_jax.train import train
from tests import raw_files

ROOT = Path(__file__).parent.parent
FILES = {
    path.relative_to(ROOT / "experiments").with_suffix("").as_posix(): path
    for path in sorted((ROOT / "experiments").rglob("*.py"))
    if "def get_config()" in path.read_text()
}

TASKS = {"celeba": 40, "nyuv2": 3, "cityscapes": 2}
TASKS |= dict.fromkeys(("multi_mnist", "multi_fashion", "multi_fashion_mnist"), 2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Raw files of every data set, and where prepared ones go: {"raw/<set>": .., "sets": ..}."""
    root = tmp_path_factory.mktemp("data")
    pairs = raw_files.write_images(root / "pairs", 200)
    return {
        "celeba": raw_files.write_celeba(root / "celeba"),
        "nyuv2": raw_files.write_dense(root / "nyuv2", "nyuv2"),
        "cityscapes": raw_files.write_dense(root / "cityscapes", "cityscapes"),
        **dict.fromkeys(("multi_mnist", "multi_fashion", "multi_fashion_mnist"), pairs),
        "sets": root / "sets",
    }


def shrink(config: ExperimentConfig, folders: dict[str, Path], own_model: bool) -> ExperimentConfig:
    """The experiment on tiny files for two steps; its trunk the smallest that still fits.

    What makes the experiment is left: method, flat regions, optimiser, tasks, selection.
    """
    data, model = config.data, config.model
    name = data.name.split("/")[0]
    dense = family(name) == "dense"
    data = dataclasses.replace(
        data,
        name=name,  # a source of 200 images is never "full"
        data_dir=str(folders["sets"]),
        manual_dir=str(folders[name]),
        **({"holdout": 1} if dense else {}),
    )
    if model.name == "resnet18_celeba" and not own_model:
        model = dataclasses.replace(model, name="mlp")
    if MODELS[model.name].widths is not None:
        model = dataclasses.replace(model, widths=(2, 3))
    return dataclasses.replace(
        config,
        data=data,
        model=model,
        # A loop over the tasks compiles each pass once.
        method=dataclasses.replace(config.method, strategy="scan"),
        train=dataclasses.replace(
            config.train,
            steps=2,
            batch_size=2 if dense else 4,
            eval_every=2,
            log_every=1,
            report=False,
        ),
    )


def run_and_check(config: ExperimentConfig, workdir: Path, capsys: pytest.CaptureFixture) -> None:
    final = train(config, workdir)
    assert all(math.isfinite(value) for value in final.values()), final
    metric = config.train.select.removeprefix("validation/")
    assert {f"{which}/test/{metric}" for which in ("best", "last")} <= final.keys()
    assert final["last/step"] == 2
    records = [r["values"] for r in read_metrics(workdir) if r["kind"] == "train"]
    tasks = {key.split("/")[0] for key in records[0] if key.endswith("/loss")}
    assert len(tasks) == TASKS[config.data.name]
    for t in tasks:
        losses = [record[f"{t}/loss"] for record in records]
        assert len(losses) == 2
        assert np.isfinite(losses).all()
        if config.method.flat.combine != "erm":
            assert all(record[f"{t}/gap"] != 0 for record in records)
    assert records[0]["grad_norm"] > 0
    capsys.readouterr()
    evaluate.main(["--workdir", str(workdir), "--which", "last", "--split", "test"])
    assert f"{final[f'last/test/{metric}']:.5f}" in capsys.readouterr().out
    saved = json.loads((workdir / "evaluation.json").read_text())
    assert saved[f"test/{metric}"] == final[f"last/test/{metric}"]


# What takes longest is a large network of a kind that other experiments have, too.
LONG = ("fsmtl/cityscapes", "fsmtl/multi_mnist_paper")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in LONG else [])
        for name in FILES
        if name.startswith("fsmtl/")
    ],
)
def test_runs(name: str, folders: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = shrink(configs.load(FILES[name]), folders, own_model=False)
    run_and_check(config, tmp_path / "run", capsys)


@pytest.mark.slow
def test_celeba_runs_with_its_own_trunk(
    folders: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = shrink(configs.load(FILES["fsmtl/celeba"]), folders, own_model=True)
    run_and_check(config, tmp_path / "run", capsys)


@pytest.mark.parametrize("name", FILES)
def test_is_a_lab_note_whose_flags_can_be_changed(name: str) -> None:
    text = FILES[name].read_text()
    note = text.split('"""')[1]
    assert "Paper: " in note
    assert "make train" in note
    config = configs.load(FILES[name])
    assert config.name == name.split("/")[-1]
    changed = flags.override(config, ["--config.method.flat.rho=0.5", "--config.seed=3"])
    assert (changed.method.flat.rho, changed.seed) == (0.5, 3)
    assert configs.from_dict(json.loads(json.dumps(configs.to_dict(config)))) == config


# Size of the real images, and how many parameters the paper's network has: a CIFAR ResNet-18
# without its classifier, and 40 heads of 2048 x 2.
REAL = {
    "fsmtl/celeba": ((64, 64), 11_168_832 + 40 * 2 * 2049),
    "fsmtl/nyuv2": ((288, 384), None),
    "fsmtl/cityscapes": ((128, 256), None),
}


@pytest.mark.parametrize("name", REAL)
def test_the_step_fits_together_at_its_real_size(name: str, folders: dict, tmp_path: Path) -> None:
    """The file's own model, method, batch and image size; traced, nothing is computed."""
    size, parameters = REAL[name]
    config = configs.load(FILES[name])
    small = shrink(config, folders, own_model=True)
    if family(small.data.name) == "dense":  # as small as the file's own stages can halve
        raw = raw_files.write_dense(tmp_path / "raw", small.data.name, size=(16, 16))
        places = {"manual_dir": str(raw), "data_dir": str(tmp_path / "sets")}
        small = dataclasses.replace(small, data=dataclasses.replace(small.data, **places))
    system, data = vision.build(dataclasses.replace(small, model=config.model))
    count = config.train.batch_size

    def at_real_size(field: str, leaf: np.ndarray) -> jax.ShapeDtypeStruct:
        place = leaf.shape[1:] if leaf.ndim == 2 else (*size, *leaf.shape[3:])
        return jax.ShapeDtypeStruct((count, *place), leaf.dtype)

    host = {field: at_real_size(field, leaf) for field, leaf in data.train_batch(0).items()}
    method, tasks = config.method.make(), system.task_names
    tx = optax.adam(1e-3)

    def start(host: dict) -> TrainState:
        params, model_state = system.init(jax.random.key(0), data.assemble({}, host, None))
        owners = owner_tree(params, system.owner, len(tasks))
        inner = method.init(params, owners, len(tasks))
        return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), model_state, inner)

    state = jax.eval_shape(start, host)
    if parameters is not None:
        assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == parameters
    step = make_train_step(system, data, method, tx, seed=0, strategy=config.method.strategy)
    new, metrics = jax.eval_shape(step, state, {}, host)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), new) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    assert metrics["losses"].shape == metrics["perturbed_losses"].shape == (len(tasks),)
