"""Classification data in .npz files, checked so that errors name the field."""

import hashlib
import lzma
import pathlib
import zipfile
import zlib
from typing import BinaryIO

import numpy as np

from bitnet_jax.data import images, splits

SUFFIXES = (".npz",)

_NEEDED = (
  "x_train, y_train, x_test, y_test (x_valid, y_valid optional), or the packed"
  " x_train_res, y_train, x_test_res, y_test (label_names optional)"
)
_SHAPES = "[n, height, width], [n, height, width, channels] or [n, features]"
# What numpy, zipfile and the decompressors raise on damaged files.
_READ_ERRORS = (
  EOFError,
  NotImplementedError,
  OSError,
  ValueError,
  lzma.LZMAError,
  zipfile.BadZipFile,
  zlib.error,
)


def check_suffix(path: str) -> None:
  """Raises a ValueError unless the path ends like a file that `read` takes."""
  if pathlib.PurePath(path).suffix.lower() not in SUFFIXES:
    raise ValueError(
      f"file:{path} does not name a file of examples and labels: its name must"
      f" end in {' or '.join(SUFFIXES)}"
    )


def read(path: str) -> splits.Dataset:
  """Reads a file of examples and labels.

  Members `x_train`, `y_train`, `x_test`, `y_test` and optionally `x_valid`,
  `y_valid`; images of the packed form are called `x_train_res` and so on, see
  `images.decode_residuals`. Inputs [n, height, width] get one channel; floating
  ones become float32.

  Args:
    path: of a .npz file; a leading `~` is the home folder.

  Returns:
    The data set. Its labels have the integer dtype of the file and are not
    checked yet; the number of classes is that of `label_names`, else the
    largest training label + 1. The fingerprint is the SHA-256 of the file.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is not a .npz file, is damaged, lacks members, or a member
      has a wrong shape, a wrong dtype or values that are not finite.
  """
  check_suffix(path)
  file = pathlib.Path(path).expanduser().absolute()
  if not file.is_file():
    raise FileNotFoundError(f"file:{path}: there is no file {file}")
  with file.open("rb") as stream:
    digest = hashlib.file_digest(stream, "sha256").hexdigest()
    stream.seek(0)
    archive = open_archive(file, stream)
    fields = _fields(file, archive.files)
    found = {
      name: _split(file, archive, x, y) for name, (x, y) in fields.items()
    }
    if "label_names" in archive.files:
      num_classes = len(_names(file, archive))
    else:
      num_classes = splits.count_classes(found["train"].labels)
  _check_alike(file, found, fields)
  return splits.Dataset(
    splits=found, num_classes=num_classes, fingerprint=f"sha256:{digest}"
  )


def open_archive(file: pathlib.Path, stream: BinaryIO) -> np.lib.npyio.NpzFile:
  """Returns the archive in a stream; a ValueError names the file."""
  try:
    archive = np.load(stream, allow_pickle=False)
  except _READ_ERRORS as error:
    raise ValueError(f"{file} is not a complete .npz file: {error}") from error
  if not isinstance(archive, np.lib.npyio.NpzFile):
    raise ValueError(f"{file} is not a .npz file but a single array")
  return archive


def _fields(file, members):
  """Returns the names of inputs and labels by split, after checking them."""
  suffix = "" if "x_train" in members else "_res"
  fields = {
    name: (f"x_{name}{suffix}", f"y_{name}")
    for name in ("train", "valid", "test")
  }
  if not set(fields["valid"]) & set(members):
    del fields["valid"]
  missing = [key for pair in fields.values() for key in pair]
  missing = [key for key in missing if key not in members]
  if missing:
    raise ValueError(
      f"{file} lacks {', '.join(missing)}: it holds"
      f" {', '.join(members) or 'nothing'}, needed are {_NEEDED}"
    )
  return fields


def read_member(
  file: pathlib.Path, archive: np.lib.npyio.NpzFile, name: str
) -> np.ndarray:
  """Reads one array; an archive decompresses at each access, so once.

  Raises:
    ValueError: it cannot be read, or is no array; names file and member.
  """
  try:
    array = archive[name]
  except _READ_ERRORS as error:
    raise ValueError(f"{file}: cannot read {name}: {error}") from error
  if not isinstance(array, np.ndarray):
    raise ValueError(f"{file}: {name} is not an array")
  return array


def _names(file, archive):
  """Returns the names of the classes."""
  names = read_member(file, archive, "label_names")
  if names.ndim != 1:
    raise ValueError(
      f"{file}: label_names must be [num_classes], it is {list(names.shape)}"
    )
  return names


def _split(file, archive, inputs_name, labels_name):
  """Reads and checks one split."""
  inputs = read_member(file, archive, inputs_name)
  if inputs_name.endswith("_res"):
    inputs = _decoded(f"{file}: {inputs_name}", inputs)
  else:
    inputs = _checked_inputs(f"{file}: {inputs_name}", inputs)
  labels = read_member(file, archive, labels_name)
  if not np.issubdtype(labels.dtype, np.integer):
    raise ValueError(
      f"{file}: {labels_name} is {labels.dtype}, labels must be integers"
    )
  if labels.ndim != 1:
    raise ValueError(
      f"{file}: {labels_name} must be [n], its shape is {list(labels.shape)}"
    )
  if len(inputs) != len(labels):
    raise ValueError(
      f"{file}: {inputs_name} has {len(inputs)} examples, {labels_name} has"
      f" {len(labels)}"
    )
  return splits.Split(inputs=inputs, labels=labels)


def _decoded(where, residuals):
  """Returns the images of the packed form, after checking it."""
  if residuals.dtype != np.uint8:
    raise ValueError(f"{where} is {residuals.dtype}, it must be uint8")
  if residuals.ndim != 4 or len(residuals) != 3 or not residuals.size:
    raise ValueError(
      f"{where} must be [3, n, height, width] and not empty, its shape is"
      f" {list(residuals.shape)}"
    )
  return images.decode_residuals(residuals)


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


def _check_alike(file, found, fields):
  """Checks that the examples of all splits have one shape and dtype."""
  first = found["train"].inputs
  for name, split in found.items():
    if (split.inputs.shape[1:], split.inputs.dtype) != (
      first.shape[1:],
      first.dtype,
    ):
      raise ValueError(
        f"{file}: {fields[name][0]} has examples of shape"
        f" {list(split.inputs.shape[1:])} ({split.inputs.dtype}),"
        f" {fields['train'][0]} of shape {list(first.shape[1:])}"
        f" ({first.dtype}); they must be alike"
      )
