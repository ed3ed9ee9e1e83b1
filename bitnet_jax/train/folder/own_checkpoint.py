"""Orbax checkpoints of other programs, from which a run can start."""

import hashlib
import re
from typing import Any

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from bitnet_jax.train.folder import bucket, seals

# A folder of a checkpoint manager: 500, checkpoint_500.
_STEP = re.compile(r"(?:.*\D)?(\d+)")
# Files of which orbax writes one at least; it takes an empty folder for one.
_FILES = ("_CHECKPOINT_METADATA", "_METADATA", "orbax.checkpoint")
# Entries of a saved train state that are no variables of a model.
_LEFT_OUT = ("opt_state", "step")


def find(folder: epath.Path) -> epath.Path | None:
  """Returns the Orbax checkpoint in a folder; ``None`` if there is none.

  Args:
    folder: a checkpoint, or a folder of checkpoints that end in their steps, of
      which the newest is returned.
  """
  with bucket.naming_address(folder):
    if not folder.is_dir():
      return None
    if not bucket.is_in_bucket(folder):
      folder = folder.resolve()  # As orbax requires.
    if _is_checkpoint(folder):
      return folder
    steps = {
      int(found[1]): path
      for path in folder.iterdir()
      if (found := _STEP.fullmatch(path.name)) and _is_checkpoint(path)
    }
  return steps[max(steps)] if steps else None


def digest(checkpoint: epath.Path) -> str:
  """Returns a hash of the files of a checkpoint."""
  sums = sorted(seals.sums(checkpoint).items())
  return f"sha256:{hashlib.sha256(repr(sums).encode()).hexdigest()}"


def load(checkpoint: epath.Path) -> dict[str, np.ndarray]:
  """Returns the arrays of a checkpoint by slash-joined path.

  Parameters go without the entry "params" around them; the state of an
  optimizer and the step are left out.

  Args:
    checkpoint: a tree of arrays: parameters, variables of Linen, a state of
      NNX, or a train state with these in it.

  Raises:
    ValueError: if it cannot be read, holds no arrays, or values that are not
      finite, naming them.
  """
  try:
    with bucket.naming_address(checkpoint):
      saved: Any = ocp.metadata(checkpoint).metadata
      wanted = jax.tree_util.tree_map_with_path(_wanted, saved)
      loaded = ocp.load(checkpoint, wanted)
  except Exception as error:  # of many kinds, by what is damaged
    reason = f"{error}".splitlines()[0] if f"{error}" else repr(error)
    raise ValueError(f"{checkpoint} cannot be read: {reason:.300}") from error
  found = {
    _name(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(loaded)
    if isinstance(leaf, np.ndarray)
  }
  if not found:
    raise ValueError(f"{checkpoint} holds no arrays of a model")
  for name, array in found.items():
    if (
      array.dtype.kind in "fV"
      and not np.isfinite(array.astype(np.float32)).all()
    ):
      raise ValueError(f"{checkpoint}: {name} holds values that are not finite")
  return found


def _is_checkpoint(folder: epath.Path) -> bool:
  return any((folder / name).exists() for name in _FILES)


def _wanted(path, leaf):
  """Returns an array to load, or the sign that a leaf is not loaded."""
  top = jax.tree_util.keystr(path[:1], simple=True)
  if top in _LEFT_OUT or not hasattr(leaf, "shape"):
    return ocp.PLACEHOLDER
  return np.empty(leaf.shape, leaf.dtype)


def _name(path) -> str:
  name = jax.tree_util.keystr(path, simple=True, separator="/")
  while name.startswith("params/"):
    name = name.removeprefix("params/")
  return name.removesuffix("/value")  # Of a state of NNX.
