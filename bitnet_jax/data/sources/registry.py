"""Named sources of classification data: `embedded:`, `tfds:` and `file:`."""

import dataclasses

import numpy as np

from bitnet_jax.data.sources import npz, tfds
from bitnet_jax.data.splits import (
  NO_CUTS,
  Cuts,
  Dataset,
  Split,
  check_labels,
  complete,
  warn_of_absent,
)

_XOR_SEED = 0  # of the bits of embedded:xor
_XOR_TRAIN = 5_000


def load(
  source: str,
  cuts: Cuts = NO_CUTS,
  *,
  num_classes: int | None = None,
  image_size: int | None = None,
) -> Dataset:
  """Loads a data set into memory and completes its splits.

  Args:
    source: `embedded:digits` (uint8 [n, 8, 8, 1], 0 to 16), `embedded:xor`
      (float32 [n, 4]: is exactly one of the first two bits set?), `tfds:NAME`
      (a prepared set) or `file:PATH.npz` (see `npz.read`).
    cuts: cut splits that the source lacks.
    num_classes: number of classes; by default what the source says.
    image_size: side to which `tfds:` scales and crops its images.

  Returns:
    The data set; inputs uint8 or float32 [n, *shape], labels int32 [n].

  Raises:
    FileNotFoundError: there is no such file.
    ImportError: the package that provides the source is not installed.
    ValueError: an argument or something in the data is not as it must be.
  """
  check_name(source)
  scheme, name = source.split(":", 1)
  _check_options(scheme, num_classes, image_size)
  dataset = _READERS[scheme](
    name, data_dir=cuts.data_dir, image_size=image_size
  )
  num_classes = num_classes or dataset.num_classes
  splits = {}
  for key, split in dataset.splits.items():
    labels = check_labels(
      split.labels, num_classes=num_classes, where=f"{source}: y_{key}"
    )
    splits[key] = Split(inputs=split.inputs, labels=labels)
  splits = complete(splits, cuts, source=source)
  warn_of_absent(splits["train"].labels, num_classes=num_classes, where=source)
  return dataclasses.replace(dataset, splits=splits, num_classes=num_classes)


def check_name(source: str) -> None:
  """Checks that a source can be meant, without reading anything.

  Raises:
    ValueError: the scheme, the embedded set or the ending of the file is
      unknown; names the source and the choices.
  """
  scheme, _, name = source.partition(":")
  known = name in _EMBEDDED if scheme == "embedded" else name
  if scheme not in _READERS or not known:
    embedded = ", ".join(f"embedded:{name}" for name in _EMBEDDED)
    raise ValueError(
      f"unknown data source {source!r}; choose among {embedded}, tfds:NAME and"
      " file:PATH.npz"
    )
  if scheme == "file":
    npz.check_suffix(name)


def _check_options(scheme, num_classes, image_size):
  """Checks the arguments of `load` that the readers do not check."""
  if num_classes is not None and num_classes < 1:
    raise ValueError(f"num_classes must be positive, it is {num_classes}")
  if image_size is not None and image_size < 1:
    raise ValueError(f"image_size must be positive, it is {image_size}")
  if image_size is not None and scheme != "tfds":
    raise ValueError(
      f"image_size={image_size} applies to tfds: sources only, not to {scheme}:"
    )


def _digits():
  """The 8 x 8 handwritten digits that come with scikit-learn."""
  try:
    import sklearn.datasets
  except ImportError as error:
    raise ImportError(
      "embedded:digits needs scikit-learn: pip install 'bitnet-jax[train]'"
    ) from error
  pixels, labels = sklearn.datasets.load_digits(return_X_y=True)
  inputs = pixels.astype(np.uint8).reshape(-1, 8, 8, 1)
  return Dataset(
    splits={"train": Split(inputs=inputs, labels=np.asarray(labels))},
    num_classes=10,
    fingerprint=f"embedded:digits scikit-learn {sklearn.__version__}",
  )


def _xor():
  """Four fair bits; the label is x0 XOR x1, so that x2 and x3 are noise."""
  bits = np.random.default_rng(_XOR_SEED).integers(2, size=(10_000, 4))
  inputs, labels = bits.astype(np.float32), bits[:, 0] ^ bits[:, 1]
  return Dataset(
    splits={
      key: Split(inputs=inputs[rows], labels=labels[rows])
      for key, rows in (
        ("train", slice(_XOR_TRAIN)),
        ("test", slice(_XOR_TRAIN, None)),
      )
    },
    num_classes=2,
    fingerprint=f"embedded:xor numpy {np.__version__}",
  )


_EMBEDDED = {"digits": _digits, "xor": _xor}

# Readers take the name behind the colon and leave labels unchecked.
_READERS = {
  "embedded": lambda name, **_: _EMBEDDED[name](),
  "file": lambda name, **_: npz.read(name),
  "tfds": tfds.read,
}
