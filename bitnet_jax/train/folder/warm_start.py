"""Warm starts: variables of an earlier run, or of an Orbax checkpoint."""

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from absl import logging
from etils import epath
from flax import traverse_util

from bitnet_jax.construct import construct
from bitnet_jax.files import PathLike
from bitnet_jax.train.folder import bucket, own_checkpoint, workdir
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
    own: an Orbax checkpoint that is no run's, which the other attributes then
      describe.
    mapping: (pattern, name) pairs that rename its parameters.
  """

  folder: pathlib.Path
  run_id: str
  step: int
  vocabulary: str
  key: str = "init_from"
  own: epath.Path | None = None
  mapping: tuple[tuple[str, str], ...] = ()

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


def find_start(
  folder: PathLike, mapping: Iterable[tuple[str, str]] = ()
) -> EarlierRun:
  """Finds what a run starts from: an earlier run, or an Orbax checkpoint.

  Args:
    folder: workdir of the run, or folder of the checkpoint, or of several whose
      names end in their steps, of which the newest is taken.
    mapping: see ``EarlierRun``.

  Raises:
    ValueError: if there is neither.
  """
  folder, own = bucket.place(folder), None
  if not (folder / workdir.CONFIG_FILE).exists():
    own = own_checkpoint.find(bucket.home(folder))
  if own is not None:
    name = f"orbax {own_checkpoint.digest(own)}"
    return EarlierRun(folder, name, 0, "", own=own, mapping=tuple(mapping))
  try:
    return dataclasses.replace(find(folder), mapping=tuple(mapping))
  except ValueError as error:
    if (folder / workdir.CONFIG_FILE).exists():
      raise
    raise ValueError(f"{error}, and no Orbax checkpoint either") from error


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
  """Returns a fresh state with the variables of an earlier run.

  Raises:
    ValueError: see ``read_shared``.
  """
  return with_variables(state, read_shared(state, earlier))


def with_variables(
  state: TrainState, found: Mapping[tuple[str, ...], Any]
) -> TrainState:
  """Returns a state with other variables, by path; optimizers stay fresh."""
  own = flatten({"params": state.params, **state.variables})
  for path, array in found.items():
    taken = array.astype(own[path].dtype)
    own[path] = jax.device_put(taken, own[path].sharding)
  variables = traverse_util.unflatten_dict(own)
  params = variables.pop("params")
  return TrainState(state.step, params, state.opt_state, variables)


def read_shared(
  state: TrainState, earlier: EarlierRun
) -> dict[tuple[str, ...], Any]:
  """Returns all variables that a state and a run both have, by path.

  Variables are the parameters and the mutable collections of the model, such as
  batch statistics. Names are paths; those of parameters go without their
  collection. Those missing there stay freshly initialized, and those only there
  are not used; both are logged.

  Args:
    state: freshly initialized state, or its shapes.
    earlier: what to load from. Each pair of its mapping renames what matches
      whole names between slashes, one pair after the other.

  Raises:
    ValueError: if no parameter is in both, if some have other shapes, naming
      them, or if a pair renames nothing.
  """
  own = flatten({"params": state.params, **state.variables})
  found = _renamed(_named_variables(earlier), earlier)
  paths = _paths(own, found, earlier)
  _check_shared(paths, own, found, earlier)
  # A warning, so that it is noticed: if layers have other names, as in an
  # unrolled model, hardly more than the embeddings is loaded.
  logging.warning(
    "%d of %d variables of the model are loaded from %s; unused there: %s;"
    " freshly initialized: %s",
    len(paths),
    len(own),
    earlier.own or earlier.folder,
    *(
      ", ".join(sorted(names)) or "none"
      for names in (
        found.keys() - set(paths.values()),
        map(name_of, own.keys() - paths.keys()),
      )
    ),
  )
  return {path: found[name] for path, name in paths.items()}


def _named_variables(earlier: EarlierRun) -> dict[str, Any]:
  """Returns the variables to start from as NumPy arrays, by name."""
  if earlier.own is None:
    variables = flatten(load_variables(earlier))
    return {name_of(path): leaf for path, leaf in variables.items()}
  try:
    return own_checkpoint.load(earlier.own)
  except ValueError as error:
    raise ValueError(f"{earlier.key}: {error}") from error


def _renamed(found: dict[str, Any], earlier: EarlierRun) -> dict[str, Any]:
  """Returns variables under the names that the mapping gives them."""
  names = {name: name for name in found}
  for pattern, new in earlier.mapping:
    whole = re.compile(rf"(?:(?<=/)|^)(?:{pattern})(?=/|$)")
    try:
      changed = {
        old: "/".join(filter(None, whole.sub(new, name).split("/")))
        for old, name in names.items()
      }
    except (IndexError, re.error) as error:
      raise ValueError(
        f"init_mapping has the name {new!r} for {pattern!r}: {error}"
      ) from error
    if changed == names:
      raise ValueError(
        f"init_mapping has the pattern {pattern!r}, which matches nothing in"
        f" {earlier.folder}; there: {', '.join(names.values())}"
      )
    names = changed
  renamed: dict[str, Any] = {}
  for old, name in names.items():
    if name in renamed:
      raise ValueError(
        f"init_mapping gives several parameters of {earlier.folder} the name"
        f" {name!r}"
      )
    renamed[name] = found[old]
  return renamed


def _paths(
  own: Mapping[tuple[str, ...], Any],
  found: Mapping[str, Any],
  earlier: EarlierRun,
) -> dict[tuple[str, ...], str]:
  """Returns the names there of the variables that both have."""
  paths = {path: name_of(path) for path in own if name_of(path) in found}
  if earlier.own is not None:  # NNX has one tree for all collections.
    paths |= {
      path: "/".join(path[1:])
      for path in own.keys() - paths.keys()
      if "/".join(path[1:]) in found
    }
  return dict(sorted(paths.items(), key=lambda item: item[1]))


def _check_shared(paths, own, found, earlier) -> None:
  """Raises a ValueError if nothing is shared, or if shapes differ."""
  if not any(collection == "params" for collection, *_ in paths):
    there, here = ", ".join(found), ", ".join(map(name_of, own))
    raise ValueError(
      f"{earlier.key} is {earlier.folder}, which has none of the parameters of"
      f" this model; there: {there}; here: {here}; init_mapping renames them"
    )
  different = [
    f"{name} has the shape {found[name].shape}; here it has {own[path].shape}"
    for path, name in paths.items()
    if own[path].shape != found[name].shape
  ]
  if different:
    raise ValueError(
      f"{earlier.key} is {earlier.folder}, where {', and '.join(different)}"
    )


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
