"""Sizes of models that are not frozen yet."""

import pytest

from bitnet_jax.inference.size import measure_size
from bitnet_jax.programs import frozen
from bitnet_jax.programs.comparing import sizes


def test_size_is_that_of_parameters_or_of_packed_codes(write_run, tmp_path):
  # A layer [64, 16] and the head [16, 10] in float, with biases.
  floats = 4 * (16 + 16 * 10 + 10)
  folder = write_run(tmp_path / "a", None, quant__recipe="float")
  assert sizes.frozen_bytes(folder) == floats + 4 * 64 * 16
  folder = write_run(tmp_path / "b", None, quant__recipe="b158")
  assert sizes.frozen_bytes(folder) == floats + -(-64 * 16 // 5) + 4
  folder = write_run(tmp_path / "c", None, quant__recipe="int8")
  assert sizes.frozen_bytes(folder) == floats + 64 * 16 + 4
  (folder / "data_facts.json").unlink()
  assert sizes.frozen_bytes(folder) is None


@pytest.mark.slow
def test_size_is_that_of_the_frozen_model(run):
  _, folder = run(total_steps=4, quant__recipe="b158_median")
  found = frozen.load_frozen_run(folder)
  assert sizes.frozen_bytes(folder) == measure_size(found.variables).disk
