"""Figures of compared runs: what they show, in light and dark."""

import numpy as np
import pytest
from PIL import Image

from bitnet_jax.programs import comparing
from bitnet_jax.programs.comparing import figures


@pytest.fixture
def report(write_run, tmp_path):
  for recipe in ("float", "b158"):
    for seed in range(2):
      folder = tmp_path / f"{recipe}-{seed}"
      value = 0.9 + seed / 100
      write_run(folder, value, quant__recipe=recipe, seed=seed)
  return comparing.compare([tmp_path])


def test_points_are_those_that_all_runs_have(report):
  (comparison,) = report.comparisons
  by_name = {group.values["quant.recipe"]: group for group in comparison.groups}
  steps, values = figures.points(by_name["b158"], "valid/accuracy")
  np.testing.assert_array_equal(steps, [4, 8, 12])
  np.testing.assert_allclose(
    values, [[0.3, 0.6, 0.9], np.array([1, 2, 3]) * 0.91 / 3]
  )
  # Of a run that is cut short, the steps up to there.
  path = by_name["b158"].runs[1].folder / "metrics.jsonl"
  lines = path.read_text().splitlines(keepends=True)
  path.write_text("".join(lines[:9]))
  steps, _ = figures.points(by_name["b158"], "valid/accuracy")
  np.testing.assert_array_equal(steps, [4, 8])
  assert figures.points(by_name["b158"], "valid/nothing") is None


def test_figures_are_drawn_in_light_and_dark(report, tmp_path, monkeypatch):
  monkeypatch.setattr(figures, "_DPI", 40)
  lines = comparing.draw(report, tmp_path / "new" / "figures")
  names = ["curves", "size", "codes"]
  paths = [
    tmp_path / "new" / "figures" / f"{name}-{theme}.png"
    for name in names
    for theme in ("light", "dark")
  ]
  assert lines == [f"{path}" for path in paths]
  for path in paths:
    image = np.asarray(Image.open(path).convert("L"), np.float32)
    # Paper around, and something on it.
    assert image[0, 0] > 250 if "light" in path.name else image[0, 0] < 30
    assert (np.abs(image - image[0, 0]) > 60).mean() > 0.005


def test_what_cannot_be_drawn_is_told(write_run, tmp_path):
  folder = write_run(tmp_path / "a", 0.9, quant__recipe="float")
  (folder / "data_facts.json").unlink()
  (folder / "metrics.jsonl").write_text("")
  lines = comparing.draw(comparing.compare([folder]), tmp_path / "figures")
  assert lines == [
    "curves is not drawn: the runs have no metrics over steps",
    "size is not drawn: the runs have not recorded what decides their size",
    "codes is not drawn: no run has code statistics (statistics_every)",
  ]


@pytest.mark.parametrize("is_wide", [False, True])
def test_equal_sizes_are_moved_apart_around_their_place(is_wide):
  found = figures._side_by_side({0: 10.0, 1: 100.0, 3: 10.0}, is_wide=is_wide)
  assert found[1] == pytest.approx(100)
  assert 8 < found[0] < 10 < found[3] < 12
  alone = figures._side_by_side({0: 10.0}, is_wide=is_wide)
  assert alone == pytest.approx({0: 10.0})
