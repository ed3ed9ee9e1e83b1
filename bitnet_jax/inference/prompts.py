"""Checks of the inputs of generation: variables, prompts and token ids."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

Prompts = Sequence[Sequence[int] | np.ndarray | jax.Array] | np.ndarray


def unboxed(variables: Mapping[str, Any]) -> dict[str, Any]:
  """Returns variables without the boxes of ``nn.Partitioned``.

  Raises:
    ValueError: if they hold no parameters.
  """
  if "params" not in variables:
    raise ValueError(
      f"variables hold {sorted(variables)}, but not 'params'; give what"
      " model.init or freeze returned"
    )
  return nn.unbox(dict(variables))


def check_prompts(prompts: Prompts, vocab_size: int) -> list[np.ndarray]:
  """Returns the ids of each prompt.

  Args:
    prompts: rows of ids, or an array of such.
    vocab_size: ids are below it.

  Raises:
    ValueError: for anything else, naming the prompt and its value.
  """
  if isinstance(prompts, str) or not hasattr(prompts, "__len__"):
    raise ValueError(
      f"prompts is {prompts!r}; it must hold rows of ids, such as [[1, 2]]"
    )
  if not len(prompts):
    raise ValueError("there are no prompts")
  return [
    _check_row(f"prompt {number}", prompt, vocab_size)
    for number, prompt in enumerate(prompts)
  ]


def _check_row(name, prompt, vocab_size):
  if isinstance(prompt, str):
    raise ValueError(f"{name} is the text {prompt!r}; encode it as ids first")
  try:
    ids = np.asarray(prompt)
  except ValueError:  # Rows of different lengths.
    ids = np.empty((0, 0))
  if ids.ndim != 1:
    raise ValueError(
      f"{name} is {prompt!r}; it must be a row of ids, such as [1, 2]"
    )
  if not len(ids):
    raise ValueError(f"{name} is empty; it must hold a token")
  return check_ids(name, ids, vocab_size)


def check_ids(name: str, ids: Any, vocab_size: int) -> np.ndarray:
  """Returns one id or several, int32 [n]; none for ``None``.

  Raises:
    ValueError: for anything else, and ids that are not in the vocabulary.
  """
  ids = np.atleast_1d(np.asarray(() if ids is None else ids))
  if ids.ndim != 1:
    raise ValueError(f"{name} is {ids.tolist()}; it must be a row of ids")
  if ids.size:
    check_integers(name, ids)
    check_range(name, ids, vocab_size)
  return ids.astype(np.int32)


def check_integers(name: str, ids: np.ndarray | jax.Array) -> None:
  """Raises a ValueError unless an array holds integers."""
  if ids.dtype.kind not in "iu":
    raise ValueError(f"{name} holds {ids.dtype}; ids are integers")


def check_range(name: str, ids: Any, vocab_size: int) -> None:
  """Raises a ValueError that names an id outside the vocabulary."""
  ids = np.asarray(ids)
  outside = ids[(ids < 0) | (ids >= vocab_size)]
  if outside.size:
    raise ValueError(
      f"{name} holds the id {outside[0]}; ids must be in 0..{vocab_size - 1}"
      f" (vocab_size={vocab_size})"
    )


def allowed_ids(
  banned: Sequence[int] | np.ndarray,
  stop_ids: Sequence[int] | np.ndarray,
  vocab_size: int,
) -> np.ndarray:
  """Returns which ids may be generated, bool [vocab_size].

  Args:
    banned: ids that may not.
    stop_ids: ids that end a text, which always may.
    vocab_size: vocabulary size of the model.

  Raises:
    ValueError: if no other id is left, or for one outside the vocabulary.
  """
  allowed = np.ones(vocab_size, bool)
  allowed[check_ids("banned", banned, vocab_size)] = False
  if not allowed.any():
    raise ValueError(f"banned holds all of the {vocab_size} ids")
  allowed[np.asarray(stop_ids, np.int32)] = True
  return allowed
