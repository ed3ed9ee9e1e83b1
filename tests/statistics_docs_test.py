"""The examples and the numbers of docs/statistics.md."""

import doctest
import re

import numpy as np
import pytest
from scipy import stats

from bitnet_jax.analysis import estimates
from tests.train.conftest import ROOT

PAGE = ROOT / "docs" / "statistics.md"


def test_examples_run():
  failed, tried = doctest.testfile(str(PAGE), module_relative=False)
  assert tried >= 6 and not failed


def test_half_widths_are_those_of_the_interval():
  text = PAGE.read_text(encoding="utf-8")
  counts, widths = re.findall(r"^\| (?:n|half width) \|(.*)\|$", text, re.M)
  numbers = re.findall(r"[\d.]+(?= s)", widths)
  assert len(numbers) == 5
  for count, width in zip(counts.split("|"), numbers, strict=True):
    values = np.random.default_rng(0).normal(size=int(count))
    values = (values - values.mean()) / values.std(ddof=1)
    assert estimates.mean(values).interval()[1] == pytest.approx(
      float(width), abs=0.0051
    )


VALUES = {
  "normal": (lambda rng, size: rng.normal(size=size), 0.0),
  "skewed (gamma 2)": (lambda rng, size: rng.gamma(2, size=size), 2.0),
  "heavy tails (t with 3 degrees)": (
    lambda rng, size: rng.standard_t(3, size=size),
    0.0,
  ),
  "differences of accuracies": (
    lambda rng, size: (
      rng.binomial(1000, 0.9, size=size) - rng.binomial(1000, 0.88, size=size)
    ),
    20.0,
  ),
  "outliers, one in ten": (
    lambda rng, size: rng.normal(size=size) + 5.0 * (rng.random(size) < 0.1),
    0.5,
  ),
}


@pytest.mark.slow
def test_table_of_coverages_is_simulated():
  text = PAGE.read_text(encoding="utf-8")
  rows = re.findall(r"^\| (\d+) \| (.+?) \| (\d+) % \| (\d+) % \|$", text, re.M)
  assert len(rows) == 2 * len(VALUES)
  for count, name, *percents in rows:
    draw, truth = VALUES[name]
    values = draw(np.random.default_rng(0), (2000, int(count)))
    t = [estimates.mean(row).interval() for row in values]
    bca = stats.bootstrap(
      (values,),
      np.mean,
      axis=1,
      n_resamples=999,
      batch=100,
      random_state=np.random.default_rng(1),
    ).confidence_interval
    covered = [
      np.mean((low <= truth) & (truth <= high))
      for low, high in (np.transpose(t), (bca.low, bca.high))
    ]
    for found, percent in zip(covered, percents, strict=True):
      # Two standard errors of 2,000 simulations, and rounding.
      assert 100 * found == pytest.approx(int(percent), abs=2.5), (count, name)
