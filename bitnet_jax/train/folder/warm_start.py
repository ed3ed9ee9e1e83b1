"""Warm starts: the variables of an earlier run as the start of another."""

import dataclasses
import pathlib
from typing import Any

import jax
from absl import logging
from flax import traverse_util

from bitnet_jax.construct import construct
from bitnet_jax.files import PathLike
from bitnet_jax.train.folder import bucket, workdir
from bitnet_jax.train.folder.checkpoint import CheckpointOptions, Checkpoints
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
    """The fingerprint of the parameters."""
    return f"{self.run_id}@{self.step}"


def find(folder: PathLike, *, key: str = "init_from") -> EarlierRun:
  """Finds the run of a warm start or a teacher.

  Args:
    folder: its workdir.
    key: what asks for it, for messages.

  Raises:
    ValueError: if there is no run or no checkpoint.
  """
  folder = bucket.place(folder)
  try:
    config, fingerprint = workdir.read_config(folder)
    run_id = workdir.read_run_id(folder)
  except workdir.WorkdirError as error:
    raise ValueError(f"{key} is {folder}: {error}") from error
  steps = _checkpoints(folder, config).steps()
  if not steps:
    raise ValueError(f"{key} is {folder}, which holds no checkpoint")
  return EarlierRun(
    folder,
    run_id,
    steps[-1],
    vocabulary_of(fingerprint),
    key,
  )


def with_earlier(
  fingerprint: str, earlier: EarlierRun | None, teacher: EarlierRun | None
) -> str:
  """Returns the fingerprint of data, warm start and teacher."""
  if earlier is not None:
    fingerprint += f"{_AFTER}{earlier.fingerprint}"
  if teacher is not None:
    fingerprint += f"{_TAUGHT_BY}{teacher.fingerprint}"
  return fingerprint


def data_of(fingerprint: str) -> str:
  """Returns the part of a fingerprint that names the data."""
  return fingerprint.partition(_AFTER)[0].partition(_TAUGHT_BY)[0]


def content_of(fingerprint: str) -> str:
  """Returns the part of a fingerprint that names the data, not the ids."""
  return data_of(fingerprint).partition(" vocabulary ")[0]


def vocabulary_of(fingerprint: str) -> str:
  """Returns the part of a fingerprint that names the vocabulary, or ""."""
  return fingerprint.partition(" vocabulary ")[2].partition(" ")[0]


def earlier_of(fingerprint: str) -> dict[str, str]:
  """Returns the runs that a fingerprint names, by the config key of each."""
  rest, _, teacher = fingerprint.partition(_TAUGHT_BY)
  found = {
    "init_from": rest.partition(_AFTER)[2],
    "distill.teacher": teacher,
  }
  return {key: run for key, run in found.items() if run}


def vocabularies(recorded: str, *earlier: EarlierRun | None) -> frozenset[str]:
  """Returns the names of the vocabularies that are already in use.

  Args:
    recorded: fingerprint of the run itself, "" before its first start.
    *earlier: the runs that it starts with or learns from.
  """
  names = {vocabulary_of(recorded)}
  names |= {run.vocabulary for run in earlier if run is not None}
  return frozenset(names - {""})


def check_vocabulary(earlier: EarlierRun, fingerprint: str) -> None:
  """Raises a ValueError if two runs name tokens differently."""
  vocabulary = vocabulary_of(fingerprint)
  if vocabulary and earlier.vocabulary and vocabulary != earlier.vocabulary:
    raise ValueError(
      f"{earlier.key} is {earlier.folder}, whose vocabulary differs:"
      f" {earlier.vocabulary} there, {vocabulary} here; set data.tokenizer to"
      " the tokenizer in that folder"
    )


def warm_start(state: TrainState, earlier: EarlierRun) -> TrainState:
  """Loads all variables that both runs have, by path.

  Variables are the parameters and the mutable collections of the model, such as
  batch statistics. Those missing in the earlier run stay freshly initialized,
  and those only in the earlier run are not used; both are logged.

  Args:
    state: freshly initialized state.
    earlier: the run to load from.

  Raises:
    ValueError: if no parameter is in both, or if one has another shape, naming
      it.
  """
  found = flatten(load_variables(earlier))
  own = flatten({"params": state.params, **state.variables})
  shared = sorted(own.keys() & found.keys(), key=name_of)
  if not any(collection == "params" for collection, *_ in shared):
    there, here = (", ".join(map(name_of, tree)) for tree in (found, own))
    raise ValueError(
      f"init_from is {earlier.folder}, which has none of the parameters of this"
      f" model; there: {there}; here: {here}"
    )
  for path in shared:
    if own[path].shape != found[path].shape:
      raise ValueError(
        f"init_from is {earlier.folder}, where {name_of(path)} has the shape"
        f" {found[path].shape}; here it has {own[path].shape}"
      )
    taken = found[path].astype(own[path].dtype)
    own[path] = jax.device_put(taken, own[path].sharding)
  # A warning, so that it is noticed: if layers have other names, as in an
  # unrolled model, hardly more than the embeddings is loaded.
  logging.warning(
    "%d of %d variables of the model are loaded from %s; unused there: %s;"
    " freshly initialized: %s",
    len(shared),
    len(own),
    earlier.folder,
    *(
      ", ".join(sorted(map(name_of, paths))) or "none"
      for paths in (found.keys() - own.keys(), own.keys() - found.keys())
    ),
  )
  variables = traverse_util.unflatten_dict(own)
  params = variables.pop("params")
  return TrainState(state.step, params, state.opt_state, variables)


def flatten(variables: Any) -> dict[tuple[str, ...], Any]:
  """Returns variables by path, which begins with the collection."""
  flat: Any = traverse_util.flatten_dict(variables)
  return flat


def name_of(path: tuple[str, ...]) -> str:
  """Returns a path for messages; parameters go without their collection."""
  return "/".join(path[1:] if path[0] == "params" else path)


def load_variables(earlier: EarlierRun) -> dict[str, Any]:
  """Returns the variables of a run as NumPy arrays, by collection."""
  config, _ = workdir.read_config(earlier.folder)
  return _checkpoints(earlier.folder, config).restore_variables(earlier.step)


def _checkpoints(folder, config):
  options = construct(
    CheckpointOptions, config["checkpoint"], group="checkpoint"
  )
  return Checkpoints.of_run(folder, options)
