"""Builds, checks and opens the data sets on disk.

A set is at `<data_dir>/<name>[/<config>]/<version>/`. A folder there without a manifest is what an
interrupted build left: it is built anew. Two processes that prepare the same set take turns. On a
shared disk without file locks let one host prepare and the others wait for it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mtl_jax.data import manifest
from mtl_jax.data.fetch import cache_root, say
from mtl_jax.data.registry import DATASETS, DatasetSpec, parse
from mtl_jax.data.sources import check_manual_dir
from mtl_jax.errors import UserError


def default_data_dir() -> Path:
    """Returns where sets go unless told otherwise: `$MTL_JAX_DATA/sets`, ~/.cache/mtl_jax/sets."""
    return cache_root() / "sets"


def prepare(
    name: str,
    data_dir: str | Path | None = None,
    manual_dir: str | Path | None = None,
    builder_config: Any = None,
) -> Path:
    """Builds set "NAME" or "NAME/CONFIG" unless it is whole already; returns its folder.

    Args:
      name: of the set.
      data_dir: where sets are; None for the default.
      manual_dir: a folder with raw files.
      builder_config: what to build, for sets with open configs; by default that of the config's
        name for the files in `manual_dir`.

    Raises:
      UserError: unknown name, no source, wrong files, no room. No half set is left behind.
    """
    spec, config = parse(name)
    root = _root(data_dir)
    if manual_dir is not None:
        check_manual_dir(manual_dir)
        if spec.open_configs and builder_config is None:
            builder_config = spec.builder_class().config_for(config, Path(manual_dir).expanduser())
    if builder_config is not None:
        config = builder_config.name
        name = f"{spec.name}/{config}"
    folder = _folder(spec, config, root)
    if found := manifest.read(folder):
        manifest.require_sound(name, folder, contents=False)
        if manual_dir is not None and str(manual_dir) not in " ".join(found["sources"]):
            say(
                f"{name}: kept as it is, built from {'; '.join(found['sources'])}; to build it "
                f"from {manual_dir} delete {folder}"
            )
        return folder
    if spec.needs_manual and manual_dir is None and builder_config is None:
        raise UserError(
            f"data set {name} is not in {root} and is built from your own copy; "
            f"give --manual-dir a folder with {spec.manual}"
        )
    with _writing(name, root), _lock(root, f"{spec.name}{f'_{config}' if config else ''}"):
        if manifest.read(folder) is None:  # Nobody built it while this process waited.
            _build(name, spec, config, root, folder, manual_dir, builder_config)
    return folder


def _build(
    name: str,
    spec: DatasetSpec,
    config: str | None,
    root: Path,
    folder: Path,
    manual_dir: str | Path | None,
    builder_config: Any,
) -> None:
    import tensorflow_datasets as tfds

    for leftover in [*folder.parent.glob("incomplete.*"), *folder.parent.glob(folder.name)]:
        say(f"{name}: removing {leftover}, left by an interrupted build")
        shutil.rmtree(leftover)
    say(f"{name}: building in {folder}")
    tfds.disable_progress_bar()
    builder = _builder(spec, config, root, builder_config)
    manual = None if manual_dir is None else str(Path(manual_dir).expanduser())
    try:
        # TFDS announces unknown sizes, and wants a folder for downloads that it never makes.
        with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as unused:
            builder.download_and_prepare(
                download_dir=unused,
                download_config=tfds.download.DownloadConfig(manual_dir=manual),
                file_format="array_record",
            )
        counts = {split: _read_all(builder, split) for split in builder.info.splits}
        manifest.write(folder, {"name": name, "sources": builder.sources, "records": counts})
    except BaseException:
        for leftover in [*folder.parent.glob("incomplete.*"), folder]:
            shutil.rmtree(leftover, ignore_errors=True)
        raise
    say(f"{name}: whole, {', '.join(f'{n} {split}' for split, n in counts.items())} records")


def verify(name: str, data_dir: str | Path | None = None) -> dict[str, int]:
    """Reads every file and every record of a set; returns the records of each split.

    Raises:
      UserError: not prepared, or the faulty shards by name.
    """
    spec, config = parse(name)
    root = _root(data_dir)
    folder = _folder(spec, config, root)
    found = manifest.read(folder)
    if found is None:
        raise UserError(_not_prepared(name, root))
    manifest.require_sound(name, folder, contents=True)
    builder = _builder(spec, config, root)
    counts = {split: _read_all(builder, split) for split in builder.info.splits}
    if counts != found["records"]:
        raise UserError(f"data set {name}: {counts} records, its manifest says {found['records']}")
    return counts


def open_set(name: str, data_dir: str | Path | None = None) -> tuple[Any, dict[str, Any], Path]:
    """Returns the TFDS builder of a whole set, its manifest and its folder.

    Checks that every shard is there and of the right size: TFDS would notice neither.
    """
    spec, config = parse(name)
    root = _root(data_dir)
    folder = _folder(spec, config, root)
    found = manifest.read(folder)
    if found is None:
        raise UserError(_not_prepared(name, root))
    manifest.require_sound(name, folder, contents=False)
    return _builder(spec, config, root), found, folder


@contextlib.contextmanager
def reading(name: str, folder: Path) -> Iterator[None]:
    """Turns whatever a damaged set raises while it is read into one line that names the file."""
    try:
        yield
    except Exception as error:
        manifest.require_sound(name, folder, contents=True)
        raise UserError(f"data set {name} cannot be read ({error})") from error


def status(data_dir: str | Path | None = None) -> dict[str, str]:
    """Returns a few words for every set and config: whole, faulty or not prepared."""
    root = _root(data_dir)
    words = {}
    for spec in DATASETS.values():
        for config in _known_configs(spec, root):
            folder = _folder(spec, config, root)
            found = manifest.read(folder)
            if found is None:
                state = "not prepared"
            else:
                wrong = manifest.faults(folder, contents=False)
                state = wrong[0] if wrong else f"whole: {'; '.join(found['sources'])}"
            words[f"{spec.name}/{config}" if config else spec.name] = state
    return words


def _root(data_dir: str | Path | None) -> Path:
    return default_data_dir() if data_dir is None else Path(data_dir).expanduser().absolute()


def _folder(spec: DatasetSpec, config: str | None, root: Path) -> Path:
    version = str(spec.builder_class().VERSION)
    return root / spec.name / config / version if config else root / spec.name / version


def _known_configs(spec: DatasetSpec, root: Path) -> tuple[str | None, ...]:
    """The configs of a set; of one with open configs those prepared stand for their beginning."""
    if not spec.open_configs:
        return spec.configs or (None,)
    prepared = [path.name for path in sorted((root / spec.name).glob("*")) if path.is_dir()]
    begun = {name.rpartition("-")[0] for name in prepared}
    return (*(config for config in spec.configs if config not in begun), *prepared)


def _builder(spec: DatasetSpec, config: str | None, root: Path, builder_config: Any = None) -> Any:
    choice = {"config": config} if config else {}
    if spec.open_configs:
        choice = {"config": builder_config or spec.builder_class().named(config)}
    return spec.builder_class()(data_dir=str(root), file_format="array_record", **choice)


def _not_prepared(name: str, root: Path) -> str:
    return f"data set {name} is not prepared in {root}; run python -m mtl_jax.data prepare {name}"


def _read_all(builder: Any, split: str) -> int:
    source = builder.as_data_source(split)
    for index in range(len(source)):
        source[index]
    return len(source)


@contextlib.contextmanager
def _lock(root: Path, name: str) -> Iterator[None]:
    """Lets one process at a time build set `name`; the lock ends with its process."""
    with open(root / f"{name}.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{name}: another process is preparing it; waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _writing(name: str, root: Path) -> Iterator[None]:
    """Turns a disk that is full, read-only or not ours into one line."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, RuntimeError) as error:  # The record writer raises RuntimeError for both.
        full = any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT))
        out = "free some space or choose another" if full else "choose another"
        raise UserError(
            f"data set {name} could not be built in {root} ({error}); {out} --data-dir; "
            "nothing half-built was left"
        ) from error
