"""Public sets of texts, as they are defined, with made-up examples."""

import contextlib
import importlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from bitnet_jax.data.views import documents, labeled_texts, pairs
from bitnet_jax.train.config.flags import load_config
from tests.data.loading import load
from tests.train.conftest import CONFIGS

COUNT = 12
# A module is imported where tensorflow-datasets would not find the set.
MODULES = {
  "c4": "text.c4",
  "cnn_dailymail": "summarization.cnn_dailymail",
  "glue": "text.glue",
  "lm1b": "text.lm1b",
  "tiny_shakespeare": "text.tiny_shakespeare",
  "wmt14_translate": "translate.wmt14",
}


def sentence(rng):
  return " ".join(rng.choice(["to", "be", "or", "not", "é"], size=5)).encode()


@contextlib.contextmanager
def prepared(name, folder, *, splits=("train", "validation", "test"), **values):
  """Pretends that a set is prepared; values are functions by feature."""
  importlib.import_module(
    f"tensorflow_datasets.{MODULES[name.partition('/')[0]]}"
  )
  builder = tfds.builder(name, data_dir=folder)
  template = tfds.core.ShardedFileTemplate(
    data_dir=builder.data_path,
    dataset_name=builder.name,
    filetype_suffix="array_record",
  )
  builder.info.set_splits(
    tfds.core.splits.SplitDict(
      [
        tfds.core.SplitInfo(
          name=split,
          shard_lengths=[COUNT],
          num_bytes=0,
          filename_template=template.replace(split=split),
        )
        for split in splits
      ]
    )
  )
  builder.data_path.mkdir(parents=True)
  builder.info.write_to_directory(builder.data_path)

  class Source:
    def __init__(self, split):
      self.split = split

    def __len__(self):
      return COUNT

    def __getitem__(self, i):
      rng = np.random.default_rng((i, len(self.split)))
      return {
        key: values[key](self.split, rng) if key in values else sentence(rng)
        for key in builder.info.features
      }

  with tfds.testing.mock_data(
    num_examples=COUNT,
    data_dir=str(folder),
    as_data_source_fn=lambda _, split, **__: Source(split),
  ):
    yield


@pytest.mark.parametrize("name", ["tiny_shakespeare", "lm1b", "c4/en:3.1.0"])
def test_sets_of_documents(tmp_path, name):
  splits = ("train", "validation" if "c4" in name else "test")
  with prepared(name, tmp_path, splits=splits):
    corpus = load(
      documents.load,
      f"tfds:{name}",
      data_dir=str(tmp_path),
      valid_fraction=0.25,
    )
  assert corpus.splits.keys() <= {"train", "valid", "test"}
  assert sum(len(split) for split in corpus.splits.values()) == 2 * COUNT
  for document in corpus.splits["train"].texts:
    assert {*document.split()} <= {"to", "be", "or", "not", "é"}


def test_random_examples_of_the_library_are_read(tmp_path):
  with (
    prepared("lm1b", tmp_path, splits=("train",)),
    tfds.testing.mock_data(num_examples=7, data_dir=str(tmp_path)),
  ):
    corpus = load(documents.load, "tfds:lm1b", data_dir=str(tmp_path))
  assert len(corpus.splits["train"]) == 7
  assert all(isinstance(t, str) for t in corpus.splits["train"].texts)


@pytest.mark.parametrize(
  ("task", "count"), [("sst2", 1), ("mrpc", 2), ("qqp", 2), ("qnli", 2)]
)
def test_tasks_of_glue_leave_hidden_labels_out(tmp_path, task, count, caplog):
  caplog.set_level("INFO", logger="absl")

  def label(split, rng):
    return np.int64(-1 if split == "test" else rng.integers(2))

  with prepared(f"glue/{task}", tmp_path, label=label):
    corpus = load(
      labeled_texts.load, f"tfds:glue/{task}", data_dir=str(tmp_path)
    )
  assert corpus.splits.keys() == {"train", "valid"}
  assert f"Left test of tfds:glue/{task} out: it has no labels" in caplog.text
  assert len(corpus.splits["train"].texts) == count
  assert set(corpus.splits["train"].labels) == {0, 1}
  assert len(corpus.class_names) == 2
  assert not corpus.class_names[0].isdigit() or task == "qqp"


def test_order_of_sentences_is_that_of_the_task(tmp_path):
  names = {"validation_matched": "valid"}
  values = {
    key: lambda split, rng, key=key: key.encode()
    for key in ("premise", "hypothesis")
  }
  values["label"] = lambda split, rng: np.int64(rng.integers(3))
  with prepared("glue/mnli", tmp_path, splits=("train", *names), **values):
    corpus = load(
      labeled_texts.load,
      "tfds:glue/mnli",
      data_dir=str(tmp_path),
      split_names=(("valid", "validation_matched"),),
    )
  assert corpus.splits.keys() == {"train", "valid"}
  first, second = corpus.splits["train"].texts
  assert (first[0], second[0]) == ("premise", "hypothesis")


def test_labels_of_glue_can_be_numbers(tmp_path):
  def label(split, rng):
    return np.float32(-1 if split == "test" else rng.random() * 5)

  config = load_config(str(CONFIGS / "glue_encoder.py:stsb"))
  with prepared("glue/stsb", tmp_path, label=label):
    corpus = load(
      labeled_texts.load,
      config["data"]["source"],
      columns=config["data"]["columns"],
      label=config["data"]["label"],
      regression=config["task"]["regression"],
      data_dir=str(tmp_path),
    )
  assert corpus.splits.keys() == {"train", "valid"}
  assert corpus.splits["valid"].labels.dtype == np.float32
  assert 0 < corpus.splits["valid"].labels.max() < 5


@pytest.mark.parametrize(
  ("name", "languages"),
  [
    ("wmt14_translate/de-en", ("de", "en")),
    ("cnn_dailymail", ("article", "highlights")),
  ],
)
def test_sets_of_pairs_say_what_is_read(tmp_path, name, languages):
  values = {
    key: lambda split, rng, key=key: f"{key} {rng.integers(99)}".encode()
    for key in languages
  }
  with prepared(name, tmp_path, **values):
    corpus, back = (
      load(
        pairs.load,
        f"tfds:{name}",
        data_dir=str(tmp_path),
        languages=chosen,
      )
      for chosen in ((), languages[::-1])
    )
  assert corpus.splits.keys() == {"train", "valid", "test"}
  train = corpus.splits["train"]
  assert {text.split()[0] for text in train.sources} == {languages[0]}
  assert {text.split()[0] for text in train.targets} == {languages[1]}
  assert back.splits["train"].sources == train.targets


def test_what_a_set_lacks_is_an_error(tmp_path):
  folder = dict(data_dir=str(tmp_path))
  with prepared("lm1b", tmp_path, splits=("train", "test")):
    with pytest.raises(ValueError, match="has no column body, it has text"):
      load(documents.load, "tfds:lm1b", column="body", **folder)
    with pytest.raises(ValueError, match="no split dev, it has train, test"):
      names = (("valid", "dev"),)
      load(documents.load, "tfds:lm1b", split_names=names, **folder)
    with pytest.raises(ValueError, match="lm1b needs columns"):
      load(labeled_texts.load, "tfds:lm1b", **folder)
    with pytest.raises(ValueError, match="no column label"):
      load(labeled_texts.load, "tfds:lm1b", columns=("text",), **folder)
    part = (("train", "train[:50%]"),)
    corpus = load(documents.load, "tfds:lm1b", split_names=part, **folder)
    assert corpus.splits.keys() == {"train", "test"}


def test_empty_text_is_an_error_with_its_example(tmp_path):
  with (
    prepared("lm1b", tmp_path, splits=("train",), text=lambda *_: b" "),
    pytest.raises(ValueError, match="tfds:lm1b train, example 0: text is emp"),
  ):
    load(documents.load, "tfds:lm1b", data_dir=str(tmp_path))
