"""Opens data sets of the library `datasets`, from folders or from the hub.

Nothing in a set is executed: the library no longer runs loading scripts.
"""

import contextlib
import gc
import pathlib
import re
import traceback
import warnings
from collections.abc import Generator, Mapping
from typing import Any

from absl import logging

from bitnet_jax.data import splits
from bitnet_jax.extras import needed_by

# Splits of the library by their usual names.
_SPLITS = {
  "train": ("train",),
  "valid": ("validation", "valid", "val", "dev"),
  "test": ("test",),
}
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?(:[^/\\]+)?")
_PROBE_SECONDS = 5.0  # until the hub counts as out of reach
_LONGEST_REASON = 300  # characters of an error of the library


def open_set(name: str, cuts: splits.Cuts) -> dict[str, Any]:
  """Returns the `datasets.Dataset` of each split; their rows stay on disk.

  Args:
    name: a folder that `save_to_disk` wrote, a folder of Parquet, CSV, JSON or
      text files, or the name of a set on the hub; `:CONFIG` may follow.
    cuts: `split_names` may be parts of a split, as `train[:1%]`.

  Raises:
    FileNotFoundError: there is no such folder.
    ImportError: `datasets` is not installed.
    ValueError: the set cannot be read, is not on the hub, needs a
      configuration, or lacks a split; a message of one line.
  """
  source = f"hf:{name}"
  with needed_by(source, "datasets", extra="hf"):
    import datasets
  folder, config = _locate(name)
  with _quiet(datasets), _one_line(source):
    if folder is None:
      found = _load_from_hub(datasets, source, *config)
    elif _is_saved(folder):
      found = datasets.load_from_disk(str(folder))
    else:
      found = _load(datasets, source, str(folder), *config)
  by_split: Mapping[Any, Any] = (
    {**found} if isinstance(found, datasets.DatasetDict) else {"train": found}
  )
  return _choose_splits(datasets, source, by_split, dict(cuts.split_names))


def _locate(name) -> tuple[pathlib.Path | None, tuple[str | None, ...]]:
  """Returns a folder or `None`, and what is loaded: configuration, or both."""
  base, _, config = name.rpartition(":")
  for path, own in ((name, None), (base, config or None)):
    folder = pathlib.Path(path).expanduser().absolute()
    if path and folder.is_dir():
      return folder, (own,)
  folder = pathlib.Path(name).expanduser().absolute()
  if folder.exists():
    raise ValueError(
      f"hf:{name} is a file; hf: reads folders, and file:{name} reads a file"
    )
  if not _HUB_NAME.fullmatch(name):
    raise FileNotFoundError(f"hf:{name}: there is no folder {folder}")
  path, _, config = name.partition(":")
  return None, (path, config or None)


def _is_saved(folder):
  """Whether `save_to_disk` wrote a folder."""
  names = ("dataset_dict.json", "state.json")
  return any((folder / name).is_file() for name in names)


def _load_from_hub(datasets, source, path, config):
  """Loads a set of the hub, or from the cache where the hub is out of reach."""
  offline = _is_offline(datasets)
  if offline:
    logging.info("%s: the hub is out of reach; looking in the cache", source)
  try:
    with _offline(datasets) if offline else contextlib.nullcontext():
      return _load(datasets, source, path, config)
  except ConnectionError as error:
    raise ValueError(
      f"{source} is neither a folder here nor in the cache"
      f" {datasets.config.HF_DATASETS_CACHE}, and {datasets.config.HF_ENDPOINT}"
      " cannot be reached. Load it once with a network, or write it into a"
      " folder elsewhere with save_to_disk and give hf:FOLDER"
    ) from error


def _load(datasets, source, path, config):
  """Loads a set; names the configurations if one has to be chosen."""
  try:
    with _closing():
      return datasets.load_dataset(path, config)
  except ValueError as error:
    known = datasets.get_dataset_config_names(path)
    if config in known or (config is None and len(known) < 2):
      raise
    base = source.removesuffix(f":{config}")
    what = (
      f"no configuration {config!r}" if config else "several configurations"
    )
    raise ValueError(
      f"{base} has {what}; choose among"
      f" {', '.join(f'{base}:{name}' for name in known)}"
    ) from error


def _is_offline(datasets) -> bool:
  """Whether the hub does not answer; the library would retry for long."""
  from huggingface_hub import get_session

  if datasets.config.HF_HUB_OFFLINE:
    return False  # The library knows, and fails at once.
  try:
    get_session().head(datasets.config.HF_ENDPOINT, timeout=_PROBE_SECONDS)
  except Exception:  # Of any library for HTTP.
    return True
  return False


@contextlib.contextmanager
def _changed(module: Any, **values: Any) -> Generator[None]:
  """Sets attributes of a module for a while."""
  old = {key: getattr(module, key) for key in values}
  for key, value in values.items():
    setattr(module, key, value)
  try:
    yield
  finally:
    for key, value in old.items():
      setattr(module, key, value)


@contextlib.contextmanager
def _offline(datasets) -> Generator[None]:
  """Lets the libraries use their caches only."""
  from huggingface_hub import constants

  with (
    _changed(datasets.config, HF_HUB_OFFLINE=True),
    _changed(constants, HF_HUB_OFFLINE=True),
  ):
    yield


@contextlib.contextmanager
def _quiet(datasets) -> Generator[None]:
  """Without bars, messages and counted downloads of the libraries."""
  from huggingface_hub import constants
  from huggingface_hub.utils import logging as hub_logging

  own = datasets.utils.logging
  levels = own.get_verbosity(), hub_logging.get_verbosity()
  bars = datasets.are_progress_bars_disabled()
  datasets.disable_progress_bars()
  own.set_verbosity_error()
  hub_logging.set_verbosity_error()
  try:
    with (
      _changed(datasets.config, HF_UPDATE_DOWNLOAD_COUNTS=False),
      _changed(constants, HF_HUB_DISABLE_TELEMETRY=True),
    ):
      yield
  finally:
    own.set_verbosity(levels[0])
    hub_logging.set_verbosity(levels[1])
    if not bars:
      datasets.enable_progress_bars()


@contextlib.contextmanager
def _closing() -> Generator[None]:
  """Closes the CSV files that the library leaves open."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)
    try:
      yield
    except Exception as error:
      cause: BaseException | None = error
      while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__
      raise
    finally:
      gc.collect()


@contextlib.contextmanager
def _one_line(source: str) -> Generator[None]:
  """Turns what the library raises into a ValueError of one line."""
  try:
    yield
  except Exception as error:  # The readers of files raise what they like.
    if str(error).startswith("hf:"):  # of this module
      raise
    # The error of a file stands behind one of the whole set.
    cause = error.__cause__ or error
    reason = " ".join(str(cause).split()) or repr(cause)
    raise ValueError(
      f"cannot read {source}: {reason:.{_LONGEST_REASON}}"
    ) from error


def _choose_splits(
  datasets, source, found: Mapping[Any, Any], names: Mapping[str, str]
) -> dict[str, Any]:
  """Returns the splits by our names."""
  chosen = {}
  for key in splits.NAMES:
    usual = [n for n in _SPLITS[key] if n in found]
    if key in names:
      chosen[key] = _part(datasets, source, found, names[key])
    elif len(usual) > 1:
      raise ValueError(
        f"{source}: {key} can be {' or '.join(usual)}: say which in split_names"
      )
    elif usual:
      chosen[key] = found[usual[0]]
  if "train" not in chosen:
    _part(datasets, source, found, "train")
  return chosen


def _part(datasets, source, found, spec):
  """Returns a split, or a part such as `train[:1%]`."""
  if spec.partition("[")[0] not in found:
    raise ValueError(
      f"{source} has no split {spec.partition('[')[0]}, it has"
      f" {', '.join(found)}; split_names says which is which"
    )
  if "[" not in spec:
    return found[spec]
  with _one_line(f"{source}, split_names={spec!r}"):
    sizes = {name: len(split) for name, split in found.items()}
    instruction = datasets.ReadInstruction.from_spec(spec)
    (part,) = instruction.to_absolute(sizes)
    return found[part.splitname].select(range(part.from_, part.to))
