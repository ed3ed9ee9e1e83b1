"""Configs with every key: their defaults, and keys that a run lacks or decides.

A config file calls ``base`` and then sets the keys that differ. The keys are in
``config_keys``.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections.config_dict import ConfigDict, placeholder

from bitnet_jax.config_keys import OPEN, OPTIONAL, Later, all_keys

# In the config of a run: why open keys have their values, by dotted key.
DECIDED = "decided"


def base(task: str, model: str, budget: str | None = None) -> ConfigDict:
  """Returns a config with every key and its default.

  Keys without a default are placeholders.

  Args:
    task: a name in ``config_keys.TASKS``.
    model: a name in ``config_keys.MODELS``.
    budget: a name in ``train.decisions.budgets.BUDGETS``: the keys that the
      data decide are left open, as placeholders. ``None`` leaves none open.

  Raises:
    ValueError: for an unknown task or model.
  """
  config = _filled(all_keys(task, model))
  if budget is not None:
    config.budget = budget
    for key in open_keys(config.to_dict()):
      group, _, name = key.rpartition(".")
      keys = config[group] if group else config
      if keys[name] is not None:
        keys[name] = placeholder(type(keys[name]))
  return config


def open_keys(config: Mapping[str, Any]) -> list[str]:
  """Returns the dotted keys of a config that may be left to its data."""

  def has(key: str) -> bool:
    group, _, name = key.rpartition(".")
    return name in (config[group] if group else config)

  return [key for key in (*OPEN, *OPTIONAL) if has(key)]


def with_stand_ins(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a config whose open keys have valid values, to check the others.

  Without a budget it is returned unchanged.
  """
  if config.get("budget", "missing") is None:
    return dict(config)
  found = dict(config)
  for key, value in OPEN.items():
    group, _, name = key.rpartition(".")
    keys = found.get(group) if group else found
    if not isinstance(keys, Mapping) or keys.get(name, value) is not None:
      continue
    if key == "total_steps" and found.get("total_epochs") is not None:
      continue
    if group:
      found[group] = {**keys, name: value}
    else:
      found[name] = value
  return found


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a config completed with the defaults of missing keys.

  Args:
    config: nested dict with the names of a task and a model.
  """

  def merge(defaults, values):
    merged = {**defaults, **values}
    for key, default in defaults.items():
      if isinstance(default, Mapping) and isinstance(merged[key], Mapping):
        merged[key] = merge(default, merged[key])
    return merged

  names = config["task"]["name"], config["model"]["name"]
  return merge(base(*names).to_dict(), config)


def without_later(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a config without the ``Later`` keys that have their default.

  Configs without a task, of imported models and abridged records, are returned
  unchanged.
  """
  if "task" not in config or "model" not in config:
    return dict(config)

  def cut(keys, values):
    kept = {}
    for name, value in values.items():
      key = keys.get(name)
      if isinstance(key, Later):
        # JSON has lists for tuples.
        compared = tuple(value) if isinstance(value, list) else value
        if compared == _default(key):
          continue
      nested = isinstance(key, Mapping) and isinstance(value, Mapping)
      kept[name] = cut(key, value) if nested else value
    return kept

  names = config["task"]["name"], config["model"]["name"]
  return cut(all_keys(*names), config)


def pick_variant(variants: Mapping[str, Any], variant: str) -> Any:
  """Returns the entry of a variant in a config file's table.

  Raises:
    ValueError: for an unknown variant; lists the choices.
  """
  if variant not in variants:
    raise ValueError(f"variant is {variant!r}, not one of {list(variants)}")
  return variants[variant]


def _filled(keys: Mapping[str, Any]) -> ConfigDict:
  """Returns the keys as a config, with a new placeholder for each type."""

  def value(of_key):
    if isinstance(of_key, Mapping):
      return _filled(of_key)
    of_key = of_key.default if isinstance(of_key, Later) else of_key
    return placeholder(of_key) if isinstance(of_key, type) else of_key

  return ConfigDict({k: value(v) for k, v in keys.items()})


def _default(key: Later) -> Any:
  return None if isinstance(key.default, type) else key.default
