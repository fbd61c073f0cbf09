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
      use: when to take it, our view.
    """

    factory: Callable[..., Aggregator | LossWeighting]
    kind: Literal["aggregator", "weighting"]
    paper: str
    use: str


METHODS: dict[str, Row] = {
    "mgda": Row(
        mgda,
        "aggregator",
        "Sener and Koltun, 2018, arXiv 1810.04650",
        "Where no task may get worse in any step; it goes to the task with the smallest "
        "gradient, so give it normalised gradients (`prenormalise`).",
    ),
    "pcgrad": Row(
        pcgrad,
        "aggregator",
        "Yu et al., 2020, arXiv 2001.06782",
        "A cheap first try against conflict between a few tasks of similar scale.",
    ),
    "cagrad": Row(
        cagrad,
        "aggregator",
        "Liu et al., 2021, arXiv 2110.14048",
        "A robust default: the mean's speed, with the worst-off task looked after.",
    ),
    "imtl_g": Row(
        imtl_g,
        "aggregator",
        "Liu et al., 2021, ICLR",
        "Where gradients differ in length by much and every task should move alike.",
    ),
    "nash_mtl": Row(
        nash_mtl,
        "aggregator",
        "Navon et al., 2022, arXiv 2202.01017",
        "Where losses have different units: it does not see their scales. Costs a T x T solve"
        " a step.",
    ),
    "fairgrad": Row(
        fairgrad,
        "aggregator",
        "Ban and Ji, 2024, arXiv 2402.15638",
        "As Nash-MTL, with a knob from efficiency to fairness.",
    ),
    "upgrad": Row(
        upgrad,
        "aggregator",
        "Quinton and Rey, 2024, arXiv 2406.16232",
        "Where a step should harm no task and yet weigh tasks by their gradients; its "
        "projections are exact.",
    ),
    "aligned_mtl": Row(
        aligned_mtl,
        "aggregator",
        "Senushkin et al., 2023, arXiv 2305.19000",
        "Where gradients are nearly collinear or of very different lengths: it evens out the "
        "spectrum.",
    ),
    "dual_proj": Row(
        dual_proj,
        "aggregator",
        "Lopez-Paz and Ranzato, 2017, arXiv 1706.08840",
        "As UPGrad at the cost of one projection; the first choice of continual learning.",
    ),
    "config": Row(
        config,
        "aggregator",
        "Liu et al., 2024, arXiv 2408.11104",
        "Where losses of a physical model and its boundary conflict: the direction has the "
        "same cosine with all.",
    ),
    "imtl": Row(
        imtl,
        "aggregator",
        "Liu et al., 2021, ICLR",
        "IMTL-G with trained loss weights besides, for losses of different units.",
    ),
    "gradnorm": Row(
        gradnorm,
        "aggregator",
        "Chen et al., 2018, arXiv 1711.02257",
        "Where tasks learn at different speeds and should be kept abreast.",
    ),
    "grad_drop": Row(
        grad_drop,
        "aggregator",
        "Chen et al., 2020, arXiv 2010.06808",
        "Many tasks and a large network; it acts as noise against conflict in single coordinates.",
    ),
    "grad_vac": Row(
        grad_vac,
        "aggregator",
        "Wang et al., 2021, arXiv 2010.05874",
        "As PCGrad where tasks agree more than chance: it keeps cosines at a running target.",
    ),
    "random_gradient_weighting": Row(
        random_gradient_weighting,
        "aggregator",
        "Lin et al., 2022, arXiv 2111.10603",
        "As a baseline: an aggregator has to beat it.",
    ),
    "moco": Row(
        moco,
        "aggregator",
        "Fernando et al., 2023, arXiv 2210.12624",
        "Small batches: gradients are averaged over steps before a common direction is "
        "sought. State of T gradients.",
    ),
    "modo": Row(
        modo,
        "aggregator",
        "Chen et al., 2023, arXiv 2305.20057",
        "As a control for MoCo and MGDA: weights follow the Gram matrix slowly.",
    ),
    "sdmgrad": Row(
        sdmgrad,
        "aggregator",
        "Xiao et al., 2023, arXiv 2305.18409",
        "Noisy gradients and a preference for the mean direction.",
    ),
    "db_mtl": Row(
        db_mtl,
        "aggregator",
        "Lin et al., 2023, arXiv 2308.12029",
        "Losses of different units and gradients of different lengths, both evened out. State"
        " of T gradients.",
    ),
    "excess_mtl": Row(
        excess_mtl,
        "aggregator",
        "He et al., 2024, arXiv 2402.02009",
        "Label noise: a task whose loss cannot fall further is not weighted up. State of T "
        "gradients.",
    ),
    "linear_scalarization": Row(
        linear_scalarization,
        "weighting",
        "linear scalarisation (no single source)",
        "First of all. With tuned learning rate it is hard to beat, and it is the cheapest.",
    ),
    "uncertainty": Row(
        uncertainty,
        "weighting",
        "Kendall et al., 2018, arXiv 1705.07115",
        "Regression beside classification, when the noise of tasks differs.",
    ),
    "random_loss_weighting": Row(
        random_loss_weighting,
        "weighting",
        "Lin et al., 2022, arXiv 2111.10603",
        "As a baseline: a weighting has to beat it.",
    ),
    "dwa": Row(
        dwa,
        "weighting",
        "Liu et al., 2019, arXiv 1803.10704",
        "Where tasks finish at different times; looks at the losses alone.",
    ),
    "scale_invariant": Row(
        scale_invariant,
        "weighting",
        "baseline in Navon et al., 2022, arXiv 2202.01017",
        "Losses of different units, positive and bounded away from 0.",
    ),
    "famo": Row(
        famo,
        "weighting",
        "Liu et al., 2023, arXiv 2306.03792",
        "Many tasks: balance at the cost of one more forward pass.",
    ),
    "imtl_l": Row(
        imtl_l,
        "weighting",
        "Liu et al., 2021, ICLR",
        "Losses of different units, as the loss half of IMTL.",
    ),
    "gls": Row(
        gls,
        "weighting",
        "Chennupati et al., 2019, arXiv 1904.08492",
        "Few positive losses of different units, none of which comes near 0.",
    ),
    "stch": Row(
        stch,
        "weighting",
        "Lin et al., 2024, arXiv 2402.19078",
        "Where one wants a point of the Pareto front with the worst task looked after, smoothly.",
    ),
    "tchebycheff": Row(
        tchebycheff,
        "weighting",
        "Tchebycheff scalarisation (Miettinen, 1999)",
        "As the limit of STCH; steps jump from task to task.",
    ),
    "group_dro": Row(
        group_dro,
        "weighting",
        "Sagawa et al., 2020, arXiv 1911.08731",
        "Where the worst task counts and losses have one unit.",
    ),
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


def by_gram() -> list[str]:
    """Returns the names of the methods whose weights follow from the Gram matrix."""
    made = {name: make(name) for name in METHODS}
    return [
        name
        for name, found in made.items()
        if isinstance(found, Aggregator) and found.gram_weights is not None
    ]


def _a(kind: type) -> str:
    names = {float: "a number", int: "a whole number", str: "a word", bool: "true or false"}
    return names[kind]
