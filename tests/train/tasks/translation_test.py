"""Sequence to sequence: losses, texts that are written, and their scores."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.data.text.tokenizers import load_tokenizer
from bitnet_jax.inference import beam_search
from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.tasks import translation
from tests.train import tiny
from tests.train.tasks.language_test import assert_resumes_and_dispatches_alike

FLOAT32 = 1e-5  # Losses are summed in float32.
BYTES = load_tokenizer("bytes", texts=list)
# Of four words, so that there are n-grams of all the lengths of BLEU.
SOURCES = [f"one {i} two {i % 3}" for i in range(30)]
TARGETS = [f"a {i} b {i % 3}" for i in range(30)]


def write_pairs(folder, sources=SOURCES, targets=TARGETS):
  tiny.write(folder / "pairs.en", sources)
  tiny.write(folder / "pairs.de", targets)
  return f"file:{folder}/pairs.{{lang}}"


@pytest.fixture
def source(tmp_path):
  return write_pairs(tmp_path)


@pytest.fixture
def stubs(monkeypatch):
  tiny.use_stubs(monkeypatch)


def targets_of(experiment, split):
  """The texts that a split wants, in order."""
  return [
    BYTES.decode(row[mask > 0])
    for batch in experiment.data.eval_batches(split)
    for row, mask in zip(batch["targets"], batch["mask"], strict=True)
    if mask.any()
  ]


def test_loss_is_over_the_tokens_that_are_written(source, stubs):
  experiment = build(tiny.make("translation", source, data__eval_batch_size=2))
  metrics = tiny.evaluate(experiment)
  texts = targets_of(experiment, "valid")
  assert len(texts) == 3 and {*texts} <= {*TARGETS}
  with experiment.activate():
    params = experiment.init().params
  model, nll, hits, count = jax.jit(experiment.task.model.apply), 0.0, 0, 0
  for target in texts:
    read = SOURCES[TARGETS.index(target)].encode()
    ids = [*target.encode(), BYTES.eos_id]
    inputs = [*read, BYTES.eos_id, *[BYTES.pad_id] * (15 - len(read))]
    tokens = [BYTES.bos_id, *ids[:-1], *[BYTES.pad_id] * (12 - len(ids))]
    logits = model({"params": params}, jnp.array([inputs]), jnp.array([tokens]))
    logs = tiny.log_softmax(logits[0, : len(ids)])
    nll -= logs[np.arange(len(ids)), ids].sum()
    hits += (logs.argmax(-1) == ids).sum()
    count += len(ids)
  expected = {
    "loss": nll / count,
    "accuracy": hits / count,
    "perplexity": np.exp(nll / count),
  }
  assert metrics == pytest.approx(expected, rel=10 * FLOAT32)
  for size in (1, 8):
    config = tiny.make("translation", source, data__eval_batch_size=size)
    other = tiny.evaluate(build(config))
    assert other == pytest.approx(metrics, rel=FLOAT32)


def test_scores_are_of_all_texts_in_their_order(source, stubs, monkeypatch):
  experiment = build(tiny.make("translation", source, data__eval_batch_size=4))
  model, mesh = experiment.task.model, experiment.mesh
  wanted, calls = {}, []
  for batch in experiment.data.eval_batches("train"):
    for read, row in zip(batch["inputs"], batch["targets"], strict=True):
      wanted[read.tobytes()] = row

  def write(model, variables, inputs, input_mask, **options):
    calls.append(len(inputs))
    assert options["start_id"] == BYTES.bos_id
    assert options["stop_id"] == BYTES.eos_id
    assert options["max_length"] == 12
    return np.stack([wanted[np.asarray(row).tobytes()] for row in inputs])

  monkeypatch.setattr(translation, "beam_search", write)
  perfect = dict.fromkeys(("bleu", "chrf", "rouge1", "rouge2", "rougeL"), 100.0)
  assert experiment.data.score(model, "train", {}, mesh) == pytest.approx(
    perfect
  )
  assert calls == [4] * 6  # Of 24 pairs.
  first, second = [*wanted][:2]
  wanted[first], wanted[second] = wanted[second], wanted[first]
  assert experiment.data.score(model, "train", {}, mesh)["bleu"] < 99


def test_texts_end_where_they_say_and_filling_writes_none(source, stubs):
  experiment = build(tiny.make("translation", source, data__eval_batch_size=2))
  batches = list(experiment.data.eval_batches("valid"))
  assert [batch["mask"].any(1).tolist() for batch in batches] == [
    [True, True],
    [True, False],
  ]

  def write(*args, **options):
    rows = np.full((2, 12), BYTES.eos_id, np.int32)
    rows[0, :5] = [*b"a b ", BYTES.eos_id]
    rows[0, 5:] = ord("x")  # Beyond the end: must not be read.
    rows[1] = ord("y")  # Never ends.
    return rows

  data = tiny.make("translation", source)["data"]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(translation, "beam_search", write)
    seen = []
    patch.setitem(
      translation.SCORES,
      "bleu",
      lambda written, wanted: seen.append((written, wanted)) or {"bleu": 0.0},
    )
    experiment.data.score(experiment.task.model, "valid", {}, experiment.mesh)
  ((written, wanted),) = seen
  assert written == ["a b ", "y" * data["target_len"], "a b "]
  assert wanted == targets_of(experiment, "valid")


def check_records(source, folder, **options):
  """Checks what a run records, and that evaluating it again finds the same."""
  config = tiny.make(
    "translation",
    source,
    total_steps=1,
    eval_every=1,
    task__scores=("bleu", "chrf"),
    **options,
  )
  result = runner.run(config, folder)
  names = ("accuracy", "loss", "perplexity", "bleu", "chrf")
  splits = ("valid", "test")
  assert {*result["metrics"]} == {f"{s}/{n}" for s in splits for n in names}
  assert json.loads((folder / "result.json").read_text()) == result
  # Writing takes long: not while training.
  assert "bleu" not in (folder / "metrics.jsonl").read_text()
  evaluation = runner.evaluate_run(folder)
  assert result["metrics"].items() <= evaluation["metrics"].items()
  assert "train/loss" in evaluation["metrics"]
  assert "train/bleu" not in evaluation["metrics"]
  return result


def test_scores_are_recorded(source, stubs, tmp_path, monkeypatch):
  def write(model, variables, inputs, input_mask, **options):
    assert {*variables["params"]} == {"Embed_0", "tokens"}
    return np.full((len(inputs), 12), ord("a"), np.int32)

  monkeypatch.setattr(translation, "beam_search", write)
  result = check_records(source, tmp_path / "run")
  assert result["metrics"]["test/chrf"] > 0  # For an "a" in each text.


@pytest.mark.slow
def test_scores_of_a_transformer_are_recorded(source, tmp_path):
  check_records(source, tmp_path / "run", model__scan_layers=True)


@pytest.mark.slow
def test_transformer_writes_for_every_row(source):
  config = tiny.make("translation", source, quant__recipe="float")
  experiment = build(config)
  with experiment.activate():
    scores = experiment.score("test", experiment.init())
    assert experiment.score("train", None) == {}
  assert {*scores} == {"bleu", "chrf", "rouge1", "rouge2", "rougeL"}
  assert 0 <= scores["chrf"] < 50


@pytest.mark.slow
def test_beams_are_those_of_the_config(source, monkeypatch):
  options = []

  def search(*args, **given):
    options.append((given["num_beams"], given["length_penalty"]))
    return beam_search(*args, **given)

  monkeypatch.setattr(translation, "beam_search", search)
  for beams, penalty in ((1, 1.0), (3, 0.5)):
    config = tiny.make(
      "translation",
      source,
      task__num_beams=beams,
      task__length_penalty=penalty,
      mesh__data=2,
      model__scan_layers=True,
    )
    experiment = build(config)
    with experiment.activate():
      scores = experiment.score("test", experiment.init())
    assert {*scores} == {"bleu", "chrf", "rouge1", "rouge2", "rougeL"}
  assert {*options} == {(1, 1.0), (3, 0.5)}


@pytest.mark.slow
def test_translation_goes_on_where_it_stopped(source, tmp_path):
  assert_resumes_and_dispatches_alike("translation", source, tmp_path)


@pytest.mark.slow
def test_copying_is_learned(tmp_path):
  """Digits of two lengths, which no constant output fits."""
  texts = [f"{i:0{3 + i % 2}d}" for i in range(200)]
  config = tiny.make(
    "translation",
    write_pairs(tmp_path, texts, texts),
    total_steps=600,
    eval_every=0,
    checkpoint__keep_best=0,
    checkpoint_every=600,
    steps_per_dispatch=50,
    data__batch_size=32,
    data__input_len=6,
    data__target_len=6,
    model__hidden=32,
    model__mlp_width=64,
    quant__recipe="float",
    task__scores=("chrf",),
  )
  result = runner.run(config, tmp_path / "run")
  assert result["metrics"]["test/loss"] < 0.5
  assert result["metrics"]["test/chrf"] > 50


BAD = {
  "read": (
    {"data__input_len": 40},
    r"data.input_len is 40, more than model.max_length, 32",
  ),
  "written": (
    {"data__target_len": 40},
    r"data.target_len is 40, more than model.max_length, 32",
  ),
  "nothing": (
    {"data__target_len": 1},
    r"data.target_len is 1; it must be at least 2",
  ),
  "too long": (
    {"data__input_len": 12},
    r"train: example \d+ has 13 tokens, more than input_len=12; .*"
    r"use 13",
  ),
  "too long a target": (
    {"data__target_len": 8},
    r"train: example \d+ has \d+ tokens, more than target_len=8",
  ),
  "what becomes of it": (
    {"data__too_long": "drop"},
    r"data.too_long is 'drop', which is not one of: 'error', 'cut'",
  ),
  "score": (
    {"task__scores": ("bleu", "meteor")},
    r"task.scores is 'meteor', which is not one of: 'bleu', 'chrf', 'rouge'",
  ),
  "scores": (
    {"task__scores": "bleu"},
    r"task.scores is 'bleu', of type str; it must be tuple\[str, ...\]",
  ),
  "no beam": ({"task__num_beams": 0}, r"task.num_beams is 0"),
  "beams": (
    {"task__num_beams": 300},
    r"task.num_beams is 300, more than the 263 tokens of the vocabulary",
  ),
  "penalty": (
    {"task__length_penalty": "1"},
    r"task.length_penalty is '1', of type str; it must be float",
  ),
  "model": (
    {"model__name": "decoder"},
    r"model.name is 'decoder', which is not for task.name 'translation'; .*:"
    r" encoder_decoder",
  ),
  "metric": (
    {"checkpoint__metric": "valid/bleu"},
    r"checkpoint.metric is 'valid/bleu', which is not one of: 'valid/acc",
  ),
  "languages": (
    {"data__languages": ("en",)},
    r"needs two languages, read and written, not \['en'\]",
  ),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD.keys())
def test_mistake_is_named(source, options, message):
  with pytest.raises(ValueError, match=message):
    build(tiny.make("translation", source, **options))


def test_long_texts_may_be_cut(source, stubs, caplog):
  experiment = build(
    tiny.make("translation", source, data__input_len=8, data__too_long="cut")
  )
  batch = experiment.data.train_batch(0)
  assert batch["inputs"].shape[1] == 8
  assert (batch["inputs"][:, -1] == BYTES.eos_id).all()
  assert "examples to input_len=8 tokens" in caplog.text


def test_files_of_different_lengths_are_named(tmp_path):
  source = write_pairs(tmp_path, targets=TARGETS[:-1])
  message = r"pairs.en has 30 lines, but .*pairs.de has 29"
  with pytest.raises(ValueError, match=message):
    build(tiny.make("translation", source))


def test_empty_text_is_named_by_file_and_line(tmp_path):
  targets = [*TARGETS[:4], "", *TARGETS[5:]]
  source = write_pairs(tmp_path, targets=targets)
  with pytest.raises(ValueError, match=r"pairs.de, line 5: de is empty"):
    build(tiny.make("translation", source))


def test_language_that_is_not_there_is_named(source):
  with pytest.raises(FileNotFoundError, match=r"no file .*pairs.fr"):
    build(tiny.make("translation", source, data__languages=("en", "fr")))
