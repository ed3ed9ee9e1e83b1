"""A run goes on, on other devices than it began with."""

import jax
import numpy as np
import pytest

from bitnet_jax.train.build import build
from bitnet_jax.train.devices.mesh import place_batch
from bitnet_jax.train.folder.checkpoint import Checkpoints, Progress

ONE, DATA, BOTH = (1, 1, 1), (8, 1, 1), (2, 4, 1)
FSDP, TENSOR = (1, 8, 1), (1, 1, 8)


def on(make_config, mesh):
  sizes = zip(("mesh__data", "mesh__fsdp", "mesh__tensor"), mesh, strict=True)
  return build(
    make_config(
      model__depth=2,
      model__width=32,
      data__eval_batch_size=96,
      **dict(sizes),
    )
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  ("before", "after"),
  [(ONE, FSDP), (DATA, BOTH), (FSDP, TENSOR), (FSDP, ONE)],
  ids=str,
)
def test_state_is_restored_exactly_on_another_mesh(
  make_config, tmp_path, before, after
):
  first = on(make_config, before)
  with first.activate():
    batch = place_batch(first.data.train_batch(0), first.mesh)
    state, _ = first.train_step()(first.init(), batch, first.train_key())
    kept = Checkpoints(tmp_path, first.settings.checkpoint)
    kept.save(1, state, progress=Progress(), metrics={})
    kept.wait()
  second = on(make_config, after)
  with second.activate():
    wanted = second.init()
    restored = Checkpoints(tmp_path, second.settings.checkpoint)
    found, _ = restored.restore_latest(wanted)
  assert int(found.step) == 1
  jax.tree.map(np.testing.assert_array_equal, found, state)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, found)
  assert shardings == jax.tree.map(lambda leaf: leaf.sharding, wanted)
  assert found.params["layer_1"]["kernel"].sharding.mesh.shape == dict(
    zip(("data", "fsdp", "tensor"), after, strict=True)
  )
