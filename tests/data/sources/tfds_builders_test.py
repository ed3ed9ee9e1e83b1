import importlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from bitnet_jax import extras
from bitnet_jax.data.sources import tfds_builders
from bitnet_jax.data.views import (
  arrays,
  documents,
  graph_sets,
  labeled_texts,
  nodes,
)
from tests.data.loading import load


def both(folder, name, loader, embedded, **options):
  """Returns what is read of a set that is built, and of what it copies."""
  tfds.disable_progress_bar()
  assert tfds_builders.build(name, folder).startswith(str(folder / name))
  prepared = load(loader, f"tfds:{name}", data_dir=str(folder), **options)
  return prepared, load(loader, f"embedded:{embedded}", **options)


def assert_same_graph(ours, theirs):
  np.testing.assert_array_equal(ours.features, theirs.features)
  np.testing.assert_array_equal(ours.senders, theirs.senders)
  np.testing.assert_array_equal(ours.receivers, theirs.receivers)


def test_built_club_equals_the_embedded_one(tmp_path):
  prepared, original = both(
    tmp_path, "bitnet_karate", nodes.load, "karate", train_per_class=4
  )
  assert_same_graph(prepared.graph, original.graph)
  np.testing.assert_array_equal(prepared.labels, original.labels)
  for key, own in original.splits.items():
    np.testing.assert_array_equal(prepared.splits[key], own)
  assert prepared.fingerprint.startswith("sha256:")


@pytest.mark.slow
def test_built_digits_equal_those_of_scikit_learn(tmp_path):
  prepared, original = both(tmp_path, "bitnet_digits", arrays.load, "digits")
  assert prepared.splits.keys() == original.splits.keys()
  ours, theirs = prepared.splits["train"], original.splits["train"]
  np.testing.assert_array_equal(ours.inputs, theirs.inputs)
  np.testing.assert_array_equal(ours.labels, theirs.labels)
  assert prepared.num_classes == original.num_classes


@pytest.mark.slow
def test_built_texts_equal_those_of_python(tmp_path):
  prepared, original = both(tmp_path, "bitnet_pydoc", documents.load, "pydoc")
  assert prepared.splits["train"].texts == original.splits["train"].texts
  assert prepared.fingerprint == original.fingerprint
  prepared, original = both(
    tmp_path,
    "bitnet_docstrings",
    labeled_texts.load,
    "docstrings",
    columns=("text",),
  )
  assert prepared.class_names == original.class_names
  assert prepared.splits["train"].texts == original.splits["train"].texts
  assert prepared.fingerprint == original.fingerprint


@pytest.mark.slow
def test_built_graphs_equal_the_embedded_ones(tmp_path):
  prepared, original = both(
    tmp_path, "bitnet_graphs", graph_sets.load, "graphs", max_degree=12
  )
  assert prepared.splits.keys() == original.splits.keys()
  for key, split in prepared.splits.items():
    theirs = original.splits[key]
    np.testing.assert_array_equal(split.labels, theirs.labels)
    for ours, graph in zip(split.graphs, theirs.graphs, strict=True):
      assert_same_graph(ours, graph)
  assert prepared.class_names == original.class_names


def test_module_registers_its_builders_by_name():
  for name, builder in tfds_builders.BUILDERS.items():
    assert tfds.builder_cls(name) is builder


def test_unknown_set_is_an_error_with_the_choices(tmp_path):
  message = "name is 'digits', which is not one of: 'bitnet_digits', "
  with pytest.raises(ValueError, match=message):
    tfds_builders.build("digits", tmp_path)


def test_missing_package_is_named_with_the_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
  monkeypatch.delitem(sys.modules, tfds_builders.__name__)
  with pytest.raises(extras.MissingExtraError, match=r"bitnet-jax\[tfds\]"):
    importlib.import_module(tfds_builders.__name__)


@pytest.mark.slow
def test_program_tfds_builds_a_set(tmp_path):
  # The program imports TensorFlow, its command does not.
  program = (
    "import sys\n"
    "from tensorflow_datasets.scripts.cli import build\n"
    "import simple_parsing\n"
    "args = simple_parsing.parse(build.Args, args=sys.argv[1:])\n"
    "args.execute()"
  )
  options = [
    "bitnet_digits",
    f"--imports={tfds_builders.__name__}",
    "--file_format=array_record",
    f"--data_dir={tmp_path}",
  ]
  subprocess.run([sys.executable, "-c", program, *options], check=True)
  found = load(arrays.load, "tfds:bitnet_digits", data_dir=str(tmp_path))
  assert len(found.splits["train"]) == 1797
