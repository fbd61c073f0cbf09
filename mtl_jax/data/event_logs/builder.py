"""The TFDS builder of sets made from logs: a prepared folder for each log and its options."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from mtl_jax.data.event_logs.build import build_parts
from mtl_jax.data.event_logs.options import EventLogOptions, make_plan
from mtl_jax.data.event_logs.reading import find_files
from mtl_jax.data.impression_builder import ImpressionBuilder
from mtl_jax.data.impressions import ImpressionSet

_PATHS = ("path", "items_path", "users_path")
_SAMPLE = 1 << 20


class Config(tfds.core.BuilderConfig):
    """Options with a name that tells them apart: the preset, and a digest of options and files.

    Attributes:
      options: to build with; None where a prepared set is only opened.
    """

    def __init__(self, name: str, options: EventLogOptions | None = None) -> None:
        self.options = options
        super().__init__(name=name, description="Impressions made from a log.")


def options_config(options: EventLogOptions) -> Config:
    """Returns the config of `options`, which are checked.

    Raises:
      UserError: an option that is wrong, a file that is not there.
    """
    make_plan(options)
    return Config(f"{options.preset}-{digest(options)}", options)


def digest(options: EventLogOptions) -> str:
    """Returns 12 hexadecimal digits of the options and of the files' contents, not their places.

    Of a large file only its size and some megabytes spread over it are read.
    """
    fields: dict[str, Any] = dataclasses.asdict(options)
    del fields["shards"]  # It changes no result.
    for name in _PATHS:
        path = fields.pop(name)
        fields[name] = [_fingerprint(file) for file in find_files(path)] if path else []
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]


def _fingerprint(path: Path) -> list[Any]:
    size, found = path.stat().st_size, hashlib.sha256()
    with open(path, "rb") as file:
        for part in range(17):  # The first, the last and 15 between.
            file.seek(max(0, size - _SAMPLE) * part // 16)
            found.update(file.read(_SAMPLE))
    return [size, found.hexdigest()]


class EventLogBuilder(ImpressionBuilder, skip_registration=True):
    """Makes impressions from the log of its config's options."""

    ABOUT = "Impressions made from a multi-behaviour log."

    def _create_builder_config(self, builder_config: Any, version: Any) -> Any:
        del version
        return builder_config  # TFDS would warn at every opening that the config is not listed.

    @classmethod
    def named(cls, name: str) -> Config:
        """Returns a config that opens the prepared set `name`."""
        return Config(name)

    @classmethod
    @abc.abstractmethod
    def config_for(cls, name: str, manual_dir: Path) -> Config:
        """Returns the config that builds `name` from the files in `manual_dir`."""

    def parts(self, manual_dir: Path | None) -> Iterator[ImpressionSet]:
        """Yields a part for each shard of users; see `event_logs.build`."""
        options = self.builder_config.options
        plan = make_plan(options)
        with tempfile.TemporaryDirectory(dir=str(self.data_path)) as folder:
            parts, shared, source = build_parts(options, plan, Path(folder), self.name)
            self.sources = [source]
            self.vocabularies = shared.vocabularies
            yield from parts
