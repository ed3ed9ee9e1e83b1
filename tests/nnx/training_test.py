"""NNX models in training: transforms, optimizers, checkpoints, meshes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from orbax.checkpoint import v1 as ocp

from bitnet_jax import nnx as bit
from bitnet_jax.inference import freeze
from tests.nnx.models import ROWS, Places, call

LABELS = jnp.asarray([0, 1, 1, 0])


def loss_of(model, x):
  logits = model(x)
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
  return losses.mean()


@nnx.jit
def train_step(model, optimizer, x):
  loss, grads = nnx.value_and_grad(loss_of)(model, x)
  optimizer.update(model, grads)
  return loss


def make(seed=0):
  return nnx.jit(lambda: Places(nnx.Rngs(seed)))()


@pytest.fixture(scope="module")
def trained():
  """A model, and the same after some steps."""
  model = make()
  before = nnx.clone(model)
  optimizer = nnx.Optimizer(model, optax.adam(3e-2), wrt=nnx.Param)
  losses = [float(train_step(model, optimizer, ROWS)) for _ in range(30)]
  assert losses[-1] < losses[0]
  return before, model


def test_layers_in_all_places_learn(trained):
  before, model = (bit.linen_variables(m)["params"] for m in trained)
  changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, model)
  assert all(jax.tree.leaves(changed))
  assert bit.linen_variables(trained[1]).keys() == {"params", "batch_stats"}


def test_checkpoints_hold_trained_and_frozen_models(trained, tmp_path):
  model = nnx.clone(trained[1])
  model.eval()
  for name, one in (("trained", model), ("frozen", freeze(model))):
    ocp.save(tmp_path / name, nnx.to_pure_dict(nnx.state(one)))
    fresh = make(seed=1)
    fresh.eval()
    restored = freeze(fresh) if name == "frozen" else fresh
    state = nnx.state(restored)
    saved = ocp.load(tmp_path / name, nnx.to_pure_dict(state))
    nnx.replace_by_pure_dict(state, saved)
    nnx.update(restored, state)
    np.testing.assert_array_equal(call(restored, ROWS), call(model, ROWS))


def test_abstract_model_is_restored_onto_a_mesh(tmp_path):
  layer = bit.BitLinear(8, 16, rngs=nnx.Rngs(0))
  ocp.save(tmp_path / "one", nnx.to_pure_dict(nnx.state(layer)))
  mesh = jax.make_mesh((2,), ("tensor",))
  shards = {"kernel": P(None, "tensor"), "bias": P("tensor")}
  abstract = nnx.eval_shape(lambda: bit.BitLinear(8, 16, rngs=nnx.Rngs(1)))
  graph, state = nnx.split(abstract)
  wanted = {
    name: leaf.update(sharding=NamedSharding(mesh, shards[name]))
    for name, leaf in nnx.to_pure_dict(state).items()
  }
  nnx.replace_by_pure_dict(state, ocp.load(tmp_path / "one", wanted))
  restored = nnx.merge(graph, state)
  kernel = restored.kernel.get_value()
  assert kernel.sharding.spec == P(None, "tensor")
  assert [len(s.data[0]) for s in kernel.addressable_shards] == [8, 8]
  # Codes and scale do not depend on the mesh.
  found, expected = (freeze(m).kernel.get_value() for m in (restored, layer))
  np.testing.assert_array_equal(found.codes, expected.codes)
  np.testing.assert_array_equal(found.scale, expected.scale)


def test_dropout_is_off_in_a_frozen_model(trained):
  _, model = trained
  model.train()
  frozen = freeze(model)
  assert frozen.drop.deterministic
  assert frozen.blocks[1].use_running_average
  assert not model.drop.deterministic
  np.testing.assert_array_equal(call(frozen, ROWS), call(frozen, ROWS))


def test_frozen_model_has_no_gradients(trained):
  with pytest.raises(TypeError, match="grad requires real- or complex-valued"):
    nnx.grad(loss_of)(freeze(trained[1]), ROWS)
