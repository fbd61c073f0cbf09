"""KuaiRand's logs as impressions; see `mtl_jax.data.event_logs.presets`."""

from __future__ import annotations

from pathlib import Path

import tensorflow_datasets as tfds

from mtl_jax.data.event_logs.builder import Config, EventLogBuilder, options_config
from mtl_jax.data.event_logs.presets import kuairand


class Builder(EventLogBuilder):
    """TFDS builder of `kuairand`; its configs are those of options, with a digest in the name."""

    VERSION = tfds.core.Version("1.0.0")
    ABOUT = "Short videos shown in a feed, with the user's feedback of several kinds."

    @classmethod
    def config_for(cls, name: str, manual_dir: Path) -> Config:
        """Returns the config of "standard" or "explicit" for the files in `manual_dir`."""
        return options_config(kuairand(manual_dir, name))
