"""Runs as frozen models."""

import json

import pytest

from bitnet_jax.inference import Sampling, load_frozen
from bitnet_jax.programs import frozen, writing
from bitnet_jax.train import runner
from tests.train import tiny

TEXTS = ["the cat sat on the mat", "a dog ate the food of the cat"] * 8


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
  """A run that wrote a little, and its frozen model."""
  folder = tmp_path_factory.mktemp("decoder")
  for split in ("train", "valid"):
    tiny.write(folder / f"{split}.txt", TEXTS)
  config = tiny.make(
    "decoder",
    f"file:{folder}/{{split}}.txt",
    data__tokenizer="bpe",
    data__vocab_size=300,
    mesh__data=1,
  )
  runner.run(config, folder / "run")
  frozen.freeze_run(folder / "run", folder / "frozen")
  return folder


def test_frozen_run_has_the_metrics_of_the_run(decoder):
  expected = runner.evaluate_run(decoder / "run")
  del expected["best"]  # Of a frozen model there is one checkpoint.
  assert frozen.evaluate_frozen(decoder / "frozen") == expected
  written = json.loads((decoder / "frozen" / "evaluation.json").read_text())
  assert written == expected


@pytest.mark.slow
def test_frozen_run_writes_the_text_of_the_run(decoder):
  options = writing.WritingOptions(max_new_tokens=5, sampling=Sampling())
  prompts, shown = ["the cat", "a dog ate"], []
  expected = writing.write(
    writing.writer_of_run(decoder / "run"), prompts, options
  )
  found = writing.write(
    writing.writer_of_frozen(decoder / "frozen"), prompts, options, shown.append
  )
  assert found.texts == expected.texts
  assert found.tokens == expected.tokens
  assert "".join(shown) == found.texts[0]


def test_frozen_model_needs_neither_run_nor_vocabulary(decoder, tmp_path):
  found = load_frozen(decoder / "frozen")
  assert found.record["step"] == 4
  names = {path.name for path in (decoder / "frozen").iterdir()}
  assert {"config.json", "tokenizer.json", "model.json"} <= names


def test_nothing_is_overwritten(decoder):
  with pytest.raises(FileExistsError, match=r"--output=.*choose another"):
    frozen.freeze_run(decoder / "run", decoder / "frozen")
  with pytest.raises(FileExistsError, match=r"--output=.*choose another"):
    frozen.freeze_run(decoder / "run", decoder / "run")


def test_failure_leaves_nothing(decoder, tmp_path, monkeypatch):
  def fail(*_):
    raise OSError("disk full")

  monkeypatch.setattr(frozen, "save_frozen", fail)
  with pytest.raises(OSError, match="disk full"):
    frozen.freeze_run(decoder / "run", tmp_path / "frozen")
  assert not any(tmp_path.iterdir())


def test_float_run_is_refused(run, tmp_path):
  _, folder = run(quant__recipe="float", total_steps=1)
  with pytest.raises(ValueError, match="there is nothing to freeze"):
    frozen.freeze_run(folder, tmp_path / "frozen")
  assert not (tmp_path / "frozen").exists()


@pytest.mark.slow
def test_half_quantized_checkpoint_is_refused(run, tmp_path):
  _, folder = run(quant__phase_in__steps=10, checkpoint_every=4)
  message = "--checkpoint=8 is step 8, .* fully active from step 10 on"
  with pytest.raises(ValueError, match=message):
    frozen.freeze_run(folder, tmp_path / "frozen", "8")
  result, _ = run(quant__phase_in__steps=10, checkpoint_every=4)
  size = frozen.freeze_run(folder, tmp_path / "frozen")
  assert size.parameters == result["num_params"]


def test_model_that_does_not_write_is_refused(run, tmp_path):
  _, folder = run(total_steps=1)
  with pytest.raises(ValueError, match="Mlp, which does not write"):
    writing.writer_of_run(folder)
  frozen.freeze_run(folder, tmp_path / "frozen")
  with pytest.raises(ValueError, match=r"--frozen=.*Mlp, which does not write"):
    writing.writer_of_frozen(tmp_path / "frozen")
