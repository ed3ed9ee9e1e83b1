"""Runs that are made longer."""

import dataclasses

import pytest

from bitnet_jax.train.config import lengths
from bitnet_jax.train.folder import records
from tests.train.optimizer.optim_test import make_options

CONFIG = {"total_steps": 10, "data": {}}


def spans(config):
  found = config[lengths.KEY] if lengths.KEY in config else []
  return [(length["total_steps"], length["until"]) for length in found]


def lengthen(*lengths_and_steps):
  """Returns the config of a run that went on at steps with other lengths."""
  config = CONFIG
  for total, step in lengths_and_steps:
    asked = CONFIG | {"total_steps": total}
    config = lengths.continued(asked, config, step)
  return config


@pytest.mark.parametrize(
  ("course", "expected"),
  [
    ([(10, 4)], []),
    ([(20, 0)], []),  # No step was made yet.
    ([(20, 10)], [(10, 10)]),
    ([(20, 4), (20, 8)], [(10, 4)]),
    ([(20, 10), (30, 10), (40, 10)], [(10, 10)]),  # No step at 20 or 30.
    ([(20, 4), (30, 12), (30, 30)], [(10, 4), (20, 12)]),
  ],
)
def test_lengths_are_kept_that_a_step_was_made_with(course, expected):
  assert spans(lengthen(*course)) == expected


def test_lengths_beyond_the_restored_step_are_forgotten():
  config = lengthen((20, 4), (30, 12))
  for step, expected in (
    (12, [(10, 4), (20, 12)]),
    (8, [(10, 4), (20, 8)]),
    (3, [(10, 3)]),
    (0, []),
  ):
    assert spans(lengths.until(config, step)) == expected
  assert lengths.until(config, 0) == CONFIG | {"total_steps": 30}


def test_length_before_names_the_run():
  names = {
    records.run_id(config, "f")
    for config in (
      CONFIG | {"total_steps": 20},
      lengthen((20, 10)),
      lengthen((20, 4)),
    )
  }
  assert len(names) == 3
  fresh = CONFIG | {"total_steps": 20}
  assert records.run_id(lengthen((20, 0)), "f") == records.run_id(fresh, "f")


@pytest.mark.parametrize(
  ("changes", "step", "rates"),
  [
    ({"schedule": "cosine", "final_fraction": 0.01}, 10, "from 0.01 to 0.46"),
    ({"schedule": "linear"}, 5, "from 0.556 to 0.737"),
    ({"schedule": "constant"}, 10, None),
    ({"schedule": "constant", "warmup_steps": 8}, 5, None),
    ({"schedule": "cosine", "warmup_steps": 8}, 5, None),
    ({"schedule": "cosine"}, 12, None),  # Two steps are made already.
  ],
)
def test_rate_that_jumps_is_logged(changes, step, rates, caplog):
  config = lengthen((20, min(step, 10)))
  options = dataclasses.replace(make_options(), **changes)
  lengths.warn_of_restart(options, config, step)
  if rates is None:
    assert not caplog.messages
  else:
    assert f"total_steps was 10 and is 20 now: at step {step}" in caplog.text
    assert rates in caplog.text
