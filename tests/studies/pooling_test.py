"""Two recipes over the runs of several studies: pairs, advantages, findings."""

import dataclasses
import math

import numpy as np
import pytest

from bitnet_jax.studies import measures, pooling
from bitnet_jax.studies.runs import Runs
from tests.studies import simulated


def run(study, cell, seed, *, task="classification", source="tfds:a", **values):
  """Returns a run of a study, with what pairs of runs need of its config."""
  found = simulated.run(seed, cell=cell, **values)
  names = {"classification": "mlp", "causal_lm": "decoder"}
  config = {
    "task": {"name": task},
    "model": {"name": names[task]},
    "data": {"source": source},
    "optim": {"learning_rate": cell.get("rate", 0.01)},
  }
  return type(found)({**found.record, "study": study, "config": config})


def both(study, seed, difference, *, cell=None, **options):
  """Returns runs whose accuracy is better with the median by a difference."""
  cell = cell or {}
  return [
    run(
      study, {**cell, "precision": name}, seed, test_accuracy=value, **options
    )
    for name, value in [("b158", 0.9), ("b158_median", 0.9 + difference)]
  ]


def match(runs):
  return pooling.matches(runs, "b158_median", "b158")


def test_runs_are_matched_by_study_cell_and_seed():
  runs = [
    *both("one", 0, 0.02, cell={"net": "cnn", "data": "mnist", "rate": 0.1}),
    *both("two", 1, -0.005),
    run(
      "one",
      {"net": "cnn", "data": "mnist", "rate": 0.3, "precision": "b158"},
      0,
    ),
    run("three", {"precision": "b158_median"}, 1, test_accuracy=0.1),
    run("three", {"precision": "b158"}, 2, test_accuracy=0.2),
    run("three", {"precision": "float32"}, 1, test_accuracy=0.3),
  ]
  one, two = match(runs)
  assert (one.study, one.setting) == ("one", "one, cnn, mnist")
  assert (one.seed, one.rate, one.metric) == (0, 0.1, "test/accuracy")
  assert one.advantage == pytest.approx(2)
  assert (two.setting, two.advantage) == ("two, mlp, a", pytest.approx(-0.5))


def test_key_of_the_cell_may_have_any_name():
  runs = both("one", 0, 0.01)
  renamed = [
    type(r)({**r.record, "cell": {"kind": r.cell["precision"]}}) for r in runs
  ]
  assert match(renamed)[0].advantage == pytest.approx(1)


@pytest.mark.parametrize(
  ("task", "first", "second", "metric", "advantage"),
  [
    (
      "classification",
      {"valid_accuracy": 0.8},
      {"valid_accuracy": 0.81},
      "valid/accuracy",
      -1,
    ),
    ("classification", {"test_loss": 1.0}, {"test_loss": 1.02}, "test/loss", 1),
    (
      "causal_lm",
      {"valid_loss": 1.0, "valid_accuracy": 0.1},
      {"valid_loss": 1.04, "valid_accuracy": 0.2},
      "valid/loss",
      2,
    ),
    ("causal_lm", {"valid_loss": 1.0}, {"valid_loss": 9.0}, "valid/loss", 10),
    ("causal_lm", {"diverged": 3}, {"valid_loss": 9.0}, "", -10),
    ("causal_lm", {"valid_loss": 1.0}, {"diverged": 3}, "", 10),
  ],
)
def test_advantage_is_in_margins_of_the_metric_that_both_have(
  task, first, second, metric, advantage
):
  runs = [
    run("one", {"precision": name}, 0, task=task, **values)
    for name, values in [("b158_median", first), ("b158", second)]
  ]
  (found,) = match(runs)
  assert found.metric == metric
  assert found.advantage == pytest.approx(advantage)


@pytest.mark.parametrize(
  "values",
  [
    [{"diverged": 1}, {"diverged": 2}],
    [{"test_accuracy": 0.5}, {"valid_accuracy": 0.5}],
  ],
)
def test_runs_without_a_common_metric_are_not_compared(values):
  names = ["b158_median", "b158"]
  runs = [
    run("one", {"precision": n}, 0, **v)
    for n, v in zip(names, values, strict=True)
  ]
  assert match(runs) == []


def test_runs_that_do_not_train_are_not_compared():
  assert match(both("one", 0, 0.01, cell={"rate": 0.0})) == []


def test_cells_of_a_setting_are_averaged_by_seed():
  runs = []
  for seed, values in enumerate([(0.01, 0.03), (0.0, -0.02)]):
    for rate, value in zip((0.1, 0.2), values, strict=True):
      runs += both("one", seed, value, cell={"rate": rate})
  runs += both("two", 0, 0.01)
  found = pooling.by_setting(match(runs), fewest=2)
  assert [*found] == ["one, mlp, a"]
  np.testing.assert_allclose(found["one, mlp, a"].differences, [2, -1])


def test_ties_are_half_a_win():
  runs = []
  for seed, value in enumerate([0.01, 0.0005, -0.0005, -0.01, -0.02]):
    runs += both("one", seed, value)
  found = match(runs)
  assert pooling.win_rate(found, tie=0.1) == pytest.approx(0.4)
  assert pooling.win_rate(found) == pytest.approx(0.4)
  assert pooling.win_rate(found[:2], tie=0.1) == pytest.approx(0.75)


def test_a_choice_by_chance_gains_nothing_and_a_real_one_its_effect():
  rng = np.random.default_rng(0)

  def gain(effect):
    values = rng.normal(effect, 1.0, size=(2000, 10))
    samples = (
      pooling.pairs.Pairs(tuple(range(10)), row, np.zeros(10)) for row in values
    )
    return np.mean([pooling.gain_of_choosing(sample) for sample in samples])

  # The mean of the best of noisy means would be 0.12.
  assert gain(0.0) == pytest.approx(0, abs=0.02)
  assert gain(3.0) == pytest.approx(3, abs=0.05)
  assert gain(-3.0) == 0
  with pytest.raises(ValueError, match="at least 2 seeds"):
    one = pooling.pairs.Pairs((0,), np.ones(1), np.zeros(1))
    pooling.gain_of_choosing(one)


def pool(effects, seeds=6, noise=0.003):
  """Returns runs of a study for each effect, and of exclusive or."""
  rng = np.random.default_rng(0)
  runs = []
  for i, effect in enumerate(effects):
    for seed in range(seeds):
      value = effect + noise * rng.normal()
      runs += both(f"study{i}", seed, value, cell={"rate": 0.01})
  for seed in range(seeds):
    runs += both("xor", seed, -0.5, source="embedded:xor", cell={"rate": 0.1})
  return Runs(runs, "cpu")


def outcomes(effects):
  found = measures.findings(pool(effects))
  return [(v.claim, v.outcome) for v in found.verdicts], found


def test_findings_on_settings_without_a_difference():
  judged, found = outcomes([0.0] * 20)
  assert judged == [
    (6, "holds"),
    (6, "equivalent within the margin"),
    (11, "holds"),
  ]
  for part in (*found.tables, *found.figures):
    part.data()
  settings, studies, rates = found.tables
  assert len(settings.rows) == len(studies.rows) == 21
  assert [row[0] for row in rates.rows] == [0.01, 0.1]
  xor = {row[0]: row for row in settings.rows}["xor, mlp, xor"]
  assert xor[4:6] == [0, -10]
  assert len(found.figures[0].series[0].x) == 21


def test_findings_on_settings_where_the_median_is_worse_or_better():
  judged, _ = outcomes([-0.03] * 20)
  assert judged == [
    (6, "does not hold"),
    (6, "equivalent within the margin"),
    (11, "does not hold"),
  ]
  judged, _ = outcomes([0.05] * 20)
  # Exclusive or, where the mean wins, is one setting of 21.
  assert judged == [(6, "does not hold"), (6, "holds"), (11, "holds")]


def test_settings_with_few_seeds_are_left_out_but_not_at_the_scale_ci():
  few = [both("one", seed, 0.01) for seed in range(2)]
  runs = [*pool([0.0] * 5), *(r for pair in few for r in pair)]
  found = measures.findings(Runs(runs, "cpu"))
  assert "one, mlp, a" not in [row[0] for row in found.tables[0].rows]
  found = measures.findings(Runs([r for pair in few for r in pair], "ci"))
  assert [row[0] for row in found.tables[0].rows] == ["one, mlp, a"]
  assert {v.outcome for v in found.verdicts} == {"not decidable at this scale"}


def test_values_that_a_config_leaves_to_its_base_are_found():
  (found,) = match(both("one", 0, 0.01))
  runs = both("one", 0, 0.01)
  for r in runs:
    del r.record["config"]["optim"], r.record["config"]["data"]
  (bare,) = match(runs)
  assert bare.rate > 0 and math.isfinite(bare.rate)
  assert (
    dataclasses.replace(
      bare, rate=found.rate, source=found.source, setting=found.setting
    )
    == found
  )
