"""Runs in a bucket, on an emulator of Google Cloud Storage."""

import logging
import pathlib
import shutil

import fsspec
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from gcp_storage_emulator.server import create_server
from orbax.checkpoint import v1 as ocp

from bitnet_jax.inference import Sampling
from bitnet_jax.programs import writing
from bitnet_jax.programs.predicting import finders, inputs, predictor
from bitnet_jax.train import runner
from bitnet_jax.train.folder import bucket, warm_start
from bitnet_jax.train.folder.checkpoint import CheckpointOptions, Checkpoints
from bitnet_jax.train.state import TrainState
from tests.train import tiny
from tests.train.devices import multihost_test

TEXTS = ["the cat sat on the mat", "a dog ate the food of the cat"] * 8
RUN = "gs://bucket/runs/tiny"


@pytest.fixture(scope="module")
def storage():
  """An emulator that the libraries of this process talk to."""
  port = multihost_test.free_port()
  server = create_server(
    "localhost", port, in_memory=True, default_bucket="bucket"
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("STORAGE_EMULATOR_HOST", f"http://localhost:{port}")
    patch.setenv("TENSORSTORE_GCS_HTTP_URL", f"http://localhost:{port}")
    patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "any")
    logging.disable(logging.WARNING)  # It says every request.
    server.start()
    yield
    server.stop()
    logging.disable(logging.NOTSET)


def config_of(folder, **overrides):
  return tiny.make(
    "decoder",
    f"file:{folder}/{{split}}.txt",
    data__tokenizer="bpe",
    data__vocab_size=300,
    mesh__data=1,
    optim__schedule="constant",  # Another length is no other run.
    **overrides,
  )


@pytest.fixture(scope="module")
def runs(storage, tmp_path_factory):
  """One run in a folder; the same in a bucket, from two machines."""
  folder = tmp_path_factory.mktemp("runs")
  for split in ("train", "valid"):
    tiny.write(folder / f"{split}.txt", TEXTS)
  found = {"here": runner.run(config_of(folder), folder / "run")}
  first = bucket.place(RUN)
  runner.run(config_of(folder, total_steps=2), first)
  shutil.rmtree(first)  # What a machine that is gone leaves.
  found["there"] = runner.run(config_of(folder), bucket.place(RUN))
  return folder, found


def variables_of(folder):
  return warm_start.load_variables(warm_start.find(folder))


@pytest.mark.slow
def test_run_goes_on_from_another_machine_to_the_same_end(runs):
  folder, results = runs
  assert results["there"]["metrics"] == results["here"]["metrics"]
  own, found = variables_of(folder / "run"), variables_of(bucket.place(RUN))
  jax.tree.map(np.testing.assert_array_equal, own, found)


@pytest.mark.slow
def test_bucket_holds_what_a_folder_would(runs):
  folder, _ = runs
  here, there = ({*root} for root in (names(folder / "run"), names(RUN)))
  assert here - there == {".lock"}
  assert there - here == set()
  text = (epath.Path(RUN) / "metrics.jsonl").read_text()
  steps = [line.split(",")[0] for line in text.splitlines()]
  assert len(steps) == len(set(steps))


def names(root):
  return [path.name for path in epath.Path(root).iterdir()]


@pytest.mark.slow
def test_run_in_a_bucket_is_evaluated_and_writes(runs):
  folder, _ = runs
  options = writing.WritingOptions(max_new_tokens=3, sampling=Sampling())
  texts = []
  for run in (folder / "run", bucket.place(RUN)):
    expected = runner.evaluate_run(run)["metrics"]
    writer = writing.writer_of_run(run)
    texts.append(writing.write(writer, ["the cat"], options).texts)
  assert texts[0] == texts[1]
  likelihoods = []
  for run in (folder / "run", RUN):
    model = predictor.open_run(run)
    items = finders.find(inputs.Request(texts=["the cat"]), model.family)
    likelihoods += [one.answer for one in model.predict(items)]
  assert likelihoods[0] == likelihoods[1]
  assert "evaluation.json" in names(RUN)
  assert expected == runner.evaluate_run(folder / "run")["metrics"]


@pytest.mark.slow
def test_other_run_starts_from_it(runs, tmp_path):
  folder, _ = runs
  tokenizer = f"tokenizers:{folder / 'run' / 'tokenizer.json'}"
  config = config_of(folder, init_from=RUN)
  config["data"] |= {"tokenizer": tokenizer, "vocab_size": None}
  result = runner.run(config, tmp_path / "run")
  assert result["config"]["init_from"] == RUN


@pytest.mark.slow
def test_own_checkpoint_in_a_bucket_is_a_start(storage):
  del storage
  ocp.save("gs://bucket/own/3", {"Dense_0": {"bias": np.full(3, 2.0)}})
  for address in ("gs://bucket/own/3", "gs://bucket/own"):
    found = warm_start.find_start(
      bucket.place(address), (("Dense_0", "layer_0"),)
    )
    params = {"layer_0": {"bias": jnp.zeros(3)}}
    state = TrainState(jnp.int32(0), params, (), {})
    taken = warm_start.warm_start(state, found).params["layer_0"]["bias"]
    np.testing.assert_array_equal(taken, [2, 2, 2])


@pytest.mark.slow
def test_damage_is_set_aside(runs):
  folder, results = runs
  address = "gs://bucket/damaged"
  runner.run(config_of(folder), bucket.place(address))
  newest = epath.Path(address) / "checkpoints" / "000004"
  path = next(path for path in bucket.files(newest) if path.name != "seal.json")
  path.write_bytes(b"changed")
  result = runner.run(config_of(folder), bucket.place(address))
  assert result["metrics"] == results["here"]["metrics"]
  left = set(names(f"{address}/checkpoints"))
  assert left == {"000002", "000004", "damaged-000004-0"}


@pytest.mark.slow
def test_what_a_kill_left_is_removed(runs):
  folder, _ = runs
  address = "gs://bucket/killed"
  runner.run(config_of(folder), bucket.place(address))
  checkpoints = epath.Path(address) / "checkpoints"
  left = ("000003/state/d/x", "removing-000002/seal.json", "000001/state/d/x")
  for name in (*left, "removing-000001/seal.json"):
    (checkpoints / name).write_text("{}")
  result = runner.run(config_of(folder), bucket.place(address))
  assert result["step"] == 4
  assert names(checkpoints) == ["000004"]


def test_folder_that_a_console_made_is_a_folder(storage):
  files = fsspec.filesystem("gcs")
  for name in ("made/", "made/config.json"):
    files.pipe(f"bucket/{name}", b"")
  folder = bucket.place("gs://bucket/made")
  assert [path.name for path in folder.iterdir()] == ["config.json"]
  with pytest.raises(OSError, match=r"config.json cannot be used: it is a fi"):
    bucket.place("gs://bucket/made/config.json")


def test_failure_of_a_bucket_is_no_missing_checkpoint(storage, monkeypatch):
  def fail(path):
    raise OSError(f"Forbidden: {path}")

  folder = bucket.place("gs://bucket/forbidden")
  options = CheckpointOptions(keep_last=2, keep_best=0, metric="m", mode="max")
  checkpoints = Checkpoints.of_run(folder, options)
  assert checkpoints.restore_latest(None) is None
  monkeypatch.setattr(type(checkpoints.directory), "exists", fail)
  for read in (
    checkpoints.restore_latest,
    lambda state: checkpoints.restore(2, state),
    lambda state: checkpoints.restore_variables(2),
  ):
    with pytest.raises(OSError, match=r"gs://bucket/forbidden/checkpoints can"):
      read(None)


@pytest.mark.slow
def test_messages_name_the_address(storage):
  folder = bucket.place("gs://bucket/typo")
  with pytest.raises(ValueError, match="no run is there") as caught:
    runner.evaluate_run(folder)
  text = bucket.with_addresses(f"{caught.value}")
  assert text.startswith("gs://bucket/typo/config.json does not exist")


@pytest.mark.slow
def test_processes_share_a_bucket(storage, tmp_path):
  changes = {"total_steps": 4, "checkpoint_every": 2}
  address = "gs://bucket/shared"
  for folder, count in ((tmp_path, 1), (address, 2)):
    multihost_test.end(multihost_test.start(folder, count, **changes))
  found = multihost_test.losses(bucket.place(address))
  np.testing.assert_allclose(found, multihost_test.losses(tmp_path), 1e-4)
  assert set(names(f"{address}/checkpoints")) == {"000002", "000004"}


@pytest.mark.parametrize(
  "address", ["gs://bucket", "gs://", "s3://a/b", "gs:/a/b", "gs://a/../b"]
)
def test_other_addresses_are_refused(address):
  with pytest.raises(ValueError, match=r"neither a path nor gs://BUCKET/FOLD"):
    bucket.place(address)


def test_missing_bucket_is_named(storage, tmp_path):
  with pytest.raises(OSError, match=r"gs://nowhere/run cannot be used"):
    folder = bucket.place("gs://nowhere/run")
    (folder / "config.json").write_text("{}")
    bucket.send(folder)


def test_address_taken_for_a_path_is_refused():
  with pytest.raises(ValueError, match=r"gs:/a/b is an address.*bucket"):
    runner.run({}, pathlib.Path("gs://a/b"))
