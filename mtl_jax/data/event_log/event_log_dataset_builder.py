"""Impressions from a multi-behaviour log; see `mtl_jax.data.event_logs`."""

from __future__ import annotations

from pathlib import Path

import tensorflow_datasets as tfds

from mtl_jax.data.event_logs.builder import Config, EventLogBuilder, options_config
from mtl_jax.data.event_logs.presets import preset


class Builder(EventLogBuilder):
    """TFDS builder of `event_log`; its configs are those of options, with a digest in the name."""

    VERSION = tfds.core.Version("1.0.0")

    @classmethod
    def config_for(cls, name: str, manual_dir: Path) -> Config:
        """Returns the config of preset `name` for the log in `manual_dir`."""
        return options_config(preset(name, manual_dir))
