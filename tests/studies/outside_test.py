"""Verdicts on claims of others, of simulated runs."""

import pytest

from bitnet_jax.studies import outside
from bitnet_jax.studies.runs import Runs
from tests.studies.simulated import noise, run

# By net of the CNN: test accuracy if all claims hold, and if none does.
CNN = {
  "b158": (0.50, 0.50),
  "float": (0.60, 0.60),
  "first": (0.55, 0.58),
  "distilled": (0.48, 0.52),
  "channel": (0.53, 0.47),
  "continued": (0.52, 0.55),
  "twice": (0.52, 0.52),
}


def loss(cell, holds):
  """Returns the loss of a decoder."""
  found = 2.0 if cell["net"] == "float" else 2.2
  best = {"float": 0.003, "b158": 0.01}.get(cell["net"], 0.003)
  best = best if holds else 0.003
  found += 0.0 if cell["rate"] == best else 0.3
  sign = 1 if holds else -1
  found += sign * (0.1 * (cell["decay"] > 0) + 0.2 * (cell["ema"] > 0))
  return found + sign * 0.5 * (cell["net"] == "zero_one")


def simulated(holds):
  decoders = [
    run(
      seed,
      cell={"family": "decoder", **cell},
      test_loss=loss(cell, holds) + noise(seed),
      valid_loss=loss(cell, holds) + noise(seed),
    )
    for cell in outside.decoder_cells("cpu")
    for seed in range(6)
  ]
  column = 0 if holds else 1
  cnns = [
    run(
      seed,
      cell={"family": "cnn", "net": net},
      # No two nets have the same noise.
      test_accuracy=values[column] + noise(seed * (3 + i)),
    )
    for i, (net, values) in enumerate(CNN.items())
    for seed in range(6)
  ]
  return Runs(cnns + decoders)


@pytest.mark.parametrize("holds", [True, False])
def test_claims_that_hold_do_and_others_do_not(holds):
  found = outside.findings(simulated(holds))
  found.data(study="outside", title="t?", scale="cpu", records=1)
  outcomes = {v.claim: v.outcome for v in found.verdicts}
  assert [*outcomes] == [f"outside-{i}" for i in range(1, 9)]
  expected = "holds" if holds else "does not hold"
  # Where the best rates are equal, no noise tells them apart.
  others = {} if holds else {"outside-4": "equivalent within the margin"}
  assert outcomes == dict.fromkeys(outcomes, expected) | others
