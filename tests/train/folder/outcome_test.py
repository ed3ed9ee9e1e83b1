"""What is recorded of the best checkpoint."""

import types

import pytest

from bitnet_jax.train.folder.outcome import best_of


class Checkpoints:
  """Stands for those of a run whose states are their steps."""

  def __init__(self, keep_best, best, damaged=()):
    self.options = types.SimpleNamespace(keep_best=keep_best)
    self._ranked, self._damaged = best, damaged

  def best_step(self):
    return self._ranked[0] if self._ranked else None

  def restore_best(self, state):
    whole = [step for step in self._ranked if step not in self._damaged]
    return (whole[0], whole[0]) if whole else None


@pytest.mark.parametrize(
  ("checkpoints", "expected"),
  [
    (Checkpoints(0, [8]), None),
    (Checkpoints(1, []), None),
    (Checkpoints(1, [8]), {"step": 8, "metrics": {"m": 8}}),
    (Checkpoints(1, [8, 4], [8]), {"step": 4, "metrics": {"m": 4}}),
    (Checkpoints(1, [8], [8]), None),
    # What is known is not measured again.
    (Checkpoints(1, [12, 8]), {"step": 12, "metrics": {"m": "known"}}),
  ],
)
def test_best_is_measured_where_one_is_kept(checkpoints, expected):
  experiment = types.SimpleNamespace(abstract_state=lambda: None)
  last = {"step": 12, "metrics": {"m": "known"}}
  found = best_of(experiment, checkpoints, lambda step: {"m": step}, last)
  assert found == expected
