"""What every task has in common."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitnet_jax.models.registry import MODELS
from bitnet_jax.train.build import build
from bitnet_jax.train.config.settings import parse_settings
from bitnet_jax.train.state import TrainState
from bitnet_jax.train.step import make_train_step
from bitnet_jax.train.tasks.facts import ArraySpec, DataFacts
from bitnet_jax.train.tasks.registry import TASKS
from bitnet_jax.train.tasks.token_prediction import (
  TokenOptions,
  TokenPrediction,
)
from tests.train import tiny

# Sums of float32 in another order.
REORDERED = 1e-5
TEXTS = [f"{letter} nest {i}" for i, letter in enumerate("abcd" * 5)]
SMOOTHED = {"task__label_smoothing": 0.3, "model__dropout": 0.5}
TOKENS = SMOOTHED | {"task__z_loss": 0.1}


def _tiny(name, header=(), line="{}"):
  def make(make_config, tmp_path, **changes):
    del make_config
    lines = [*header, *(line.format(text, text[0]) for text in TEXTS)]
    suffix = "tsv" if header else "txt"
    source = tiny.write(tmp_path / f"texts.{suffix}", lines)
    cuts = {"data__valid_fraction": 0.2, "data__test_fraction": 0.2}
    return tiny.make(name, source, **cuts, mesh__data=1, **changes)

  return make


def _config(name, **own):
  def make(make_config, tmp_path, **changes):
    if name == "docstrings_mlp":
      lines = ["label\ttext", *(f"{text[0]}\t{text}" for text in TEXTS)]
      source = tiny.write(tmp_path / "texts.tsv", lines)
      own["data__source"] = source
    return make_config(name, **own, **changes)

  return make


GRAPH = {"data__batch_size": 12, "data__eval_batch_size": 12, "model__width": 8}
# By task, a function that makes a small config, and options of training only.
CASES = {
  "causal_lm": (_tiny("decoder"), TOKENS),
  "classification": (
    _config("digits_mlp"),
    SMOOTHED | {"data__random_crop": 1, "optim__accumulate_steps": 2},
  ),
  "detection": (
    _config(
      "digits_detector",
      data__canvas=16,
      data__object_sizes=(4, 8),
      model__channels=(4, 4),
      model__convs_per_block=1,
      model__width=4,
    ),
    {"model__dropout": 0.5, "optim__accumulate_steps": 2},
  ),
  "documents": (
    _config(
      "docstrings_mlp",
      data__tokenizer="bytes",
      data__vocab_size=None,
      data__column="text",
      data__valid_fraction=0.2,
      data__test_fraction=0.2,
    ),
    SMOOTHED,
  ),
  "graph_classification": (_config("graphs_gnn", **GRAPH), SMOOTHED),
  "masked_lm": (_tiny("encoder"), TOKENS | {"data__batch_size": 4}),
  "node_classification": (
    _config(
      "karate_gnn", data__batch_size=1, data__eval_batch_size=1, model__width=8
    ),
    SMOOTHED,
  ),
  "span_corruption": (_tiny("encoder_decoder"), TOKENS),
  "text_classification": (
    _tiny("classification", ("text\tlabel",), "{}\t{}"),
    SMOOTHED | {"optim__accumulate_steps": 2},
  ),
  "translation": (_tiny("translation", ("en\tde",), "{}\t{}"), TOKENS),
}


# Tasks whose evaluation is that of others, except for a model slow to trace.
SLOW = ("causal_lm", "graph_classification", "span_corruption", "translation")


def evaluation_of(config):
  """Returns the program that evaluates a batch, as text, and a batch."""
  experiment = build(config)
  (batch, *_) = experiment.data.eval_batches("valid")
  key = jax.eval_shape(lambda: jax.random.key(0))
  variables = nn.unbox(jax.eval_shape(experiment.task.init, key))
  params = variables.pop("params")

  def totals(params, variables, batch, key):
    options = {"deterministic": True, "strength": None}
    return experiment.task.totals(params, variables, batch, key=key, **options)[
      0
    ]

  program = str(jax.make_jaxpr(totals)(params, variables, batch, key))
  return re.sub("0x[0-9a-f]+", "", program), batch  # Without addresses.


def test_every_kind_has_a_case():
  assert CASES.keys() == TASKS.keys()


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW))
    for name in CASES
  ],
)
def test_evaluation_does_not_depend_on_options_of_training(
  make_config, tmp_path, name
):
  make, changes = CASES[name]
  (program, batch), (other, same) = (
    evaluation_of(make(make_config, tmp_path, **more)) for more in ({}, changes)
  )
  assert program == other
  jax.tree.map(np.testing.assert_array_equal, batch, same)


@pytest.mark.parametrize("name", CASES)
def test_epochs_go_so_often_through_the_training_split(
  make_config, tmp_path, name
):
  """Each example is read in each epoch, and none once more in the last."""
  make, _ = CASES[name]
  config = make(make_config, tmp_path, total_steps=None, total_epochs=3)
  experiment = build(config)
  size = config["data"]["batch_size"]
  read = sum(
    rows_of(experiment.data.train_batch(i))
    for i in range(experiment.total_steps)
  )
  assert 0 <= read - 3 * experiment.data.facts.num_examples < size


def rows_of(batch):
  """Returns how many examples a training batch holds."""
  if "n_node" in batch:
    return int((batch["n_node"] > 0).sum())
  return len(batch["labels" if "labels" in batch else "tokens"])


class Table(nn.Module):
  """Logits of the next token from the last alone."""

  @nn.compact
  def __call__(self, tokens, *, deterministic=True, strength=None):
    del deterministic, strength
    return nn.Embed(11, 11)(tokens)


@pytest.mark.parametrize(
  "targets",
  [
    pytest.param([2, 0, 0, 1, 0, 0, 3, 0], id="in few parts"),
    pytest.param([0] * 8, id="in no part"),
  ],
)
def test_metrics_do_not_depend_on_accumulation(targets):
  """Also where a part of a batch has nothing to predict."""
  rng = np.random.default_rng(0)
  batch = {
    name: jnp.asarray(rng.integers(0, 11, (8, 4)), jnp.int32)
    for name in ("tokens", "targets")
  }
  counts = jnp.array(targets, jnp.float32)[:, None]
  batch["mask"] = (jnp.arange(4.0)[None] < counts).astype(jnp.float32)
  facts = DataFacts(example={"tokens": ArraySpec(shape=(1, 4), dtype="int32")})
  options = TokenOptions(label_smoothing=0.1, z_loss=0.01)
  task = TokenPrediction(Table(), facts, options)
  params, tx = task.init(jax.random.key(0))["params"], optax.sgd(1.0)
  state = TrainState(jnp.int32(0), params, tx.init(params), {})
  found = {}
  for parts in (1, 2, 8):
    step = make_train_step(task, tx, lambda _: 1.0, accumulate_steps=parts)
    found[parts] = jax.jit(step)(state, batch, jax.random.key(0))
  for after, metrics in found.values():
    for name, value in metrics.items():
      np.testing.assert_allclose(value, found[1][1][name], REORDERED)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, REORDERED, REORDERED),
      after.params,
      found[1][0].params,
    )


def test_every_model_is_taken_by_a_task():
  taken = [name for spec in TASKS.values() for name in spec.models]
  assert {*taken} == {*MODELS}


@pytest.mark.parametrize(
  ("config_name", "model", "models"),
  [
    ("digits_mlp", "decoder", "cnn, mlp, vit"),
    ("graphs_gnn", "encoder", "gnn"),
  ],
)
def test_model_for_other_tasks_is_named(
  make_config, config_name, model, models
):
  config = make_config(config_name, model__name=model)
  message = f"'{model}', which is not for .*; the models for it are: {models}$"
  with pytest.raises(ValueError, match=message):
    parse_settings(config, TASKS)
