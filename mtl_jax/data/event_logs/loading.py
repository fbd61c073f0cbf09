"""Loads impression sets that are made from logs, preparing what is missing."""

from __future__ import annotations

from pathlib import Path

from mtl_jax.data.event_logs.options import EventLogOptions
from mtl_jax.data.impressions import ImpressionSet
from mtl_jax.data.impressions_io import read_impressions
from mtl_jax.data.prepare import prepare


def load_event_log(
    options: EventLogOptions, data_dir: str | Path | None = None, name: str = "event_log"
) -> ImpressionSet:
    """Returns the impressions that `options` make of a log.

    They are prepared once for each log and options, in `<name>/<preset>-<digest>`.

    Args:
      options: of a log of any kind, or those of `presets.preset`.
      data_dir: where sets are; None for the default.
      name: "event_log", or "kuairand" for options of `presets.kuairand`.

    Raises:
      UserError: an option or a file that is wrong.
    """
    from mtl_jax.data.event_logs.builder import options_config  # TFDS takes most of a second.

    config = options_config(options)
    whole = f"{name}/{config.name}"
    return read_impressions(whole, prepare(whole, data_dir, builder_config=config), data_dir)
