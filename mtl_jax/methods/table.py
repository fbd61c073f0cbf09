"""The one table of methods: what a name means, what may be set, where it comes from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from mtl_jax.errors import UserError, did_you_mean
from mtl_jax.methods.aligned_mtl import aligned_mtl
from mtl_jax.methods.base import Aggregator, LossWeighting
from mtl_jax.methods.cagrad import cagrad
from mtl_jax.methods.config import config
from mtl_jax.methods.db_mtl import db_mtl
from mtl_jax.methods.dual_proj import dual_proj
from mtl_jax.methods.excess_mtl import excess_mtl
from mtl_jax.methods.fairgrad import fairgrad
from mtl_jax.methods.grad_drop import grad_drop
from mtl_jax.methods.grad_vac import grad_vac
from mtl_jax.methods.gradnorm import gradnorm
from mtl_jax.methods.imtl import imtl, imtl_l
from mtl_jax.methods.imtl_g import imtl_g
from mtl_jax.methods.loss_weighting import (
    dwa,
    famo,
    linear_scalarization,
    random_loss_weighting,
    scale_invariant,
    uncertainty,
)
from mtl_jax.methods.mgda import mgda
from mtl_jax.methods.moco import moco
from mtl_jax.methods.modo import modo
from mtl_jax.methods.nash_mtl import nash_mtl
from mtl_jax.methods.pcgrad import pcgrad
from mtl_jax.methods.random_gradient_weighting import random_gradient_weighting
from mtl_jax.methods.scalarization import gls, stch
from mtl_jax.methods.sdmgrad import sdmgrad
from mtl_jax.methods.upgrad import upgrad
from mtl_jax.methods.worst_case import group_dro, tchebycheff

Option = float | int | str | bool


class Row(NamedTuple):
    """One method.

    Attributes:
      factory: makes it; all options are keywords with defaults of a plain type.
      kind: "aggregator" (per-task gradients) or "weighting" (losses only).
      paper: authors, year, arXiv number where there is one.
    """

    factory: Callable[..., Aggregator | LossWeighting]
    kind: Literal["aggregator", "weighting"]
    paper: str


METHODS: dict[str, Row] = {
    "mgda": Row(mgda, "aggregator", "Sener and Koltun, 2018, arXiv 1810.04650"),
    "pcgrad": Row(pcgrad, "aggregator", "Yu et al., 2020, arXiv 2001.06782"),
    "cagrad": Row(cagrad, "aggregator", "Liu et al., 2021, arXiv 2110.14048"),
    "imtl_g": Row(imtl_g, "aggregator", "Liu et al., 2021, ICLR"),
    "nash_mtl": Row(nash_mtl, "aggregator", "Navon et al., 2022, arXiv 2202.01017"),
    "fairgrad": Row(fairgrad, "aggregator", "Ban and Ji, 2024, arXiv 2402.15638"),
    "upgrad": Row(upgrad, "aggregator", "Quinton and Rey, 2024, arXiv 2406.16232"),
    "aligned_mtl": Row(aligned_mtl, "aggregator", "Senushkin et al., 2023, arXiv 2305.19000"),
    "dual_proj": Row(dual_proj, "aggregator", "Lopez-Paz and Ranzato, 2017, arXiv 1706.08840"),
    "config": Row(config, "aggregator", "Liu et al., 2024, arXiv 2408.11104"),
    "imtl": Row(imtl, "aggregator", "Liu et al., 2021, ICLR"),
    "gradnorm": Row(gradnorm, "aggregator", "Chen et al., 2018, arXiv 1711.02257"),
    "grad_drop": Row(grad_drop, "aggregator", "Chen et al., 2020, arXiv 2010.06808"),
    "grad_vac": Row(grad_vac, "aggregator", "Wang et al., 2021, arXiv 2010.05874"),
    "random_gradient_weighting": Row(
        random_gradient_weighting, "aggregator", "Lin et al., 2022, arXiv 2111.10603"
    ),
    "moco": Row(moco, "aggregator", "Fernando et al., 2023, arXiv 2210.12624"),
    "modo": Row(modo, "aggregator", "Chen et al., 2023, arXiv 2305.20057"),
    "sdmgrad": Row(sdmgrad, "aggregator", "Xiao et al., 2023, arXiv 2305.18409"),
    "db_mtl": Row(db_mtl, "aggregator", "Lin et al., 2023, arXiv 2308.12029"),
    "excess_mtl": Row(excess_mtl, "aggregator", "He et al., 2024, arXiv 2402.02009"),
    "linear_scalarization": Row(
        linear_scalarization, "weighting", "linear scalarisation (no single source)"
    ),
    "uncertainty": Row(uncertainty, "weighting", "Kendall et al., 2018, arXiv 1705.07115"),
    "random_loss_weighting": Row(
        random_loss_weighting, "weighting", "Lin et al., 2022, arXiv 2111.10603"
    ),
    "dwa": Row(dwa, "weighting", "Liu et al., 2019, arXiv 1803.10704"),
    "scale_invariant": Row(
        scale_invariant, "weighting", "baseline in Navon et al., 2022, arXiv 2202.01017"
    ),
    "famo": Row(famo, "weighting", "Liu et al., 2023, arXiv 2306.03792"),
    "imtl_l": Row(imtl_l, "weighting", "Liu et al., 2021, ICLR"),
    "gls": Row(gls, "weighting", "Chennupati et al., 2019, arXiv 1904.08492"),
    "stch": Row(stch, "weighting", "Lin et al., 2024, arXiv 2402.19078"),
    "tchebycheff": Row(tchebycheff, "weighting", "Tchebycheff scalarisation (Miettinen, 1999)"),
    "group_dro": Row(group_dro, "weighting", "Sagawa et al., 2020, arXiv 1911.08731"),
}


def _row(name: str) -> Row:
    if name not in METHODS:
        raise UserError(f"unknown method {name!r}: {did_you_mean(name, METHODS)}")
    return METHODS[name]


def default_options(name: str) -> dict[str, Option]:
    """Returns the options of method `name` with their defaults, in the order of its signature.

    Raises:
      UserError: an unknown name.
    """
    parameters = inspect.signature(_row(name).factory).parameters
    return {key: parameter.default for key, parameter in parameters.items()}


def make(name: str, **options: Any) -> Aggregator | LossWeighting:
    """Returns the method called `name`.

    Raises:
      UserError: an unknown name or option, a value of the wrong type or out of range.
    """
    row, known = _row(name), default_options(name)
    for key, value in options.items():
        if key not in known:
            choice = did_you_mean(key, known) if known else "it has none"
            raise UserError(f"unknown option {key!r} of method {name!r}: {choice}")
        wanted = type(known[key])
        # bool is an int to Python, not to a user; a whole number is a float to both.
        fits = type(value) is wanted or (wanted is float and type(value) is int)
        if not fits:
            raise UserError(
                f"option {key!r} of method {name!r} must be {_a(wanted)}, found {value!r}"
                f" ({type(value).__name__}); its default is {known[key]!r}"
            )
    try:
        return row.factory(**options)
    except ValueError as error:
        raise UserError(f"method {name!r}: {error}") from error


def _a(kind: type) -> str:
    names = {float: "a number", int: "a whole number", str: "a word", bool: "true or false"}
    return names[kind]
