"""Multi-task gradient methods in plain JAX, usable without the rest of the package.

`objective` (or `objective_from_losses`) describes a model, `problem` binds it to a batch, and a
`Method` turns that into a gradient for any optimiser: `as_method(pcgrad())`,
`flat_regions(cagrad(), rho=0.05)` or `samo(cagrad())`. `make(name)` builds a base method from the
table.
"""

from mtl_jax.methods.aligned_mtl import aligned_mtl
from mtl_jax.methods.base import Aggregator, Info, LossWeighting, Method, Problem, TaskGrads, Update
from mtl_jax.methods.cagrad import cagrad
from mtl_jax.methods.config import config
from mtl_jax.methods.db_mtl import db_mtl
from mtl_jax.methods.dual_proj import dual_proj
from mtl_jax.methods.excess_mtl import excess_mtl
from mtl_jax.methods.fairgrad import fairgrad
from mtl_jax.methods.flat_regions import as_method, flat_regions
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
from mtl_jax.methods.ownership import owner_tree
from mtl_jax.methods.pcgrad import pcgrad
from mtl_jax.methods.prenormalise import prenormalise
from mtl_jax.methods.random_gradient_weighting import random_gradient_weighting
from mtl_jax.methods.samo import samo
from mtl_jax.methods.scalarization import gls, stch
from mtl_jax.methods.scattered import scattered
from mtl_jax.methods.sdmgrad import sdmgrad
from mtl_jax.methods.table import METHODS, make
from mtl_jax.methods.task_grads import objective, objective_from_losses, problem
from mtl_jax.methods.upgrad import upgrad
from mtl_jax.methods.worst_case import group_dro, tchebycheff

__all__ = [
    "METHODS",
    "Aggregator",
    "Info",
    "LossWeighting",
    "Method",
    "Problem",
    "TaskGrads",
    "Update",
    "aligned_mtl",
    "as_method",
    "cagrad",
    "config",
    "db_mtl",
    "dual_proj",
    "dwa",
    "excess_mtl",
    "fairgrad",
    "famo",
    "flat_regions",
    "gls",
    "grad_drop",
    "grad_vac",
    "gradnorm",
    "group_dro",
    "imtl",
    "imtl_g",
    "imtl_l",
    "linear_scalarization",
    "make",
    "mgda",
    "moco",
    "modo",
    "nash_mtl",
    "objective",
    "objective_from_losses",
    "owner_tree",
    "pcgrad",
    "prenormalise",
    "problem",
    "random_gradient_weighting",
    "random_loss_weighting",
    "samo",
    "scale_invariant",
    "scattered",
    "sdmgrad",
    "stch",
    "tchebycheff",
    "uncertainty",
    "upgrad",
]
