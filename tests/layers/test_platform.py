"""The compiler options are accepted where they are given, and absent elsewhere."""

from __future__ import annotations

import jax
import pytest

from mtl_jax.layers import platform


@pytest.fixture
def fresh_probe():
    platform._accepted.cache_clear()
    yield
    platform._accepted.cache_clear()


def test_options_compile() -> None:
    options = platform.cpu_compiler_options()
    assert float(jax.jit(lambda x: 2 * x, compiler_options=options)(1.5)) == 3.0


def test_callers_cannot_spoil_each_other() -> None:
    platform.cpu_compiler_options()["unknown_option"] = "1"
    assert "unknown_option" not in platform.cpu_compiler_options()


def test_none_for_a_compiler_that_does_not_know_them(fresh_probe, monkeypatch) -> None:
    monkeypatch.setattr(platform, "_KEEP_CONVOLUTIONS_ON_EIGEN", {"xla_no_such_option": "1"})
    assert platform.cpu_compiler_options() == {}


def test_none_on_an_accelerator(fresh_probe, monkeypatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert platform.cpu_compiler_options() == {}
