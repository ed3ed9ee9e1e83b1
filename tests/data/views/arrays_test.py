import importlib.metadata
import os
import pathlib
import sys

import numpy as np
import pytest
import sklearn

from bitnet_jax import extras
from bitnet_jax.data.views import arrays
from tests.data import loading


def load(source, **options):
  options = dict(valid_fraction=0.1, test_fraction=0.2) | options
  return loading.load(arrays.load, source, **options)


def test_digits_are_those_of_scikit_learn():
  dataset = load("embedded:digits", valid_fraction=0.0, test_fraction=0.0)
  (train,) = dataset.splits.values()
  assert train.inputs.shape == (1797, 8, 8, 1)
  assert train.inputs.dtype == np.uint8
  assert (train.inputs.min(), train.inputs.max()) == (0, 16)
  assert train.labels.dtype == np.int32
  assert train.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
  assert train.inputs[0, 0, :, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
  assert dataset.num_classes == 10
  expected = f"embedded:digits scikit-learn {sklearn.__version__}"
  assert dataset.fingerprint == expected


def test_xor_labels_are_the_first_two_bits():
  dataset = load("embedded:xor", valid_fraction=0.0)
  assert set(dataset.splits) == {"train", "test"}
  for split in dataset.splits.values():
    assert split.inputs.shape == (5000, 4)
    assert split.inputs.dtype == np.float32
    assert split.labels.dtype == np.int32
    bits = split.inputs.astype(int)
    np.testing.assert_array_equal(split.labels, bits[:, 0] ^ bits[:, 1])
    # Sixteen patterns, 312.5 expected of each, standard deviation 17.
    counts = np.bincount(bits @ [1, 2, 4, 8], minlength=16)
    np.testing.assert_allclose(counts, 312.5, atol=70)
  assert dataset.num_classes == 2
  assert dataset.fingerprint == f"embedded:xor numpy {np.__version__}"


def test_xor_is_the_same_each_time():
  a, b = (load("embedded:xor").splits for _ in range(2))
  for name in a:
    np.testing.assert_array_equal(a[name].inputs, b[name].inputs)


def test_splits_are_cut_by_class_first_test_then_valid():
  splits = load("embedded:digits").splits
  sizes = {name: len(split.labels) for name, split in splits.items()}
  assert sizes == {"train": 1294, "valid": 144, "test": 359}
  parts = [split.inputs.reshape(-1, 64) for split in splits.values()]
  whole = load("embedded:digits", valid_fraction=0.0, test_fraction=0.0)
  np.testing.assert_array_equal(
    np.unique(np.concatenate(parts), axis=0, return_counts=True)[1],
    np.unique(
      whole.splits["train"].inputs.reshape(-1, 64), axis=0, return_counts=True
    )[1],
  )
  for split in splits.values():
    shares = np.bincount(split.labels) / len(split.labels)
    np.testing.assert_allclose(shares, 0.1, atol=0.01)


def test_test_split_does_not_depend_on_the_validation_fraction():
  a, b = (load("embedded:digits", valid_fraction=f).splits for f in (0.0, 0.5))
  assert "valid" not in a
  np.testing.assert_array_equal(a["test"].inputs, b["test"].inputs)


def test_cuts_are_a_function_of_split_seed():
  first, again, other = (
    load("embedded:digits", split_seed=seed).splits for seed in (0, 0, 1)
  )
  for name in ("train", "valid", "test"):
    np.testing.assert_array_equal(first[name].inputs, again[name].inputs)
    assert not np.array_equal(first[name].inputs, other[name].inputs)


@pytest.mark.parametrize("name", ["valid_fraction", "test_fraction"])
@pytest.mark.parametrize("value", [-0.1, 1.0, 2, float("nan")])
def test_fraction_out_of_range_is_an_error(name, value):
  message = rf"{name} must be in \[0, 1\), it is {value}"
  with pytest.raises(ValueError, match=message):
    load("embedded:xor", **{name: value})


@pytest.mark.parametrize(
  ("name", "fraction", "message"),
  [
    ("test", 1e-5, "test_fraction=1e-05 of 1797 training examples"),
    ("valid", 1e-5, "valid_fraction=1e-05 of 1438 training examples"),
  ],
)
def test_fraction_that_leaves_nothing_is_an_error(name, fraction, message):
  with pytest.raises(ValueError, match=rf"embedded:digits: {message}"):
    load("embedded:digits", **{f"{name}_fraction": fraction})


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(split_seed=-1), "split_seed must not be negative, it is -1"),
    (dict(num_classes=0), "num_classes must be positive, it is 0"),
    (dict(image_size=0), "image_size must be positive, it is 0"),
    (dict(image_size=8), "image_size=8 applies to folder:, tfds: and hf: sour"),
    (dict(image_fit="pad"), "image_fit=pad applies to folder:, tfds: and hf:"),
    (dict(num_classes=1), "embedded:xor: y_train holds the label 1 at exampl"),
  ],
)
def test_impossible_option_is_an_error(options, message):
  with pytest.raises(ValueError, match=message):
    load("embedded:xor", **options)


@pytest.mark.parametrize(
  ("source", "package", "extra"),
  [
    ("embedded:digits", "scikit-learn", "train"),
    ("tfds:mnist", "tensorflow-datasets", "tfds"),
  ],
)
def test_missing_package_is_named_with_how_to_install_it(
  source, package, extra, monkeypatch
):
  def missing(name):
    raise importlib.metadata.PackageNotFoundError(name)

  monkeypatch.setattr(importlib.metadata, "distribution", missing)
  monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
  with pytest.raises(extras.MissingExtraError) as caught:
    load(source)
  assert str(caught.value) == (
    f"{source} needs {package}: pip install 'bitnet-jax[{extra}]'"
  )


@pytest.fixture
def data():
  folder = os.environ.get("BITNET_JAX_DATA")
  if not folder or not pathlib.Path(folder).is_dir():
    pytest.skip("BITNET_JAX_DATA names no folder of data sets")
  return pathlib.Path(folder)


def test_real_mnist_has_the_published_class_counts(data):
  file = data / "mnist" / "mnist.npz"
  dataset = load(f"file:{file}", valid_fraction=0.1)
  splits = dataset.splits
  assert dataset.num_classes == 10
  assert splits["train"].inputs.shape == (54000, 28, 28, 1)
  counts = {name: np.bincount(s.labels) for name, s in splits.items()}
  published = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
  np.testing.assert_array_equal(counts["train"] + counts["valid"], published)
  np.testing.assert_allclose(counts["valid"], np.array(published) / 10, atol=1)
  assert len(splits["test"].labels) == 10000


def test_real_cifar100_loads_from_the_packed_form(data):
  file = data / "cifar100_subset" / "cifar100_subset.npz"
  dataset = load(f"file:{file}", valid_fraction=0.0)
  assert dataset.num_classes == 100
  assert dataset.splits["train"].inputs.shape == (10000, 32, 32, 3)
  np.testing.assert_array_equal(
    np.bincount(dataset.splits["test"].labels), [20] * 100
  )
