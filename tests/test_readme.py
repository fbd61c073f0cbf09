"""The README's code runs, and what it names exists."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)


def test_there_is_a_snippet_that_uses_the_methods_alone() -> None:
    alone = [code for code in SNIPPETS if "mtl_jax.methods" in code]
    assert alone
    assert "mtl_jax.engine" not in alone[0]


@pytest.mark.parametrize("code", SNIPPETS, ids=lambda code: code.strip().splitlines()[0][:40])
def test_snippet_runs(code: str, run_python: Callable, tmp_path: pathlib.Path) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(code)
    done = run_python(str(script), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_every_make_target_named_exists() -> None:
    named = set(re.findall(r"\bmake ([a-z]+(?:-[a-z0-9]+)*)", "\n".join(code_of(README))))
    known = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.M))
    assert named >= {"train", "test", "bench"}
    assert named <= known


def test_every_path_named_exists() -> None:
    tops = r"(?:mtl_jax|experiments|benchmarks|tests|\.ci)"
    named = set(re.findall(rf"(?<![\w/.]){tops}/[\w./-]*", "\n".join(code_of(README))))
    assert len(named) > 10
    assert not [path for path in named if not (ROOT / path).exists()]


def test_every_module_named_can_be_run() -> None:
    named = set(re.findall(r"python -m ((?:mtl_jax|benchmarks|experiments)[\w.]*)", README))
    places = [ROOT / name.replace(".", "/") for name in named]
    assert named
    assert all(p.with_suffix(".py").is_file() or (p / "__main__.py").is_file() for p in places)


@pytest.mark.parametrize(
    "name",
    [
        "results:fsmtl",
        "results:mt-deeponet",
        "results:dtrn",
        "results:qm9",
        "results:analysis",
        "results:ad-survival",
        "bench",
    ],
)
def test_tables_have_the_markers_that_their_command_writes_between(name: str) -> None:
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    assert README.count(begin) == README.count(end) == 1
    assert README.index(begin) < README.index(end)


def code_of(text: str) -> list[str]:
    """Returns the code blocks and the inline code of a Markdown text."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.M | re.S)
    return blocks + re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))
