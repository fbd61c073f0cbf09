"""Figures of operator networks: fields beside their predictions, the errors of every sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from mtl_jax.data.operators import OperatorSet
from mtl_jax.reporting import figures
from mtl_jax.reporting.figures import COLOURS, MEAN, Section, pretty
from mtl_jax.systems.mt_deeponet import input_figures, normaliser
from mtl_jax.systems.mt_deeponet.data import unpack

if TYPE_CHECKING:
    from mtl_jax.engine.state import TrainState
    from mtl_jax.run import Run

PANELS = 6  # tasks drawn one by one
MODES = 6  # basis functions drawn
FIELD, ERROR = "viridis", "inferno"


class Predictions(NamedTuple):
    """Samples of a split with what the network says of them, on all N query points.

    Attributes:
      sample: [S] numbers of the samples in the set.
      truth: [S, N], NaN outside the geometry.
      said: [S, N], likewise.
      error: [S] relative L2 error of each sample.
    """

    sample: np.ndarray
    truth: np.ndarray
    said: np.ndarray
    error: np.ndarray


def report(run: Run, state: TrainState, figures_dir: Path) -> list[Section]:
    """Draws what is particular to operator networks; returns its sections of the report.

    Args:
      run: the run.
      state: of the checkpoint to look at, on the devices.
      figures_dir: where the PNG files go.
    """
    # Imported late: the builders draw on this package.
    from mtl_jax.systems.mt_deeponet.builders import load

    config: Any = run.config
    found = load(config.data)
    split = "test"
    made = predictions(run, state, found, split)
    sections = [_errors_section(made, found, split, figures_dir)]
    sections.append(_fields_section(made, found, split, figures_dir))
    if len(found.grid) == 3 and not found.pointwise:
        sections.append(_cuts_section(made, found, split, figures_dir))
    if 0 < found.params.shape[1] <= input_figures.PARAMETERS:
        drawn = input_figures.parameters_section(found, made.sample, made.error, split, figures_dir)
        sections.append(drawn)
    if config.data.name == "darcy":
        drawn = input_figures.geometries_section(found, config.data.geometry, figures_dir)
        sections.append(drawn)
    if not found.pointwise and len(found.coord_names) == 2 and found.grid:
        sections.append(_basis_section(run, state, found, config, figures_dir))
    return sections


def predictions(run: Run, state: TrainState, found: OperatorSet, split: str) -> Predictions:
    """Predicts a split; what no geometry holds is put back as NaN."""
    from mtl_jax import run as runs

    sample = found.splits[split]
    parts = [out["solution"] for _, out in runs.predictions(run, state, split)]
    said = unpack(np.concatenate(parts), found)
    inside = found.masks[found.geometry[sample]]
    truth = np.where(inside, found.solutions[sample], np.nan)
    size = np.sqrt(np.nansum(np.square(truth, dtype=np.float64), 1))
    gap = np.sqrt(np.nansum(np.square(said - truth, dtype=np.float64), 1))
    return Predictions(sample, truth, said, gap / np.maximum(size, np.finfo(np.float32).tiny))


def _errors_section(made: Predictions, found: OperatorSet, split: str, folder: Path) -> Section:
    task = found.task[made.sample]
    errors = [100 * made.error[task == t] for t in range(len(found.task_names))]
    path = draw_errors(errors, found.task_names, folder / "errors.png")
    return Section(
        "Errors of every sample",
        f"Relative L2 error of each {split} sample ({len(made.sample):,} in all) of the selected"
        " checkpoint, inside its geometry, on a logarithmic scale. A dot is a sample; the line is"
        " the mean and the dashed line the 95 % quantile of the task.",
        [path],
    )


def draw_errors(errors: Sequence[np.ndarray], names: Sequence[str], path: Path) -> Path:
    """Draws the samples of each task as dots, with mean and 95 % quantile; errors in percent."""
    rng = np.random.default_rng(0)
    with figures.canvas(path, height=2.9) as (_, axes):
        ax = axes[0, 0]
        for t, values in enumerate(errors):
            if not len(values):
                continue
            colour = COLOURS[t % len(COLOURS)]
            spread = t + rng.uniform(-0.28, 0.28, len(values))
            ax.plot(spread, values, ".", color=colour, alpha=0.45, ms=3)
            mean, high = values.mean(), np.quantile(values, 0.95)
            ax.plot([t - 0.36, t + 0.36], [mean, mean], "-", color=MEAN)
            ax.plot([t - 0.36, t + 0.36], [high, high], "--", color=MEAN, lw=1)
            ax.annotate(f"{mean:.2f}", (t + 0.38, mean), fontsize=8, va="center")
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(figures.PLAIN)
        ax.set(ylabel="relative L2 error, %", xlim=(-0.6, len(names) - 0.3))
        turn = 30 if len(names) > PANELS else 0
        ax.set_xticks(range(len(names)), [pretty(name) for name in names], rotation=turn)
    return path


def _fields_section(made: Predictions, found: OperatorSet, split: str, folder: Path) -> Section:
    task = found.task[made.sample]
    present = [t for t in range(len(found.task_names)) if (task == t).any()]
    paths = []
    for t in present[:PANELS]:
        rows = np.flatnonzero(task == t)
        order = rows[np.argsort(made.error[rows], kind="stable")]
        chosen = [order[0], order[len(order) // 2], order[-1]]
        name = found.task_names[t]
        paths.append(draw_fields(made, found, chosen, name, folder / f"fields_{t}.png"))
    rest = (
        f" Of {len(present)} tasks the first {PANELS} are drawn." if len(present) > PANELS else ""
    )
    view = ""
    if len(found.grid) == 3:
        view = f" The cut is through the middle of {found.coord_names[2]}."
    elif found.coord_names == ("t", "x"):
        view = " Time goes up, space to the right."
    return Section(
        "Solutions",
        f"The {split} samples with the smallest, the median and the largest relative error of each"
        " task: input, solution, prediction and absolute error. Solution and prediction share one"
        f" colour scale, the error has its own; outside the geometry nothing is drawn.{view}{rest}",
        paths,
    )


def draw_fields(
    made: Predictions, found: OperatorSet, chosen: Sequence[int], name: str, path: Path
) -> Path:
    """Draws one row a sample: input, solution, prediction, absolute error."""
    height = 1.55 * len(chosen) + 0.5
    with figures.canvas(path, len(chosen), 4, height) as (figure, axes):
        for row, (n, word) in enumerate(zip(chosen, ("best", "median", "worst"), strict=False)):
            truth, said = made.truth[n], made.said[n]
            sample = made.sample[n]
            _draw_input(axes[row, 0], found, sample)
            low, high = np.nanmin([truth, said]), np.nanmax([truth, said])
            for column, values in ((1, truth), (2, said)):
                shown = _draw(axes[row, column], found, sample, values, FIELD, low, high)
            figure.colorbar(shown, ax=axes[row, 1:3], aspect=14)
            worst = np.nanmax(np.abs(said - truth))
            shown = _draw(axes[row, 3], found, sample, np.abs(said - truth), ERROR, 0, worst)
            figure.colorbar(shown, ax=axes[row, 3], aspect=14)
            axes[row, 0].set_ylabel(f"{word}\n{100 * made.error[n]:.2f} %", fontsize=8)
        for column, title in enumerate(("input", "solution", "prediction", "absolute error")):
            axes[0, column].set_title(title)
        figure.suptitle(pretty(name), x=0.01, ha="left", fontsize=9.5, weight="bold")
    return path


def _cuts_section(made: Predictions, found: OperatorSet, split: str, folder: Path) -> Section:
    order = np.argsort(made.error, kind="stable")
    n = int(order[len(order) // 2])
    path = draw_cuts(made, found, n, folder / "cuts.png")
    x, y, z = found.coord_names
    task = pretty(found.task_names[found.task[made.sample[n]]])
    return Section(
        "Cuts through a volume",
        f"The {split} sample of median error ({task}, {100 * made.error[n]:.2f} %): three cuts at"
        f" constant {z}, one along {x} through the middle of {y}. Solution and prediction share one"
        " colour scale, the error has its own.",
        [path],
    )


def draw_cuts(made: Predictions, found: OperatorSet, n: int, path: Path) -> Path:
    """Draws solution, prediction and absolute error of volume `n` in four cuts."""
    shape = found.grid
    y = found.coords.reshape(*shape, 3)
    axes_values = [y[:, 0, 0, 0], y[0, :, 0, 1], y[0, 0, :, 2]]
    middle = shape[1] // 2
    inside = ~np.isnan(made.truth[n].reshape(shape))
    full = np.flatnonzero(inside.any((0, 1)))
    levels = [int(full[int(share * (len(full) - 1))]) for share in (0.1, 0.5, 0.9)]
    low, high = np.nanmin([made.truth[n], made.said[n]]), np.nanmax([made.truth[n], made.said[n]])
    gap = np.abs(made.said[n] - made.truth[n])
    rows = (
        ("solution", made.truth[n], FIELD, low, high),
        ("prediction", made.said[n], FIELD, low, high),
        ("absolute error", gap, ERROR, 0, np.nanmax(gap)),
    )
    names = found.coord_names
    with figures.canvas(path, 3, 4, 5.4) as (figure, axes):
        for row, (word, values, colours, least, most) in enumerate(rows):
            volume = values.reshape(shape)
            style = {"cmap": colours, "vmin": least, "vmax": most, "shading": "nearest"}
            for column, level in enumerate(levels):
                ax = axes[row, column]
                image = ax.pcolormesh(*axes_values[:2], volume[:, :, level].T, **style)
                ax.set_title(f"{names[2]} = {axes_values[2][level]:.2f}", fontsize=8)
            ax = axes[row, 3]
            ax.pcolormesh(axes_values[0], axes_values[2], volume[:, middle].T, **style)
            ax.set_title(f"{names[1]} = {axes_values[1][middle]:.2f}", fontsize=8)
            axes[row, 0].set_ylabel(word)
            figure.colorbar(image, ax=axes[row], aspect=12)
        for ax in axes.flat:
            ax.grid(False)
            ax.set(xticks=[], yticks=[], aspect="equal")
    return path


def _draw(
    ax: Axes,
    found: OperatorSet,
    sample: int,
    values: np.ndarray,
    colours: str,
    low: float,
    high: float,
) -> Any:
    """Draws values [N] of one sample: an image, a slice of a volume, or points."""
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    style = {"cmap": colours, "vmin": low, "vmax": high}
    if len(found.grid) in (2, 3):
        field = values.reshape(found.grid)
        y = found.coords.reshape(*found.grid, -1)
        if field.ndim == 3:
            middle = field.shape[2] // 2
            field, y = field[:, :, middle].T, y[:, :, middle].transpose(1, 0, 2)
        across, up = (1, 0) if _first_axis_is_up(y) else (0, 1)
        ends = [float(f(y[..., axis])) for axis in (across, up) for f in (np.min, np.max)]
        square = np.ptp(ends[:2]) == np.ptp(ends[2:]) and found.coord_names[0] != "t"
        return ax.imshow(
            field,
            origin="lower",
            extent=(ends[0], ends[1], ends[2], ends[3]),
            aspect="equal" if square else "auto",
            interpolation="nearest",
            **style,
        )
    y = found.coords[sample] if found.pointwise else found.coords
    if y.shape[1] == 1:
        points = ax.scatter(y[:, 0], values, c=values, s=4, **style)
    else:
        points = ax.scatter(y[:, 0], y[:, 1], c=values, s=4, **style)
        ax.set_aspect("equal")
    return points


def _first_axis_is_up(y: np.ndarray) -> bool:
    """Whether the first coordinate changes along the rows of a grid [rows, columns, d]."""
    return bool(np.ptp(y[:, 0, 0]) > np.ptp(y[0, :, 0]))


def _draw_input(ax: Axes, found: OperatorSet, sample: int) -> None:
    field = found.field[sample]
    if field.ndim == 2:
        inside = np.ones(field.shape, bool)
        if field.shape == tuple(found.grid):
            inside = found.masks[found.geometry[sample]].reshape(field.shape)
        ax.imshow(np.where(inside, field, np.nan), origin="lower", cmap="cividis")
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        return
    if field.size:
        ax.plot(np.linspace(0, 1, field.size), field.ravel(), color=COLOURS[0], lw=1)
        ax.tick_params(labelsize=6)
    else:  # only the numbers; the label of the row stays
        ax.grid(False)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    if found.params.shape[1]:
        numbers = "\n".join(f"{value:.3g}" for value in found.params[sample][:6])
        ax.text(0.03, 0.95, numbers, transform=ax.transAxes, va="top", fontsize=6.5)


def _basis_section(
    run: Run, state: TrainState, found: OperatorSet, config: Any, folder: Path
) -> Section:
    # Imported late: the builders draw on this package.
    from mtl_jax.systems.mt_deeponet.builders import make_networks

    trunk = make_networks(config.model, config.data).trunk
    variables = {"params": state.params["trunk"], **state.model_state["trunk"]}
    y = normaliser.coordinates(state.model_state["constants"], np.asarray(found.coords))
    basis = np.asarray(trunk.apply(variables, y, False), np.float64)
    inside = np.asarray(found.masks.any(axis=0))
    left, strength, _ = np.linalg.svd(basis[inside], full_matrices=False)
    modes = np.full((inside.size, min(MODES, left.shape[1])), np.nan)
    modes[inside] = left[:, : modes.shape[1]]
    path = draw_basis(modes, strength, found, folder / "basis.png")
    share = strength.cumsum() / strength.sum()
    needed = int(np.searchsorted(share, 0.99)) + 1
    return Section(
        "What the trunk has learned",
        f"The first {modes.shape[1]} left singular vectors of the {basis.shape[1]} basis functions"
        " on all query points, each on a scale of its own around 0, with its singular value"
        f" relative to the first. {needed} of them hold 99 % of the sum of the singular values.",
        [path],
    )


def draw_basis(modes: np.ndarray, strength: np.ndarray, found: OperatorSet, path: Path) -> Path:
    """Draws basis functions [N, k] with their strengths."""
    columns = 3
    rows = -(-modes.shape[1] // columns)
    with figures.canvas(path, rows, columns, 1.9 * rows) as (_, axes):
        for ax in axes.flat[modes.shape[1] :]:
            ax.axis("off")
        for k, ax in zip(range(modes.shape[1]), axes.flat, strict=False):
            limit = np.nanmax(np.abs(modes[:, k]))
            _draw(ax, found, 0, modes[:, k], "RdBu_r", -limit, limit)
            ax.set_title(f"{strength[k] / strength[0]:.2g}", fontsize=8)
    return path
