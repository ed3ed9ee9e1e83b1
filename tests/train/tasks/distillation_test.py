"""Learning from another network."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.folder.metrics import read_metrics
from bitnet_jax.train.tasks.distillation import divergence


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, make_config):
  """A float network that has learned the digits."""
  folder = tmp_path_factory.mktemp("teacher") / "run"
  config = make_config(
    total_steps=60, model__width=32, quant__recipe="float", quant__rules=()
  )
  runner.run(config, folder)
  return folder


def taught(make_config, teacher, **overrides):
  return make_config(distill__teacher=str(teacher), **overrides)


def totals_of(experiment, *, deterministic=False):
  task = experiment.task if deterministic else experiment.train_task
  with experiment.activate():
    state = experiment.init()
    batch = experiment.data.train_batch(0)
    found, _ = jax.jit(
      lambda p, b: task.totals(
        p,
        {},
        b,
        key=jax.random.key(0),
        deterministic=deterministic,
        strength=None,
      )
    )(state.params, batch)
  return found, state, batch


def test_divergence_is_that_of_the_distributions():
  rng = np.random.default_rng(0)
  student, teacher = rng.normal(size=(2, 4, 5))
  for temperature in (1.0, 3.0):
    p, q = (
      np.exp(x / temperature) / np.exp(x / temperature).sum(-1, keepdims=True)
      for x in (teacher, student)
    )
    expected = temperature**2 * (p * np.log(p / q)).sum(-1)
    found = divergence(jnp.asarray(student), jnp.asarray(teacher), temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert not divergence(jnp.asarray(teacher), jnp.asarray(teacher), 2.0).any()


@pytest.mark.slow
def test_loss_is_a_mixture(make_config, teacher):
  alone, *_ = totals_of(build(make_config()))
  for weight in (0.0, 0.25, 1.0):
    config = taught(make_config, teacher, distill__weight=weight)
    found, *_ = totals_of(build(config))
    expected = (1 - weight) * alone["loss"] + weight * found["divergence"]
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-6)
    assert found["divergence"] > 0


def test_evaluation_is_that_of_the_task(make_config, teacher):
  alone, *_ = totals_of(build(make_config()), deterministic=True)
  found, *_ = totals_of(build(taught(make_config, teacher)), deterministic=True)
  assert found.keys() == alone.keys()
  assert found["loss"] == alone["loss"]


def test_teacher_that_is_the_student_teaches_nothing(make_config, teacher):
  config = taught(
    make_config,
    teacher,
    model__width=32,
    quant__recipe="float",
    quant__rules=(),
    model__dropout=0.0,
    init_from=str(teacher),
    distill__weight=1.0,
    optim__weight_decay=0.0,
  )
  experiment = build(config)
  task = experiment.train_task
  params = experiment.start().params
  batch = jax.tree.map(jnp.asarray, experiment.data.train_batch(0))

  def loss(params):
    found, _ = task.totals(
      params,
      {},
      batch,
      key=jax.random.key(0),
      deterministic=False,
      strength=None,
    )
    return found["loss"]

  value, grads = jax.jit(jax.value_and_grad(loss))(params)
  assert abs(value) < 1e-3
  assert max(jnp.abs(g).max() for g in jax.tree.leaves(grads)) < 1e-3


@pytest.mark.slow
def test_run_learns_from_its_teacher_alone(make_config, teacher, tmp_path):
  config = taught(
    make_config, teacher, distill__weight=1.0, total_steps=60, eval_every=60
  )
  result = runner.run(config, tmp_path / "run")
  assert result["metrics"]["test/accuracy"] > 0.5
  logged = read_metrics(tmp_path / "run")
  assert any("train/divergence" in line for line in logged)
  # What was learned from is not needed to evaluate it.
  teacher.rename(teacher.with_name("elsewhere"))
  try:
    found = runner.evaluate_run(tmp_path / "run")
  finally:
    teacher.with_name("elsewhere").rename(teacher)
  same = {n: result["metrics"][n] for n in ("test/accuracy", "test/loss")}
  assert same.items() <= found["metrics"].items()


@pytest.mark.slow
def test_other_family_may_teach(make_config, teacher):
  config = taught(make_config, teacher, config_name="digits_cnn")
  found, *_ = totals_of(build(config))
  assert np.isfinite(found["divergence"])


@pytest.mark.slow
def test_features_are_compared(make_config, teacher):
  options = dict(model__width=32, distill__weight=0.0)
  plain, *_ = totals_of(build(taught(make_config, teacher, **options)))
  config = taught(
    make_config, teacher, distill__features=("layer_0",), **options
  )
  experiment = build(config)
  found, state, batch = totals_of(experiment)
  task = experiment.distillation
  (inputs,), _ = task.student.inputs(jax.tree.map(jnp.asarray, batch))

  def layer(model, params):
    _, seen = model.apply(
      {"params": jax.tree.map(jnp.asarray, nn.unbox(params))},
      inputs,
      capture_intermediates=lambda module, _: module.name == "layer_0",
    )
    return seen["intermediates"]["layer_0"]["__call__"][0]

  own, theirs = (
    layer(task.student.model, state.params),
    layer(task.teacher.model, task.variables["params"]),
  )
  expected = np.square(np.asarray(own) - np.asarray(theirs)).mean(-1).sum()
  np.testing.assert_allclose(found["loss"] - plain["loss"], expected, rtol=1e-3)


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    (dict(distill__weight=1.5), r"distill.weight is 1.5; it must lie"),
    (dict(distill__temperature=0.0), r"distill.temperature is 0.0; it must"),
    (dict(distill__features=("nose",)), "'nose', which the student does not"),
    (dict(distill__features=("layer_0",)), r"layer_0 has the shape \(1, 32\)"),
    (
      dict(
        config_name="karate_gnn",
        data__batch_size=1,
        data__eval_batch_size=1,
      ),
      "trained for task.name 'classification', not 'node_classification'",
    ),
  ],
)
def test_mistakes_are_named(make_config, teacher, overrides, message):
  with pytest.raises(ValueError, match=message):
    build(taught(make_config, teacher, **overrides))


def test_teacher_that_is_not_yet_ternary_is_refused(make_config, tmp_path):
  late = make_config(total_steps=4, quant__phase_in__start=6)
  runner.run(late, tmp_path / "run")
  with pytest.raises(ValueError, match=r"being phased in; .* from step 6 on"):
    build(taught(make_config, tmp_path / "run"))


@pytest.mark.slow
def test_data_of_another_shape_are_named(make_config, tmp_path):
  cnn = make_config("digits_cnn", total_steps=1, eval_every=1)
  runner.run(cnn, tmp_path / "run")
  with pytest.raises(ValueError, match="which does not take this data"):
    build(taught(make_config, tmp_path / "run", config_name="xor_mlp"))


def test_missing_teacher_is_named(make_config, tmp_path):
  with pytest.raises(
    ValueError, match=r"distill.teacher is .*nowhere: .*no run"
  ):
    build(make_config(distill__teacher=str(tmp_path / "nowhere")))


def test_run_is_named_by_its_teacher(make_config, teacher):
  alone, one = build(make_config()), build(taught(make_config, teacher))
  assert alone.run_id != one.run_id
  other = taught(make_config, f"{teacher.parent}/./run")
  assert build(other).run_id == one.run_id


def test_folders_of_earlier_versions_are_read(make_config, tmp_path):
  """They know nothing of teachers, and of an optimizer that is reset."""
  result = runner.run(make_config(total_steps=4), tmp_path / "run")
  path = tmp_path / "run" / "config.json"
  config = json.loads(path.read_text())
  del config["distill"], config["quant"]["phase_in"]["optimizer"]
  path.write_text(json.dumps(config))
  found = runner.evaluate_run(tmp_path / "run")
  assert found["run_id"] == result["run_id"]
  build(make_config(distill__teacher=str(tmp_path / "run")))
  assert runner.run(make_config(total_steps=4), tmp_path / "run") == result
