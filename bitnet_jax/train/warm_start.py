"""Parameters of an earlier run as the start of another."""

import dataclasses
import pathlib
from typing import Any

import jax
from absl import logging
from flax import traverse_util

from bitnet_jax.train import workdir
from bitnet_jax.train.checkpoint import CheckpointOptions, Checkpoints
from bitnet_jax.train.construct import construct
from bitnet_jax.train.records import run_id
from bitnet_jax.train.state import TrainState

_AFTER, _TAUGHT_BY = " after ", " taught by "


@dataclasses.dataclass(frozen=True)
class EarlierRun:
  """A run that parameters are taken from.

  Attributes:
    folder: its workdir.
    run_id: its name.
    step: the checkpoint, its last.
    vocabulary: names its vocabulary by content; "" for none.
    key: what asks for it, for messages.
  """

  folder: pathlib.Path
  run_id: str
  step: int
  vocabulary: str
  key: str = "init_from"

  @property
  def fingerprint(self) -> str:
    """Names the parameters by content."""
    return f"{self.run_id}@{self.step}"


def find(folder: pathlib.Path, *, key: str = "init_from") -> EarlierRun:
  """Looks a run up.

  Args:
    folder: its workdir.
    key: what asks for it, for messages.

  Raises:
    ValueError: if there is no run or no checkpoint.
  """
  try:
    config, fingerprint = workdir.read_config(folder)
  except workdir.WorkdirError as error:
    raise ValueError(f"{key} is {folder}: {error}") from error
  steps = _checkpoints(folder, config).steps()
  if not steps:
    raise ValueError(f"{key} is {folder}, which holds no checkpoint")
  return EarlierRun(
    folder,
    run_id(config, fingerprint),
    steps[-1],
    vocabulary_of(fingerprint),
    key,
  )


def with_earlier(
  fingerprint: str, earlier: EarlierRun | None, teacher: EarlierRun | None
) -> str:
  """Returns what names data, and the runs that parameters come from."""
  if earlier is not None:
    fingerprint += f"{_AFTER}{earlier.fingerprint}"
  if teacher is not None:
    fingerprint += f"{_TAUGHT_BY}{teacher.fingerprint}"
  return fingerprint


def data_of(fingerprint: str) -> str:
  """Returns the part of a fingerprint that names the data."""
  return fingerprint.partition(_AFTER)[0].partition(_TAUGHT_BY)[0]


def vocabulary_of(fingerprint: str) -> str:
  """Returns the part of a fingerprint that names the vocabulary, or ""."""
  return fingerprint.partition(" vocabulary ")[2].partition(" ")[0]


def check_vocabulary(earlier: EarlierRun, fingerprint: str) -> None:
  """Raises a ValueError if two runs name tokens differently."""
  vocabulary = vocabulary_of(fingerprint)
  if vocabulary and earlier.vocabulary and vocabulary != earlier.vocabulary:
    raise ValueError(
      f"{earlier.key} is {earlier.folder}, whose vocabulary is another:"
      f" {earlier.vocabulary} there, {vocabulary} here; use the tokenizer that"
      " is kept there (data.tokenizer)"
    )


def warm_start(state: TrainState, earlier: EarlierRun) -> TrainState:
  """Takes over all parameters that both runs have, by path.

  What is not in the earlier run stays fresh, and is logged; what is there only
  is left.

  Args:
    state: fresh.
    earlier: where parameters come from.

  Raises:
    ValueError: if nothing is in both, or if something that is has another
      shape, naming it.
  """
  saved = load_params(earlier)
  found: dict[Any, Any] = traverse_util.flatten_dict(saved, sep="/")
  own: dict[Any, Any] = traverse_util.flatten_dict(state.params, sep="/")
  shared = sorted(own.keys() & found.keys())
  if not shared:
    raise ValueError(
      f"init_from is {earlier.folder}, which has none of the parameters of this"
      f" model; there: {', '.join(found)}; here: {', '.join(own)}"
    )
  for path in shared:
    if own[path].shape != found[path].shape:
      raise ValueError(
        f"init_from is {earlier.folder}, where {path} has the shape"
        f" {found[path].shape}; here it has {own[path].shape}"
      )
    taken = found[path].astype(own[path].dtype)
    own[path] = jax.device_put(taken, own[path].sharding)
  # A warning, so that it is seen: with other names of layers, of an unrolled
  # model for instance, little more than the embeddings would be shared.
  logging.warning(
    "%d of %d parameters come from %s; fresh are: %s",
    len(shared),
    len(own),
    earlier.folder,
    ", ".join(sorted(own.keys() - found.keys())) or "none",
  )
  params = traverse_util.unflatten_dict(own, sep="/")
  return TrainState(state.step, params, state.opt_state, state.variables)


def load_params(earlier: EarlierRun) -> Any:
  """Returns the parameters of a run, as NumPy arrays."""
  config, _ = workdir.read_config(earlier.folder)
  return _checkpoints(earlier.folder, config).restore_params(earlier.step)


def _checkpoints(folder, config):
  options = construct(
    CheckpointOptions, config["checkpoint"], group="checkpoint"
  )
  return Checkpoints.of_run(folder, options)
