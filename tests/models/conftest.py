"""Listing of a model's parameters, and its golden file."""

import os
import pathlib

import flax.linen as nn
import jax
import pytest

from bitnet_jax import RECIPES

# Every recipe is a program of its own to compile.
EVERY_RECIPE = [
  pytest.param(name, marks=[pytest.mark.slow] * (name != "b158"))
  for name in RECIPES
]
GOLDENS = pathlib.Path(__file__).parents[1] / "testdata" / "params"


def list_params(model, *args):
  """Returns a line for each variable: its path, shape and logical axes."""
  variables = jax.eval_shape(model.init, jax.random.key(0), *args)
  leaves = jax.tree_util.tree_leaves_with_path(
    variables, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)
  )
  lines = []
  for path, leaf in leaves:
    names = getattr(leaf, "names", ())
    array = nn.unbox(leaf)
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    lines.append(
      f"{name.removeprefix('params/')}: {array.dtype}{[*array.shape]} {names}"
    )
  return sorted(lines)


@pytest.fixture
def check_golden():
  """Returns ``check(name, model, *args)``; UPDATE_GOLDEN=1 writes the file."""

  def check(name, model, *args):
    path = GOLDENS / f"{name}.txt"
    text = "".join(f"{line}\n" for line in list_params(model, *args))
    if os.environ.get("UPDATE_GOLDEN") == "1":
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(text)
    assert path.read_text() == text

  return check


@pytest.fixture
def overfit():
  """Returns ``overfit(model, x, labels)``: the losses of a few steps."""

  def overfit(model, x, labels, *, steps=30, learning_rate=0.02):
    import optax

    params = nn.unbox(model.init(jax.random.key(0), x))["params"]
    tx = optax.adam(learning_rate)

    def loss(params):
      logits = model.apply({"params": params}, x)
      return optax.softmax_cross_entropy_with_integer_labels(
        logits.astype("float32"), labels
      ).mean()

    def step(carry, _):
      params, state = carry
      value, grads = jax.value_and_grad(loss)(params)
      updates, state = tx.update(grads, state, params)
      return (optax.apply_updates(params, updates), state), value

    run = jax.jit(lambda c: jax.lax.scan(step, c, length=steps)[1])
    return jax.device_get(run((params, tx.init(params))))

  return overfit
