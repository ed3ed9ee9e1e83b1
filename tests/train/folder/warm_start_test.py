"""Runs that start with the parameters of another."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from bitnet_jax.train import experiment, runner
from bitnet_jax.train.build import build
from bitnet_jax.train.folder import workdir
from bitnet_jax.train.folder.checkpoint import Checkpoints, Progress
from bitnet_jax.train.folder.warm_start import find, warm_start
from bitnet_jax.train.state import TrainState
from tests.train import tiny
from tests.train.conftest import final_state, lines_without_time

TEXTS = [f"day {chr(65 + i % 26)} of {chr(97 + i * 7 % 26)}" for i in range(40)]


def pre_train(folder, name="encoder", **options):
  """Trains a masked language model for two steps; returns its config."""
  options = {"quant__recipe": "float", "total_steps": 2} | options
  source = tiny.write(folder.with_suffix(".txt"), TEXTS)
  config = tiny.make(name, source, **options)
  runner.run(config, folder)
  return config


def make_classifier(folder, **options):
  """Returns the config of a classifier."""
  rows = [f"{text}\t{i % 2}" for i, text in enumerate(TEXTS)]
  source = tiny.write(folder / "labelled.tsv", ["text\tlabel", *rows])
  options = {"quant__recipe": "float", "total_steps": 2} | options
  return tiny.make("classification", source, **options)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
  """A run of a masked language model: its config and folder.

  All that another run looks at, without the training.
  """
  folder = tmp_path_factory.mktemp("earlier") / "run"
  folder.mkdir()
  source = tiny.write(folder.with_suffix(".txt"), TEXTS)
  config = tiny.make("encoder", source, quant__recipe="float")
  built = build(config, folder)
  workdir.claim(folder, built.config, built.fingerprint)
  kept = Checkpoints(folder / "checkpoints", built.settings.checkpoint)
  with built.activate():
    kept.save(2, built.init(), progress=Progress(), metrics={})
    kept.wait()
  return config, folder


def flat(params):
  return traverse_util.flatten_dict(jax.device_get(params), sep="/")


def test_shared_parameters_are_taken_and_the_rest_is_fresh(earlier, tmp_path):
  config, folder = earlier
  there = flat(final_state(config, folder).params)
  built = build(make_classifier(tmp_path, init_from=str(folder), seed=1))
  with built.activate():
    fresh = flat(built.init().params)
    found = flat(built.start().params)
  assert found.keys() == fresh.keys()
  shared = found.keys() & there.keys()
  assert {path.split("/")[0] for path in shared} == {
    "embed",
    "blocks_0",
    "final_norm",
  }
  own = found.keys() - there.keys()
  assert {path.split("/")[0] for path in own} == {"pooler", "head"}
  assert {"transform/kernel", "bias"} < there.keys() - found.keys()
  for path in shared:
    np.testing.assert_array_equal(found[path], there[path], path)
    if path.endswith(("kernel", "embedding")):
      assert (found[path] != fresh[path]).mean() > 0.9
  for path in own:
    np.testing.assert_array_equal(found[path], fresh[path], path)


def state_with(path, shape, dtype=np.float32):
  """A state whose only parameter, of zeros, is at a path."""
  params = traverse_util.unflatten_dict(
    {path: jnp.zeros(shape, dtype)}, sep="/"
  )
  return TrainState(jnp.zeros((), jnp.int32), params, (), {})


EMBEDDING = "embed/tokens/embedding"


def test_devices_of_the_earlier_run_need_not_be_there(earlier):
  config, folder = earlier
  kept = Checkpoints(folder / "checkpoints", build(config).settings.checkpoint)
  for leaf in jax.tree.leaves(kept.restore_variables(2)):
    assert isinstance(leaf, np.ndarray)


def test_dtype_is_that_of_the_new_run(earlier):
  config, folder = earlier
  there = flat(final_state(config, folder).params)[EMBEDDING]
  state = state_with(EMBEDDING, there.shape, jnp.bfloat16)
  found = warm_start(state, find(folder)).params["embed"]["tokens"]["embedding"]
  assert found.dtype == jnp.bfloat16
  np.testing.assert_array_equal(found, there.astype(jnp.bfloat16))


def test_run_is_named_by_what_it_starts_with(earlier, tmp_path):
  _, folder = earlier
  copy = tmp_path / "copy"
  shutil.copytree(folder, copy)
  names = [
    build(make_classifier(tmp_path, init_from=place)).run_id
    for place in (None, str(folder), str(copy))
  ]
  assert names[0] != names[1]
  assert names[1] == names[2]  # By content, not by place.
  last = copy / "checkpoints" / "000002"
  last.rename(copy / "checkpoints" / "000001")
  config = make_classifier(tmp_path, init_from=str(copy))
  assert build(config).run_id not in names


@pytest.mark.slow
def test_started_run_resumes_and_is_evaluated(earlier, tmp_path, monkeypatch):
  _, folder = earlier
  tiny.use_stubs(monkeypatch)
  calls = []

  def start(state, earlier):
    calls.append(earlier)
    return state

  monkeypatch.setattr(experiment, "warm_start", start)
  config = make_classifier(
    tmp_path, init_from=str(folder), optim__schedule="constant"
  )
  first = runner.run(config, tmp_path / "run")
  assert [call.folder for call in calls] == [folder]
  longer = runner.run(config | {"total_steps": 4}, tmp_path / "run")
  assert len(calls) == 1  # It goes on from its own checkpoint.
  assert (first["step"], longer["step"]) == (2, 4)
  lines = lines_without_time(tmp_path / "run")
  assert [line["step"] for line in lines] == [1, 2, 3, 4]
  evaluation = runner.evaluate_run(tmp_path / "run")
  assert longer["metrics"].items() <= evaluation["metrics"].items()
  assert evaluation["run_id"] == longer["run_id"]
  shutil.move(folder, tmp_path / "elsewhere")
  assert runner.evaluate_run(tmp_path / "run") == evaluation
  shutil.move(tmp_path / "elsewhere", folder)
  # Without the start it is another run.
  with pytest.raises(ValueError, match=r"data.fingerprint: .* after .*@2"):
    runner.run(config | {"init_from": None, "total_steps": 4}, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["float", "b158"])
def test_transformer_is_fine_tuned(tmp_path, recipe):
  """Ends elsewhere than without the start, and goes on as it would have."""
  options = {"quant__recipe": recipe, "model__scan_layers": True}
  pre_train(tmp_path / "earlier", **options)
  make = lambda **more: make_classifier(  # noqa: E731
    tmp_path, optim__schedule="constant", **options, **more
  )
  init_from = str(tmp_path / "earlier")
  config = make(init_from=init_from)
  warm = runner.run(config, tmp_path / "warm")
  cold = runner.run(make(), tmp_path / "cold")
  assert warm["metrics"]["test/loss"] != cold["metrics"]["test/loss"]
  runner.run(make(init_from=init_from, total_steps=1), tmp_path / "again")
  runner.run(config, tmp_path / "again")
  jax.tree.map(
    np.testing.assert_array_equal,
    final_state(config, tmp_path / "again"),
    final_state(config, tmp_path / "warm"),
  )
  evaluation = runner.evaluate_run(tmp_path / "warm")
  assert warm["metrics"].items() <= evaluation["metrics"].items()


@pytest.mark.slow
@pytest.mark.parametrize(
  ("kind", "size", "spec"),
  [
    ("bpe", 290, "tokenizers:{}/tokenizer.json"),
    ("wordpiece", 90, "tokenizers:{}/tokenizer.json"),
    ("unigram", 330, "sentencepiece:{}/tokenizer.model"),
  ],
)
@pytest.mark.parametrize("lowercase", [None, True])
def test_vocabulary_that_was_kept_is_the_same(
  tmp_path, monkeypatch, kind, size, spec, lowercase
):
  tiny.use_stubs(monkeypatch)
  folder = tmp_path / "earlier"
  pre_train(
    folder,
    data__tokenizer=kind,
    data__vocab_size=size,
    data__lowercase=lowercase,
  )
  config = make_classifier(
    tmp_path, init_from=str(folder), data__tokenizer=spec.format(folder)
  )
  assert " vocabulary sha256:" in build(config).fingerprint
  other = make_classifier(tmp_path, init_from=str(folder))
  with pytest.raises(ValueError, match="whose vocabulary differs"):
    build(other)


@pytest.mark.slow
def test_spans_are_the_start_of_a_translation(tmp_path):
  folder = tmp_path / "earlier"
  pre_train(
    folder,
    "encoder_decoder",
    data__tokenizer="bpe",
    data__vocab_size=300,
    mesh__fsdp=2,
  )
  for language in ("en", "de"):
    tiny.write(tmp_path / f"pairs.{language}", TEXTS)
  config = tiny.make(
    "translation",
    f"file:{tmp_path}/pairs.{{lang}}",
    data__tokenizer=f"tokenizers:{folder}/tokenizer.json",
    init_from=str(folder),
    total_steps=1,
    mesh__data=2,
  )
  result = runner.run(config, tmp_path / "run")
  assert result["metrics"].items() <= (
    runner.evaluate_run(tmp_path / "run")["metrics"].items()
  )


def test_vocabulary_must_be_the_same(earlier, tmp_path):
  _, folder = earlier
  config = make_classifier(
    tmp_path,
    init_from=str(folder),
    data__tokenizer="bpe",
    data__vocab_size=280,
  )
  message = rf"init_from is {folder}, whose vocabulary differs: sha256:.*"
  with pytest.raises(ValueError, match=message + r" there, sha256:.* here"):
    build(config)


def test_shapes_must_be_the_same(earlier):
  _, folder = earlier
  message = (
    rf"init_from is {folder}, where {EMBEDDING} has the shape \(263, 16\); here"
    r" it has \(263, 8\)"
  )
  with pytest.raises(ValueError, match=message):
    warm_start(state_with(EMBEDDING, (263, 8)), find(folder))


def test_something_must_be_shared(earlier):
  _, folder = earlier
  message = (
    rf"init_from is {folder}, which has none of the parameters of this model;"
    r" there: .*transform/kernel.*; here: dense/kernel"
  )
  with pytest.raises(ValueError, match=message):
    warm_start(state_with("dense/kernel", (2, 2)), find(folder))


def test_what_is_fresh_is_said(earlier, caplog):
  """With layers of other names, the embeddings alone would be taken."""
  config, folder = earlier
  state = final_state(config, folder)
  params = dict(state.params)
  params["blocks"] = params.pop("blocks_0")
  warm_start(
    state.replace(params=jax.tree.map(jnp.asarray, params)), find(folder)
  )
  (record,) = caplog.records
  assert record.levelname == "WARNING"  # Which programs show.
  assert str(folder) in record.message
  fresh = record.message.partition("freshly initialized: ")[2].split(", ")
  assert "blocks/attention/query/kernel" in fresh
  assert EMBEDDING not in fresh


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (None, r"init_from is .*: .*config.json does not exist"),
    ("{", r"init_from is .*: .*config.json is damaged"),
    ("real", r"init_from is .*nothing, which holds no checkpoint"),
  ],
)
def test_run_to_start_with_must_be_there(earlier, tmp_path, content, message):
  config, _ = earlier
  folder = tmp_path / "nothing"
  folder.mkdir()
  if content == "real":
    content = json.dumps(config | {"data_fingerprint": "x"})
  if content is not None:
    (folder / "config.json").write_text(content)
  with pytest.raises(ValueError, match=message):
    build(make_classifier(tmp_path, init_from=str(folder)))


def test_damaged_checkpoint_is_not_taken(earlier, tmp_path):
  _, folder = earlier
  copy = tmp_path / "copy"
  shutil.copytree(folder, copy)
  victim = next((copy / "checkpoints" / "000002").rglob("_METADATA"))
  victim.unlink()
  with pytest.raises(ValueError, match=rf"damaged: {victim} is missing"):
    warm_start(state_with(EMBEDDING, (263, 16)), find(copy))
