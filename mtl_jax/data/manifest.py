"""`manifest.json` in a prepared set: every file's size and sha256. No manifest, no set.

It is written last, after every record was read back, and appears whole or not at all. So a build
that was interrupted is never taken for a finished one.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from mtl_jax.errors import UserError

FILE = "manifest.json"


def write(folder: Path, extra: dict[str, Any]) -> None:
    """Writes the manifest of all files in `folder`; `extra` is kept beside them."""
    files = {
        path.relative_to(folder).as_posix(): {
            "size": path.stat().st_size,
            "sha256": _sha256(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(FILE)
    }
    temporary = folder / f"{FILE}.{os.getpid()}"
    temporary.write_text(json.dumps({**extra, "files": files}, indent=1) + "\n")
    os.replace(temporary, folder / FILE)


def read(folder: Path) -> dict[str, Any] | None:
    """Returns the manifest, or None where the set is not whole."""
    try:
        found = json.loads((folder / FILE).read_text())
        return found if isinstance(found["files"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def faults(folder: Path, *, contents: bool) -> list[str]:
    """Returns what is wrong with the listed files: missing, wrong size and, if asked, damaged.

    Args:
      folder: of a set with a manifest.
      contents: also compares the sha256, which reads everything.
    """
    found = read(folder)
    if found is None:
        return [f"{FILE} is missing or damaged"]
    wrong = []
    for name, want in found["files"].items():
        path = folder / name
        if not path.is_file():
            wrong.append(f"{name} is missing")
        elif (size := path.stat().st_size) != want["size"]:
            wrong.append(f"{name} has {size} bytes, not {want['size']}")
        elif contents and _sha256(path) != want["sha256"]:
            wrong.append(f"{name} is damaged (sha256 differs)")
    return wrong


def require_sound(name: str, folder: Path, *, contents: bool) -> None:
    """Raises a `UserError` that names each faulty file and the way out."""
    if wrong := faults(folder, contents=contents):
        raise UserError(
            f"data set {name}: {'; '.join(wrong)} (in {folder}); delete that folder and run "
            f"python -m mtl_jax.data prepare {name}"
        )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
