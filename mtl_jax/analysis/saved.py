"""The sections that an analysis left in a run folder, for the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtl_jax.engine.runfolder import read_json
from mtl_jax.reporting.figures import Section

FOLDER, FILE = "analysis", "analysis.json"


def as_json(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """Returns sections as JSON holds them, figures by their names."""
    return [
        {**part._asdict(), "figures": [Path(path).name for path in part.figures]}
        for part in sections
    ]


def sections(workdir: Path) -> list[Section]:
    """Returns the sections of the last analysis of a run folder; none without one.

    A figure that has been deleted since is left out.

    Raises:
      UserError: a damaged analysis.json.
    """
    folder = workdir / FOLDER
    if not (folder / FILE).exists():
        return []
    found = []
    for part in read_json(folder / FILE).get("sections", []):
        paths = [folder / Path(name).name for name in part["figures"]]
        found.append(
            Section(part["title"], part["text"], [path for path in paths if path.exists()])
        )
    return found
