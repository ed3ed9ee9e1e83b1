"""Three families: margins and signs of their own."""

import pytest

from bitnet_jax.studies import families
from bitnet_jax.studies.runs import Runs
from tests.studies.simulated import noise, run


def simulated(better, rate=0.01):
  """Runs of a baseline and of "x", which is better or worse in all families."""
  sign = 1 if better else -1
  found = []
  for name, gain in (("mlp", 0.02), ("cnn", 0.01), ("decoder", -0.1)):
    for part, change in (("base", 0.0), ("x", sign * gain)):
      for seed in range(6):
        value = 0.9 + change + noise(seed)
        for shift in (0.0, 0.05):
          # The better rate in validation is the worse one in the test.
          cell = {"family": name, "part": part, "rate": rate + shift}
          worse = shift if name == "decoder" else -shift
          scores = dict(
            valid_accuracy=value - worse,
            valid_loss=value - worse,
            test_accuracy=value + worse,
            test_loss=value + worse,
          )
          found.append(run(seed, cell=cell, **scores))
  return Runs(found)


@pytest.mark.parametrize(
  ("better", "outcome"), [(True, "holds"), (False, "does not hold")]
)
def test_images_and_text_are_judged_apart(better, outcome):
  best = families.at_best_rates(simulated(better), "part")
  # The rate that is best in validation was taken, though worse in the test.
  assert [runs.choices("rate") for runs in best.values()] == [[0.01 + 0.05]] * 6
  known = families.families("cpu")
  cells = {
    f"family={name}, part=x": family.pair(best[name, "x"], best[name, "base"])
    for name, family in known.items()
  }
  found = families.judge(
    "better", cells, "x is better", "cpu", claim="parts-1", comparisons=2
  )
  assert [v.outcome for v in found] == [outcome] * 2
  assert [v.unit for v in found] == ["points", "nats"]
  assert found[0].level == pytest.approx(0.975)
  sizes = [round(abs(cell.effect), 6) for v in found for cell in v.cells]
  assert sizes == [2.0, 1.0, 0.1]
  table = families.table("t", "part", best).data()
  assert table["rows"][0][:4] == [
    "cnn",
    "base",
    0.01 + 0.05,
    pytest.approx(85, abs=0.1),
  ]


def test_run_that_diverged_counts_as_uniform_predictions():
  runs = Runs([run(3, diverged=1, cell={"family": "mlp"})])
  known = families.families("cpu")
  assert known["mlp"].values(runs) == {3: 10.0}
  assert known["decoder"].values(runs) == {3: pytest.approx(5.545, abs=1e-3)}
