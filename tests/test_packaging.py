"""What holds for the tree as a whole: imports, layers, sizes, packaging, the Makefile."""

from __future__ import annotations

import ast
import io
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import tokenize
import tomllib
from collections.abc import Callable, Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mtl_jax"
NOT_OURS = {".git", ".venv", ".ruff_cache", ".pytest_cache", ".hypothesis", "__pycache__", "runs"}
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def files(top: pathlib.Path, suffix: str = "") -> list[pathlib.Path]:
    found = []
    for folder, below, names in os.walk(top):
        below[:] = [name for name in below if name not in NOT_OURS and ".venv" not in name]
        found += [pathlib.Path(folder, name) for name in names if name.endswith(suffix)]
    return sorted(found)


def shown(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: pathlib.Path) -> Iterator[str]:
    """Yields the full name of everything that a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importing(top: pathlib.Path, *banned: str) -> list[str]:
    """Returns "file: name" for every import of a banned module or of something inside one."""
    return [
        f"{shown(path)}: {name}"
        for path in files(top, ".py")
        for name in imports(path)
        if any(name == module or name.startswith(f"{module}.") for module in banned)
    ]


def python_names(path: pathlib.Path) -> set[str]:
    """Returns the identifiers in a file; comments and strings do not count."""
    source = io.StringIO(path.read_text(encoding="utf-8"))
    return {
        token.string
        for token in tokenize.generate_tokens(source.readline)
        if token.type == tokenize.NAME
    }


# Source tree


def test_the_package_never_imports_another_framework() -> None:
    assert not importing(PACKAGE, "tensorflow", "torch", "pandas", "sklearn", "skfem")


@pytest.mark.parametrize("folder", ["experiments", "tests"])
def test_experiments_and_tests_run_without_another_framework(folder: str) -> None:
    assert not importing(ROOT / folder, "tensorflow", "torch", "pandas")


def test_benchmarks_import_another_framework_only_to_compare() -> None:
    """In the files that are the other side of a comparison, each a process of its own."""
    others = ("tensorflow", "torch", "torchjd", "torch_rechub", "deepxde", "pandas")
    found = importing(ROOT / "benchmarks", *others)
    assert found
    sides = ("benchmarks/side_", "benchmarks/deepxde_side")
    assert not [line for line in found if not line.startswith(sides)]


def test_importing_sees_what_it_should(tmp_path: pathlib.Path, monkeypatch) -> None:
    source = "import os, torch.nn\ndef f():\n    from pandas import Series\nimport torchjd\n"
    (tmp_path / "bad.py").write_text(source)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert importing(tmp_path, "torch", "pandas") == ["bad.py: torch.nn", "bad.py: pandas.Series"]


def test_device_transforms_are_named_in_one_file() -> None:
    transforms = {"pmap", "shard_map", "Mesh", "make_mesh"}
    named = {shown(path) for path in files(PACKAGE, ".py") if python_names(path) & transforms}
    assert named <= {"mtl_jax/engine/parallel.py"}


@pytest.mark.parametrize(
    ("layer", "above"),
    [
        ("methods", ["engine", "systems", "data", "layers", "metrics", "config", "run", "train"]),
        ("metrics", ["engine", "systems", "data", "methods", "config", "run", "train"]),
        ("layers", ["engine", "systems", "data", "metrics", "config", "run", "train"]),
        ("data", ["systems", "methods", "run", "train"]),
        ("engine", ["systems", "run", "train"]),
    ],
)
def test_layers_do_not_look_up(layer: str, above: list[str]) -> None:
    found = importing(PACKAGE / layer, *(f"mtl_jax.{name}" for name in above))
    # The contract of a system is no system: the engine is written against it.
    contract = "mtl_jax.systems.base."
    may_see_it = layer in ("engine", "data")
    assert not [line for line in found if not (may_see_it and contract in line)]


def test_engine_does_not_know_the_network_library() -> None:
    assert not importing(PACKAGE / "engine", "flax.linen")


def test_systems_do_not_import_each_other() -> None:
    systems = [path.name for path in (PACKAGE / "systems").iterdir() if path.is_dir()]
    for one, other in itertools.permutations(systems, 2):
        assert not importing(PACKAGE / "systems" / one, f"mtl_jax.systems.{other}")


def test_source_files_are_short() -> None:
    sources = [
        path
        for top in ("mtl_jax", "experiments", "benchmarks")
        for path in files(ROOT / top, ".py")
    ]
    lengths = {shown(path): len(path.read_text().splitlines()) for path in sources}
    assert sources
    assert not {name: length for name, length in lengths.items() if length > 500}


def test_no_note_is_left_for_later() -> None:
    words = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "X" * 3, "NotImplemented" + "Error"]))
    left = [shown(path) for path in files(PACKAGE, ".py") if words.search(path.read_text())]
    assert not left


def test_no_path_or_host_of_a_machine_is_in_the_tree() -> None:
    # In pieces, so that this file does not find itself.
    pieces = [
        "/wo" + "rk/",
        "/fa" + "rm/",
        "/ro" + "ot/",
        "/ho" + r"me/\w",
        "/opt/py" + "pi",
        "/opt/wh" + "eels",
    ]
    hosts = [
        "python" + "hosted",
        "pypi" + r"\.org",
        "registry" + r"\.npmjs",
        r"\b10\.\d+\.\d+\.\d+\b",
    ]
    machine = re.compile("|".join(pieces + hosts))
    suffixes = {".py", ".md", ".toml", ".lock", ".cff", ".yaml", ".json", ".tsv", ".txt", ""}
    found = []
    for path in files(ROOT):
        if path.suffix in suffixes and path.stat().st_size < 2**20:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            found += [
                f"{shown(path)}:{n}" for n, line in enumerate(lines, 1) if machine.search(line)
            ]
    assert not found


# Packaging


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!;~]", name, maxsplit=1)[0]).lower()


def locked() -> dict[str, list[str]]:
    """Returns the versions of each package in the lock file."""
    pins: dict[str, list[str]] = {}
    for name, version in re.findall(
        r"^([\w.-]+)==([\w.+]+)", (ROOT / "requirements.lock").read_text(), re.M
    ):
        pins.setdefault(normal(name), []).append(version)
    return pins


def test_lock_has_every_dependency_and_no_other_framework() -> None:
    extras = project()["optional-dependencies"]
    wanted = {
        normal(name) for name in project()["dependencies"] + extras["dev"] + extras["tensorboard"]
    }
    pins = locked()
    assert wanted <= set(pins)
    assert not {"tensorflow", "torch", "pandas"} & set(pins)
    assert not [name for name in pins if name.startswith(("nvidia-", "jax-cuda"))]


def test_lock_serves_both_pythons() -> None:
    series = [version.rsplit(".", 1)[0] for version in locked()["jax"]]
    assert series == ["0.10", "0.11"]


def test_lock_has_hashes_and_no_addresses() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    blocks = re.split(r"\n(?=\S)", text)
    assert not [block for block in blocks if "==" in block and "--hash=sha256:" not in block]


def test_versions_agree() -> None:
    version = project()["version"]
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.M)
    changes = re.search(r"^## \[(\S+)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert citation is not None
    assert changes is not None
    assert {version, citation[1], changes[1]} == {version}


def test_the_files_of_a_package_are_there() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_methods_can_be_imported_alone(run_python: Callable) -> None:
    heavy = ["flax", "orbax", "tensorflow_datasets", "matplotlib", "grain", "tyro"]
    code = f"""
import importlib, pkgutil, sys
import mtl_jax.methods as methods
for module in pkgutil.iter_modules(methods.__path__, "mtl_jax.methods."):
    importlib.import_module(module.name)
print(sorted(sys.modules.keys() & set({heavy})))
"""
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


# Makefile


def targets() -> list[str]:
    text = (ROOT / "Makefile").read_text()
    return sorted(set(re.findall(r"^([a-z][a-z0-9-]*):(?!=)", text, re.M)))


def make(*args: str) -> str:
    """Returns the output of make; the variables of a make that runs this test do not reach it."""
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["make", *args], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_make
def test_make_alone_lists_every_target() -> None:
    listed = make()
    assert not [name for name in targets() if not re.search(rf"^  make {name} +\S", listed, re.M)]


@needs_make
def test_phony_targets_are_all_targets() -> None:
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert phony is not None
    assert sorted(phony[1].replace("\\", " ").split()) == targets()


PAPER = "--config experiments/fsmtl/multi_mnist_paper.py --workdir runs/multi_mnist_paper"


@needs_make
@pytest.mark.parametrize(
    ("target", "command"),
    [
        (
            "train",
            "mtl_jax.train --config experiments/fsmtl/multi_mnist.py --workdir runs/multi_mnist",
        ),
        (
            "train EXPERIMENT=e/a/b.py ARGS=--x",
            "mtl_jax.train --config e/a/b.py --workdir runs/b --x",
        ),
        ("train-gpu", f"mtl_jax.train {PAPER}"),
        ("train-tpu", f"mtl_jax.train {PAPER}"),
        ("train-gpu EXPERIMENT=e/a/b.py", "mtl_jax.train --config e/a/b.py --workdir runs/b"),
        ("evaluate WORKDIR=runs/a", "mtl_jax.evaluate --workdir runs/a"),
        ("report WORKDIR=runs/a", "mtl_jax.report --workdir runs/a"),
        ("data DATASET=multi_fashion", "mtl_jax.data prepare multi_fashion"),
        ("test", "pytest -n auto --maxprocesses 4 --dist loadfile"),
        ("test-slow", "pytest -m slow"),
        ("bench", "benchmarks.run"),
        ("bench-methods", "benchmarks.method_step"),
        ("bench-aggregation", "benchmarks.aggregation_bytes"),
        ("results-fsmtl ARGS=--scale=paper", "experiments.fsmtl.study --scale=paper"),
        ("sweep-fsmtl", "experiments.fsmtl.sweep"),
        ("results-analysis", "experiments.fsmtl.analysis"),
        ("results-qm9", "experiments.molecules.study"),
        ("results-mt-deeponet", "experiments.mt_deeponet.study"),
        ("results-dtrn", "experiments.dtrn.study"),
        ("results-ad-survival", "experiments.ad_survival.study"),
        ("compare", 'experiments.compare --methods "cagrad,upgrad" --seeds 3 --sets ""'),
        (
            "compare METHODS=moco SEEDS=1 SETS=yeast,rf1 ARGS=--flat",
            'experiments.compare --methods "moco" --seeds 1 --sets "yeast,rf1" --flat',
        ),
    ],
)
def test_make_prints_the_command_that_it_runs(target: str, command: str) -> None:
    printed = make("--dry-run", *target.split()).splitlines()
    assert printed[-1].strip() == f".venv/bin/python -m {command}"


def test_every_module_that_make_runs_exists() -> None:
    modules = set(
        re.findall(
            r"-m ((?:mtl_jax|benchmarks|experiments)[\w.]*)", (ROOT / "Makefile").read_text()
        )
    )
    places = {name: ROOT / name.replace(".", "/") for name in modules}
    assert len(modules) >= 6
    assert not [
        name
        for name, place in places.items()
        if not place.with_suffix(".py").is_file() and not (place / "__main__.py").is_file()
    ]


@needs_make
def test_an_old_python_is_refused_in_one_line(tmp_path: pathlib.Path) -> None:
    old = tmp_path / "python-of-old"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.18\nexit 1\n')
    old.chmod(0o755)
    command = ["make", "venv", f"PYTHON={old}", f"VENV={tmp_path / 'env'}"]
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    errors = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert done.returncode != 0
    assert len(errors) == 1
    assert "Python 3.8.18" in errors[0]
    assert "PYTHON=/path/to" in errors[0]
    assert not (tmp_path / "env").exists()
