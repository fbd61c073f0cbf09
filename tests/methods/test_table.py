"""The table of methods: names, options, and errors that say what to do."""

from __future__ import annotations

import pytest

from mtl_jax import methods
from mtl_jax.errors import UserError
from mtl_jax.methods.base import Aggregator, LossWeighting
from mtl_jax.methods.page import PAGE, page
from mtl_jax.methods.table import METHODS, default_options, make


@pytest.mark.parametrize("name", METHODS)
def test_every_row(name: str) -> None:
    row = METHODS[name]
    kind = {"aggregator": Aggregator, "weighting": LossWeighting}[row.kind]
    assert isinstance(make(name), kind)
    options = default_options(name)
    assert isinstance(make(name, **options), kind)
    assert all(type(value) in (float, int, str, bool) for value in options.values())
    assert row.factory.__doc__
    assert row.paper


def test_the_package_exports_every_row() -> None:
    for name, row in METHODS.items():
        assert getattr(methods, name) is row.factory
        assert name in methods.__all__


def test_default_options() -> None:
    assert default_options("cagrad") == {"c": 0.4, "rescale": 1}
    assert default_options("mgda") == {}
    assert default_options("dwa") == {"temperature": 2.0, "window": 25}


def test_a_whole_number_will_do_for_a_float() -> None:
    assert make("cagrad", c=1).traits.on_equal(2, 1.0) == 1.0  # (1 + 1) / (1 + 1 ** 2)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("cagard", {}, ["'cagard'", "did you mean 'cagrad'", "mgda"]),
        ("", {}, ["''", "known: "]),
        ("cagrad", {"C": 0.5}, ["'C'", "'cagrad'", "known: c, rescale"]),
        ("cagrad", {"recsale": 1}, ["'recsale'", "did you mean 'rescale'"]),
        ("mgda", {"norm": "l2"}, ["'norm'", "'mgda'", "it has none"]),
        ("cagrad", {"c": "0.5"}, ["'c'", "a number", "'0.5'", "0.4"]),
        ("cagrad", {"c": True}, ["a number", "True"]),
        ("cagrad", {"rescale": 1.0}, ["a whole number", "1.0"]),
        ("cagrad", {"rescale": True}, ["a whole number", "True"]),
        ("cagrad", {"c": None}, ["a number", "None"]),
        ("pcgrad", {"reduction": 1}, ["a word", "1"]),
        ("cagrad", {"c": -0.1}, ["cagrad", "non-negative", "-0.1"]),
        ("cagrad", {"c": float("nan")}, ["cagrad", "non-negative", "nan"]),
        ("cagrad", {"rescale": 3}, ["0, 1 or 2", "3"]),
        ("pcgrad", {"reduction": "max"}, ["'sum' or 'mean'", "'max'"]),
        ("upgrad", {"reduction": "max"}, ["'sum' or 'mean'", "'max'"]),
        ("aligned_mtl", {"scale": "max"}, ["'min', 'median' or 'rmse'", "'max'"]),
        ("aligned_mtl", {"reduction": "max"}, ["'sum' or 'mean'", "'max'"]),
        ("nash_mtl", {"max_norm": -1.0}, ["max_norm", "non-negative", "-1.0"]),
        ("nash_mtl", {"update_every": 0}, ["update_every", "at least 1", "0"]),
        ("fairgrad", {"alpha": 0.0}, ["alpha", "positive", "0.0"]),
        ("fairgrad", {"reduction": "max"}, ["'sum' or 'mean'", "'max'"]),
        ("dual_proj", {"reduction": "max"}, ["'sum' or 'mean'", "'max'"]),
        ("grad_drop", {"leak": 1.5}, ["leak", "[0, 1]", "1.5"]),
        ("grad_drop", {"reduction": "max"}, ["'sum' or 'mean'", "'max'"]),
        ("grad_vac", {"beta": -0.1}, ["beta", "[0, 1]", "-0.1"]),
        ("grad_vac", {"reduction": "max"}, ["'sum' or 'mean'", "'max'"]),
        ("sdmgrad", {"lam": -1.0}, ["lam", "non-negative", "-1.0"]),
        ("sdmgrad", {"lr": 0.0}, ["lr", "positive", "0.0"]),
        ("sdmgrad", {"iterations": 0}, ["iterations", "at least 1", "0"]),
        ("modo", {"gamma": 0.0}, ["gamma", "positive", "0.0"]),
        ("modo", {"rho": -1.0}, ["rho", "non-negative", "-1.0"]),
        ("moco", {"beta": 0.0}, ["beta", "(0, 1]", "0.0"]),
        ("moco", {"gamma": 0.0}, ["gamma", "positive", "0.0"]),
        ("moco", {"rho": -1.0}, ["rho", "non-negative", "-1.0"]),
        ("moco", {"decay": float("nan")}, ["decay", "non-negative", "nan"]),
        ("moco", {"simplex": "clip"}, ["'softmax' or 'projection'", "'clip'"]),
        ("db_mtl", {"beta": 1.0}, ["beta", "[0, 1)", "1.0"]),
        ("db_mtl", {"decay": -1.0}, ["decay", "non-negative", "-1.0"]),
        ("excess_mtl", {"lr": 0.0}, ["lr", "positive", "0.0"]),
        ("gradnorm", {"alpha": -1.0}, ["alpha", "non-negative", "-1.0"]),
        ("gradnorm", {"lr": 0.0}, ["lr", "positive", "0.0"]),
        ("imtl", {"lr": 0.0}, ["lr", "positive", "0.0"]),
        ("imtl_l", {"lr": 0.0}, ["lr", "positive", "0.0"]),
        ("stch", {"mu": 0.0}, ["mu", "positive", "0.0"]),
        ("group_dro", {"lr": 0.0}, ["lr", "positive", "0.0"]),
        ("stch", {"warmup": 0}, ["warmup", "at least 1", "0"]),
        ("linear_scalarization", {"reduction": "max"}, ["'mean' or 'sum'", "'max'"]),
        ("uncertainty", {"lr": 0.0}, ["lr", "positive", "0.0"]),
        ("dwa", {"temperature": 0.0}, ["temperature", "positive"]),
        ("dwa", {"window": 0}, ["window", "at least 1"]),
        ("scale_invariant", {"eps": 0.0}, ["eps", "positive"]),
        ("famo", {"gamma": -1.0}, ["gamma", "non-negative", "-1.0"]),
    ],
)
def test_mistakes_get_one_line(name: str, options: dict, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        make(name, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_default_options_of_an_unknown_name() -> None:
    with pytest.raises(UserError, match="did you mean 'mgda'"):
        default_options("mdga")


def test_the_page_is_that_of_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m mtl_jax.methods.page"


def test_the_readme_counts_right() -> None:
    kinds = [row.kind for row in METHODS.values()]
    aggregators, weightings = (kinds.count(kind) for kind in ("aggregator", "weighting"))
    readme = (PAGE.parents[2] / "README.md").read_text(encoding="utf-8")
    assert f"{aggregators} aggregators and {weightings} loss weightings" in readme
    assert f"{aggregators} aggregators, {weightings} weightings" in readme
