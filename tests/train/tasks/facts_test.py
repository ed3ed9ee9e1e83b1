"""The facts of data, written and read again."""

import dataclasses
import json

import numpy as np
import pytest

from bitnet_jax.train.build import build
from bitnet_jax.train.tasks import base
from bitnet_jax.train.tasks.facts import (
  LATER,
  ArraySpec,
  BagFacts,
  DataFacts,
  SplitFacts,
)
from bitnet_jax.train.tasks.registry import make_task

FACTS = DataFacts(
  fingerprint="sha256:1 vocabulary sha256:2",
  splits={"train": SplitFacts(examples=7, words=9, bytes=40)},
  example={"inputs": ArraySpec(shape=(1, 2, 3), dtype="uint8")},
  num_classes=2,
  class_names=("a", "b"),
  vocab_size=300,
  start_id=0,
  mean=(float(np.float32(0.1)),),
  std=(1.0,),
  batches_per_epoch=4,
)


def test_facts_are_read_as_they_were_written():
  written = json.loads(json.dumps(FACTS.to_json()))
  assert DataFacts.from_json(written, "facts.json") == FACTS


def test_facts_build_the_same_task_without_data(make_config):
  experiment = build(make_config())
  facts = DataFacts.from_json(
    json.loads(json.dumps(experiment.data.facts.to_json())), "facts.json"
  )
  assert facts == experiment.data.facts
  task = make_task(experiment.settings, facts)
  assert task == experiment.task
  found = base.find_layers(experiment.settings, task)
  assert [*found] == [*experiment.layers]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"num_classes": "2"}, "num_classes is '2', of type str"),
    ({"num_classes": 0}, "num_classes is 0; it must be in 1.."),
    ({"vocab_size": 2**40}, "vocab_size is 1099511627776; it must be in"),
    ({"start_id": -1}, "start_id is -1; it must be in 0.."),
    ({"colour": 1}, "colour is not a key"),
    ({"splits": {}}, "splits has no 'train'"),
    ({"splits": {"train": {"examples": 1}}}, "splits.train.words is missing"),
    ({"splits": {"train": 7}}, "splits.train is 7; it must be a group"),
    ({"splits": 7}, "splits is 7, of type int"),
    (
      {"example": {"x": {"shape": [2**21, 2**20], "dtype": "int32"}}},
      r"example.x.shape is \(2097152, 1048576\), more than",
    ),
    (
      {"example": {"x": {"shape": [1], "dtype": "object"}}},
      "example.x.dtype is 'object'",
    ),
    ({"mean": [float("nan")]}, "mean is .nan,.*finite"),
    ({"std": [1.0, 1.0]}, "std is .*it must hold 1 finite"),
    ({"std": [0.0]}, "std is .*it must be positive"),
    ({"class_names": ["a"]}, "class_names is .*1 names; .*the 2 classes"),
    ({"class_names": ["a", "a"]}, "class_names is .*2 names; it must hold a"),
  ],
)
def test_bad_value_is_named_with_its_file(changes, message):
  content = json.loads(json.dumps(FACTS.to_json())) | changes
  with pytest.raises(ValueError, match=f"facts.json is damaged: {message}"):
    DataFacts.from_json(content, "facts.json")


@pytest.mark.parametrize("content", [None, 7, [], {}])
def test_content_that_holds_no_facts_is_refused(content):
  with pytest.raises(ValueError, match=r"facts.json is damaged"):
    DataFacts.from_json(content, "facts.json")


def test_keys_that_older_files_lack_have_their_defaults():
  content = json.loads(json.dumps(FACTS.to_json()))
  for key in LATER:
    del content[key]
  assert DataFacts.from_json(content, "facts.json") == FACTS


BAG = BagFacts(tokenizer="sha256:2", ids=(3, 7), idf=(1.5, 0.1 + 0.2))


def test_bag_is_read_as_it_was_written():
  facts = dataclasses.replace(FACTS, vocab_size=2, bag=BAG)
  written = json.loads(json.dumps(facts.to_json()))
  assert DataFacts.from_json(written, "facts.json") == facts


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"ids": [3]}, "bag.ids has 1 ids; vocab_size is 2"),
    ({"ids": [7, 3]}, "bag.ids must rise"),
    ({"ids": [-1, 3]}, "bag.ids must rise, in 0"),
    ({"ids": [0, 2**70]}, "bag.ids must rise, in 0"),
    ({"ids": ["a", "b"]}, "bag.ids is .*it must be tuple"),
    ({"idf": [1.0]}, "bag.idf has 1 numbers"),
    ({"idf": [1.0, float("inf")]}, "bag.idf has 2 numbers; .* finite"),
    ({"tokenizer": None}, "bag.tokenizer is None"),
    ({"more": 1}, "bag.more is not a key"),
  ],
)
def test_bag_that_cannot_be_is_named(changes, message):
  facts = dataclasses.replace(FACTS, vocab_size=2, bag=BAG)
  content = json.loads(json.dumps(facts.to_json()))
  content["bag"] |= changes
  with pytest.raises(ValueError, match=f"facts.json is damaged: {message}"):
    DataFacts.from_json(content, "facts.json")
