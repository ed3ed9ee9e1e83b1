"""Which columns of a table are texts, labels, and pairs to read and write."""

import pytest

from bitnet_jax.data.sources.tables import Records, Source, Table
from bitnet_jax.train.config.settings import RunContext
from bitnet_jax.train.decisions import columns
from bitnet_jax.train.decisions.decisions import Decisions
from tests.train.decisions.conftest import load, sentences

N = 40
TEXTS = sentences(N)
OTHERS = sentences(N, words=5)
VALUES = {
  "text": TEXTS,
  "short": [f"word{i} word" for i in range(N)],
  "class": ["good" if i % 2 else "bad" for i in range(N)],
  "whole": [str(i % 3) for i in range(N)],
  "number": [f"{i / 7:.2f}" for i in range(N)],
  "incomplete": ["" if i == 3 else f"{i}" for i in range(N)],
}


def source_of(kinds, lazy=False, **own):
  """Returns a source with a column of a kind in ``VALUES`` for each name."""
  found = {name: VALUES[kind] for name, kind in kinds.items()}
  table = Table(columns=found, name="here")
  if lazy:
    rows = [{name: found[name][i] for name in found} for i in range(N)]
    table = Records(records=rows, name="here")
  return Source(splits={"train": table}, **own)


def decisions_of(name, **overrides):
  config = load(name, data__source="file:rows.tsv", **overrides)
  return Decisions(config, RunContext())


def labeled(name, source, **overrides):
  """Returns the columns of texts and the column of labels."""
  found = decisions_of(name, **overrides)
  columns.decide_labeled(found, source)
  return found.given("data.columns"), found.given("data.label")


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
  ("kinds", "expected"),
  [
    ({"text": "text", "label": "class"}, (("text",), "label")),
    ({"id": "number", "Review": "text", "Sentiment": "class"},
     (("Review",), "Sentiment")),
    ({"quote": "text", "author": "class"}, (("quote",), "author")),
    ({"stars": "whole", "date": "class", "body": "text"}, (("body",), "stars")),
    # Two columns of text, of which one has a usual name.
    ({"title": "text", "text": "text", "class": "class"}, (("text",), "class")),
    # Of two usual names of labels, the more usual one.
    ({"score": "number", "label": "class", "text": "text"},
     (("text",), "label")),
    # Short texts, which are all that is left.
    ({"name": "short", "category": "class"}, (("name",), "category")),
  ],
)  # fmt: skip
def test_text_and_label_are_found(kinds, expected, lazy):
  assert labeled("texts", source_of(kinds, lazy)) == expected


@pytest.mark.parametrize(
  ("kinds", "expected"),
  [
    ({"id": "whole", "sentence1": "text", "sentence2": "text",
      "score": "number"}, (("sentence1", "sentence2"), "score")),
    ({"hypothesis": "text", "premise": "text", "label": "class"},
     (("premise", "hypothesis"), "label")),
    ({"a": "text", "same": "whole", "b": "text"}, (("a", "b"), "same")),
  ],
)  # fmt: skip
def test_pairs_and_labels_are_found(kinds, expected):
  assert labeled("pairs", source_of(kinds)) == expected


def test_given_columns_are_used():
  source = source_of({"a": "text", "b": "text", "c": "class", "d": "class"})
  given = {"data__columns": ("b",), "data__label": "d"}
  assert labeled("texts", source, **given) == (("b",), "d")
  source = source_of({"a": "text", "b": "text", "c": "class"})
  assert labeled("texts", source, data__columns=("b",)) == (("b",), "c")


def test_source_that_knows_its_columns_is_not_asked():
  source = source_of({"x": "text", "y": "text"}, texts=("x",), label="y")
  assert labeled("texts", source) == (("x",), "y")


@pytest.mark.parametrize(
  ("name", "kinds", "message"),
  [
    ("texts", {"text": "text", "a": "class", "b": "class"},
     r"columns text, a, b: which holds the label\? Give --config.data.label="),
    ("texts", {"a": "text", "b": "text", "label": "class"},
     r"a, b, label: which holds the text\? .*\('NAME',\).*--config=pairs"),
    ("pairs", {"text": "text", "label": "class"},
     r"which holds the two texts\? .*\('NAME','NAME'\).*--config=texts"),
    ("pairs", {"a": "text", "b": "text", "c": "text", "label": "class"},
     r"a, b, c, label: which holds the two texts"),
  ],
)  # fmt: skip
def test_ambiguous_columns_are_listed_with_the_flag(name, kinds, message):
  with pytest.raises(ValueError, match=message):
    labeled(name, source_of(kinds))


def test_columns_that_are_read_and_written_are_found():
  def pair(kinds, **own):
    found = decisions_of("translate")
    columns.decide_pair(found, source_of(kinds, **own))
    return found.given("data.languages")

  assert pair({"summary": "text", "document": "text", "id": "whole"}) == (
    "document",
    "summary",
  )
  assert pair({"en": "text", "de": "text"}) == ("en", "de")
  assert pair({"a": "text"}, pair=("x", "y")) == ("x", "y")
  with pytest.raises(ValueError, match=r"read, and.*\('READ','WRITTEN'\)"):
    pair({"a": "text", "b": "text", "c": "text"})


def test_column_of_documents_is_found():
  found = decisions_of("lm")
  columns.decide_text(found, source_of({"url": "class", "content": "text"}))
  assert found.given("data.column") == "content"
  with pytest.raises(ValueError, match=r"a, b.*--config.data.column=NAME"):
    columns.decide_text(
      decisions_of("lm"), source_of({"a": "text", "b": "text"})
    )


def test_columns_of_numbers_and_their_class_are_found():
  found = decisions_of("features")
  kinds = {"id": "whole", "a": "number", "b": "number", "kind": "class"}
  columns.decide_features(found, source_of(kinds))
  assert found.given("data.label") == "kind"
  assert found.given("data.columns") == ("a", "b")


def test_words_among_numbers_are_their_classes():
  found = decisions_of("features")
  kinds = {"x": "number", "y": "incomplete", "kind": "class"}
  columns.decide_features(found, source_of(kinds))
  assert found.given("data.label") == "kind"
