"""The steps of a study, compiled for chips that are absent."""

import pytest

from bitnet_jax import studies
from bitnet_jax.analysis.chips import GIB
from bitnet_jax.programs import ahead
from bitnet_jax.studies import compiled
from bitnet_jax.studies.case import by_name

REPORT = ahead.Report(
  mesh={"data": 4},
  memory={"parameters": GIB, "temporaries": 2 * GIB},
  available=16 * GIB,
  exchanged={},
  flops={},
  int8_products=(3, 9),
  tokens=1,
)


def case(seed=0, **overrides):
  return studies.Case("configs/xor_mlp.py", overrides, seed, overrides)


@pytest.fixture
def configs(tmp_path):
  """Steps of runs that differ in a rate, a seed, a switch and two widths."""
  cases = [
    case(),
    case(seed=1),
    case(**{"optim.learning_rate": 0.3}),
    case(**{"quant.phase_in.start": 3}),
    case(**{"total_steps": 9}),
    case(**{"model.width": 16}),
    case(**{"quant.recipe": "b158_median"}),
  ]
  return compiled.steps(by_name(cases), tmp_path)


def test_numbers_make_no_other_step(configs):
  assert [*configs] == [
    "seed=0",
    "model.width=16,seed=0",
    "quant.recipe=b158_median,seed=0",
  ]


def test_rows_say_what_fits_and_what_does_not(configs, monkeypatch):
  def compile_step(config, devices):
    del devices
    if config["model"]["width"] == 16:
      raise ahead.DoesNotFit("the step needs 43G\n  of buffers")
    if config["quant"]["recipe"] == "b158_median":
      raise FileNotFoundError("no such file: 'DATA/x'")
    return REPORT

  monkeypatch.setattr(ahead, "compile_step", compile_step)
  fits, large, absent = compiled.rows(configs, devices=None)
  assert fits.startswith("| seed=0 | 1.000 | 3.000 | 16 | 3 of 9 |")
  assert large.startswith("| model.width=16,seed=0 | the step needs 43G |")
  assert "no such file: 'DATA/x'" in absent
  columns = compiled.HEADER.splitlines()[0].count("|")
  assert {row.count("|") for row in (fits, large, absent)} == {columns}
