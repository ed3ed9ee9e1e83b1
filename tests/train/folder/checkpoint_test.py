"""Checkpoints: what comes back, what is kept, and how damage is met."""

import hashlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from bitnet_jax.train.devices.mesh import make_mesh
from bitnet_jax.train.folder.checkpoint import (
  CheckpointOptions,
  Checkpoints,
  Progress,
)
from bitnet_jax.train.folder.seals import SEAL, find_damage, read_progress
from bitnet_jax.train.state import TrainState

STEPS = (1, 2)


def make_options(**changes):
  options = {"keep_last": 2, "keep_best": 0, "metric": "m", "mode": "max"}
  return CheckpointOptions(**(options | changes))


def make_state(step=0):
  """A state of several dtypes, split over 8 devices in several ways."""
  mesh = make_mesh(data=2, fsdp=2, tensor=2)

  def place(array, *axes):
    return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*axes)))

  weights = jnp.arange(32, dtype=jnp.float32).reshape(4, 8) + step
  params = {
    "float32": place(weights, "fsdp", "tensor"),
    "bfloat16": place(weights.astype(jnp.bfloat16) / 3, None, ("fsdp", "data")),
    "replicated": place(weights[0]),
  }
  return TrainState(
    step=place(jnp.int32(step)),
    params=params,
    opt_state=(place(jnp.int8(step)), {"mu": place(weights * 2, "data")}),
    variables={},
  )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """A folder with the checkpoints of two steps, to be copied."""
  folder = tmp_path_factory.mktemp("saved")
  checkpoints = Checkpoints(folder, make_options())
  for step in STEPS:
    progress = Progress(best=0.5, best_step=step, stale=3)
    checkpoints.save(
      step, make_state(step), progress=progress, metrics={"m": 0.5}
    )
  checkpoints.wait()
  return folder


@pytest.fixture
def folder(saved, tmp_path):
  shutil.copytree(saved, tmp_path / "checkpoints")
  return tmp_path / "checkpoints"


@pytest.fixture
def checkpoints(folder):
  return Checkpoints(folder, make_options())


def files_of(folder):
  return sorted(p for p in folder.rglob("*") if p.is_file())


def contents(folder):
  return {p.relative_to(folder): p.read_bytes() for p in files_of(folder)}


def save_all(folder, options, values, **more):
  """Saves an empty state with each value of the metric, and lists the steps."""
  checkpoints = Checkpoints(folder, options, **more)
  for step, value in enumerate(values, start=1):
    metrics = {} if value is None else {"m": value}
    state = TrainState(jnp.int32(step), {}, (), {})
    checkpoints.save(step, state, progress=Progress(), metrics=metrics)
  checkpoints.wait()
  return checkpoints


def test_state_comes_back_with_its_dtypes_and_shardings(checkpoints):
  expected = make_state(2)
  state, progress = checkpoints.restore_latest(make_state())
  assert progress == Progress(best=0.5, best_step=2, stale=3)
  assert jax.tree.structure(state) == jax.tree.structure(expected)
  for a, b in zip(
    jax.tree.leaves(state), jax.tree.leaves(expected), strict=True
  ):
    assert a.dtype == b.dtype
    assert a.sharding == b.sharding
    np.testing.assert_array_equal(a, b)


def test_state_is_restored_into_the_shardings_that_are_asked_for(checkpoints):
  one = jax.sharding.SingleDeviceSharding(jax.devices()[3])
  wanted = jax.tree.map(lambda a: jax.device_put(a, one), make_state())
  state = checkpoints.restore(1, wanted)
  assert {a.sharding for a in jax.tree.leaves(state)} == {one}
  jax.tree.map(np.testing.assert_array_equal, state, make_state(1))


def test_no_checkpoint_is_none(tmp_path, caplog):
  checkpoints = Checkpoints(tmp_path / "none", make_options())
  assert checkpoints.restore_latest(make_state()) is None
  assert checkpoints.steps() == []
  assert checkpoints.best_step() is None
  assert not caplog.messages
  assert not (tmp_path / "none").exists()


def flip(path, place, bit=0):
  flipped = bytearray(path.read_bytes())
  flipped[place] ^= 1 << bit
  path.write_bytes(flipped)


DAMAGE = {
  "flip": lambda path: flip(path, path.stat().st_size // 2),
  "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
  "append": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
  "remove": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_any_file_is_found_and_the_one_before_is_used(
  saved, tmp_path, caplog, damage
):
  for number, original in enumerate(files_of(saved / "000002")):
    if damage in ("flip", "cut") and not original.stat().st_size:
      continue
    folder = tmp_path / str(number)
    shutil.copytree(saved, folder)
    victim = folder / original.relative_to(saved)
    DAMAGE[damage](victim)
    left = contents(folder / "000002")
    checkpoints = Checkpoints(folder, make_options())
    caplog.clear()
    state, progress = checkpoints.restore_latest(make_state())
    assert int(state.step) == 1
    assert progress.best_step == 1
    assert checkpoints.steps() == [1]
    assert str(victim) in caplog.text
    assert contents(folder / "damaged-000002-0") == left


def test_flipped_bits_anywhere_are_found(folder):
  rng = np.random.default_rng(0)
  for victim in files_of(folder / "000002"):
    old = victim.read_bytes()
    places = {0, len(old) - 1, *rng.integers(len(old), size=20)} if old else ()
    for place in places:
      flip(victim, place, int(rng.integers(8)))
      assert str(victim) in find_damage(folder / "000002"), place
      victim.write_bytes(old)
  assert find_damage(folder / "000002") is None


@pytest.mark.parametrize(
  "name", ["extra", "state/extra", f"state/{SEAL}", "state/state/d/extra"]
)
def test_added_file_is_found(folder, checkpoints, caplog, name):
  (folder / "000002" / name).write_bytes(b"")
  state, _ = checkpoints.restore_latest(make_state())
  assert int(state.step) == 1
  assert f"{folder / '000002' / name} does not belong to it" in caplog.text


def test_seal_of_another_checkpoint_is_found(folder):
  shutil.copy(folder / "000001" / SEAL, folder / "000002" / SEAL)
  assert find_damage(folder / "000002") is not None


@pytest.mark.parametrize(
  "text", ["", "[]", "null", "{}", '{"content": 1}', "[" * 100_000]
)
def test_seal_that_is_not_one_is_damage(folder, text):
  (folder / "000002" / SEAL).write_text(text)
  assert SEAL in find_damage(folder / "000002")


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("progress", None),
    ("progress", {"best": 0.5}),
    ("progress", {"best": "much", "best_step": 1, "stale": 0}),
    ("progress", {"best": 0.5, "best_step": [1], "stale": 0}),
    ("metrics", [0.5]),
    ("metrics", {"m": "much"}),
    ("sha256", ["a"]),
    ("sha256", {"state": None}),
  ],
)
def test_seal_with_a_value_of_another_type_is_damage(
  folder, checkpoints, key, value
):
  path = folder / "000002" / SEAL
  content = json.loads(path.read_text())["content"] | {key: value}
  text = json.dumps(content, sort_keys=True)
  digest = hashlib.sha256(text.encode()).hexdigest()
  path.write_text(json.dumps({"content": content, "sha256": digest}))
  assert f"{path} has a value of another type" in find_damage(path.parent)
  assert checkpoints.best_step() == 1
  assert checkpoints.restore_latest(make_state())[1].best_step == 1


def test_seal_of_another_format_is_damage(folder, monkeypatch):
  monkeypatch.setattr("bitnet_jax.train.folder.seals.FORMAT", 2)
  assert "has format 1, not 2" in find_damage(folder / "000002")


def test_nothing_is_left_when_all_are_damaged(folder, checkpoints, caplog):
  for step in STEPS:
    (folder / f"{step:06d}" / "state" / "_CHECKPOINT_METADATA").unlink()
  assert checkpoints.restore_latest(make_state()) is None
  assert [f"00000{s} is not used" in caplog.text for s in STEPS] == [True] * 2
  assert sorted(p.name for p in folder.iterdir()) == [
    "damaged-000001-0",
    "damaged-000002-0",
  ]


def test_damaged_checkpoints_of_one_step_are_all_set_aside(folder, checkpoints):
  for _ in range(2):
    (folder / "000002" / SEAL).write_text("")
    checkpoints.restore_latest(make_state())
    checkpoints.save(2, make_state(2), progress=Progress(), metrics={})
    checkpoints.wait()
  assert sorted(p.name for p in folder.iterdir()) == [
    "000001",
    "000002",
    "damaged-000002-0",
    "damaged-000002-1",
  ]
  assert int(checkpoints.restore_latest(make_state())[0].step) == 2


def test_save_that_was_cut_short_is_removed(folder, checkpoints, caplog):
  started = folder / "000003" / "state.orbax-checkpoint-tmp-1"
  started.mkdir(parents=True)
  (started / "half").write_text("x")
  state, _ = checkpoints.restore_latest(make_state())
  assert int(state.step) == 2
  assert "000003 was cut short" in caplog.text
  assert sorted(p.name for p in folder.iterdir()) == ["000001", "000002"]


def test_step_whose_seal_failed_is_saved_again(tmp_path, monkeypatch):
  checkpoints = Checkpoints(tmp_path, make_options())
  state, progress = TrainState(jnp.int32(1), {}, (), {}), Progress()
  with monkeypatch.context() as patch:
    patch.setattr("bitnet_jax.train.folder.seals.write", fail)
    checkpoints.save(1, state, progress=progress, metrics={})
    with pytest.raises(OSError, match="no space"):
      checkpoints.wait()
  assert checkpoints.steps() == []
  checkpoints.save(1, state, progress=progress, metrics={})
  checkpoints.wait()
  assert checkpoints.steps() == [1]
  assert find_damage(tmp_path / "000001") is None


def fail(*args, **kwargs):
  raise OSError("no space")


def test_removal_that_was_cut_short_is_finished(folder, checkpoints):
  (folder / "000001").rename(folder / "removing-000001")
  checkpoints.restore_latest(make_state())
  assert [p.name for p in folder.iterdir()] == ["000002"]


def test_other_files_are_left_alone(folder, checkpoints):
  (folder / "notes").mkdir()
  (folder / "removing-notes").mkdir()
  (folder / "notes.txt").write_text("mine")
  checkpoints.restore_latest(make_state())
  assert (folder / "notes").is_dir()
  assert (folder / "removing-notes").is_dir()
  assert (folder / "notes.txt").read_text() == "mine"


def test_restoring_a_missing_step_lists_the_steps(checkpoints):
  with pytest.raises(ValueError, match=r"checkpoint is 7, .* one of: 1, 2"):
    checkpoints.restore(7, make_state())


def test_restoring_a_damaged_step_names_the_file(folder, checkpoints):
  victim = folder / "000001" / "state" / "state" / "_METADATA"
  victim.write_text("{}")
  with pytest.raises(ValueError, match=f"damaged: {victim} has changed"):
    checkpoints.restore(1, make_state())
  assert (folder / "000001").is_dir()


def test_progress_and_metrics_are_in_the_seal(saved):
  expected = Progress(best=0.5, best_step=1, stale=3)
  assert read_progress(saved / "000001") == expected
  seal = json.loads((saved / "000001" / SEAL).read_text())
  assert seal["content"]["metrics"] == {"m": 0.5}
  assert seal["content"]["step"] == 1


@pytest.mark.parametrize(
  ("options", "values", "kept", "best"),
  [
    ({"keep_best": 0}, [9, 1, 1, 1], [3, 4], 3),
    ({"keep_last": 3}, [None] * 5, [3, 4, 5], None),
    ({"keep_best": 1}, [1, 9, 2, 3], [2, 3, 4], 2),
    ({"keep_best": 1, "mode": "min"}, [1, 9, 2, 3], [1, 3, 4], 1),
    ({"keep_best": 2}, [5, 6, 4, 1, 1], [1, 2, 4, 5], 2),
    # Where they tie, the earlier one is kept, whatever the mode.
    ({"keep_best": 1}, [7, 7, 7, 7], [1, 3, 4], 1),
    ({"keep_best": 1, "mode": "min"}, [7, 7, 7, 7], [1, 3, 4], 1),
    # A step without an evaluation is never among the best.
    ({"keep_best": 1, "mode": "min"}, [None, 3, None, None], [2, 3, 4], 2),
  ],
)
def test_last_and_best_are_kept(tmp_path, options, values, kept, best):
  checkpoints = save_all(tmp_path, make_options(**options), values)
  assert checkpoints.steps() == kept
  assert checkpoints.best_step() == best
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    f"{step:06d}" for step in kept
  ]


def test_best_is_one_that_counts(tmp_path, caplog):
  options = make_options(keep_best=1)
  checkpoints = save_all(tmp_path, options, [9, 8, 2, 3, 1, 1], counted_from=3)
  assert checkpoints.steps() == [4, 5, 6]
  step, state = checkpoints.restore_best(TrainState(jnp.int32(0), {}, (), {}))
  assert step == int(state.step) == 4
  # Damage is passed over, and left as it is.
  (tmp_path / "000004" / "more").write_text("")
  step, _ = checkpoints.restore_best(state)
  assert (step, checkpoints.steps()) == (5, [4, 5, 6])
  assert "checkpoint 4 is passed over" in caplog.text


def test_progress_before_what_counts_is_forgotten(folder):
  for counted_from, expected in ((2, Progress(0.5, 2, 3)), (3, Progress())):
    found = Checkpoints(folder, make_options(), counted_from=counted_from)
    assert found.restore_latest(make_state())[1] == expected


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"mode": "mix"}, r"checkpoint.mode is 'mix', .* 'max', 'min'"),
    ({"keep_last": 1}, "checkpoint.keep_last is 1; it must be at least 2"),
    ({"keep_best": -1}, "checkpoint.keep_best is -1; it must be at least 0"),
  ],
)
def test_option_out_of_range_is_named(changes, message):
  with pytest.raises(ValueError, match=message):
    make_options(**changes)


@pytest.mark.parametrize(
  ("mode", "values", "expected"),
  [
    ("max", [0.1, 0.3, 0.3, 0.2], Progress(0.3, 2, 2)),
    ("min", [0.1, 0.3, 0.1, 0.05], Progress(0.05, 4, 0)),
  ],
)
def test_progress_keeps_the_best_and_counts_what_is_no_better(
  mode, values, expected
):
  progress = Progress()
  for step, value in enumerate(values, start=1):
    progress = progress.after(step, value, make_options(mode=mode))
  assert progress == expected
