"""Batch statistics stay with the parameters that they belong to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.export.runs import export_run
from bitnet_jax.inference.tensors import load_tensors
from bitnet_jax.programs import frozen
from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.tasks.distillation import divergence
from tests.train.conftest import final_state

OPTIONS = {
  "config_name": "digits_cnn",
  "total_steps": 4,
  "statistics_every": 0,
  "model__batch_norm": True,
  "model__channels": (4,),
  "model__dense_width": 8,
  "model__dropout": 0.0,
}
MEAN = ("batch_stats", "norm_0_0", "mean")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory, make_config):
  """A run whose statistics have moved: config, folder, result, variables."""
  folder = tmp_path_factory.mktemp("earlier") / "run"
  config = make_config(**OPTIONS)
  result = runner.run(config, folder)
  state = final_state(config, folder)
  assert np.abs(state.variables["batch_stats"]["norm_0_0"]["mean"]).max() > 0
  return config, folder, result, {"params": state.params, **state.variables}


def test_run_starts_with_the_statistics_of_the_earlier_one(
  earlier, make_config, caplog
):
  _, folder, result, variables = earlier
  experiment = build(make_config(**OPTIONS, init_from=str(folder), seed=1))
  with experiment.activate():
    state = experiment.start()
    found = experiment.evaluator()("test", state)
  jax.tree.map(
    np.testing.assert_array_equal,
    {"params": state.params, **state.variables},
    variables,
  )
  assert {f"test/{n}": v for n, v in found.items()}.items() <= (
    result["metrics"].items()
  )
  assert caplog.records[-1].message == (
    f"10 of 10 variables of the model are loaded from {folder}; unused there:"
    " none; freshly initialized: none"
  )


def test_statistics_that_only_one_run_has_are_named(
  earlier, make_config, caplog
):
  _, folder, *_ = earlier
  plain = OPTIONS | {"model__batch_norm": False}
  experiment = build(make_config(**plain, init_from=str(folder)))
  with experiment.activate():
    experiment.start()
  assert (
    "batch_stats/norm_0_0/mean, batch_stats/norm_0_0/var"
    in (caplog.records[-1].message.partition("unused there: ")[2])
  )


def test_teacher_is_evaluated_with_its_statistics(earlier, make_config):
  """What a step learns from is what the teacher says when it is evaluated."""
  _, folder, _, learned = earlier
  experiment = build(make_config(**OPTIONS, distill__teacher=str(folder)))
  task = experiment.distillation
  batch = jax.tree.map(jnp.asarray, experiment.data.train_batch(0))

  @jax.jit
  def diverge(learned, params, variables):
    totals, _ = task.totals(
      params,
      variables,
      batch,
      key=jax.random.key(0),
      deterministic=False,
      strength=None,
    )
    (inputs,), _ = task.student.inputs(batch)
    teacher = task.student.model.apply(learned, inputs)
    student, _ = task.student.model.apply(
      {"params": params, **variables},
      inputs,
      deterministic=False,
      mutable=["batch_stats"],
    )
    return totals["divergence"], divergence(student, teacher, 2.0).sum()

  with experiment.activate():
    state = experiment.init()
    found, expected = diverge(learned, state.params, state.variables)
  assert expected > 0
  np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_exports_hold_the_statistics(earlier, tmp_path):
  _, folder, result, variables = earlier
  frozen.freeze_run(folder, tmp_path / "frozen")
  found = frozen.evaluate_frozen(tmp_path / "frozen")
  assert result["metrics"].items() <= found["metrics"].items()
  export_run(folder, tmp_path / "latent", "safetensors")
  tensors, _ = load_tensors(tmp_path / "latent" / "model.safetensors")
  mean = variables["batch_stats"]["norm_0_0"]["mean"]
  np.testing.assert_array_equal(
    tensors["/".join(MEAN)], mean.astype(jnp.bfloat16)
  )
