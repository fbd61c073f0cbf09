"""Configs: typed overrides, hints for what is misspelt, a JSON round trip."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.fsmtl import multi_mnist
from mtl_jax import config as configs
from mtl_jax import flags
from mtl_jax.errors import UserError


def _override(*words: str) -> configs.ExperimentConfig:
    return flags.override(multi_mnist.get_config(), list(words))


def test_flags_are_typed_and_reach_their_place() -> None:
    config = _override(
        "--config.optim.lr=3e-4",
        "--config.train.batch-size=64",
        "--config.train.batch_size=32",
        "--config.method.flat.rho-heads=0.5",
        "--config.model.name=mlp",
        "--config.model.widths",
        "32",
        "64",
        "--config.train.report=False",
    )
    assert config.optim.lr == 3e-4
    assert config.train.batch_size == 32
    assert config.method.flat.rho_heads == 0.5
    assert config.model.widths == (32, 64)
    assert config.train.report is False
    assert multi_mnist.get_config().optim.lr == 1e-3


def test_options_of_a_method_follow_the_method() -> None:
    assert dict(_override().method.options) == {"c": 0.4, "rescale": 1}
    assert _override("--config.method.options.c=1").method.options["c"] == 1.0
    other = _override("--config.method.aggregator=fairgrad", "--config.method.options.alpha=1")
    assert other.method.options["alpha"] == 1.0
    assert "c" not in other.method.options
    with pytest.raises(UserError, match=r"unknown option --config\.method\.options\.c;"):
        _override("--config.method.aggregator=fairgrad", "--config.method.options.c=1")


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--config.optim.lrr=1", "did you mean --config.optim.lr?"),
        ("--config.sed=1", "did you mean --config.seed?"),
        ("--optim.lr=1", "unknown option --optim.lr"),
        ("--config.optim.lr=fast", "config.optim.lr is 'fast'; it must be a number"),
        ("--config.seed=1.5", "config.seed is '1.5'; it must be a whole number"),
        (
            "--config.optim.name=adm",
            "one of adam, adamw, sgd, momentum, lion, muon (did you mean adam?)",
        ),
        ("--config.method.aggregator=cagrd", "did you mean 'cagrad'?"),
        ("--config.method.options.c=-1", "c must be non-negative, found -1.0"),
        ("--config.method.flat.rho=-1", "rho must be non-negative, found -1.0"),
        ("--config.optim.lr=nan", "config.optim.lr is nan; it must be a finite number"),
        ("--config.optim.lr=0", "config.optim.lr is 0.0; it must be positive"),
        ("--config.train.epochs=0", "give one of them"),
        ("stray", "'stray' belongs to no option"),
    ],
)
def test_wrong_flags_say_what_is_right(flag: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        _override(flag)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert "│" not in str(error.value)


def test_json_round_trip() -> None:
    config = _override("--config.method.aggregator=upgrad", "--config.seed=7")
    saved = json.loads(json.dumps(configs.to_dict(config)))
    assert saved["system"] == "mtl_jax.systems.vision"
    assert configs.from_dict(saved) == config


def test_a_saved_config_of_other_code_is_refused() -> None:
    saved = configs.to_dict(_override())
    with pytest.raises(UserError, match="does not fit this version of the code"):
        configs.from_dict({**saved, "new_field": 1})
    with pytest.raises(UserError, match="cannot import the system"):
        configs.from_dict({**saved, "system": "mtl_jax.systems.nothing"})


def test_help_lists_every_flag_with_its_type_and_meaning() -> None:
    text = flags.help_text(multi_mnist.get_config())
    for path in configs.flatten(_override()):
        assert f"--config.{path.replace('_', '-')}" in text.replace("_", "-"), path
    assert "Radius of the perturbation of the shared parameters" in text
    assert "{pmap,shard_map}" in text


def test_every_experiment_file_loads() -> None:
    root = Path(__file__).resolve().parent.parent / "experiments"
    files = [
        path for path in root.rglob("*.py") if "def get_config" in path.read_text(encoding="utf-8")
    ]
    assert len(files) >= 4
    for path in files:
        config = flags.override(configs.load(path), [])
        assert configs.from_dict(json.loads(json.dumps(configs.to_dict(config)))) == config
