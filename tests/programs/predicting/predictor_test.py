"""Predictions are those of evaluation, for runs and frozen models."""

import contextlib

import numpy as np
import pytest

from bitnet_jax.ops import lowering
from bitnet_jax.programs import frozen
from bitnet_jax.programs.predicting import finders, inputs, predictor
from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from tests.train import tiny

NAMES = ("cold", "mild", "warm")
# Their last letters tell them apart.
DAYS = [
  (f"day {chr(65 + i)}", NAMES[i * i % 7 % 3], i * i % 17) for i in range(40)
]
HEADER = "text\tlabel\tdegrees"


def write_table(path, rows=DAYS, header=HEADER):
  return tiny.write(path, [header, *("\t".join(map(str, r)) for r in rows)])


class Trained:
  """A run, and its frozen model.

  Attributes:
    run: the workdir.
    frozen: the frozen model.
    metrics: of the run.
    batches: of its evaluation on the validation split.
  """

  def __init__(self, root, config):
    self.run, self.frozen = root / "run", root / "frozen"
    self.metrics = runner.run(config, self.run)["metrics"]
    self.batches = [*build(config, self.run).data.eval_batches("valid")]
    frozen.freeze_run(self.run, self.frozen)

  def open(self, form):
    """Returns the predictor of the run, or of the frozen model."""
    if form == "run":
      return predictor.open_run(self.run)
    return predictor.open_frozen(self.frozen)

  def valid(self, name):
    """Returns an array of the validation split."""
    real = [batch[name][batch["mask"] > 0] for batch in self.batches]
    return np.concatenate(real)


def answers(model, request, **options):
  """Returns the answers for a request, none of which fails."""
  predicted = [*model.predict(finders.find(request, model.family), **options)]
  for one in predicted:
    assert one.error is None, one.error
  return [one.answer for one in predicted]


def accuracy(found, labels):
  hits = [a.best == label for a, label in zip(found, labels, strict=True)]
  return np.mean(hits)


@pytest.fixture(scope="module")
def digits(tmp_path_factory, make_config):
  config = make_config(eval_every=12, checkpoint_every=12, statistics_every=0)
  return Trained(tmp_path_factory.mktemp("digits"), config)


@pytest.fixture(scope="module")
def digits_file(digits):
  """The validation split as a file of arrays."""
  path = digits.run.parent / "digits é.npz"
  np.savez(path, x=digits.valid("inputs"))
  return path


@pytest.mark.parametrize("form", ["run", "frozen"])
@pytest.mark.parametrize(
  "kernels", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_arrays_have_the_accuracy_of_evaluation(
  digits, digits_file, form, kernels
):
  request = inputs.Request(places=[str(digits_file)])
  with contextlib.nullcontext() if kernels else lowering.portable():
    found = answers(digits.open(form), request)
  expected = digits.metrics["valid/accuracy"]
  assert accuracy(found, digits.valid("labels")) == pytest.approx(
    expected, abs=1e-12
  )
  assert 0.2 < expected < 1


TEXTS = dict(data__columns=("text",), data__eval_batch_size=4)
BAGS = dict(
  config_name="docstrings_mlp",
  total_steps=2,
  statistics_every=0,
  data__column="text",
  data__label="label",
  data__tokenizer="bytes",
  data__vocab_size=None,
  data__eval_batch_size=4,
  data__weighting="tfidf",
  data__special_tokens=True,
  model__width=16,
)


@pytest.fixture(
  scope="module",
  params=[pytest.param("texts", marks=pytest.mark.slow), "bags"],
)
def days(request, tmp_path_factory, make_config):
  """A run whose texts are gone; of its validation split, they are known."""
  folder = tmp_path_factory.mktemp(request.param)
  rows = {"train": DAYS[:30], "valid": DAYS[30:]}
  for split, own in rows.items():
    write_table(folder / f"{split}.tsv", own)
  source = f"file:{folder}/{{split}}.tsv"
  if request.param == "texts":
    config = tiny.make("classification", source, **TEXTS)
  else:
    config = make_config(**BAGS, data__source=source)
  trained = Trained(folder, config)
  (folder / "train.tsv").unlink()
  return trained


@pytest.mark.parametrize("form", ["run", "frozen"])
def test_texts_have_the_accuracy_of_evaluation(days, form):
  table = str(days.run.parent / "valid.tsv")
  model = days.open(form)
  found = answers(model, inputs.Request(lists=[table]))
  assert accuracy(found, days.valid("labels")) == pytest.approx(
    days.metrics["valid/accuracy"], abs=1e-12
  )
  assert [*found[0].names] == sorted(NAMES)
  one = answers(model, inputs.Request(places=[DAYS[30][0]]))
  assert one[0].probabilities == pytest.approx(found[0].probabilities)


def test_what_a_text_lacks_or_has_too_much_is_said(days):
  model = days.open("run")
  texts = ["day A", "", "day B" * 9, "漢字"]
  items = finders.find(inputs.Request(texts=texts), model.family)
  first, empty, long, unknown = model.predict(items)
  assert first.note == ""
  assert "it is empty" in f"{empty.error}"
  if days.run.parent.name.startswith("texts"):
    assert long.note == "cut to 16 of its 47 tokens"
    assert unknown.error is None
  else:
    assert long.answer is not None
    assert "none of its tokens occurs in the data" in f"{unknown.error}"


def test_few_inputs_take_few_rows_and_any_number_of_devices():
  assert predictor.rows(1, 256, 1) == 1
  assert predictor.rows(5, 256, 1) == 8
  assert predictor.rows(200, 256, 1) == 256
  assert predictor.rows(100, 100, 1) == 100
  assert predictor.rows(1, 256, 8) == 8
  assert predictor.rows(5, 8, 3) == 9
