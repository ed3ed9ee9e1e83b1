"""Data, batches and losses of every config are those that were recorded.

A refactoring must leave all of this as it is. ``UPDATE_GOLDEN=1`` records what
a change on purpose makes different; run it with ``-n 0``.
"""

import hashlib
import json
import os
import pathlib
import pydoc_data.topics
import re
import runpy
from unittest import mock

import numpy as np
import pytest
import tensorflow_datasets as tfds

# What follows, up to the line, is all that knows where code stands.
from bitnet_jax.train import build as building
from bitnet_jax.train.build import build
from bitnet_jax.train.runner import load_config
from bitnet_jax.train.tasks import base
from tests import guarded_data
from tests.data.sources.planetoid_test import dump
from tests.guarded_cases import ASKED, CASES, REAL, SHARED
from tests.train.conftest import losses_of


def experiment_of(config, process_index=0, process_count=1):
  """Returns the experiment of a config, as one of some processes has it.

  To trace the model takes most of the time, and has no part in the data.
  """
  part = process_index, process_count
  with (
    mock.patch.object(building, "batch_part", lambda _: part),
    mock.patch.object(base, "find_layers", lambda *_, **__: ()),
  ):
    return build(config)


def fresh_metrics(experiment, split):
  """Returns the metrics of a split for fresh parameters."""
  with experiment.activate():
    return experiment.evaluator()(split, experiment.init())


# -----------------------------------------------------------------------------

TESTS = pathlib.Path(__file__).parent
CONFIGS = TESTS.parent / "configs"
GOLDEN = TESTS / "testdata" / "guards.json"
STEPS = (0, 1, 1_000)
# Losses may differ so much, of other processors and versions of jax.
TOLERANCE = 2e-3

# By the model of a config: what makes it small. Of no effect on batches.
_TRANSFORMER = {
  "model.hidden": 16,
  "model.num_layers": 2,
  "model.num_heads": 2,
  "model.num_kv_heads": 2,
  "model.head_dim": None,
  "model.mlp_width": 24,
  "model.dtype": "float32",
}
SMALL = {
  "mlp": {"model.width": 16},
  "wide_mlp": {"model.width": 16},
  "cnn": {"model.channels": (4, 8), "model.dense_width": 16},
  "detector": {"model.channels": (4, 8), "model.width": 16},
  "gnn": {"model.width": 16},
  "vit": _TRANSFORMER,
  "encoder": _TRANSFORMER,
  "decoder": _TRANSFORMER,
  "encoder_decoder": _TRANSFORMER | {"model.num_decoder_layers": 2},
}
# The length of a run, and one device.
RUN = {
  "total_steps": 20,
  "total_epochs": None,
  "optim.warmup_steps": 2,
  "mesh.data": 1,
  "mesh.fsdp": 1,
}
# Sets that are prepared before they are read.
PREPARED = {"planetoid_gnn": {"data.data_dir": "data/prepared"}}
# By key of ``data``, where a config has it: what makes training small.
SHORT = {
  "batch_size": 8,
  "eval_batch_size": 8,
  "seq_len": 16,
  "input_len": 12,
  "target_len": 12,
}

NAMES = sorted(path.stem for path in CONFIGS.glob("*.py"))


def variants_of(name):
  """Returns the default variant of a config, and those with other data."""
  path = CONFIGS / f"{name}.py"
  found, seen = [], []
  module = runpy.run_path(str(path))
  default = module["get_config"].__defaults__[0]
  for variant in (default, *module["VARIANTS"]):
    config = module["get_config"](variant).to_dict()
    data = config["task"], config["data"], config["seed"]
    if data not in seen:
      seen.append(data)
      found.append(f"{name}:{variant}")
  return found


def load(name, overrides):
  """Loads a config by ``name:variant``, made small."""
  base = name.partition(":")[0]
  path = f"{CONFIGS / base}.py{name[len(base) :]}"
  model = load_config(path)["model"]["name"]
  small = RUN | SMALL[model] | PREPARED.get(base, {}) | overrides
  return load_config(path, small)


OF_CONFIGS = {
  case: (case, ASKED.get(case, {}))
  for name in NAMES
  for case in variants_of(name)
}
ALL = OF_CONFIGS | CASES | SHARED
# Variants whose losses tell what those of the default do not.
LOSSES = [
  *(variants_of(name)[0] for name in NAMES),
  "bitnet_decoder:2B4T",
  "glue_encoder:mrpc",
  "glue_encoder:stsb",
  *(f"graphs_gnn:{kind}" for kind in ("sgc", "sage", "gat")),
  "karate_gnn:gat",
  *(f"planetoid_gnn:{kind}" for kind in ("gcn", "sage", "gat")),
  "pydoc_decoder:2b4t",
]
QUICK = (
  "digits_mlp:S",
  "docstrings_mlp:S",
  "planetoid_gnn:sgc",
)


@pytest.fixture(scope="module", autouse=True)
def made_up(tmp_path_factory):
  """Puts the small data sets where the configs look for data."""
  folder = tmp_path_factory.mktemp("guards")
  guarded_data.write(folder, dump)
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    patch.setattr(tfds, "builder", guarded_data.prepared)
    topics = guarded_data.pydoc_topics()
    patch.setattr(pydoc_data.topics, "topics", topics)
    get_path = guarded_data.get_path(folder)
    patch.setattr("sysconfig.get_path", get_path)
    yield


def check(group, case, found):
  """Compares with what was recorded, or records it."""
  content = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
  if os.environ.get("UPDATE_GOLDEN") == "1":
    content.setdefault(group, {})[case] = found
    GOLDEN.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
  return content[group][case]


def digest(batches):
  """Returns the SHA-256 of names, dtypes, shapes and bytes of batches."""
  total = hashlib.sha256()
  for batch in batches:
    for name in sorted(batch):
      array = np.asarray(batch[name])
      total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
      total.update(np.ascontiguousarray(array).tobytes())
  return total.hexdigest()


def describe(experiment):
  """Returns all that the data of an experiment decide, as JSON has it."""
  data, facts = experiment.data, experiment.data.facts
  first = data.train_batch(0)
  found = {
    # Embedded data are named by the version of the library they come from.
    "fingerprint": re.sub(r" \d+(\.\d+)+\b", " VERSION", facts.fingerprint),
    "examples": facts.num_examples,
    "batches_per_epoch": facts.batches_per_epoch,
    "tokens": data.tokens,
    "metrics": sorted(experiment.task.metric_names),
    "arrays": {
      name: f"{array.dtype} {list(array.shape)}"
      for name, array in sorted(first.items())
    },
    "train": {step: digest([data.train_batch(step)]) for step in STEPS},
    "evaluation": {},
  }
  for split in facts.splits:
    batches = list(data.eval_batches(split))
    found["evaluation"][split] = [len(batches), digest(batches)]
  return json.loads(json.dumps(found))


@pytest.mark.parametrize("case", ALL)
def test_batches_are_those_recorded(case):
  name, overrides = ALL[case]
  part = (1, 2) if case.endswith(" of two") else (0, 1)
  found = describe(experiment_of(load(name, overrides), *part))
  assert found == check("batches", case, found)


@pytest.mark.slow
@pytest.mark.parametrize("case", REAL)
def test_batches_of_published_data_are_those_recorded(case, data_dir):
  name, overrides = REAL[case]
  placed = {
    key: value.replace("{data}", str(data_dir))
    if isinstance(value, str)
    else value
    for key, value in overrides.items()
  }
  found = describe(experiment_of(load(name, placed)))
  assert found == check("published", case, found)


def short(name):
  """Returns what makes the training of a config short."""
  data = load(name, {})["data"]
  return {
    f"data.{key}": min(value, data[key])
    for key, value in SHORT.items()
    if data.get(key)
  }


@pytest.mark.parametrize(
  "case",
  [
    pytest.param(case, marks=[pytest.mark.slow] * (case not in QUICK))
    for case in LOSSES
  ],
)
def test_losses_and_metrics_are_those_recorded(case):
  experiment = build(load(case, ASKED.get(case, {}) | short(case)))
  split = "valid" if "valid" in experiment.data.facts.splits else "test"
  found = {
    "losses": losses_of(experiment, 5),
    "metrics": fresh_metrics(experiment, split),
  }
  expected = check("losses", case, found)
  assert found["losses"] == pytest.approx(expected["losses"], rel=TOLERANCE)
  assert found["metrics"] == pytest.approx(
    expected["metrics"], rel=TOLERANCE, abs=TOLERANCE
  )


def test_nothing_else_is_recorded():
  content = json.loads(GOLDEN.read_text())
  assert content["batches"].keys() == ALL.keys()
  assert content["losses"].keys() == set(LOSSES)
  assert content["published"].keys() == REAL.keys()
