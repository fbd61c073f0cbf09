"""The folder that checkpoints live in: which there are, whether they are whole, which are kept.

    checkpoints/<step>/state          the arrays
    checkpoints/<step>/manifest.json  metrics, meta, shape and dtype of leaves, sha256 of files
    checkpoints/<step>.<...>          what a kill left of one that was being written or deleted
    checkpoints/aside/<step>          a checkpoint that is not of this run's past

A checkpoint gets its name by a rename, after its files and its manifest are on disk: a kill at any
moment leaves only whole ones.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtl_jax.engine.runfolder import write_json_atomic
from mtl_jax.errors import UserError

FORMAT = 1


class Damaged(Exception):
    """Why a checkpoint cannot be used."""


class Folder:
    """One run's folder of checkpoints; `log` takes a line on what was moved or not deleted."""

    def __init__(self, path: Path, log: Callable[[str], None]) -> None:
        self.path = path
        self._log = log

    def steps(self) -> list[int]:
        """Steps of the checkpoints, rising."""
        try:
            names = [entry.name for entry in self.path.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {reason(error)}") from None
        return sorted(int(name) for name in names if name.isdecimal())

    def data(self, step: int) -> Path:
        """Where the arrays of a checkpoint are."""
        return self.path / str(step) / "state"

    def manifest(self, step: int) -> dict[str, Any]:
        """Reads a manifest and checks it against its own sha256.

        Raises:
          Damaged: it is missing, cut or changed.
          UserError: another version of this package wrote it.
        """
        try:
            text = (self.path / str(step) / "manifest.json").read_text("utf-8")
            manifest = json.loads(text)
            intact = manifest.pop("sha256") == _digest(manifest) and manifest["step"] == step
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise Damaged("its manifest cannot be read") from error
        if not intact:
            raise Damaged("its manifest has changed")
        if manifest["format"] != FORMAT:
            raise UserError(
                f"checkpoint {step} in {self.path} has format {manifest['format']},"
                f" this version reads {FORMAT}; use the version that wrote it"
            )
        return manifest

    def verify(self, step: int, manifest: dict[str, Any]) -> None:
        """Raises `Damaged` unless every file of a checkpoint is as it was written."""
        folder = self.path / str(step)
        for name, digest in manifest["files"].items():
            try:
                found = _file_digest(folder / name)
            except OSError as error:
                raise Damaged(f"{name}: {reason(error)}") from error
            if found != digest:
                raise Damaged(f"{name} has changed since it was written")

    def metrics(self, step: int) -> dict[str, float]:
        """The metrics saved with a checkpoint; {} if they cannot be read."""
        try:
            return self.manifest(step)["metrics"]
        except Damaged:
            return {}

    def ranking(self, metric: str, sign: int) -> list[int]:
        """Steps with a finite metric, best first (sign 1 for more), earlier first among equals."""
        scores = {step: self.metrics(step).get(metric, math.nan) for step in self.steps()}
        finite = [step for step, score in scores.items() if math.isfinite(score)]
        return sorted(finite, key=lambda step: -sign * scores[step])

    def make_ready(self, past: int) -> None:
        """Creates the folder, clears leftovers and moves checkpoints later than `past` aside."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.remove_leftovers()
        foreign = [step for step in self.steps() if step > past]
        aside = self.path / "aside"
        for step in foreign:
            aside.mkdir(exist_ok=True)
            name, copies = str(step), 1
            while (aside / name).exists():
                copies += 1
                name = f"{step}-{copies}"
            os.rename(self.path / str(step), aside / name)
        if foreign:
            origin = f"resumed from step {past}" if past >= 0 else "started from nothing"
            self._log(f"this run {origin}: moved checkpoints {foreign} to {aside}")

    def remove_leftovers(self) -> None:
        """Deletes what killed or failed writes and deletions have left."""
        for entry in self.path.iterdir():
            if entry.name.split(".")[0].isdecimal() and not entry.name.isdecimal():
                shutil.rmtree(entry, ignore_errors=True)

    def commit(self, step: int, manifest: dict[str, Any], write: Callable[[Path], None]) -> None:
        """Makes a checkpoint: `write(path)` creates the arrays; all of it appears, or nothing."""
        partial = self.path / f"{step}.partial"
        partial.mkdir()
        write(partial / "state")
        files = sorted(path for path in partial.rglob("*") if path.is_file())
        digests = {path.relative_to(partial).as_posix(): _file_digest(path) for path in files}
        manifest = {"format": FORMAT, **manifest, "files": digests}
        write_json_atomic(partial / "manifest.json", {**manifest, "sha256": _digest(manifest)})
        os.rename(partial, self.path / str(step))

    def prune(self, keep: set[int]) -> None:
        """Deletes all checkpoints but those of the steps in `keep`."""
        for step in set(self.steps()) - keep:
            doomed = self.path / f"{step}.deleted"
            try:
                # Renamed first: a kill during the deletion leaves no half checkpoint.
                os.rename(self.path / str(step), doomed)
                shutil.rmtree(doomed)
            except OSError as error:
                self._log(f"warning: could not delete old checkpoint {step}: {reason(error)}")


def reason(error: BaseException) -> str:
    """One short line on what went wrong, in the system's words where it has some."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if code := re.search(r"os_error_code='(\d+)'", str(error)):  # as tensorstore quotes it
        return os.strerror(int(code[1]))
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
