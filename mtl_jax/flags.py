"""The command line's `--config.a.b=value`: typed changes of what an experiment file gives.

tyro turns the flags into a config and writes the help. What a user may get wrong is looked at
first, so that every mistake gets one line with the value, the rule and what is near.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import typing
from collections.abc import Iterator
from typing import Any

import tyro

from mtl_jax.config import ExperimentConfig, check_types
from mtl_jax.errors import UserError, did_you_mean
from mtl_jax.methods import table
from mtl_jax.typed import text_problem

_TYRO = (tyro.conf.FlagConversionOff, tyro.conf.SuppressFixed)
_PREFIX = "--config."
_COMMAND = ("--config", "--workdir", "--coordinator", "--num-processes", "--process-id", "--help")


def override(config: ExperimentConfig, flags: list[str]) -> ExperimentConfig:
    """Applies `--config.a.b=value` (or `--config.a.b value`) flags and checks the result.

    Raises:
      UserError: an unknown key, a value of the wrong type, or one out of range.
    """
    check_types(config)
    config = _with_options(config, flags)
    hints = dict(_hints(config))
    for key, words in _split(flags):
        path = key.removeprefix(_PREFIX).replace("-", "_")
        if not key.startswith(_PREFIX) or path not in hints:
            ours = key.startswith(_PREFIX)
            near = [] if ours else difflib.get_close_matches(key, _COMMAND, 1, 0.8)
            hint = f"did you mean {near[0]}?" if near else _near(path, list(hints))
            raise UserError(f"unknown option {key}; {hint}")
        if problem := text_problem(words, hints[path]):
            raise UserError(f"config.{path} {problem}")
    config = _tyro(config, flags)
    config.check()
    config.method.make(config.train.reduce)
    return config


def help_text(config: ExperimentConfig) -> str:
    """The typed list of every flag with its meaning and its value in this experiment."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        tyro.cli(
            _wrap(_with_options(config, [])), args=["--help"], prog="mtl_jax.train", config=_TYRO
        )
    return out.getvalue()


def _split(flags: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yields each option as it was written, with the words of its value."""
    key, words = "", []
    for flag in flags:
        if not flag.startswith("--"):
            if not key:
                raise UserError(
                    f"{flag!r} belongs to no option; options are written --config.a.b=value, the"
                    " experiment file --config FILE, see --help"
                )
            words.append(flag)
            continue
        if key:
            yield key, words
        key, equals, value = flag.partition("=")
        words = [value] if equals else []
    if key:
        yield key, words


def _hints(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields ("optim.lr", float), ... for every leaf; options have the types of their defaults."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, path = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            yield from _hints(value, f"{path}.")
        elif isinstance(value, dict):
            yield from ((f"{path}.{key}", type(item)) for key, item in value.items())
        else:
            yield path, hints[field.name]


def _near(path: str, known: list[str]) -> str:
    """The nearest option, and those of the same group."""
    group = path
    while group and not (inside := [key for key in known if key.startswith(f"{group}.")]):
        group = group.rpartition(".")[0]
    if not group:
        inside = sorted({key.split(".")[0] for key in known})
    near = difflib.get_close_matches(path, known, n=1)
    hint = f"did you mean {_PREFIX}{near[0]}? " if near else ""
    return f"{hint}known: {', '.join(inside)}"


def _wrap(config: ExperimentConfig) -> Any:
    """A dataclass whose one field is called config, so that flags start with --config."""
    field = ("config", type(config), dataclasses.field(default=config))
    return dataclasses.make_dataclass("Overrides", [field], frozen=True)


def _tyro(config: ExperimentConfig, flags: list[str]) -> ExperimentConfig:
    err = io.StringIO()
    try:
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(err):
            return tyro.cli(_wrap(config), args=flags, prog="mtl_jax.train", config=_TYRO).config
    except SystemExit:
        # Boxes are drawn with lines, or with hyphens where the terminal has no others.
        text = " ".join(line.strip("│╭╮╰╯─|-+ ") for line in err.getvalue().splitlines()[1:])
        for tail in ("Argument helptext:", "For full helptext"):
            text = text.split(tail)[0]
        raise UserError(" ".join(text.split()) or "the options cannot be parsed") from None


def _with_options(config: ExperimentConfig, flags: list[str]) -> ExperimentConfig:
    """Fills `method.options` with the chosen method's defaults, so that its flags are typed.

    The file's own options are kept where the method is the file's, and dropped where a flag
    chooses another one.
    """
    name = config.method.aggregator
    for key, words in _split(flags):
        if key == f"{_PREFIX}method.aggregator" and len(words) == 1:
            name = words[0]
    defaults = table.default_options(name)
    given = config.method.options if name == config.method.aggregator else {}
    for option in given:
        if option not in defaults:
            raise UserError(f"{name} has no option {option!r}; {did_you_mean(option, defaults)}")
    # An int given for a float option (c=1) must not turn the flag into an int flag.
    merged = {
        key: float(given[key])
        if type(value) is float and type(given.get(key)) is int
        else given.get(key, value)
        for key, value in defaults.items()
    }
    return dataclasses.replace(config, method=dataclasses.replace(config.method, options=merged))
