"""The run folder: what makes it one, who may write to it, what it says of its origin.

workdir/config.json       the config the run was started with
workdir/environment.json  a list, one entry for each start: versions, devices, commit, command
workdir/.lock             held by the process that trains
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from mtl_jax.errors import UserError

PACKAGES = ("mtl_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_held: set[Path] = set()


def write_json_atomic(path: str | os.PathLike[str], value: Any) -> None:
    """Writes JSON so that the file is the old one or the new one, whatever happens.

    Raises:
      UserError: it cannot be written (disk full, no permission); the old file is kept.
    """
    write_atomic(path, json.dumps(value, indent=2) + "\n")


def write_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file as `write_json_atomic` does."""
    path = Path(path)
    # Hidden, so that what a kill leaves of it does not count as a file of the folder.
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise UserError(
            f"cannot write {path}: {error.strerror}; make space, or choose another workdir"
        ) from error


def read_json(path: str | os.PathLike[str], kind: type = dict) -> Any:
    """Reads a JSON file of a run folder that holds a dict, or another `kind`.

    Raises:
      UserError: it is missing, it is not JSON, or it holds something else.
    """
    path = Path(path)
    # The others are records: a run goes on without them.
    way_out = "restore it from a copy" + ("" if path.name == "config.json" else ", or delete it")
    try:
        value = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"no {path.name} in {path.parent}; --workdir must be the folder of a run"
        ) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path} cannot be read ({why}); {way_out}") from None
    if not isinstance(value, kind):
        raise UserError(f"{path} holds a {type(value).__name__}, not a {kind.__name__}; {way_out}")
    return value


@contextlib.contextmanager
def claim(workdir: str | os.PathLike[str]) -> Iterator[Path]:
    """Makes a run folder, or takes an existing one; nobody else may train in it meanwhile.

    The lock belongs to the process: it goes when the process does, however it dies, and child
    processes (data workers that outlive a killed trainer) do not inherit it. In a run of several
    processes it does nothing but on process 0.

    Yields:
      The absolute path of the folder.

    Raises:
      UserError: the path is no folder, cannot be written, is the folder of something else (it has
        files and no config.json), or another process trains in it.
    """
    if re.match(r"[A-Za-z][\w+.-]+:/", os.fspath(workdir)):  # A Path drops one slash of two.
        raise UserError(f"workdir {workdir} is a URL; give a local path, such as a mounted bucket")
    folder = Path(workdir).absolute()
    if jax.process_index() != 0:
        yield folder
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
        if files and "config.json" not in files:
            raise UserError(
                f"{folder} has files ({', '.join(files[:3])}) but no config.json, so it is not the"
                " folder of a run; choose another workdir"
            )
        lock = _lock(folder)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"workdir {folder} is or passes a file; choose another workdir") from None
    except OSError as error:
        raise UserError(
            f"workdir {folder} cannot be used: {error.strerror}; choose another workdir"
        ) from None
    try:
        yield folder
    finally:
        _held.discard(folder.resolve())
        os.close(lock)


def _lock(folder: Path) -> int:
    """Returns the open lock file."""
    # A second lock of one process would succeed, and closing it would drop the first.
    if folder.resolve() in _held:
        raise UserError(f"this process trains in {folder} already")
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        holder = os.read(lock, 100).decode("utf-8", "replace").strip() or "another process"
        os.close(lock)
        raise UserError(
            f"{folder} is in use by {holder}; wait for it, or choose another workdir"
        ) from None
    except OSError:
        pass  # A file system without locks: better unguarded than unusable.
    os.truncate(lock, 0)
    os.write(lock, f"process {os.getpid()} on {platform.node()}\n".encode())
    _held.add(folder.resolve())
    return lock


def compare_config(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns one line for each difference, such as "optim.lr: 0.001 -> 0.0003".

    Values are compared as JSON holds them (a tuple equals a list, an integer a float of the same
    value); keys of only one side count as well.
    """
    before, after = (_flatten(json.loads(json.dumps(side))) for side in (saved, now))
    lines = []
    for key in dict.fromkeys([*before, *after]):
        old, new = (json.dumps(side[key]) if key in side else "absent" for side in (before, after))
        numbers = {type(before.get(key)), type(after.get(key))} <= {int, float}
        if old != new and not (numbers and before[key] == after[key]):
            lines.append(f"{key}: {old} -> {new}")
    return lines


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def write_environment(workdir: str | os.PathLike[str]) -> None:
    """Adds an `environment()` entry to `workdir/environment.json`, the newest last."""
    path = Path(workdir) / "environment.json"
    entries = read_json(path, list) if path.exists() else []
    write_json_atomic(path, [*entries, environment()])


def environment() -> dict[str, Any]:
    """What the run depends on besides its config and data; JSON-ready."""
    devices = jax.devices()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "argv": sys.argv,
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "backend": jax.default_backend(),
        "device_kind": devices[0].device_kind,
        "device_count": len(devices),
        "process_count": jax.process_count(),
    }


def public_environment() -> dict[str, Any]:
    """`environment` for results that are committed: without the command line and its paths."""
    return {name: value for name, value in environment().items() if name != "argv"}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of this code, with "-dirty" after changes; None outside its own repository."""
    here = Path(__file__).resolve().parent

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here), *args], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy may lie in somebody else's repository: then git does not track this file.
    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
