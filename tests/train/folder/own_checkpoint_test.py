"""Runs that start from Orbax checkpoints of other programs."""

import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as older
import pytest
from flax import nnx
from flax.training.train_state import TrainState as FlaxState
from orbax.checkpoint import v1 as ocp

from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.folder.warm_start import find_start, warm_start
from bitnet_jax.train.state import TrainState
from tests.train import tiny

PARAMS = {
  "Dense_0": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3)},
  "Dense_1": {"kernel": jnp.full((3, 2), 2.0, jnp.float16)},
}
TO_LAYERS = ((r"Dense_(\d+)", r"layer_\1"),)


class Net(nnx.Module):
  """A network of NNX whose layers have the names of ``PARAMS``."""

  def __init__(self, rngs):
    self.Dense_0 = nnx.Linear(2, 3, rngs=rngs)
    self.Dense_1 = nnx.Linear(3, 2, use_bias=False, rngs=rngs)
    self.norm = nnx.BatchNorm(2, rngs=rngs)


def save_state(path):
  """A train state of Flax."""
  state = FlaxState.create(
    apply_fn=len, params={"params": PARAMS}, tx=optax.adam(1e-3)
  )
  older.PyTreeCheckpointer().save(path, state)


def save_standard(path):
  with older.StandardCheckpointer() as checkpointer:
    checkpointer.save(path, {"params": PARAMS})


def save_nnx(path):
  """A state of NNX, with its variables as they are."""
  model = Net(nnx.Rngs(0))
  nnx.update(model, nnx.State(PARAMS))
  ocp.save(path, nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))


def save_steps(path):
  """Checkpoints of a manager, whose newest is meant."""
  with older.CheckpointManager(path) as manager:
    for step in (9, 10):
      params = jax.tree.map(lambda a, step=step: a + (step == 9), PARAMS)
      manager.save(step, args=older.args.StandardSave(params))


def make_state(**changes):
  """A state of a run, of zeros, under names of its own."""
  params = {
    "layer_0": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)},
    "layer_1": {"kernel": jnp.zeros((3, 2))},
    **changes,
  }
  return TrainState(jnp.int32(0), params, (), {})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  path = tmp_path_factory.mktemp("own") / "große Netze" / "mine"
  ocp.save(path, PARAMS)
  return path


def check_taken(path):
  taken = warm_start(make_state(), find_start(path, TO_LAYERS)).params
  for i in (0, 1):
    for name, array in PARAMS[f"Dense_{i}"].items():
      found = taken[f"layer_{i}"][name]
      assert found.dtype == jnp.float32  # That of the run.
      np.testing.assert_array_equal(found, array)


def test_parameters_are_taken_under_other_names(saved, caplog):
  check_taken(saved)
  assert "3 of 3 variables of the model are loaded" in caplog.text


@pytest.mark.parametrize(
  "save", [save_state, save_standard, save_nnx, save_steps]
)
def test_checkpoints_of_all_kinds_are_read(tmp_path, save):
  save(tmp_path / "mine")
  check_taken(tmp_path / "mine")


def test_batch_statistics_of_nnx_are_taken(tmp_path):
  model = Net(nnx.Rngs(0))
  model.norm.mean.set_value(jnp.asarray([3.0, 4.0]))
  ocp.save(tmp_path / "mine", nnx.to_pure_dict(nnx.state(model)))
  stats = {"norm": {"mean": jnp.zeros(2), "var": jnp.zeros(2)}}
  params = {"norm": {"scale": jnp.zeros(2)}}
  state = TrainState(jnp.int32(0), params, (), {"batch_stats": stats})
  found = warm_start(state, find_start(tmp_path / "mine"))
  mean = found.variables["batch_stats"]["norm"]["mean"]
  np.testing.assert_array_equal(mean, [3, 4])
  np.testing.assert_array_equal(found.params["norm"]["scale"], [1, 1])


def test_mapping_adds_and_drops_levels(saved):
  state = TrainState(jnp.int32(0), {"kernel": jnp.zeros((2, 3))}, (), {})
  found = warm_start(state, find_start(saved, (("Dense_0", ""),))).params
  np.testing.assert_array_equal(found["kernel"], PARAMS["Dense_0"]["kernel"])
  state = TrainState(jnp.int32(0), {"net": PARAMS}, (), {})
  warm_start(state, find_start(saved, (("Dense_.", r"net/\g<0>"),)))


@pytest.mark.parametrize(
  ("mapping", "changes", "message"),
  [
    ((), {}, r"mine, which has none .* there: Dense_0/bias, .* here: layer_0"),
    (
      (("dense_0", "layer_0"),),
      {},
      r"'dense_0', which matches nothing in .*mine; there: Dense_0/bias, Dense",
    ),
    ((("Dense_.", "layer"),), {}, r"gives several .* the name 'layer/kernel'"),
    ((("Dense_.", r"\1"),), {}, r"has the name '\\\\1' for 'Dense_.': invalid"),
    (
      TO_LAYERS,
      {"layer_0": {"kernel": jnp.zeros((3, 3)), "bias": jnp.zeros(4)}},
      r"where layer_0/bias has the shape \(3,\); here it has \(4,\), and"
      r" layer_0/kernel has the shape \(2, 3\)",
    ),
  ],
)
def test_what_does_not_fit_is_named(saved, mapping, changes, message):
  with pytest.raises(ValueError, match=message):
    warm_start(make_state(**changes), find_start(saved, mapping))


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_folder_without_a_checkpoint_is_named(tmp_path, name):
  message = r"config.json does not exist: .*, and no Orbax checkpoint either"
  with pytest.raises(ValueError, match=message):
    find_start(tmp_path / name)


# Orbax closes its event loop while other reads of the checkpoint may go on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["_METADATA", "manifest.ocdbt"])
def test_damaged_checkpoint_is_named(saved, tmp_path, name):
  copy = tmp_path / "copy"
  shutil.copytree(saved, copy)
  for victim in copy.rglob(name):
    victim.write_bytes(victim.read_bytes()[:7])
  with pytest.raises(ValueError, match=r"init_from: .*copy cannot be read: "):
    warm_start(make_state(), find_start(copy, TO_LAYERS))


@pytest.mark.parametrize(
  ("tree", "message"),
  [
    ({"layer_0": {"bias": jnp.full(3, jnp.nan)}}, "layer_0/bias holds values"),
    ({"step": 3}, "holds no arrays of a model"),
  ],
)
def test_checkpoint_without_values_is_named(tmp_path, tree, message):
  ocp.save(tmp_path / "mine", tree)
  with pytest.raises(ValueError, match=message):
    warm_start(make_state(), find_start(tmp_path / "mine"))


def make_run(tmp_path, **options):
  rows = [f"{text}\t{i % 2}" for i, text in enumerate(["a b", "c d"] * 20)]
  source = tiny.write(tmp_path / "labelled.tsv", ["text\tlabel", *rows])
  return tiny.make("classification", source, total_steps=2, **options)


def test_content_and_mapping_name_the_run(tmp_path):
  config = make_run(tmp_path)
  embedding = {"tokens": {"embedding": jnp.ones((263, 16))}}
  ocp.save(tmp_path / "mine", {"words": embedding})
  shutil.copytree(tmp_path / "mine", tmp_path / "copy")
  ocp.save(
    tmp_path / "other", {"words": jax.tree.map(jnp.zeros_like, embedding)}
  )

  def run_id(name, *mapping):
    start = {"init_from": str(tmp_path / name), "init_mapping": mapping}
    return build(config | start).run_id

  mine = run_id("mine", ("words", "embed"))
  assert mine == run_id("copy", ("words", "embed"))
  others = [
    run_id("other", ("words", "embed")),
    run_id("mine"),
    build(config).run_id,
  ]
  assert len({mine, *others}) == 4


def test_mapping_is_checked_before_anything_else(tmp_path):
  config = make_run(tmp_path)
  for mapping, message in (
    ((("a", "b"),), "init_mapping is set, but init_from is not"),
    (("ab",), r"the entry 'ab'; each must be a pair"),
    ((("(", "b"),), r"the pattern '\(', which is no regular expression"),
  ):
    start = {} if "but" in message else {"init_from": str(tmp_path)}
    with pytest.raises(ValueError, match=message):
      build(config | {"init_mapping": mapping} | start)


@pytest.mark.slow
def test_run_starts_resumes_and_is_evaluated(tmp_path):
  embedding = jnp.full((263, 16), 0.25)
  ocp.save(tmp_path / "mine", {"words": {"embedding": embedding}})
  config = make_run(
    tmp_path,
    init_from=str(tmp_path / "mine"),
    init_mapping=(("words", "embed/tokens"),),
  )
  with build(config).activate():
    taken = build(config).start().params["embed"]["tokens"]["embedding"]
  np.testing.assert_array_equal(nn.unbox(taken), embedding)
  whole = runner.run(config, tmp_path / "whole")
  first = runner.run(config | {"total_steps": 1}, tmp_path / "run")
  assert first["step"] == 1
  longer = runner.run(config, tmp_path / "run")
  assert longer["step"] == whole["step"] == 2
  shutil.rmtree(tmp_path / "mine")
  evaluation = runner.evaluate_run(tmp_path / "run")
  assert longer["metrics"].items() <= evaluation["metrics"].items()
  wrong = config | {
    "init_from": str(tmp_path / "run"),
    "init_mapping": (("x", "y"),),
  }
  with pytest.raises(ValueError, match="'x', which matches nothing"):
    runner.run(wrong, tmp_path / "again")
  assert not (tmp_path / "again").exists()
