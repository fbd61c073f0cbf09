"""Wrong command lines: one line, exit code 2, nothing lost or half-written."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mtl_jax import train
from mtl_jax.engine.writers import Writers
from mtl_jax.errors import run_command
from tests.refusals import assert_says, contents, experiment, refused

__all__ = ["experiment"]

Capture = pytest.CaptureFixture[str]


# Each: flags, and what the line must say: the value found, the rule or the way out.
OPTIONS = [
    # Keys and the form of options.
    (
        "--config.optim.lrr=1e-3",
        "unknown option --config.optim.lrr; did you mean --config.optim.lr?",
    ),
    ("--config.optm.lr=1e-3", "did you mean --config.optim.lr?"),
    ("--confg.optim.lr=1", "did you mean --config.optim.lr?"),
    ("--config.seeed 1", "did you mean --config.seed?"),
    ("--workdirr=x", "unknown option --workdirr; did you mean --workdir?"),
    ("--config.method={}", "unknown option --config.method; known: method.aggregator"),
    ("optim.lr=3", "'optim.lr=3' belongs to no option", "--config.a.b=value"),
    ("-v", "'-v' belongs to no option"),
    ("--config.optim.lr", "config.optim.lr has no value; it must be a number"),
    ("--config.train.report", "config.train.report has no value; it must be True or False"),
    # Types.
    ("--config.optim.lr=fast", "config.optim.lr is 'fast'; it must be a number"),
    ("--config.optim.lr=", "config.optim.lr is ''; it must be a number"),
    ("--config.optim.lr 1e-3 2e-3", "has several values, 1e-3 2e-3; give one"),
    ("--config.optim.heads-lr=many", "optim.heads_lr is 'many'; it must be a number or None"),
    (
        "--config.train.batch-size=2.5",
        "config.train.batch_size is '2.5'; it must be a whole number",
    ),
    ("--config.train.epochs=1e3", "config.train.epochs is '1e3'; it must be a whole number"),
    ("--config.train.steps=3 --config.train.steps=x", "config.train.steps is 'x'"),
    ("--config.train.tensorboard=maybe", "is 'maybe'; it must be True or False"),
    ("--config.train.profile 5", "config.train.profile is 5; it must be 2 whole numbers"),
    ("--config.train.profile 1 2 3", "config.train.profile is 1 2 3; it must be 2 whole numbers"),
    ("--config.model.widths a", "config.model.widths is a; it must be one or more whole numbers"),
    ("--config.model.widths", "config.model.widths is empty; it must be one or more"),
    # Choices.
    (
        "--config.optim.name=adamm",
        "is 'adamm'; it must be one of adam, adamw",
        "did you mean adam?",
    ),
    ("--config.optim.schedule=cosin", "did you mean cosine?"),
    ("--config.model.name=resnet50", "is 'resnet50'; it must be one of", "did you mean resnet18?"),
    ("--config.train.backend=pjit", "it must be one of pmap, shard_map"),
    ("--config.data.pairs=random", "it must be one of fresh, fixed"),
    # Ranges.
    ("--config.optim.lr=nan", "config.optim.lr is nan; it must be a finite number"),
    ("--config.optim.lr=inf", "config.optim.lr is inf; it must be a finite number"),
    ("--config.optim.lr=-1", "config.optim.lr is -1.0; it must be positive"),
    ("--config.optim.lr=0", "config.optim.lr is 0.0; it must be positive"),
    ("--config.optim.heads-lr=-1", "config.optim.heads_lr is -1.0; it must be 0 or more"),
    ("--config.optim.weight-decay=nan", "config.optim.weight_decay is nan"),
    ("--config.optim.clip-norm=-1", "config.optim.clip_norm is -1.0; it must be 0 or more"),
    ("--config.train.batch-size=0", "config.train.batch_size is 0; it must be positive"),
    ("--config.train.batch-size=-4", "config.train.batch_size is -4; it must be positive"),
    ("--config.train.epochs=-1", "config.train.epochs is -1; it must be 0 or more"),
    ("--config.train.steps=0 --config.train.epochs=0", "are both 0; give one of them"),
    ("--config.train.microbatches=0", "config.train.microbatches is 0; it must be positive"),
    ("--config.train.keep-last=0", "config.train.keep_last is 0; it must be positive"),
    ("--config.train.profile 5 3", "config.train.profile is 5 3; give two steps, first <= second"),
    ("--config.seed=-1", "config.seed is -1; it must be 0 or more"),
    ("--config.seed=4294967296", "config.seed is 4294967296; it must be below 2**32"),
    ("--config.data.partners=0", "partners is 0; it must be 1 or more"),
    ("--config.model.widths=0", "widths is 0", "positive"),
    ("--config.model.name=lenet_5x5 --config.model.widths 10", "widths is 10", "takes two"),
    # Methods.
    ("--config.method.aggregator=cagradd", "unknown method 'cagradd': did you mean 'cagrad'?"),
    ("--config.method.options.cc=1", "did you mean --config.method.options.c?"),
    ("--config.method.options.c=lots", "config.method.options.c is 'lots'; it must be a number"),
    ("--config.method.options.rescale=1.5", "is '1.5'; it must be a whole number"),
    ("--config.method.options.rescale=7", "rescale must be 0, 1 or 2, found 7"),
    ("--config.method.options.c=-1", "'cagrad': c must be non-negative, found -1.0"),
    ("--config.method.options.c=nan", "config.method.options.c is nan"),
    (
        "--config.method.aggregator=mgda --config.method.options.c=1",
        "unknown option --config.method",
    ),
    (
        "--config.method.aggregator=fairgrad --config.method.options.alpha=-1",
        "'fairgrad': alpha must be positive, found -1.0",
    ),
    (
        "--config.method.aggregator=nash_mtl --config.method.options.update-every=0",
        "update_every must be at least 1, found 0",
    ),
    (
        "--config.method.aggregator=famo --config.method.options.gamma=-1",
        "gamma must be non-negative, found -1.0",
    ),
    (
        "--config.method.aggregator=uncertainty --config.method.prenormalise=l2",
        "method.prenormalise is l2, which needs an aggregator; uncertainty weights losses",
    ),
    (
        "--config.method.aggregator=uncertainty --config.method.flat.combine=second",
        "combine='second' needs an aggregator",
    ),
    ("--config.method.flat.rho=-1", "rho must be non-negative, found -1.0"),
    ("--config.method.flat.rho=nan", "config.method.flat.rho is nan"),
    ("--config.method.flat.rho-heads=-0.1", "rho_heads must be non-negative, found -0.1"),
    ("--config.method.flat.combine=seconds", "is 'seconds'", "did you mean second?"),
    ("--config.method.strategy=loop", "it must be one of auto, vmap, scan, unroll"),
    # Data sets by name.
    (
        "--config.data.name=multi_mnits",
        "unknown data set 'multi_mnits'; did you mean 'multi_mnist'",
    ),
    ("--config.data.name=multi_mnist/huge", "unknown config 'huge' of multi_mnist; known: full"),
    # Several processes.
    ("--num-processes=2", "2 processes need --coordinator host:port of process 0"),
    ("--num-processes=0", "--num-processes is 0; it must be 1 or more"),
    ("--num-processes=two", "invalid int value: 'two'; see python -m mtl_jax.train --help"),
    ("--process-id=1", "--process-id is 1 with --num-processes 1; it must be in 0..0"),
    ("--num-processes=2 --coordinator=h:1 --process-id=2", "--process-id is 2", "in 0..1"),
    ("--num-processes=2 --coordinator=h:1 --process-id=-1", "--process-id is -1"),
    ("--num-processes=2 --coordinator=here", "--coordinator is 'here'; it must be host:port"),
    ("--num-processes=2 --coordinator=h:99999", "--coordinator is 'h:99999'; it must be host:port"),
    ("--coordinator=h:1", "--coordinator is h:1 with --num-processes 1"),
]


@pytest.mark.parametrize(("flags", "words"), [(row[0], row[1:]) for row in OPTIONS])
def test_a_wrong_option_is_refused_before_anything_is_made(
    experiment: Path, tmp_path: Path, capsys: Capture, flags: str, words: tuple[str, ...]
) -> None:
    argv = ["--config", experiment, "--workdir", tmp_path / "run", *shlex.split(flags)]
    assert_says(refused(train.main, argv, capsys), *words)
    assert not (tmp_path / "run").exists()


# These are only known once the data set is open.
SIZES = [
    ("--config.train.batch-size=100000", "100000 is larger than the 560 training examples"),
    ("--config.train.microbatches=5", "batch size 32 does not divide", "use a multiple of 5"),
    (
        "--config.optim.warmup-steps=12",
        "warmup_steps is 12, but the run has 12 steps",
        "give fewer",
    ),
    ("--config.data.train-size=100000", "train_size = 100000, data set multi_mnist has 3..280"),
    ("--config.data.partners=1000000", "partners = 1000000", "choose 1..279"),
    # Before any training is spent, and not at the first evaluation.
    (
        "--config.train.select=validation/acuracy",
        "config.train.select is 'validation/acuracy'; did you mean 'validation/accuracy'?",
    ),
    ("--config.train.select=test/accuracy", "known: validation/accuracy, validation/bottom_right"),
]


@pytest.mark.parametrize(("flags", "words"), [(row[0], row[1:]) for row in SIZES])
def test_what_does_not_fit_the_data_is_refused_before_anything_is_written(
    experiment: Path, tmp_path: Path, capsys: Capture, flags: str, words: tuple[str, ...]
) -> None:
    argv = ["--config", experiment, "--workdir", tmp_path / "run", *shlex.split(flags)]
    assert_says(refused(train.main, argv, capsys), *words)
    assert contents(tmp_path / "run") == {}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "--config FILE is missing, e.g. --config experiments/"),
        (["--workdir", "x"], "--config FILE is missing"),
        (["--config", "experiments/fsmtl/multi_mnist.py"], "--workdir DIR is missing, e.g."),
        (["--config"], "argument --config: expected one argument"),
        (["--config", "multi_mnits.py", "--workdir", "x"], "no experiment file multi_mnits.py"),
        (
            ["--config", "experiments/fsmtl/multi_mnits.py", "--workdir", "x"],
            "did you mean experiments/fsmtl/multi_mnist.py?",
        ),
    ],
)
def test_a_command_without_its_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, argv: list[str], words: str
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    assert_says(refused(train.main, argv, capsys), words)
    assert not Path("x").exists()


def test_tensorboard_that_is_not_installed(
    experiment: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    argv = ["--config", experiment, "--workdir", tmp_path / "run"]
    line = refused(train.main, [*argv, "--config.train.tensorboard=True"], capsys)
    assert_says(line, "tensorboardX, which is not installed", "pip install", "tensorboard=False")
    assert contents(tmp_path / "run") == {}


def test_too_little_memory_is_one_line_wherever_it_strikes(
    experiment: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class DeviceError(RuntimeError):
        """As JAX says it: one class for all errors of a device."""

    argv = ["--config", experiment, "--workdir", tmp_path / "run"]
    for error in (
        MemoryError("Unable to allocate 209. GiB"),
        DeviceError("RESOURCE_EXHAUSTED: Out of memory allocating 209 bytes.\nBuffers:\n..."),
    ):

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(Writers, "write", fail)
        assert_says(refused(train.main, argv, capsys), "out of memory", "209", "train.batch_size")


def test_a_mistake_of_the_program_keeps_its_traceback(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(Writers, "write", fail)
    with pytest.raises(KeyError, match="a bug"):
        run_command(train.main, ["--config", str(experiment), "--workdir", str(tmp_path / "run")])


COMMANDS = {
    "train": (
        "-m mtl_jax.train --config {experiment} --workdir {tmp}/run --config.train.batch-size=12",
        8,
        ("batch size 12 does not divide over 8 devices", "use a multiple of 8"),
    ),
    "evaluate": ("-m mtl_jax.evaluate --workdir {tmp}/run", None, ("no config.json in",)),
    "report": ("-m mtl_jax.report --workdri {tmp}/run", None, ("required: --workdir",)),
    "data": ("-m mtl_jax.data verify multi_mnits", None, ("did you mean 'multi_mnist'",)),
    "study": (
        "-m experiments.fsmtl.study --root {tmp}/run --seeds 0",
        None,
        ("--seeds is 0; it must be 1 or more",),
    ),
    "benchmarks": (
        "-m benchmarks.run --only trian_step",
        None,
        ("unknown benchmark 'trian_step'; did you mean 'train_step'?",),
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_really_ends_with_code_2_and_one_line(
    experiment: Path, tmp_path: Path, run_python: Callable, command: str
) -> None:
    line, devices, words = COMMANDS[command]
    argv = line.format(experiment=experiment, tmp=tmp_path).split()
    done = run_python(*argv, devices=devices, timeout=300)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert_says(lines[0], "error: ", *words)
    assert not (tmp_path / "run").exists() or contents(tmp_path / "run") == {}
