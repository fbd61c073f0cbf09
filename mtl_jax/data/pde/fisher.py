"""Reaction and diffusion on [0, 1], u_t = D u_xx + f(u), no flux at the ends: three tasks.

    kpp   f(u) = a u (1 - u)                          Fisher, Kolmogorov, Petrovsky, Piskunov
    nws   f(u) = a u (1 - u^2)                        Newell, Whitehead, Segel
    zfk   f(u) = a u (1 - u) exp(-b (1 - u))          Zeldovich, Frank-Kamenetskii

A network sees the coefficients of u, u^2, u^3, u^4; zfk's are those with exp(-b) exp(b u) cut after
the quadratic term, while its data has the whole exponential, as in the MT-DeepONet code.

Two settings. `PAPER`: what the released networks fit; its diffusion is negligible and u starts near
5, so the reaction is stiff: solved by LSODA. `DEFAULT`, ours: diffusion matters and u is in 0..1:
Strang splitting with the exact diffusion matrix, a whole block of samples in one matrix product.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.data.pde.grf import rbf_factor, sample_rng

Array = Any
TASKS = ("kpp", "nws", "zfk")
POINTS, SNAPSHOTS = 64, 20
SUBSTEPS = 10
"""Splitting steps between snapshots; the error in time is then below 1e-6."""
BLOCK = 250
A_VALUES, B_VALUES = np.linspace(0.1, 1.0, 10), np.linspace(0.5, 2.0, 10)
LENGTH = 0.2  # RBF correlation length of the initial values


class Setting(NamedTuple):
    """What tells the two sets apart.

    Attributes:
      diffusion: D.
      end_time: of the last of the equally spaced snapshots; the first is t = 0.
      a_scale: times `A_VALUES`.
      initial: from a unit Gaussian field [64] to u(0).
      solver: "strang" or "lsoda".
    """

    diffusion: float
    end_time: float
    a_scale: float
    initial: Callable[[np.ndarray], np.ndarray]
    solver: str


DEFAULT = Setting(0.01, 1.0, 5.0, lambda g: 1 / (1 + np.exp(-1.5 * g)), "strang")
# About one sample in a thousand would reach 0 or less.
PAPER = Setting(1e-4, 0.175, 1.0, lambda g: np.maximum(5.146 + 1.418 * g, 0.05), "lsoda")
SETTINGS = {"default": DEFAULT, "paper": PAPER}


class Samples(NamedTuple):
    """Solved samples of one task.

    Attributes:
      params: [S, 4] float32 coefficients of u, u^2, u^3, u^4.
      initial: [S, 64] float32.
      solutions: [S, 20, 64] float32, the first snapshot is `initial`.
    """

    params: np.ndarray
    initial: np.ndarray
    solutions: np.ndarray


def cell_centres(n: int = POINTS) -> np.ndarray:
    """Returns the points [n] of the line: centres of n cells of [0, 1]."""
    return (np.arange(n) + 0.5) / n


def reaction(task: str, u: Array, a: Array, b: Array) -> Array:
    """Returns f(u) of a task, of the shape of `u`; numpy or JAX, `a` and `b` broadcast."""
    if task == "kpp":
        return a * u * (1 - u)
    if task == "nws":
        return a * u * (1 - u * u)
    xp = jnp if isinstance(u, jax.Array) else np
    return a * u * (1 - u) * xp.exp(-b * (1 - u))


def coefficients(task: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the coefficients [S, 4] of u .. u^4 that a network sees, for `a`, `b` [S]."""
    zero = np.zeros_like(a)
    if task == "kpp":
        return np.stack([a, -a, zero, zero], axis=1)
    if task == "nws":
        return np.stack([a, zero, -a, zero], axis=1)
    scale = a * np.exp(-b)
    return scale[:, None] * np.stack([zero + 1, b - 1, b * (b / 2 - 1), -b * b / 2], axis=1)


def draw(
    setting: Setting, task: str, indices: Iterable[int], seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a [S], b [S] and u(0) [S, 64] float64 of the numbered samples."""
    factor = rbf_factor(cell_centres(), LENGTH)
    a, b, fields = [], [], []
    for index in indices:
        rng = sample_rng(seed, task, index)
        a.append(A_VALUES[rng.integers(len(A_VALUES))])
        b.append(B_VALUES[rng.integers(len(B_VALUES))])
        fields.append(factor @ rng.standard_normal(POINTS))
    return setting.a_scale * np.array(a), np.array(b), setting.initial(np.array(fields))


def solve(
    setting: Setting, task: str, a: np.ndarray, b: np.ndarray, initial: np.ndarray
) -> np.ndarray:
    """Returns u [S, 20, 64] float64 for a, b [S] and u(0) [S, 64].

    Strang splitting takes whole blocks of `BLOCK`, the last one filled up with copies of its first
    sample: a sample comes out the same however many others are asked for.
    """
    args = (setting.diffusion, setting.end_time, SNAPSHOTS)
    if setting.solver == "lsoda":
        rows = zip(a.tolist(), b.tolist(), initial, strict=True)
        return np.stack([lsoda(task, *row, *args) for row in rows])
    solutions = []
    for start in range(0, len(a), BLOCK):
        rows = np.arange(start, start + BLOCK)
        filled = np.where(rows < len(a), rows, start)
        found = strang(task, a[filled], b[filled], initial[filled], *args)
        solutions.append(found[: len(a) - start])
    return np.concatenate(solutions)


def strang(
    task: str,
    a: np.ndarray,
    b: np.ndarray,
    initial: np.ndarray,
    diffusion: float,
    end_time: float,
    snapshots: int,
    substeps: int = SUBSTEPS,
    spacing: float | None = None,
) -> np.ndarray:
    """Solves by Strang splitting in float64: half a reaction, diffusion, half a reaction.

    Second order in time; the reaction steps are classical Runge-Kutta.

    Args:
      task: which reaction.
      a: [S].
      b: [S].
      initial: u(0) [S, n] at the centres of n cells.
      diffusion: D.
      end_time: of the last snapshot.
      snapshots: how many, t = 0 included.
      substeps: splitting steps between two snapshots.
      spacing: of the cells; 1 / n unless given.

    Returns:
      u [S, snapshots, n] float64, whatever JAX's default precision is.
    """
    n, dt = initial.shape[1], end_time / ((snapshots - 1) * substeps)
    spread = diffusion_matrix(n, diffusion * dt, 1 / n if spacing is None else spacing)
    # On the CPU, so that the same samples come out on every machine. Float64 in this block only.
    with jax.enable_x64(True), jax.default_device(_cpu()):
        columns = (np.asarray(x, np.float64) for x in (a[:, None], b[:, None], initial))
        return np.asarray(_march(task, *columns, spread, dt, snapshots - 1, substeps))


def _cpu() -> Any:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names accelerators alone.
        return None


@functools.partial(jax.jit, static_argnames=("task", "snapshots", "substeps"))
def _march(
    task: str,
    a: Array,
    b: Array,
    initial: Array,
    spread: Array,
    dt: float,
    snapshots: int,
    substeps: int,
) -> Array:
    def react(u: Array, step: Array) -> Array:
        k1 = reaction(task, u, a, b)
        k2 = reaction(task, u + step / 2 * k1, a, b)
        k3 = reaction(task, u + step / 2 * k2, a, b)
        k4 = reaction(task, u + step * k3, a, b)
        return u + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    def substep(u: Array, _: None) -> tuple[Array, None]:
        return react(jnp.matmul(react(u, dt / 2), spread), dt / 2), None

    def snapshot(u: Array, _: None) -> tuple[Array, Array]:
        u, _ = jax.lax.scan(substep, u, None, length=substeps)
        return u, u

    _, later = jax.lax.scan(snapshot, initial, None, length=snapshots)
    return jnp.concatenate([initial[None], later]).transpose(1, 0, 2)


def diffusion_matrix(n: int, time: float, spacing: float) -> np.ndarray:
    """Returns exp(time * Laplacian) [n, n], symmetric, of n cells with no flux at both ends.

    In closed form: the eigenvectors of that Laplacian are cosines.
    """
    k = np.arange(n)
    waves = np.cos(np.pi * np.outer(k + 0.5, k) / n) * np.sqrt(np.where(k, 2, 1) / n)
    decay = np.exp(-time * np.square(2 / spacing * np.sin(np.pi * k / (2 * n))))
    return waves * decay @ waves.T


def lsoda(
    task: str,
    a: float,
    b: float,
    initial: np.ndarray,
    diffusion: float,
    end_time: float,
    snapshots: int,
    rtol: float = 1e-6,
) -> np.ndarray:
    """Solves one sample on [0, 1] with ODEPACK's LSODA; u(0) [n] to u [snapshots, n] float64.

    Raises:
      RuntimeError: it gave up, or what it found is not finite.
    """
    from scipy.integrate import solve_ivp

    n = len(initial)
    scale = diffusion * n * n

    def slope(_: float, u: np.ndarray) -> np.ndarray:
        flux = np.diff(u)
        spread = np.empty_like(u)
        spread[1:-1] = flux[1:] - flux[:-1]
        spread[0], spread[-1] = flux[0], -flux[-1]
        return scale * spread + reaction(task, u, a, b)

    times = np.linspace(0, end_time, snapshots)
    options = {"rtol": rtol, "atol": 1e-9, "lband": 1, "uband": 1}
    found = solve_ivp(slope, (0, end_time), initial, "LSODA", times, **options)
    if not (found.success and np.isfinite(found.y).all()):
        raise RuntimeError(f"LSODA failed at {task}, a = {a}, b = {b}: {found.message}")
    return found.y.T


def make_samples(setting: Setting, task: str, indices: Iterable[int], seed: int = 0) -> Samples:
    """Draws and solves the numbered samples of a task; each depends on its number alone."""
    a, b, drawn = draw(setting, task, indices, seed)
    initial = drawn.astype(np.float32)  # What is stored is what is solved.
    solutions = solve(setting, task, a, b, initial.astype(np.float64))
    return Samples(
        coefficients(task, a, b).astype(np.float32), initial, solutions.astype(np.float32)
    )
