"""The text of ``--help``: examples, flags, and the keys of a config."""

import sys
import textwrap
from collections.abc import Iterator, Sequence

from absl import flags
from ml_collections import ConfigDict

from bitnet_jax.train.config import loading

WORDS = ("-h", "-help", "--help")
_WIDTH = 79
_COLUMN = 26  # where the descriptions of flags begin


def describe(module: str, config: str | None = None) -> str:
  """Returns what ``--help`` shows of a program.

  Args:
    module: name of the module that has its docstring and defines its flags.
    config: name or path of a config whose keys are shown with their values.

  Raises:
    ValueError: for a config that is not there.
  """
  lines = [f"{sys.modules[module].__doc__}".rstrip(), "", "flags:"]
  own = flags.FLAGS.flags_by_module_dict().get(module, ())
  for flag in sorted(own, key=lambda flag: flag.name):
    lines += _describe_flag(flag)
  if config is None and any(flag.name == "config" for flag in own):
    lines += ["", "--config=NAME --help also shows the keys of a config."]
  elif config is not None:
    lines += ["", f"keys of {config}, given as --config.KEY=VALUE:"]
    lines += _describe_keys(loading.load(config))
  return "\n".join(lines)


def _describe_flag(flag: flags.Flag) -> Iterator[str]:
  """Yields the lines of a flag: its name and default, and what it does."""
  name = f"  --{flag.name}" + "=..." * (not flag.boolean)
  # absl says of some flags that they may be repeated; so do our texts.
  text = f"{flag.help}".split(";\n")[0]
  if flag.default not in (None, False):
    text += f" Default: {flag.default}."
  first, *others = textwrap.wrap(text, _WIDTH - _COLUMN)
  if len(name) >= _COLUMN:
    yield name
    name = ""
  yield f"{name:{_COLUMN}}{first}"
  for line in others:
    yield " " * _COLUMN + line


def _describe_keys(config: ConfigDict, prefix: str = "") -> Iterator[str]:
  """Yields the keys of a group with their values, then those of its groups."""
  groups = [n for n in config if isinstance(config[n], ConfigDict)]
  words = [f"{prefix}{n}={config[n]!r}" for n in config if n not in groups]
  yield from _fill(words)
  for name in groups:
    yield from _describe_keys(config[name], f"{prefix}{name}.")


def _fill(words: Sequence[str]) -> Iterator[str]:
  """Yields lines of words, which are never broken."""
  line = " "
  for word in words:
    if len(line) + 1 + len(word) > _WIDTH and line.strip():
      yield line
      line = " "
    line += f" {word}"
  if line.strip():
    yield line
