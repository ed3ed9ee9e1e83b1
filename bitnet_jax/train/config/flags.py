"""Command lines of all programs: flags, and what is said of a mistaken one."""

import ast
import pathlib
import re
import runpy
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import ml_collections
from absl import flags, logging

from bitnet_jax import choices
from bitnet_jax.models.registry import MODELS
from bitnet_jax.models.transformer import TransformerConfig
from bitnet_jax.train.devices.allocation import keep_memory

LENGTHS = ("total_steps", "total_epochs")
_CONFIG_FLAG = re.compile(r"--?config(?:\.([\w.]+))?(?:=(.*))?", re.DOTALL)


def parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses the command line; for ``app.run(main, flags_parser=parse_flags)``.

  ``--config.total_steps`` overrides the ``total_epochs`` of a config, and the
  other way round; ``--config.KEY=None`` leaves any key open. A mistake ends the
  program with status 2 and a message that names the key, the value and the
  nearest keys. If the config is of a transformer, memory is kept from step to
  step on CPU, see ``keep_memory``.

  Args:
    argv: the program's name and its arguments.

  Returns:
    The program's name.
  """
  try:
    _check_config(argv)
    kept, left_open = _split_none(argv)
    rest = flags.FLAGS(kept)
    _leave_open(left_open)
    if len(rest) > 1:
      raise ValueError(f"arguments {rest[1:]} are not flags (--name=value)")
    _let_given_length_rule(argv)
    if flags.FLAGS["verbosity"].using_default_value:
      # orbax logs dozens of lines a save; --verbosity=0 shows them.
      logging.set_verbosity(logging.WARNING)
    if _of_transformer():
      keep_memory()
  except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    _fail(_explain(argv) or str(error))
  except flags.Error as error:
    _fail(_explain(argv) or str(error))
  return rest


def _of_transformer() -> bool:
  config = flags.FLAGS["config"].value if "config" in flags.FLAGS else None
  name = config.get("model", {}).get("name") if config else None
  return name in MODELS and issubclass(MODELS[name].config, TransformerConfig)


def _fail(message: str) -> NoReturn:
  print(f"error: {message}", file=sys.stderr)
  sys.exit(2)


def _check_config(argv: Sequence[str]) -> None:
  """Raises a ValueError for a file or a variant that is not there."""
  config, _ = _config_flags(argv)
  if config is None:
    return
  path = config.partition(":")[0]
  if not pathlib.Path(path).is_file():
    there = sorted(str(p) for p in pathlib.Path(path).parent.glob("*.py"))
    raise ValueError(
      f"--config={path} does not exist"
      + choices.nearest(path, there)
      + (f"; there are: {', '.join(there)}" if there else "")
    )
  _load(config)


def _config_flags(
  argv: Sequence[str],
) -> tuple[str | None, dict[str, str]]:
  """Returns the value of ``--config``, and those of ``--config.key`` by key."""
  found: dict[str | None, str] = {}
  for i, argument in enumerate(argv):
    match = _CONFIG_FLAG.fullmatch(argument)
    if match:
      following = argv[i + 1] if i + 1 < len(argv) else ""
      found[match[1]] = following if match[2] is None else match[2]
  config = found.pop(None, None)
  return config, {key: value for key, value in found.items() if key}


def _split_none(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  """Returns the arguments without ``--config.KEY=None``, and those keys.

  The library takes ``None`` for no key that has a number in the config file.
  A value for the same key rules.
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
  _, given = _config_flags(kept)
  return kept, [key for key in keys if key not in given]


def _leave_open(keys: Sequence[str]) -> None:
  """Sets keys to ``None``; a KeyError for an unknown one, or a group."""
  for key in keys:
    *parents, last = key.split(".")
    group: Any = flags.FLAGS["config"].value
    for name in parents:
      group = group[name]
    if isinstance(group[last], ml_collections.ConfigDict):
      raise KeyError(key)
    group[last] = None


def _let_given_length_rule(argv: Sequence[str]) -> None:
  _, overrides = _config_flags(argv)
  given = [key for key in LENGTHS if key in overrides]
  if len(given) == 1:
    (other,) = set(LENGTHS) - set(given)
    config: Any = flags.FLAGS["config"].value
    if config[given[0]] is not None:
      config[other] = None


def _load(path: str) -> ml_collections.ConfigDict:
  """Loads ``path[:variant]``; config files are not modules of the package."""
  file, *variant = path.split(":", 1)
  config = runpy.run_path(file)["get_config"](*variant)
  return config.lock()


def _explain(argv: Sequence[str]) -> str | None:
  """Returns what is wrong with an override, if that is what is wrong."""
  path, overrides = _config_flags(argv)
  try:
    config = _load(path or "")
  except Exception:
    return None
  explained = (_explain_override(config, *item) for item in overrides.items())
  return next(filter(None, explained), None)


def _explain_override(config: Any, key: str, value: str | None) -> str | None:
  group: Any = config
  *parents, last = key.split(".")
  for i, name in enumerate([*parents, last]):
    if not isinstance(group, ml_collections.ConfigDict) or name not in group:
      return _unknown_key(config, key, value, ".".join(key.split(".")[:i]))
    if i < len(parents):
      group = group[name]
  if isinstance(group[last], ml_collections.ConfigDict):
    keys = ", ".join(f"{key}.{name}" for name in group[last])
    return f"--config.{key}={value}: {key} is a group; its keys are: {keys}"
  expected = group.get_type(last)
  return _wrong_type(key, value, expected)


def _unknown_key(config, key, value, group) -> str:
  keys = list(_dotted(config))
  there = [k for k in keys if k.rpartition(".")[0] == group] or keys
  return (
    f"--config.{key}={value}: {key} is not a key of the config"
    + choices.nearest(key, keys)
    + f"; {f'the keys of {group}' if group else 'the keys'} are: "
    + ", ".join(there)
  )


def _wrong_type(key, value, expected) -> str | None:
  if value in (None, "None") or expected is str:
    return None
  parse = {
    bool: flags.BooleanParser().parse,
    float: float,
    int: int,
    tuple: ast.literal_eval,
  }.get(expected)
  try:
    if parse is not None:
      parse(value)
  except (ValueError, TypeError, SyntaxError):
    return (
      f"--config.{key}={value}: {key} takes a value of type"
      f" {expected.__name__}, which {value!r} is not"
    )
  return None


def _dotted(config: ml_collections.ConfigDict, prefix: str = ""):
  for name in config:
    value = config[name]
    if isinstance(value, ml_collections.ConfigDict):
      yield from _dotted(value, f"{prefix}{name}.")
    else:
      yield f"{prefix}{name}"


def load_config(
  path: str, overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
  """Loads a config file as ``--config`` does.

  Args:
    path: of the file, with an optional ``:VARIANT``.
    overrides: values by dotted key.

  Returns:
    Nested dict.

  Raises:
    ValueError: for an unknown key, naming the nearest.
  """
  config = _load(path)
  for key, value in (overrides or {}).items():
    text = None if value is None else str(value)
    message = _explain_override(config, key, text)
    if message:
      raise ValueError(message)
    config.update_from_flattened_dict({key: value})
  return config.to_dict()
