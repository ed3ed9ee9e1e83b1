"""The wide perceptron over bags of pieces: what it sums, and what not."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax import layers
from bitnet_jax.models.wide_mlp import WideMlp, WideMlpConfig
from tests.models.conftest import EVERY_RECIPE

CONFIG = WideMlpConfig(
  width=32,
  dropout=0.0,
  vocab_size=7,
  num_classes=4,
  dtype="float32",
  param_dtype="float32",
)
# Pieces, documents and weights; the third document repeats a piece.
BAGS = (
  jnp.array([0, 1, 2, 3, 4, 4, 5]),
  jnp.array([0, 0, 1, 1, 2, 2, 3]),
  jnp.array([0.5, 0.5, 0.5, 0.5, 0.25, 0.75, 1.0]),
)


class OnBags:
  """The model with its three arrays as one input, and four documents."""

  def __init__(self, recipe="b158", **changes):
    self.model = WideMlp(dataclasses.replace(CONFIG, **changes), recipe)
    self.call = functools.partial(self.model.apply, num_documents=4)

  def init(self, key, bags):
    return self.model.init(key, *bags, num_documents=4)

  def apply(self, variables, bags, **kwargs):
    return self.call(variables, *bags, **kwargs)


def init(model):
  return nn.unbox(model.init(jax.random.key(0), BAGS))


def test_parameters_are_those_of_the_golden_file(check_golden):
  check_golden("wide_mlp", OnBags(), BAGS)


@pytest.mark.parametrize("recipe", EVERY_RECIPE)
def test_overfits_one_batch(overfit, recipe):
  losses = overfit(OnBags(recipe), BAGS, jnp.arange(4))
  assert losses[0] > 0.9  # Chance is ln 4 = 1.39.
  assert losses[-1] < 0.3


def test_hidden_layer_is_the_mean_of_embeddings():
  model = OnBags("float")
  params = init(model)["params"]
  table = np.asarray(params["embedding"])
  means = [table[[0, 1]], table[[2, 3]], table[[4, 4]], table[[5]]]
  hidden = np.maximum([rows.mean(0) for rows in means], 0)
  head = jax.tree.map(np.asarray, params["head"])
  expected = hidden @ head["kernel"] + head["bias"]
  found = model.apply({"params": params}, BAGS)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_order_of_entries_does_not_matter():
  model = OnBags("float")
  variables = init(model)
  shuffled = tuple(array[::-1] for array in BAGS)
  np.testing.assert_allclose(
    model.apply(variables, shuffled),
    model.apply(variables, BAGS),
    atol=1e-6,
  )


def test_entries_of_no_document_are_left_out():
  model = OnBags()
  variables = init(model)
  more = (
    jnp.append(BAGS[0], 6),
    jnp.append(BAGS[1], 4),
    jnp.append(BAGS[2], 9.0),
  )
  np.testing.assert_array_equal(
    model.apply(variables, more), model.apply(variables, BAGS)
  )


@pytest.mark.parametrize("recipe", ["float", "b158"])
def test_document_depends_on_its_own_pieces_only(recipe):
  model = OnBags(recipe)
  params = init(model)["params"]

  def logit(table, document):
    logits = model.apply({"params": {**params, "embedding": table}}, BAGS)
    return logits[document].sum()

  for document, pieces in enumerate([(0, 1), (2, 3), (4,), (5,)]):
    grads = jax.grad(logit)(params["embedding"], document)
    reached = np.flatnonzero(np.abs(grads).sum(1))
    assert reached.tolist() == list(pieces)


def test_dropout_leaves_out_hidden_units_in_training_only():
  model = OnBags("float", dropout=0.5)
  variables = init(model)
  logits = [
    model.apply(
      variables, BAGS, deterministic=False, rngs={"dropout": jax.random.key(i)}
    )
    for i in range(2)
  ]
  assert np.abs(logits[0] - logits[1]).max() > 1e-3
  plain = OnBags("float").apply(variables, BAGS)
  np.testing.assert_array_equal(model.apply(variables, BAGS), plain)


def test_head_alone_is_quantized():
  model = OnBags()
  found = layers.bit_layers(model.model, *BAGS, num_documents=4)
  assert [layer.path for layer in found] == ["head"]
  assert found[0].recipe.weights is not None


def test_dtypes_are_those_of_the_config():
  model = OnBags(dtype="bfloat16")
  variables = init(model)
  assert model.apply(variables, BAGS).dtype == jnp.bfloat16
  assert variables["params"]["embedding"].dtype == jnp.float32


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"width": 0}, "model.width is 0"),
    ({"vocab_size": 0}, "model.vocab_size is 0"),
    ({"dropout": 1.0}, "model.dropout is 1.0"),
    ({"dtype": "float8"}, "model.dtype is 'float8'"),
  ],
)
def test_bad_sizes_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(CONFIG, **changes)
