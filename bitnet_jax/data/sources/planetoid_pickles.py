"""Reads Planetoid's pickles safely: nothing that they name is called.

The published files hold sparse matrices, labels, and lists of nodes by node, in
pickles of Python 2. Every name in a pickle becomes an inert stand-in, which
stores arguments and state. Arrays are made from these after checks. Libraries
that unpickle would import what a file names, and so may run it.
"""

import io
import math
import pathlib
import pickle
import pickletools
from typing import Any

import numpy as np

from bitnet_jax.files import read_bytes

# The largest published file has 7 MB and 180,000 operations.
LARGEST_PICKLE = 2**25
MOST_OPERATIONS = 2**20
# Named objects, tuples and similar; the published files have at most 40. This
# also bounds the nesting of tuples, which Python hashes by recursion.
MOST_OBJECTS = 1000

_PLAIN = {
  *("PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE"),
  *("BININT", "BININT1", "BININT2"),
  *("BINSTRING", "SHORT_BINSTRING", "BINUNICODE"),
  *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
}
_OF_OBJECTS = {
  *("GLOBAL", "REDUCE", "BUILD", "NEWOBJ"),
  *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
}
_OF_MEMO = {"BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"}
_DTYPES = (
  *("f2", "f4", "f8"),
  *("i1", "i2", "i4", "i8"),
  *("u1", "u2", "u4", "u8"),
)
# Errors that damaged and hostile pickles raise.
_ERRORS = (
  AttributeError,
  EOFError,
  IndexError,
  KeyError,
  MemoryError,
  OverflowError,
  RecursionError,
  TypeError,
  ValueError,
  pickle.UnpicklingError,
)


class _Standin:
  """Stand-in for an object that a pickle names; stores arguments and state."""

  def __init__(self, *arguments):
    self.arguments, self.state = arguments, None

  # Operations that set a state call this, of a class too, where it fails: so
  # no pickle changes an attribute.
  def __setstate__(self, state):
    self.state = state


class Csr(_Standin):
  """Stand-in for SciPy's CSR matrix."""


class Array(_Standin):
  """Stand-in for a NumPy array."""


class _Dtype(_Standin):
  """Stand-in for a NumPy dtype."""


class _Dict(_Standin, dict):
  """Stand-in for a defaultdict, without its default."""


_STANDINS = {
  "scipy.sparse.csr.csr_matrix": Csr,
  "numpy.core.multiarray._reconstruct": Array,
  "numpy.ndarray": _Standin,
  "numpy.dtype": _Dtype,
  "collections.defaultdict": _Dict,
  "__builtin__.list": _Standin,
}


class _Unpickler(pickle.Unpickler):
  def find_class(self, module, name):
    """Returns the stand-in of an object that a pickle names."""
    found = _STANDINS.get(f"{module}.{name}")
    if found is None:
      raise pickle.UnpicklingError(
        f"it asks for {module}.{name}, which is none of: {', '.join(_STANDINS)}"
      )
    return found


def unpickle(file: pathlib.Path) -> Any:
  """Reads one of the pickles without executing anything in it.

  Returns:
    Numbers, strings, lists and dicts as they are; ``Csr``, ``Array`` and other
    stand-ins for what the pickle names.

  Raises:
    FileNotFoundError: the file does not exist.
    ValueError: it is damaged, larger than ``LARGEST_PICKLE`` bytes or
      ``MOST_OPERATIONS``, or asks for more than arrays, sparse matrices and
      lists by number; names the file.
  """
  if not file.is_file():
    raise FileNotFoundError(f"there is no file {file}")
  data = read_bytes(file, most=LARGEST_PICKLE)
  try:
    _check_operations(data)
    return _Unpickler(io.BytesIO(data), encoding="latin1").load()
  except _ERRORS as error:
    raise ValueError(f"{file} is refused: {error}") from error


def _check_operations(data):
  """Raises a ValueError for operations or sizes beyond the published files."""
  objects = 0
  for count, (operation, argument, _) in enumerate(pickletools.genops(data)):
    name = operation.name
    if count >= MOST_OPERATIONS:
      raise ValueError(f"it has more than {MOST_OPERATIONS} operations")
    if name in _OF_OBJECTS:
      objects += 1
      if objects > MOST_OBJECTS:
        raise ValueError(f"it has more than {MOST_OBJECTS} objects")
    elif name in _OF_MEMO:
      # The memo is an array as long as its largest number.
      if argument is None or argument > count:
        raise ValueError(f"it numbers a value {argument}, after {count}")
    elif name not in _PLAIN:
      raise ValueError(f"it has the operation {name}, which is not read")


def to_array(found: Any, *, where: str) -> np.ndarray:
  """Returns the numbers [n] or [n, m] that a stand-in describes.

  Raises:
    ValueError: it describes no array of numbers, or not as many of them as its
      shape says.
  """
  described = _described(found)
  if described is None:
    raise ValueError(f"{where} is no array of numbers")
  shape, dtype, order, text = described
  data = text.encode("latin1", errors="replace")
  if not 1 <= len(shape) <= 2 or (
    math.prod(shape) * dtype.itemsize != len(data)
  ):
    raise ValueError(
      f"{where} is {dtype} {list(shape)}, but has {len(data)} bytes"
    )
  # A copy, since what is made of bytes cannot be written.
  return np.frombuffer(data, dtype).reshape(shape, order=order).copy()


def _described(found):
  """Returns shape, dtype, order and content, ``None`` if it is no array."""
  match found:
    case Array(
      state=(
        1,
        tuple(shape),
        _Dtype(arguments=(str(code), *_), state=(3, "<" | "|", *_)),
        bool(is_fortran),
        str(text),
      )
    ) if code in _DTYPES and all(type(n) is int and n >= 0 for n in shape):
      return shape, np.dtype(f"<{code}"), "F" if is_fortran else "C", text
    case _:
      return None
