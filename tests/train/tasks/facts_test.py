"""The facts of data, written and read again."""

import json

import numpy as np
import pytest

from bitnet_jax.train.build import build
from bitnet_jax.train.tasks import base
from bitnet_jax.train.tasks.facts import ArraySpec, DataFacts, SplitFacts
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
