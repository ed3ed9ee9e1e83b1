"""Classified and rated texts: what is measured, and over which examples."""

import pathlib
import tempfile

import flax.linen as nn
import jax
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from bitnet_jax.data.text.tokenizers import load_tokenizer
from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.folder.metrics import NonFiniteMetricError
from tests.train import tiny
from tests.train.conftest import lines_without_time
from tests.train.tasks.language_test import assert_resumes_and_dispatches_alike

FLOAT32 = 1e-5  # Losses are summed in float32.
BYTES = load_tokenizer("bytes", texts=list)
NAMES = ("cold", "mild", "warm")
# Their last letters tell them apart.
ROWS = [
  (f"day {chr(65 + i)}", NAMES[i * i % 7 % 3], i * i % 17) for i in range(50)
]


def write_table(path, rows=ROWS, header="text\tlabel\tdegrees"):
  lines = ["\t".join(map(str, row)) for row in rows]
  return tiny.write(path, [header, *lines])


@pytest.fixture
def source(tmp_path):
  return write_table(tmp_path / "days.tsv")


@pytest.fixture
def stubs(monkeypatch):
  tiny.use_stubs(monkeypatch)


REGRESSION = {
  "task__regression": True,
  "data__label": "degrees",
  "checkpoint__metric": "valid/spearman",
}


def collect(experiment, split):
  """Logits and labels of all examples of a split, one after the other."""
  with experiment.activate():
    params = experiment.init().params
    model = jax.jit(experiment.task.model.apply)
    logits, labels = [], []
    for batch in experiment.data.eval_batches(split):
      args, kwargs = experiment.task.inputs(batch)
      real = batch["mask"] > 0
      logits.append(
        np.asarray(model({"params": params}, *args, **kwargs))[real]
      )
      labels.append(batch["labels"][real])
  return np.concatenate(logits), np.concatenate(labels)


def test_scores_are_those_of_all_predictions(source, stubs):
  experiment = build(tiny.make("classification", source))
  for split in ("train", "valid"):
    logits, labels = collect(experiment, split)
    found = logits.argmax(-1)
    logs = tiny.log_softmax(logits)
    expected = {
      "loss": -logs[np.arange(len(labels)), labels].mean(),
      "accuracy": np.mean(found == labels),
      "macro_f1": sklearn.metrics.f1_score(labels, found, average="macro"),
      "matthews": sklearn.metrics.matthews_corrcoef(labels, found),
    }
    assert len({*found.tolist()}) > 1
    sums = tiny.sums_of(experiment, split)
    metrics = experiment.task.finish(split, sums)
    assert metrics == pytest.approx(expected, rel=FLOAT32)
    confusion = sklearn.metrics.confusion_matrix(labels, found, labels=range(3))
    np.testing.assert_array_equal(sums["confusion"], confusion)
    assert confusion.sum() == len(labels)
  assert {*metrics} == {*experiment.task.metric_names}


def test_two_classes_have_the_f1_of_the_second(tmp_path, stubs):
  rows = [(text, "no" if degrees < 9 else "yes") for text, _, degrees in ROWS]
  source = write_table(tmp_path / "two.tsv", rows, "text\tlabel")
  config = tiny.make("classification", source, checkpoint__metric="valid/f1")
  experiment = build(config)
  logits, labels = collect(experiment, "train")
  found = logits.argmax(-1)
  metrics = tiny.evaluate(experiment, "train")
  assert (
    0
    < metrics["f1"]
    == pytest.approx(sklearn.metrics.f1_score(labels, found, pos_label=1))
  )
  assert {*metrics} == {*experiment.task.metric_names}


@pytest.mark.parametrize(
  "options", [{}, REGRESSION], ids=["classes", "numbers"]
)
def test_filling_does_not_count(source, stubs, options):
  by_size = []
  for size in (1, 7):
    config = tiny.make(
      "classification", source, data__eval_batch_size=size, **options
    )
    experiment = build(config)
    sums = tiny.sums_of(experiment, "train")
    by_size.append(experiment.task.finish("train", sums))
    assert sums["weight"] == 41  # Of 50, without valid and test.
    if not options:
      assert sums["confusion"].sum() == 41
  assert by_size[0] == pytest.approx(by_size[1], rel=FLOAT32)


def test_numbers_are_correlated_over_the_whole_split(source, stubs):
  experiment = build(tiny.make("classification", source, **REGRESSION))
  for split in ("train", "test"):
    logits, labels = collect(experiment, split)
    assert logits.shape == (len(labels), 1) and labels.dtype == np.float32
    found = logits[:, 0].astype(np.float64)
    expected = {
      "loss": np.mean((found - labels) ** 2),
      "pearson": scipy.stats.pearsonr(found, labels)[0],
      "spearman": scipy.stats.spearmanr(found, labels)[0],
    }
    metrics = tiny.evaluate(experiment, split)
    assert metrics == pytest.approx(expected, rel=10 * FLOAT32)
  assert {*metrics} == {*experiment.task.metric_names}


def test_numbers_over_several_devices_keep_their_places(source, stubs):
  one, four = (
    tiny.evaluate(
      build(
        tiny.make("classification", source, mesh__data=devices, **REGRESSION)
      ),
      "train",
    )
    for devices in (1, 4)
  )
  assert four == pytest.approx(one, rel=FLOAT32)


def test_numbers_that_are_none_end_the_run_by_name(source, stubs, tmp_path):
  config = tiny.make(
    "classification",
    source,
    optim__learning_rate=1e30,
    eval_every=1,
    **REGRESSION,
  )
  with pytest.raises(NonFiniteMetricError, match=r"(train|valid)/loss is"):
    runner.run(config, tmp_path / "run")


def test_smoothing_is_for_training_only(source, stubs):
  def both(smoothing):
    config = tiny.make(
      "classification", source, task__label_smoothing=smoothing
    )
    experiment = build(config)
    trained = tiny.training_totals(experiment)["loss"]
    return tiny.evaluate(experiment), float(trained)

  plain, smoothed = both(0.0), both(0.5)
  assert plain[0] == smoothed[0]
  assert abs(plain[1] - smoothed[1]) > 0.01


def test_pairs_are_told_apart(tmp_path):
  rows = [(f"day {i}", f"night {i % 4}", i % 2) for i in range(40)]
  source = write_table(tmp_path / "p.tsv", rows, "first\tsecond\tlabel")
  config = tiny.make(
    "classification",
    source,
    data__columns=("first", "second"),
    data__seq_len=20,
    model__num_types=2,
  )
  experiment = build(config)
  batch = experiment.data.train_batch(0)
  for row, tokens in enumerate(batch["tokens"]):
    (end, last) = np.flatnonzero(tokens == BYTES.sep_id)
    assert tokens[0] == BYTES.cls_id
    assert bytes(tokens[1:end].tolist()).startswith(b"day ")
    assert bytes(tokens[end + 1 : last].tolist()).startswith(b"night ")
    types = [0] * (end + 1) + [1] * (last - end) + [0] * (19 - last)
    assert batch["type_ids"][row].tolist() == types
    segments = [1] * (last + 1) + [0] * (19 - last)
    assert batch["segment_ids"][row].tolist() == segments
  _, kwargs = experiment.task.inputs(batch)
  assert {*kwargs} == {"segment_ids", "type_ids"}
  init = jax.eval_shape(experiment.task.init, jax.random.key(0))
  types = nn.unbox(init)["params"]["types"]["embedding"]
  assert types.shape == (2, 16)


def test_classes_have_the_order_of_their_names(source, stubs):
  for names in ((), ("warm", "cold", "mild")):
    config = tiny.make("classification", source, data__class_names=names)
    experiment = build(config)
    order = names or tuple(sorted(NAMES))
    by_text = {text: name for text, name, _ in ROWS}
    batch = experiment.data.train_batch(0)
    for tokens, label in zip(batch["tokens"], batch["labels"], strict=True):
      assert order[label] == by_text[BYTES.decode(tokens)]


def classify_and_go_on():
  for options in ({}, REGRESSION | {"quant__phase_in__steps": 2}):
    with tempfile.TemporaryDirectory() as folder:
      run_in = pathlib.Path(folder)
      assert_resumes_and_dispatches_alike(
        "classification",
        write_table(run_in / "days.tsv"),
        run_in,
        model__scan_layers=True,
        **options,
      )


@pytest.mark.slow
def test_classifier_goes_on_where_it_stopped(optimized):
  # To the bit only in programs as users run them.
  optimized(classify_and_go_on)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["float", "b158"])
def test_words_are_told_from_each_other(tmp_path, recipe):
  words = ["good fine glad", "poor sad dull"]
  rng = np.random.default_rng(0)
  rows = [
    (" ".join(rng.permutation(words[i % 2].split())[:2]), i % 2)
    for i in range(120)
  ]
  config = tiny.make(
    "classification",
    write_table(tmp_path / "moods.tsv", rows, "text\tlabel"),
    total_steps=60,
    eval_every=20,
    data__batch_size=32,
    quant__recipe=recipe,
  )
  result = runner.run(config, tmp_path / "run")
  assert result["metrics"]["test/accuracy"] > 0.9
  assert result["metrics"]["test/matthews"] > 0.8
  names = {"accuracy", "f1", "loss", "macro_f1", "matthews"}
  last = lines_without_time(tmp_path / "run")[-1]
  assert {n.removeprefix("valid/") for n in last if n[:5] == "valid"} == names


BAD = {
  "longer than the model": (
    {"data__seq_len": 40},
    r"data.seq_len is 40, more than model.max_length, 32",
  ),
  "text too long": (
    {"data__seq_len": 6},
    r"train: example \d+ has 7 tokens, more than seq_len=6; .*use 7",
  ),
  "no room": (
    {"data__seq_len": 2},
    r"data.seq_len is 2; it must be at least 3",
  ),
  "no column": ({"data__columns": ("words",)}, r"days.tsv.* words"),
  "three columns": (
    {"data__columns": ("a", "b", "c")},
    r"number of columns is 3, which is not one of: 0, 1, 2",
  ),
  "label": ({"data__label": "class"}, r"days.tsv.* class"),
  "classes that are numbers": (
    {"task__regression": True},
    r"days.tsv, line 2: label must be a finite number, it is 'cold'",
  ),
  "unknown class": (
    {"data__class_names": ("cold", "mild")},
    r"days.tsv, line \d+: label is 'warm', which is none of the classes cold",
  ),
  "class named twice": (
    {"data__class_names": ("cold", "mild", "warm", "cold")},
    r"data.class_names is \('cold', .*\), which names a class twice",
  ),
  "smoothed numbers": (
    REGRESSION | {"task__label_smoothing": 0.1},
    r"task.label_smoothing is 0.1, which does not apply to task.regression",
  ),
  "smoothing": (
    {"task__label_smoothing": -0.1},
    r"task.label_smoothing is -0.1",
  ),
  "type": (
    {"task__regression": 1},
    r"task.regression is 1, of type int; it must be bool",
  ),
  "type of columns": (
    {"data__columns": "text"},
    r"data.columns is 'text', of type str; it must be tuple\[str, ...\]",
  ),
  "metric of numbers": (
    REGRESSION | {"checkpoint__metric": "valid/accuracy"},
    r"checkpoint.metric is 'valid/accuracy', which is not one of:"
    r" 'valid/loss', 'valid/pearson', 'valid/spearman'",
  ),
  "metric of classes": (
    {"checkpoint__metric": "valid/pearson"},
    r"checkpoint.metric is 'valid/pearson', which is not one of:"
    r" 'valid/accuracy', 'valid/loss', 'valid/macro_f1', 'valid/matthews'",
  ),
  "model": (
    {"model__name": "decoder"},
    r"model.name is 'decoder', which is not for task.name"
    r" 'text_classification'; .*: encoder",
  ),
  "source": (
    {"data__source": "embedded:pydoc"},
    r"unknown source of labeled texts 'embedded:pydoc'",
  ),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD.keys())
def test_mistake_is_named(source, options, message):
  with pytest.raises(ValueError, match=message):
    build(tiny.make("classification", source, **options))


def test_single_class_is_refused(tmp_path):
  source = write_table(tmp_path / "same.tsv", [("day", "mild", 1)] * 30)
  message = r"same.tsv', whose only class is 'mild'; there must be two"
  with pytest.raises(ValueError, match=message):
    build(tiny.make("classification", source))


def test_empty_text_is_named_by_file_and_line(tmp_path):
  rows = [*ROWS[:3], (" ", "mild", 1.0), *ROWS]
  source = write_table(tmp_path / "gap.tsv", rows)
  with pytest.raises(ValueError, match=r"gap.tsv, line 5: text is empty"):
    build(tiny.make("classification", source))
