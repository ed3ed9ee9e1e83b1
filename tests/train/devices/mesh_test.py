"""Meshes, placement, and the same training on any of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from bitnet_jax.train.build import build
from bitnet_jax.train.devices.mesh import (
  batch_shards,
  make_mesh,
  place_batch,
)
from tests.train.conftest import first_losses

# Sums over devices are added in another order.
ONE_STEP = 1e-6
SEVERAL_STEPS = 1e-5

MESHES = {"8x1x1": (8, 1, 1), "2x2x2": (2, 2, 2)}


def on(mesh):
  return dict(
    zip(("mesh__data", "mesh__fsdp", "mesh__tensor"), mesh, strict=True)
  ) | {"data__eval_batch_size": 96}


@pytest.mark.parametrize(
  ("sizes", "expected"),
  [
    ((1, 1, 1), (1, 1, 1)),
    ((8, 1, 1), (8, 1, 1)),
    ((2, 2, 2), (2, 2, 2)),
    ((3, 2, 1), (3, 2, 1)),  # Six of the eight devices.
    ((-1, 1, 1), (8, 1, 1)),
    ((2, -1, 1), (2, 4, 1)),
    ((1, 2, -1), (1, 2, 4)),
    ((-1, 2, 4), (1, 2, 4)),
  ],
)
def test_mesh_has_the_sizes_asked_for(sizes, expected):
  data, fsdp, tensor = sizes
  mesh = make_mesh(data=data, fsdp=fsdp, tensor=tensor)
  assert tuple(mesh.shape.items()) == tuple(
    zip(("data", "fsdp", "tensor"), expected, strict=True)
  )
  n = expected[0] * expected[1] * expected[2]
  assert sorted(mesh.device_ids.flat) == list(range(n))
  assert batch_shards(mesh) == expected[0] * expected[1]


@pytest.mark.parametrize(
  ("sizes", "message"),
  [
    ((0, 1, 1), "mesh is .*'data': 0.* sizes must be at least 1"),
    ((1, -2, 1), "mesh is .*'fsdp': -2.* sizes must be at least 1"),
    ((-1, -1, 1), "-1 for at most one axis"),
    ((9, 1, 1), r"does not fit 8 devices; .* \[1, 2, 4, 8\]"),
    ((2, 2, 3), "does not fit 8 devices"),
    ((-1, 3, 1), "mesh is .*'fsdp': 3.* does not fit 8 devices"),
  ],
)
def test_mesh_that_does_not_fit_is_named(sizes, message):
  data, fsdp, tensor = sizes
  with pytest.raises(ValueError, match=message):
    make_mesh(data=data, fsdp=fsdp, tensor=tensor)


@dataclasses.dataclass(frozen=True)
class Chip:
  """What JAX looks at of a device in one of several slices."""

  id: int
  slice_index: int
  process_index: int = 0
  device_kind: str = "chip"
  platform: str = "gpu"


@pytest.mark.parametrize(
  "sizes",
  [(-1, 2, 2), (4, 2, 1)],
)
def test_only_replicas_stand_in_different_slices(sizes):
  chips = [Chip(i, i // 4) for i in (5, 0, 7, 2, 1, 4, 3, 6)]
  data, fsdp, tensor = sizes
  mesh = make_mesh(data=data, fsdp=fsdp, tensor=tensor, devices=chips)
  assert {chip.id for chip in mesh.devices.flat} == {*range(8)}
  slices = [{chip.slice_index for chip in row.flat} for row in mesh.devices]
  assert all(len(found) == 1 for found in slices)


def test_replicas_that_do_not_fit_the_slices_are_named():
  chips = [Chip(i, i // 4) for i in range(8)]
  with pytest.raises(ValueError, match=r"there are 2 slices of devices, over"):
    make_mesh(data=1, fsdp=8, tensor=1, devices=chips)


def test_batch_is_split_by_example():
  mesh = make_mesh(data=2, fsdp=2, tensor=2)
  batch = {"inputs": np.arange(24.0).reshape(8, 3), "labels": np.arange(8)}
  placed = place_batch(batch, mesh)
  for name, array in batch.items():
    np.testing.assert_array_equal(placed[name], array)
    rows = {len(s.data) for s in placed[name].addressable_shards}
    assert rows == {2}
    # The devices of the axis "tensor" hold the same examples.
    assert len(placed[name].addressable_shards) == 8


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES.values(), ids=MESHES)
def test_one_quantized_step_is_the_same_on_any_mesh(make_config, mesh):
  expected = first_losses(make_config(**on((1, 1, 1))), steps=1)
  actual = first_losses(make_config(**on(mesh)), steps=1)
  np.testing.assert_allclose(actual, expected, ONE_STEP)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES.values(), ids=MESHES)
def test_float_training_is_the_same_on_any_mesh(make_config, mesh):
  options = {"quant__recipe": "float", "optim__weight_decay": 0.1}
  expected = first_losses(make_config(**on((1, 1, 1)), **options), steps=4)
  actual = first_losses(make_config(**on(mesh), **options), steps=4)
  np.testing.assert_allclose(actual, expected, SEVERAL_STEPS)
  assert expected[3] != expected[0]


def test_step_constrains_activations(make_config):
  experiment = build(make_config(**on((2, 2, 2))))
  with experiment.activate():
    state = experiment.init()
    batch = place_batch(experiment.data.train_batch(0), experiment.mesh)
    jaxpr = str(
      jax.make_jaxpr(experiment.train_step())(
        state, batch, experiment.train_key()
      )
    )
  assert "sharding_constraint" in jaxpr


def specs(tree):
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf.sharding.spec
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def normal(spec):
  """Without the axes at the end that are not split."""
  names = [*spec]
  while names and names[-1] is None:
    names.pop()
  return tuple(names)


@pytest.mark.parametrize(
  ("config_name", "expected"),
  [
    (
      "digits_mlp",
      {
        "layer_0/kernel": PartitionSpec(None, "tensor"),
        "layer_1/kernel": PartitionSpec("fsdp", "tensor"),
        "head/kernel": PartitionSpec("fsdp"),
        "layer_0/bias": PartitionSpec(),
      },
    ),
    pytest.param(
      "digits_cnn",
      {
        "conv_0_0/kernel": PartitionSpec(None, None, None, "tensor"),
        "conv_1_0/kernel": PartitionSpec(None, None, "fsdp", "tensor"),
        "dense/kernel": PartitionSpec("fsdp", "tensor"),
        "head/kernel": PartitionSpec("fsdp"),
      },
      marks=pytest.mark.slow,
    ),
  ],
)
def test_parameters_and_moments_are_split_as_the_rules_say(
  make_config, config_name, expected
):
  options = {"model__depth": 2} if config_name == "digits_mlp" else {}
  experiment = build(make_config(config_name, **on((2, 2, 2)), **options))
  with experiment.activate():
    state = experiment.init()
    batch = place_batch(experiment.data.train_batch(0), experiment.mesh)
    after, _ = experiment.train_step()(state, batch, experiment.train_key())
  for params in (state.params, after.params):
    for path, spec in expected.items():
      assert normal(specs(params)[path]) == normal(spec), path
  moments = specs(after.opt_state)
  for path, spec in expected.items():
    split = [normal(s) for key, s in moments.items() if key.endswith(path)]
    assert split == [normal(spec)] * 2, path  # First and second moment.


def test_rules_decide_how_parameters_are_split(make_config):
  experiment = build(
    make_config(**on((2, 2, 2)), sharding_rules=(("mlp", "data"),))
  )
  with experiment.activate():
    state = experiment.init()
  assert normal(specs(state.params)["layer_0/kernel"]) == (None, "data")
  assert normal(specs(state.params)["head/kernel"]) == ()


def test_fresh_state_does_not_depend_on_the_mesh(make_config):
  states = []
  for mesh in ((1, 1, 1), (2, 2, 2)):
    experiment = build(make_config(**on(mesh)))
    with experiment.activate():
      states.append(jax.tree.map(np.asarray, experiment.init()))
  jax.tree.map(np.testing.assert_array_equal, *states)
  assert states[0].step == 0
  assert states[0].step.dtype == jnp.int32
