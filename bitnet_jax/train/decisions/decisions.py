"""A config whose open keys are decided from its data, and the reasons."""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

from bitnet_jax import choices
from bitnet_jax.config import DECIDED, open_keys
from bitnet_jax.data.sources import registry
from bitnet_jax.train.config.settings import (
  RunContext,
  Settings,
  parse_settings,
)
from bitnet_jax.train.decisions.budgets import BUDGETS, Budget
from bitnet_jax.train.tasks.registry import TASKS

_LENGTH = ("total_steps", "total_epochs")


class Decisions:
  """A config whose open keys are decided one after the other.

  A key is open if the config has a budget and no value for the key. In the
  folder of a run, an open key has the value that it has in that run.

  Attributes:
    config: nested dict, with what is decided so far.
    reasons: why, by dotted key.
    context: where the data are loaded.
    vocabulary: spec of the tokenizer of the run that this one starts from, or
      learns from; ``None`` for none.
  """

  def __init__(
    self,
    config: Mapping[str, Any],
    context: RunContext,
    *,
    recorded: Mapping[str, Any] | None = None,
    vocabulary: str | None = None,
  ):
    """Starts with what the run in the folder has decided.

    Args:
      config: nested dict.
      context: see the attributes, like ``vocabulary``.
      recorded: config of the run in the folder, ``None`` for none.
      vocabulary: see the attributes.
    """
    self.config = copy.deepcopy(dict(config))
    self.reasons: dict[str, str] = {}
    self.context, self.vocabulary = context, vocabulary
    self._taken_over: list[str] = []
    if self.has_budget:
      choices.check(self.config["budget"], BUDGETS, key="budget")
    if recorded is not None and _task(recorded) == _task(config):
      self._take_over(recorded)

  def _take_over(self, recorded: Mapping[str, Any]) -> None:
    reasons = recorded.get(DECIDED, {})
    # In the order in which they were decided.
    keys = dict.fromkeys([*reasons, *open_keys(self.config)])
    for key in filter(self.is_open, keys):
      value = _get(recorded, key)
      self.decide(key, value, reasons.get(key, ""))
      if value is not None and key.startswith("data."):
        self._taken_over.append(key)

  @contextlib.contextmanager
  def loading(self) -> Iterator[None]:
    """Reads the data once, for decisions and for training.

    Adds to errors of the data what the run in the folder has decided.
    """
    try:
      with registry.keeping() if self.has_budget else contextlib.nullcontext():
        yield
    except ValueError as error:
      if not self._taken_over:
        raise
      raise ValueError(
        f"{error}; {', '.join(self._taken_over)} are those of the run in"
        f" {self.context.folder}: if the data changed, choose another folder"
      ) from error

  @property
  def has_budget(self) -> bool:
    """Whether keys may be open."""
    return self.config.get("budget") is not None

  @property
  def budget(self) -> Budget:
    """What the decisions aim at."""
    return BUDGETS[self.config["budget"]]

  @property
  def settings(self) -> Settings:
    """The checked config, with stand-ins for what is still open."""
    return parse_settings(self.config, TASKS)

  def is_open(self, key: str) -> bool:
    """Whether a dotted key waits for a decision."""
    if not self.has_budget or key not in open_keys(self.config):
      return False
    if key == "total_steps":
      return all(self.config[name] is None for name in _LENGTH)
    return _get(self.config, key) is None

  def decide(self, key: str, value: Any, reason: str = "") -> Any:
    """Sets an open key; one that is given keeps its value.

    Args:
      key: dotted key.
      value: its value; ``None`` leaves it open.
      reason: why, in a few words; "" for what need not be said.

    Returns:
      The value that the key has.
    """
    if self.is_open(key) and value is not None:
      group, _, name = key.rpartition(".")
      (self.config[group] if group else self.config)[name] = value
      if reason:
        self.reasons[key] = reason
    return _get(self.config, key)

  def resolved(self) -> dict[str, Any]:
    """Returns the config, with nothing left to decide, and the reasons."""
    config = {**self.config}
    if self.has_budget:
      config |= {"budget": None, "evaluations": None}
      config["optim"] = {**config["optim"], "warmup_fraction": None}
    if self.reasons:
      config[DECIDED] = dict(self.reasons)
    return config

  def given(self, key: str) -> Any:
    """Returns the value of a dotted key, ``None`` if the config lacks it."""
    return _get(self.config, key)


def lines(config: Mapping[str, Any]) -> Iterator[str]:
  """Yields what was decided, such as "data.seq_len = 64 (...)"."""
  for key, reason in config.get(DECIDED, {}).items():
    value = _get(config, key)
    if isinstance(value, list):
      value = tuple(value)
    shown = value if isinstance(value, str) else repr(value)
    yield f"{key} = {shown} ({reason})"


def _task(config: Mapping[str, Any]) -> Any:
  """Returns the name of the task."""
  return config["task"]["name"]


def _get(config: Mapping[str, Any], key: str) -> Any:
  """Returns the value of a dotted key, ``None`` if there is no such key."""
  value: Any = config
  for name in key.split("."):
    if not isinstance(value, Mapping) or name not in value:
      return None
    value = value[name]
  return value
