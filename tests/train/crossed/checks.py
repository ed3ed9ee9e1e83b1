"""What must hold of a run, whatever options are combined."""

import copy
import json
import math
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from bitnet_jax.programs import frozen
from bitnet_jax.train import build as building
from bitnet_jax.train import runner
from bitnet_jax.train.devices.mesh import place_batch
from bitnet_jax.train.folder.checkpoint import Checkpoints
from tests.train import tiny
from tests.train.conftest import lines_without_time
from tests.train.crossed import cases
from tests.train.runner_test import stop_after

# Sums in another order, as of batches of another size; in bfloat16 or where
# codes may flip, of a few examples.
CLOSE, ROUGH = 1e-5, 2e-2

# What decides how a network is trained, but not what it computes.
_TRAINING = {
  "steps_per_dispatch": 1,
  "init_from": None,
  "distill__teacher": None,
  "early_stopping__patience": None,
  "checkpoint__keep_best": 1,
  "task__label_smoothing": 0.0,
  "task__z_loss": 0.0,
  "data__random_crop": 0,
  "data__random_flip": False,
  "model__dropout": 0.0,
  "model__remat": "none",
  "quant__backward": None,
  "quant__ste": None,
  "quant__weights__rounding": None,
  "quant__phase_in__start": 0,
  "quant__phase_in__steps": 0,
  "optim__accumulate_steps": 1,
  "optim__gradient_dtype": "float32",
  "optim__clip_norm": None,
}
# With these, a step is random, or its parts do not add up to the whole.
_PARTS_DIFFER = {
  "dropout",
  "stochastic weights",
  "backward int8",
  "batch norm",
}


class Finished(NamedTuple):
  """A finished run.

  Attributes:
    case: its options.
    config: of it.
    folder: its workdir.
    result: what ``runner.run`` returned.
  """

  case: cases.Case
  config: dict[str, Any]
  folder: pathlib.Path
  result: dict[str, Any]

  @property
  def experiment(self) -> Any:
    """What was built of the config."""
    return runner.build(self.config, self.folder)

  def state(self, folder: pathlib.Path | None = None) -> Any:
    """Returns the last state in a folder of this run."""
    experiment = self.experiment
    kept = Checkpoints.of_run(
      folder or self.folder, experiment.settings.checkpoint
    )
    with experiment.activate():
      return kept.restore(kept.steps()[-1], experiment.init())


def result_is_complete(run: Finished) -> None:
  """``result.json`` has every metric, of the last step and of the best."""
  assert json.loads((run.folder / "result.json").read_text()) == run.result
  experiment = run.experiment
  wanted = {
    f"{split}/{name}"
    for split in experiment.data.facts.splits
    if split != "train"
    for name in experiment.task.metric_names
  }
  logged = {line["step"]: line for line in lines_without_time(run.folder)}
  assert [*logged] == [*range(1, run.result["step"] + 1)]
  assert run.result["best"]["step"] == best_step(run, logged)
  for found in (run.result, run.result["best"]):
    assert wanted <= found["metrics"].keys()
    assert all(math.isfinite(value) for value in found["metrics"].values())
    line = logged[found["step"]]
    evaluated = {name for name in line if name.startswith("valid/")}
    assert evaluated
    for name in evaluated:
      assert line[name] == found["metrics"][name], name


def best_step(run: Finished, logged: dict[int, dict[str, float]]) -> int:
  """Returns the step of the best evaluation under full quantization."""
  settings = run.experiment.settings
  options, phase_in = settings.checkpoint, settings.quant.phase_in
  values = {
    step: line[options.metric]
    for step, line in logged.items()
    if options.metric in line and phase_in.strength(step) is None
  }
  choose = max if options.mode == "max" else min
  return choose(values, key=lambda step: values[step])


def resumed_is_uninterrupted(run: Finished) -> None:
  """A run that is stopped and goes on ends the same, to the bit."""
  folder = run.folder.with_name("resumed")
  with pytest.MonkeyPatch.context() as patch:
    stop_after(patch, cases.STOPPED_AT)
    with pytest.raises(runner.Interrupted):
      runner.run(run.config, folder)
  result = runner.run(run.config, folder)
  assert result["metrics"] == run.result["metrics"]
  assert lines_without_time(folder) == lines_without_time(run.folder)
  jax.tree.map(
    np.testing.assert_array_equal, run.state(folder), run.state(run.folder)
  )


def evaluation_is_free_of_training(run: Finished) -> None:
  """The metrics of a state depend on its network and on the data alone."""
  config = copy.deepcopy(run.config)
  for key, value in _TRAINING.items():
    if _has(config, key):
      tiny.override(config, {key: value})
  config["mesh"] = {"data": 1, "fsdp": 1, "tensor": 1}
  tiny.override(config, {"data__eval_batch_size": _other_batch(config)})
  experiment = runner.build(config)
  state = jax.device_get(run.state())
  with experiment.activate():
    found = experiment.evaluator()("valid", state)
  expected = {
    name.removeprefix("valid/"): value
    for name, value in run.result["metrics"].items()
    if name.startswith("valid/") and name.removeprefix("valid/") in found
  }
  assert found == pytest.approx(expected, rel=_tolerance(run), abs=CLOSE)


def best_can_be_frozen(run: Finished) -> None:
  """The best checkpoint becomes a frozen model that has its metrics.

  Its data are not needed for that.
  """
  expected = runner.evaluate_run(run.folder, "best")
  output = run.folder.with_name("frozen")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(building, "load_data", None)
    assert runner.load_model(run.folder, "best").step == expected["step"]
    if "float" in run.case.options:
      return
    frozen.freeze_run(run.folder, output, "best")
  found = frozen.evaluate_frozen(output)
  assert found["step"] == expected["step"]
  assert found["metrics"] == pytest.approx(expected["metrics"], rel=CLOSE)


def accumulation_is_exact(run: Finished) -> None:
  """The first step has the metrics of one that takes its batch at once."""
  options = {*run.case.options}
  if "accumulation" not in options or options & _PARTS_DIFFER:
    return
  config = copy.deepcopy(run.config)
  tiny.override(config, {"optim__accumulate_steps": 1})
  experiment = runner.build(config)
  strength = experiment.settings.quant.phase_in.strength(0)
  with experiment.activate():
    batch = place_batch(
      experiment.data.train_batch(0),
      experiment.mesh,
      full_graph=experiment.full_graph,
    )
    _, metrics = experiment.train_step()(
      experiment.start(), batch, experiment.train_key(), strength
    )
  logged = lines_without_time(run.folder)[0]
  found = {f"train/{n}": float(value) for n, value in metrics.items()}
  expected = {n: v for n, v in logged.items() if n in found}
  assert found == pytest.approx(expected, rel=_tolerance(run), abs=CLOSE)


CHECKS = (
  result_is_complete,
  resumed_is_uninterrupted,
  evaluation_is_free_of_training,
  best_can_be_frozen,
  accumulation_is_exact,
)


def _has(config, key):
  *groups, last = key.split("__")
  for group in groups:
    config = config[group]
  return last in config


def _other_batch(config):
  size = config["data"]["eval_batch_size"]
  return None if size is None else size // 2


def _tolerance(run):
  rough = {
    "bfloat16 model",
    "bfloat16 parameters",
    "fully sharded",
    "tensor parallel",
    "data parallel",
  }
  return ROUGH if rough & {*run.case.options} else CLOSE
