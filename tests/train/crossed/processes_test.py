"""Two processes train and score as one does, whatever is combined."""

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from bitnet_jax.train.devices.multihost import HEARTBEAT_SECONDS
from tests.conftest import COMPILES_FAST
from tests.train.conftest import ROOT, lines_without_time
from tests.train.crossed import cases, worker
from tests.train.devices.multihost_test import free_port

# Sums over devices in another order, after some updates; codes would flip, so
# that all are in float.
CLOSE = 1e-3
STUBS = {
  "translation of stubs": cases.Case(
    "translation",
    ("float", "data parallel", "accumulation", "label smoothing"),
  )
}
FEW = STUBS | {
  "mlp": cases.Case(
    "mlp",
    ("float", "fully sharded", "accumulation", "dropout", "augmentation"),
  )
}
MANY = {
  "cnn": cases.Case("cnn", ("float", "batch norm", "data parallel")),
  "detector": cases.Case("detector", ("float", "batch norm", "data parallel")),
  "nodes": cases.Case("nodes", ("float", "data parallel", "dropout")),
  "graphs": cases.Case("graphs", ("float", "data parallel", "accumulation")),
  "documents": cases.Case("documents", ("float", "data parallel", "adam")),
  "causal": cases.Case(
    "causal", ("float", "fully sharded", "stride", "scan", "remat")
  ),
  "masked": cases.Case(
    "masked", ("float", "data parallel", "predictions", "accumulation")
  ),
  "spans": cases.Case("spans", ("float", "fully sharded", "z-loss")),
  "labels": cases.Case("labels", ("float", "data parallel", "dropout")),
  "numbers": cases.Case("labels", ("float", "data parallel", "regression")),
  "translation": cases.Case("translation", ("float", "data parallel", "beams")),
}


def run_on_two(jobs, folder):
  path, port = folder / "jobs.pickle", free_port()
  path.write_bytes(pickle.dumps(jobs))
  env = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "XLA_FLAGS": f"--xla_force_host_platform_device_count=1 {COMPILES_FAST}",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
  }
  command = [sys.executable, "-m", "tests.train.crossed.worker", str(path)]
  processes = [
    subprocess.Popen(
      [*command, str(port), "2", str(i)],
      cwd=ROOT,
      env=env,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]
  patience = HEARTBEAT_SECONDS * (2 + len(jobs))
  said = [process.communicate(timeout=patience)[1] for process in processes]
  assert not any(p.returncode for p in processes), "\n\n".join(said)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [FEW, MANY], ids=["few", "many"])
def test_two_processes_are_one(chosen, tmp_path):
  configs = {
    name: cases.make_config(case, tmp_path) for name, case in chosen.items()
  }
  one, two = (
    [
      (config, tmp_path / f"{name} {count}", name in STUBS)
      for name, config in configs.items()
    ]
    for count in (1, 2)
  )
  run_on_two(two, tmp_path)
  worker.run(one)
  for (_, alone, _), (_, together, _) in zip(one, two, strict=True):
    expected, found = (
      json.loads((folder / "result.json").read_text())
      for folder in (alone, together)
    )
    assert found["run_id"] == expected["run_id"]
    facts = "data_facts.json"
    assert (together / facts).read_text() == (alone / facts).read_text()
    compare(found["metrics"], expected["metrics"])
    compare(found["best"]["metrics"], expected["best"]["metrics"])
    assert found["best"]["step"] == expected["best"]["step"]
    lines = map(lines_without_time, (together, alone))
    for line, wanted in zip(*lines, strict=True):
      compare(line, wanted)
  scores = json.loads(((one[0][1]) / "result.json").read_text())["metrics"]
  if "translation of stubs" in chosen:  # Other texts have other scores.
    assert 0 < scores["test/chrf"] < 99


def compare(found, expected):
  assert found.keys() == expected.keys()
  np.testing.assert_allclose(
    [*found.values()], [expected[key] for key in found], CLOSE, CLOSE
  )
