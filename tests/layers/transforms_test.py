"""A foreign model with our layers in it trains under every transformation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitnet_jax import BitConv, BitDense, BitDenseGeneral

STEPS = 25
WIDTH = 16


class Block(nn.Module):
  """A residual block, in the form that ``nn.scan`` takes."""

  @nn.compact
  def __call__(self, h, strength=None):
    y = BitDense(WIDTH, name="dense")(h, strength=strength)
    y = BitDenseGeneral((2, WIDTH // 2), name="split")(y, strength=strength)
    y = nn.relu(y)
    y = BitDenseGeneral(WIDTH, axis=(-2, -1), name="join")(y, strength=strength)
    return h + y, None


class Model(nn.Module):
  """Somebody else's model: our layers between theirs."""

  transform: str = "none"
  use_norm: bool = True

  @nn.compact
  def __call__(self, x, *, strength=None):
    h = BitConv(8, (3, 3), strides=2, name="conv")(x, strength=strength)
    if self.use_norm:
      h = nn.BatchNorm(use_running_average=False)(h)
    h = nn.Dense(WIDTH)(nn.relu(h).reshape(*h.shape[:-3], -1))
    if self.transform == "scan":
      blocks = nn.scan(
        Block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=nn.broadcast,
        length=2,
      )
      h, _ = blocks(name="blocks")(h, strength)
    else:
      wrap = {"remat": nn.remat, "nn.jit": nn.jit}.get(
        self.transform, lambda block: block
      )
      for i in range(2):
        h, _ = wrap(Block)(name=f"block_{i}")(h, strength)
    return BitDense(2, name="head")(h, strength=strength)


def batch():
  x = jax.random.normal(jax.random.key(1), (16, 6, 6, 1))
  return x, (jnp.mean(x[:, :3], (1, 2, 3)) > 0).astype(jnp.int32)


def loss_of(transform, model):
  def loss(variables, params, x, labels, strength):
    logits, state = model.apply(
      {**variables, "params": params},
      x,
      strength=strength,
      mutable=["batch_stats"],
    )
    one = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(one), state

  if transform == "vmap":

    def loss_of_one(variables, params, x, labels, strength):
      def one(x, label):
        return loss(variables, params, x[None], label[None], strength)[0]

      return jnp.mean(jax.vmap(one)(x, labels)), {}

    return loss_of_one
  return jax.checkpoint(loss) if transform == "checkpoint" else loss


TRANSFORMS = ("jit", "vmap", "scan", "remat", "checkpoint", "nn.jit")


@pytest.mark.slow
@pytest.mark.parametrize(
  "transform, strength",
  [(t, None) for t in TRANSFORMS] + [("jit", 0.5), ("scan", 0.5)],
)
def test_model_trains_under(transform, strength):
  model = Model(transform, use_norm=transform != "vmap")
  x, labels = batch()
  abstract = jax.eval_shape(model.init, jax.random.key(0), x)
  variables = jax.jit(model.init)(jax.random.key(0), x)
  assert jax.tree.map(jnp.shape, abstract) == jax.tree.map(jnp.shape, variables)
  params = variables.pop("params")
  optimizer = optax.adam(1e-2)
  if strength is not None:
    strength = jnp.float32(strength)

  def step(variables, params, opt_state):
    (value, state), grads = jax.value_and_grad(
      loss_of(transform, model), argnums=1, has_aux=True
    )(variables, params, x, labels, strength)
    updates, opt_state = optimizer.update(grads, opt_state)
    params = optax.apply_updates(params, updates)
    return {**variables, **state}, params, opt_state, value, grads

  step = jax.jit(step)
  opt_state = optimizer.init(params)
  losses = []
  for _ in range(STEPS):
    variables, params, opt_state, value, grads = step(
      variables, params, opt_state
    )
    losses.append(float(value))
  assert losses[-1] < 0.9 * losses[0]
  for path, gradient in jax.tree_util.tree_leaves_with_path(grads):
    if "kernel" in jax.tree_util.keystr(path):
      assert np.isfinite(gradient).all()
      assert np.any(gradient), path
