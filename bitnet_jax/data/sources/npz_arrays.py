"""Reads examples and labels from `.npz` files."""

from collections.abc import Mapping

import numpy as np

from bitnet_jax.data import splits
from bitnet_jax.data.sources import npz, textfiles
from bitnet_jax.data.sources.tables import Source, Table

_NEEDED = (
  ", needed are x_train, y_train, x_test, y_test (x_valid, y_valid optional),"
  " or the packed x_train_res, y_train, x_test_res, y_test (label_names"
  " optional)"
)
_SHAPES = "[n, height, width], [n, height, width, channels] or [n, features]"


def read(path: str, cuts: splits.Cuts) -> Source:
  """Reads a file of examples and labels.

  It has members `x_train`, `y_train`, `x_test`, `y_test` and optionally
  `x_valid`, `y_valid`, and `label_names`, one for each class. Images in the
  form of `decode_residuals` are called `x_train_res` and so on. Inputs [n,
  height, width] get one channel; floating ones become float32.

  Returns:
    Tables with the columns "inputs" and "labels", integers that are not checked
    yet. The fingerprint is the SHA-256 of the file.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is not a .npz file, is damaged or beyond the limits, or a
      member is missing or has a wrong shape, dtype or value.
  """
  with npz.open_archive(textfiles.find(path)) as (archive, fingerprint):
    where = str(archive.file)
    fields = _fields(archive, where)
    found = {key: _read_split(archive, where, *f) for key, f in fields.items()}
    num_classes, class_names = None, {}
    if "label_names" in archive:
      names = archive["label_names"]
      if names.ndim != 1:
        raise ValueError(
          f"{where}: label_names must be [num_classes], it is"
          f" {list(names.shape)}"
        )
      num_classes, class_names = len(names), {"labels": names.tolist()}
  inputs = {fields[k][0]: t.columns["inputs"] for k, t in found.items()}
  _check_alike(inputs, fields["train"][0], where)
  return Source(
    splits=found,
    fingerprint=fingerprint,
    num_classes=num_classes,
    class_names=class_names,
  )


def _fields(members: Mapping, where):
  """Returns the names of inputs and labels by split, after checking them."""
  ending = "" if "x_train" in members else "_res"
  fields = {key: (f"x_{key}{ending}", f"y_{key}") for key in splits.NAMES}
  if not any(name in members for name in fields["valid"]):
    del fields["valid"]
  needed = [name for pair in fields.values() for name in pair]
  npz.check_members(members, *needed, where=where, hint=_NEEDED)
  return fields


def _read_split(members, where, inputs_name, labels_name):
  """Reads and checks one split."""
  read = _decoded if inputs_name.endswith("_res") else _checked_inputs
  inputs = read(f"{where}: {inputs_name}", members[inputs_name])
  labels = members[labels_name]
  if not np.issubdtype(labels.dtype, np.integer):
    raise ValueError(
      f"{where}: {labels_name} is {labels.dtype}, labels must be integers"
    )
  if labels.ndim != 1:
    raise ValueError(
      f"{where}: {labels_name} must be [n], its shape is {list(labels.shape)}"
    )
  if len(inputs) != len(labels):
    raise ValueError(
      f"{where}: {inputs_name} has {len(inputs)} examples, {labels_name} has"
      f" {len(labels)}"
    )
  return Table(columns={"inputs": inputs, "labels": labels}, name=where)


def _decoded(where, residuals):
  """Returns the images of the packed form, after checking it."""
  if residuals.dtype != np.uint8:
    raise ValueError(f"{where} is {residuals.dtype}, it must be uint8")
  if residuals.ndim != 4 or len(residuals) != 3 or not residuals.size:
    raise ValueError(
      f"{where} must be [3, n, height, width] and not empty, its shape is"
      f" {list(residuals.shape)}"
    )
  return decode_residuals(residuals)


def _checked_inputs(where, inputs):
  """Returns inputs as uint8 or float32, images with a channel axis."""
  floating = np.issubdtype(inputs.dtype, np.floating)
  if inputs.dtype != np.uint8 and not floating:
    raise ValueError(f"{where} is {inputs.dtype}, it must be uint8 or float")
  if inputs.ndim not in (2, 3, 4) or not inputs.size:
    raise ValueError(
      f"{where} must be {_SHAPES} and not empty, its shape is"
      f" {list(inputs.shape)}"
    )
  if floating:
    with np.errstate(over="ignore"):  # what overflows is found just below
      inputs = inputs.astype(np.float32)
    finite = np.isfinite(inputs).reshape(len(inputs), -1).all(axis=1)
    if not finite.all():
      raise ValueError(
        f"{where} has a NaN or infinite value (as float32) in example"
        f" {np.argmin(finite)}"
      )
  return inputs[..., None] if inputs.ndim == 3 else inputs


def _check_alike(inputs, name, where):
  """Checks that the examples of all splits have one shape and dtype."""
  first = inputs[name]
  for other, found in inputs.items():
    if (found.shape[1:], found.dtype) != (first.shape[1:], first.dtype):
      raise ValueError(
        f"{where}: {other} has examples of shape {list(found.shape[1:])}"
        f" ({found.dtype}), {name} of shape {list(first.shape[1:])}"
        f" ({first.dtype}); they must be alike"
      )


def decode_residuals(residuals: np.ndarray) -> np.ndarray:
  """Rebuilds the images of the packed form without loss.

  A packed image holds differences of neighbours modulo 256, which compress
  better: each pixel is stored less its left neighbour, those of the first
  column less the pixel above, after red and blue had green taken off.

  Args:
    residuals: uint8 [3, n, height, width], planes red, green, blue.

  Returns:
    uint8 [n, height, width, 3], RGB.
  """
  planes = residuals.copy()
  column = planes[..., 0]
  np.cumsum(column, axis=-1, dtype=np.uint8, out=column)
  np.cumsum(planes, axis=-1, dtype=np.uint8, out=planes)
  red, green, blue = planes
  return np.stack([red + green, green, blue + green], axis=-1)
