"""Classification data in .npz files, checked so that errors name the field."""

import hashlib
import lzma
import math
import pathlib
import tokenize
import zipfile
import zlib
from typing import BinaryIO

import numpy as np

from bitnet_jax import files
from bitnet_jax.data import splits

SUFFIXES = (".npz",)
LARGEST_ARCHIVE = 2**34  # bytes of a file
# Bytes that a file may become: so many, or as many for each of its own.
ALWAYS_UNPACKED, MOST_GROWTH = 2**26, 100

_NEEDED = (
  "x_train, y_train, x_test, y_test (x_valid, y_valid optional), or the packed"
  " x_train_res, y_train, x_test_res, y_test (label_names optional)"
)
_SHAPES = "[n, height, width], [n, height, width, channels] or [n, features]"
# What numpy, zipfile and the decompressors raise on damaged files.
_READ_ERRORS = (
  EOFError,
  IndexError,
  KeyError,
  MemoryError,
  NotImplementedError,
  OSError,
  OverflowError,
  RecursionError,
  RuntimeError,  # of a file with a password
  SyntaxError,
  TypeError,
  ValueError,
  lzma.LZMAError,
  tokenize.TokenError,
  zipfile.BadZipFile,
  zlib.error,
)
# Members are unpacked from so many bytes at a time, since a decompressor gives
# all that it makes of them.
_PART = 4096
_MAGIC = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}
_SINGLE = b"\x93NUMPY"
_KINDS = "biufcUS"  # numbers, truths and strings


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
  `decode_residuals`. Inputs [n, height, width] get one channel; floating
  ones become float32.

  Args:
    path: of a .npz file; a leading `~` is the home folder.

  Returns:
    The data set. Its labels have the integer dtype of the file and are not
    checked yet; the number of classes is that of `label_names`, else the
    largest training label + 1. The fingerprint is the SHA-256 of the file.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is not a .npz file, is damaged or larger than the limits
      above, lacks members, or a member has a wrong shape, a wrong dtype or
      values that are not finite.
  """
  check_suffix(path)
  file = pathlib.Path(path).expanduser().absolute()
  if not file.is_file():
    raise FileNotFoundError(f"file:{path}: there is no file {file}")
  with files.open_regular(file, most=LARGEST_ARCHIVE) as stream:
    digest = hashlib.file_digest(stream, "sha256").hexdigest()
    stream.seek(0)
    archive = open_archive(file, stream)
    fields = _fields(file, members(archive))
    found = {
      name: _split(file, archive, x, y) for name, (x, y) in fields.items()
    }
    if "label_names" in members(archive):
      num_classes = len(_names(file, archive))
    else:
      num_classes = splits.count_classes(found["train"].labels)
  _check_alike(file, found, fields)
  return splits.Dataset(
    splits=found, num_classes=num_classes, fingerprint=f"sha256:{digest}"
  )


def open_archive(file: pathlib.Path, stream: BinaryIO) -> zipfile.ZipFile:
  """Returns the archive in a stream; a ValueError names the file.

  It becomes at most `ALWAYS_UNPACKED` bytes, or `MOST_GROWTH` times its
  size, and each of its members has another name.
  """
  try:
    if stream.read(len(_SINGLE)) == _SINGLE:
      raise ValueError("it is not a .npz file but a single array")
    size = stream.seek(0, 2)
    archive = zipfile.ZipFile(stream)
    files.check_unpacked(
      sum(info.file_size for info in archive.infolist()),
      most=max(ALWAYS_UNPACKED, MOST_GROWTH * size),
    )
    names = members(archive)
    if len({*names}) < len(names):
      raise ValueError(f"a member is there twice: {', '.join(sorted(names))}")
  except _READ_ERRORS as error:
    raise ValueError(
      f"{file} is not a complete .npz file: {error!s:.200}"
    ) from error
  return archive


def members(archive: zipfile.ZipFile) -> list[str]:
  """Returns the names of the arrays in an archive."""
  return [name.removesuffix(".npy") for name in archive.namelist()]


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
  file: pathlib.Path, archive: zipfile.ZipFile, name: str
) -> np.ndarray:
  """Reads one array, whose header says as many bytes as there are.

  Raises:
    ValueError: it cannot be read, or is no array of numbers, truths or strings;
      names file and member.
  """
  try:
    (info,) = [
      info
      for info in archive.infolist()
      if info.filename.removesuffix(".npy") == name
    ]
    with archive.open(info) as stream:
      header = _header(stream)
      if header is not None:
        return _array(stream, info.file_size, *header)
  except _READ_ERRORS as error:
    raise ValueError(f"{file}: cannot read {name}: {error!s:.200}") from error
  raise ValueError(f"{file}: {name} is not an array")


def _header(stream):
  """Returns shape, order and dtype; ``None`` for what is no array."""
  if stream.read(len(_SINGLE)) != _SINGLE:
    return None
  stream.seek(0)
  version = np.lib.format.read_magic(stream)
  if version not in _MAGIC:
    raise ValueError(f"the version of its format is {version}")
  shape, is_fortran, dtype = _MAGIC[version](stream)
  return shape, "F" if is_fortran else "C", dtype


def _array(stream, size, shape, order, dtype):
  """Returns the array behind a header."""
  if dtype.hasobject:
    raise ValueError("Object arrays are not read: they can run anything")
  if dtype.kind not in _KINDS or not dtype.itemsize or dtype.subdtype:
    raise ValueError(f"it is {dtype}, not numbers, truths or strings")
  count = size - stream.tell()
  if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != count:
    raise ValueError(f"it is {dtype} {list(shape)}, but has {count} bytes")
  data = bytearray()
  while part := stream.read(_PART):
    data += part
  return np.frombuffer(data, dtype).reshape(shape, order=order)


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
