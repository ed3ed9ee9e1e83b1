"""Command lines of all programs, and messages for mistaken flags."""

import ast
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags, logging
from ml_collections.config_flags import config_path

from bitnet_jax import choices
from bitnet_jax.models.registry import MODELS
from bitnet_jax.models.transformer import TransformerConfig
from bitnet_jax.train.config import loading, nearest
from bitnet_jax.train.devices.allocation import keep_memory

LENGTHS = ("total_steps", "total_epochs")
_CONFIG_FLAG = re.compile(r"--?config(?:\.([\w.]+))?(?:=(.*))?", re.DOTALL)
# What absl says of each required flag that is not there.
_MISSING = re.compile(r"^flag (--\w+)=None: Flag --\w+ must have", re.MULTILINE)
_PARSERS = {
  bool: flags.BooleanParser().parse,
  float: float,
  int: int,
  tuple: ast.literal_eval,
}


def parse_flags(
  argv: Sequence[str], *, arguments: str | None = None
) -> list[str]:
  """Parses the command line; for ``app.run(main, flags_parser=parse_flags)``.

  ``--config.total_steps`` overrides the ``total_epochs`` of a config, and the
  other way round. ``--config.KEY=None`` leaves any key open. A mistake ends the
  program with status 2 and a message that names the key, the value and the
  nearest keys. With the config of a transformer, memory is retained between
  steps on CPU, see ``keep_memory``.

  Args:
    argv: the program's name and its arguments.
    arguments: what the arguments that are no flags are, such as "RUN"; ``None``
      refuses them.

  Returns:
    The program's name, and the arguments that are no flags.
  """
  path, overrides = config_flags(argv)
  try:
    if path is not None:
      loading.load(path)  # Its errors are plainer than those of ml_collections.
      if said := loading.note(path):
        print(said, file=sys.stderr)
    kept, left_open = _split_none(_with_path(argv, path))
    rest = flags.FLAGS(kept)
    config: Any = None
    if "config" in flags.FLAGS:
      config = flags.FLAGS["config"].value
    _override(config, dict.fromkeys(left_open))
    if len(rest) > 1 and arguments is None:
      raise ValueError(f"arguments {rest[1:]} are not flags (--name=value)")
  except (
    AttributeError,
    KeyError,
    OSError,
    TypeError,
    ValueError,
    flags.Error,
  ) as error:
    print(f"error: {_explain(error, path, overrides)}", file=sys.stderr)
    sys.exit(2)
  if config is not None:
    clear_other_length(config, overrides)
  if flags.FLAGS["verbosity"].using_default_value:
    # orbax logs dozens of lines a save; --verbosity=0 shows them.
    logging.set_verbosity(logging.WARNING)
  name = config.get("model", {}).get("name") if config else None
  if name in MODELS and issubclass(MODELS[name].config, TransformerConfig):
    keep_memory()
  return rest


def config_flags(argv: Sequence[str]) -> tuple[str | None, dict[str, str]]:
  """Returns the value of ``--config``, and those of ``--config.key`` by key."""
  found: dict[str | None, str] = {}
  for i, argument in enumerate(argv):
    match = _CONFIG_FLAG.fullmatch(argument)
    if match:
      following = argv[i + 1] if i + 1 < len(argv) else ""
      found[match[1]] = following if match[2] is None else match[2]
  config = found.pop(None, None)
  return config, {key: value for key, value in found.items() if key}


def _with_path(argv: Sequence[str], config: str | None) -> list[str]:
  """Returns the arguments with the path of a config in place of its name."""
  if config is None:
    return list(argv)
  path = loading.locate(config)
  found = []
  for word in argv:
    match = _CONFIG_FLAG.fullmatch(word)
    before = _CONFIG_FLAG.fullmatch(found[-1]) if found else None
    if match and not match[1] and match[2] is not None:
      found.append(f"--config={path}")
    elif before and not before[1] and before[2] is None:
      found.append(path)
    else:
      found.append(word)
  return found


def _split_none(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  """Returns the arguments without ``--config.KEY=None``, and those keys.

  ml_collections takes no ``None`` for a key with a number in the config file.
  Another value for the same key overrides ``None``.
  """
  kept: list[str] = []
  keys = []
  for word in argv:
    match = _CONFIG_FLAG.fullmatch(word)
    before = _CONFIG_FLAG.fullmatch(kept[-1]) if kept else None
    if match and match[1] and match[2] == "None":
      keys.append(match[1])
    elif word == "None" and before and before[1] and before[2] is None:
      keys.append(before[1])
      kept.pop()
    else:
      kept.append(word)
  _, given = config_flags(kept)
  return kept, [key for key in keys if key not in given]


def load_config(
  path: str, overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
  """Loads a config file as ``--config`` does.

  Args:
    path: path of the file, or the name of a config that comes with the library,
      with an optional ``:VARIANT``.
    overrides: values by dotted key.

  Returns:
    Nested dict.

  Raises:
    ValueError: for an unknown key, naming the nearest.
  """
  config = loading.load(path)
  _override(config, overrides or {})
  return config.to_dict()


def _override(config: Any, overrides: Mapping[str, Any]) -> None:
  """Sets values by dotted key; raises a ValueError for a mistaken one."""
  for key, value in overrides.items():
    text = None if value is None else str(value)
    if message := _explain_override(config, key, text):
      raise ValueError(message)
    config.update_from_flattened_dict({key: value})


def _explain(
  error: Exception, path: str | None, overrides: Mapping[str, str]
) -> str:
  """Returns what is wrong with a command line, with the nearest config keys."""
  if missing := _MISSING.findall(str(error)):
    is_or_are = "is" if len(missing) == 1 else "are"
    return (
      f"{' and '.join(missing)} {is_or_are} required; --help shows examples"
    )
  try:
    config = loading.load(path or "")
  except Exception:
    return str(error)
  explained = (_explain_override(config, *item) for item in overrides.items())
  for message in filter(None, explained):
    return message
  if isinstance(error, flags.UnrecognizedFlagError):
    name, keys = error.flagname, [*_dotted(config)]
    known = [f"--{flag}" for flag in flags.FLAGS]
    return f"--{name} is not a flag" + (
      choices.nearest(f"--{name}", known)
      or nearest.suggest(name, keys, prefix="--config.")
    )
  return str(error)


def parse_value(config: Any, key: str, text: str, *, given: str) -> Any:
  """Returns the value of a key that ``--config.KEY=TEXT`` sets.

  Args:
    config: has the key.
    key: dotted.
    text: the value; "None" leaves the key open.
    given: the argument that it is a part of, for messages.

  Raises:
    ValueError: for an unknown key or a value of another type.
  """
  if message := _explain_override(config, key, text, given):
    raise ValueError(message)
  if text == "None":
    return None
  expected = config_path.get_type(key, config)
  value = _PARSERS[expected](text) if expected in _PARSERS else text
  if expected in _PARSERS and not isinstance(value, expected):
    raise ValueError(_of_type(f"{given}: {key}", expected, text))
  return value


def clear_other_length(config: Any, keys: Collection[str]) -> None:
  """Leaves the length of a config open that others than ``keys`` set.

  Args:
    config: changed in place.
    keys: the overridden keys: ``total_steps`` overrides ``total_epochs``, and
      the other way round.
  """
  given = [key for key in LENGTHS if key in keys]
  if len(given) == 1 and config[given[0]] is not None:
    (other,) = set(LENGTHS) - set(given)
    config[other] = None


def _explain_override(
  config: Any, key: str, value: str | None, given: str | None = None
) -> str | None:
  """Returns what is wrong with ``--config.KEY=VALUE``, if anything.

  ml_collections names the nearest key, but neither the value nor the choices.
  """
  given = f"{given or f'--config.{key}={value}'}: {key}"
  keys = list(_dotted(config))
  inside = [name for name in keys if name.startswith(f"{key}.")]
  if inside:
    return f"{given} is a group; its keys are: {', '.join(inside)}"
  if key in keys:
    expected = config_path.get_type(key, config)
    if value in (None, "None") or expected not in _PARSERS:
      return None
    try:
      _PARSERS[expected](value)
    except (ValueError, TypeError, SyntaxError):
      return _of_type(given, expected, value)
    return None
  group = key.rpartition(".")[0]
  there = [name for name in keys if name.rpartition(".")[0] == group]
  return (
    f"{given} is not a key of the config{nearest.suggest(key, keys)};"
    f" {f'the keys of {group}' if group and there else 'the keys'} are:"
    f" {', '.join(there or config)}"
  )


def _of_type(given: str, expected: type, value: str | None) -> str:
  return (
    f"{given} takes a value of type {expected.__name__}, which {value!r} is not"
  )


def _dotted(config: ml_collections.ConfigDict, prefix: str = ""):
  for name in config:
    value = config[name]
    if isinstance(value, ml_collections.ConfigDict):
      yield from _dotted(value, f"{prefix}{name}.")
    else:
      yield f"{prefix}{name}"
