"""The geometries with their meshes, for built-in shapes and a polygon of the user's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from mtl_jax.data.pde.mesh import double_areas
from mtl_jax.systems.mt_deeponet import input_figures
from mtl_jax.systems.mt_deeponet.builders import only_tasks
from tests import operator_sets


def test_geometries_have_their_own_meshes(tmp_path: Path) -> None:
    square, disc = input_figures.meshes(("square", "disc")).values()
    assert double_areas(square).sum() / 2 == pytest.approx(1)
    assert double_areas(disc).sum() / 2 == pytest.approx(np.pi / 4, rel=1e-3)
    found = operator_sets.geometries()
    section = input_figures.geometries_section(found, ("square", "disc"), tmp_path)
    assert f"square {len(square.triangles):,}, disc {len(disc.triangles):,}" in section.text
    assert imread(section.figures[0]).std() > 0.1
    one = only_tasks(found, ("disc",))
    section = input_figures.geometries_section(one, ("square", "disc"), tmp_path)
    assert f": disc {len(disc.triangles):,}." in section.text


def test_a_polygon_of_the_users_is_meshed_again(tmp_path: Path) -> None:
    pytest.importorskip("netgen")
    path = tmp_path / "kite.json"
    path.write_text(json.dumps({"outer": [[0, 0.5], [0.5, 0], [1, 0.5], [0.5, 1]]}))
    ((_, mesh),) = input_figures.meshes((str(path),)).items()
    assert double_areas(mesh).sum() / 2 == pytest.approx(0.5)
