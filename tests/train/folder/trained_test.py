"""Models of runs, opened without the data."""

import json

import jax
import numpy as np
import pytest

from bitnet_jax.train import build as building
from bitnet_jax.train import model, runner
from bitnet_jax.train.build import build
from bitnet_jax.train.config.settings import MeshOptions
from bitnet_jax.train.folder import data_facts, workdir
from bitnet_jax.train.folder.seals import Progress
from bitnet_jax.train.folder.trained import load_model
from tests.train.tasks.registry_test import CASES, SLOW


def save(config, folder):
  """Writes what a run has at its start, with fresh parameters."""
  folder.mkdir()
  experiment = build(config, folder)
  workdir.claim(folder, experiment.config, experiment.fingerprint)
  data = experiment.data
  data_facts.claim(folder, data.facts, data.tokenizer, experiment.settings.data)
  with experiment.activate():
    state = experiment.init()
  checkpoints = experiment.checkpoints(folder)
  checkpoints.save(0, state, progress=Progress(), metrics={})
  checkpoints.wait()
  return experiment, state


@pytest.fixture
def no_data(monkeypatch):
  """Nothing loads data any more, once it is called."""

  def load(*_):
    raise AssertionError("the data were loaded")

  return lambda: monkeypatch.setattr(building, "load_data", load)


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW))
    for name in CASES
  ],
)
def test_model_of_every_task_is_loaded_without_data(
  make_config, tmp_path, no_data, name
):
  config = CASES[name][0](make_config, tmp_path)
  experiment, state = save(config, tmp_path / "run")
  no_data()
  found = load_model(tmp_path / "run")
  assert found.step == 0
  # Model, facts and options are equal, and so is what they compute.
  assert found.task == experiment.task
  own, tokenizer = experiment.data.tokenizer, found.tokenizer
  assert getattr(own, "fingerprint", None) == getattr(
    tokenizer, "fingerprint", None
  )
  expected = {"params": state.params, **state.variables}
  jax.tree.map(np.testing.assert_array_equal, found.variables, expected)
  assert [layer.path for layer in found.layers] == [
    layer.path for layer in experiment.layers
  ]


def test_run_without_the_file_is_opened_with_its_data_and_gets_it(run, no_data):
  _, folder = run(total_steps=4)
  path = folder / "data_facts.json"
  text = path.read_text()
  expected = load_model(folder)
  path.unlink()
  found = load_model(folder)
  assert found.task.facts == expected.task.facts
  jax.tree.map(
    np.testing.assert_array_equal, found.variables, expected.variables
  )
  run(total_steps=4)  # It is finished, and records its facts.
  assert path.read_text() == text
  no_data()
  load_model(folder)


@pytest.mark.parametrize(
  ("sizes", "expected"),
  [
    ((-1, 1, 1), (8, 1, 1)),
    ((2, 2, 1), (2, 2, 1)),
    ((16, 1, 1), (8, 1, 1)),
    ((1, 16, 1), (1, 8, 1)),
    ((1, 3, -1), (1, 8, 1)),
  ],
)
def test_mesh_is_that_of_the_config_or_of_all_devices(sizes, expected):
  options = MeshOptions(data=sizes[0], fsdp=sizes[1], tensor=sizes[2])
  found = model.mesh_of_this_machine(options)
  assert tuple(found.shape.values()) == expected


@pytest.mark.parametrize(("width", "is_split"), [(12, False), (16, True)])
def test_axis_that_devices_do_not_divide_is_not_split(
  make_config, tmp_path, no_data, width, is_split
):
  config = make_config(model__width=width, mesh__data=1)
  _, state = save(config, tmp_path / "run")
  path = tmp_path / "run" / "config.json"
  content = json.loads(path.read_text())
  content["mesh"] = {"data": 1, "fsdp": -1, "tensor": 1}
  path.write_text(json.dumps(content))
  no_data()
  found = load_model(tmp_path / "run")
  assert dict(found.mesh.shape) == {"data": 1, "fsdp": 8, "tensor": 1}
  kernels = jax.tree.leaves(found.variables["params"])
  whole = [x.sharding.is_fully_replicated for x in kernels if x.ndim > 1]
  assert all(whole) != is_split
  jax.tree.map(
    np.testing.assert_array_equal, found.variables["params"], state.params
  )


@pytest.mark.slow
def test_facts_that_do_not_fit_are_named(run):
  _, folder = run(total_steps=1)
  path = folder / "data_facts.json"
  facts = json.loads(path.read_text())
  path.write_text(json.dumps({**facts, "num_classes": 7}))
  message = r"params/head/.* has the shape \(.*10.*\) there, \(.*7.*\) in the"
  with pytest.raises(ValueError, match=message):
    load_model(folder)
  path.write_text(json.dumps({**facts, "fingerprint": "other"}))
  with pytest.raises(ValueError, match=r"data_facts.json is of other data"):
    load_model(folder)
  path.write_text("{")
  with pytest.raises(ValueError, match=r"data_facts.json is damaged"):
    load_model(folder)


@pytest.mark.slow
def test_best_checkpoint_is_loaded_with_batch_statistics(make_config, tmp_path):
  config = make_config(
    "digits_cnn",
    model__channels=(2,),
    model__dense_width=4,
    model__batch_norm=True,
    data__eval_batch_size=200,
    total_steps=4,
    eval_every=1,
    checkpoint_every=1,
    checkpoint__keep_best=2,
  )
  result = runner.run(config, tmp_path / "run")
  found = load_model(tmp_path / "run", "best")
  assert found.step == result["best"]["step"]
  assert found.variables["batch_stats"]
  _, state = runner.load_run(tmp_path / "run", "best")
  jax.tree.map(
    np.testing.assert_array_equal,
    found.variables,
    {"params": state.params, **state.variables},
  )
