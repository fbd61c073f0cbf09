"""Figures of what an operator network reads: geometries with their meshes, the parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mtl_jax.data.operators import OperatorSet
from mtl_jax.data.pde.mesh import TriangleMesh, load_mesh
from mtl_jax.data.pde.meshing import mesh_polygon
from mtl_jax.data.pde.shapes import SHAPES, read_shape
from mtl_jax.reporting import figures
from mtl_jax.reporting.figures import COLOURS, GREY, Section, pretty

GEOMETRIES = 6  # drawn one by one
PARAMETERS = 4  # numbers that have a panel


def meshes(geometries: Sequence[str]) -> dict[str, TriangleMesh]:
    """Returns the meshes that Darcy flow was solved on, by the names of the tasks.

    Polygons of the user's are meshed again.
    """
    found = {}
    for geometry in geometries:
        if geometry in SHAPES:
            found[geometry] = load_mesh(geometry)
        else:
            shape = read_shape(geometry)
            found[shape.name] = mesh_polygon(shape.outer, shape.holes, name=shape.name)
    return found


def geometries_section(found: OperatorSet, geometries: Sequence[str], folder: Path) -> Section:
    """Draws the first sample's log K, the mask and the mesh of each geometry."""
    # The set may hold some of the geometries only, in another order (`data.tasks`).
    known = meshes(geometries)
    tasks = [name for name in found.task_names if name in known][:GEOMETRIES]
    shown = {name: known[name] for name in tasks}
    path = draw_geometries(found, shown, folder / "geometries.png")
    sizes = ", ".join(f"{pretty(name)} {len(mesh.triangles):,}" for name, mesh in shown.items())
    return Section(
        "What the branch reads",
        "log K of the first sample on the whole square, the geometry's mask on the grid of"
        " the query points (what lies outside is hidden from the branch and from every loss), and"
        f" the triangles on which the flow was solved: {sizes}.",
        [path],
    )


def draw_geometries(found: OperatorSet, meshes: Mapping[str, TriangleMesh], path: Path) -> Path:
    """Draws a column a task, as far as there are meshes of it: field, mask, mesh."""
    low, high = found.coords.min(0), found.coords.max(0)
    extent = (low[0], high[0], low[1], high[1])
    columns = len(meshes)
    with figures.canvas(path, 3, columns, 3 * min(1.7, 7.2 / columns)) as (_, axes):
        for t, (name, mesh) in enumerate(meshes.items()):
            sample = np.flatnonzero(found.task == found.task_names.index(name))[0]
            mask = found.masks[found.geometry[sample]].reshape(found.grid)
            style = {"origin": "lower", "extent": extent, "interpolation": "nearest"}
            axes[0, t].imshow(found.field[sample], cmap="cividis", **style)
            axes[1, t].imshow(mask, cmap="Greys", vmin=0, vmax=2, **style)
            axes[2, t].triplot(
                mesh.points[:, 0], mesh.points[:, 1], mesh.triangles, color=COLOURS[0], lw=0.15
            )
            axes[0, t].set_title(pretty(name))
        for row, name in enumerate(("log K", "mask", "mesh")):
            axes[row, 0].set_ylabel(name)
        for ax in axes.flat:
            ax.grid(False)
            ax.set(xticks=[], yticks=[], aspect="equal", xlim=extent[:2], ylim=extent[2:])
    return path


def parameters_section(
    found: OperatorSet, sample: np.ndarray, error: np.ndarray, split: str, folder: Path
) -> Section:
    """Draws the error of each sample of a split against the numbers that describe it."""
    path = draw_parameters(found, sample, 100 * error, folder / "parameters.png")
    count = found.params.shape[1]
    rest = f" Of {count} numbers the first {PARAMETERS} are drawn." if count > PARAMETERS else ""
    return Section(
        "Errors against the parameters",
        f"Relative L2 error of each {split} sample against the numbers that the branch reads, a"
        f" colour a task. Grey lines below mark the values that were trained on.{rest}",
        [path],
    )


def draw_parameters(found: OperatorSet, sample: np.ndarray, error: np.ndarray, path: Path) -> Path:
    """Draws errors [S] in percent of samples [S], one panel a parameter."""
    columns = min(found.params.shape[1], PARAMETERS)
    train, task = found.splits["train"], found.task[sample]
    with figures.canvas(path, 1, columns, 2.7) as (_, axes):
        for k, ax in enumerate(axes[0]):
            for t, name in enumerate(found.task_names):
                own = task == t
                if own.any():
                    colour = COLOURS[t % len(COLOURS)] if len(found.task_names) <= 6 else None
                    values = found.params[sample[own], k]
                    ax.plot(
                        values, error[own], "o", color=colour, ms=3, alpha=0.7, label=pretty(name)
                    )
            for value in np.unique(found.params[train, k])[:200]:
                ax.axvline(value, 0, 0.04, color=GREY, lw=0.8)
            figures.finish(ax, "", "relative L2 error, %" if k == 0 else "", f"number {k + 1}")
            ax.set_ylim(bottom=0)
        figures.legend(axes[0, -1], fontsize=7)
    return path
