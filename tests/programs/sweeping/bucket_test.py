"""A sweep in a bucket, on an emulator of Google Cloud Storage."""

import pytest
from etils import epath

from bitnet_jax.programs import comparing
from bitnet_jax.programs.sweeping import sweep
from bitnet_jax.train import runner
from bitnet_jax.train.config import loading
from tests.train.conftest import SMALL
from tests.train.folder.bucket_test import storage as storage

ROOT = "gs://bucket/runs/sweep"


@pytest.mark.slow
def test_sweep_in_a_bucket_resumes_and_is_compared(storage, monkeypatch):
  config = loading.load("digits_mlp")
  config.update_from_flattened_dict(SMALL | {"total_steps": 4})
  found = sweep.sweep(config, {"seed": [0, 1]}, ROOT)
  assert found.finished == [f"{ROOT}/seed=0", f"{ROOT}/seed=1"]
  assert not found.failed
  assert (epath.Path(ROOT) / "sweep.json").exists()
  assert (epath.Path(ROOT) / "seed=1" / "result.json").exists()
  (comparison,) = comparing.compare(found.finished).comparisons
  assert len(comparison.runs) == 2
  # Another machine finds them all.
  monkeypatch.setattr(runner, "run", None)
  assert sweep.sweep(config, {"seed": [0, 1]}, ROOT).finished == found.finished
