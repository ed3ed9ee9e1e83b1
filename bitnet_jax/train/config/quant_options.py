"""The config group ``quant``: recipe, overrides, rules, phase-in."""

import dataclasses
import re
from typing import Any

import numpy as np

from bitnet_jax import choices
from bitnet_jax.quantizers.quantizer import Quantizer
from bitnet_jax.quantizers.recipe import RECIPES, Recipe, Rules

# How a config says which elements share a scale, as the axis of a Quantizer.
SCALES = {
  "weights": {"tensor": None, "channel": 0},
  "acts": {"tensor": None, "token": -1},
}
PHASE_IN_SHAPES = ("linear", "tanh")
OPTIMIZER_STATES = ("keep", "reset")
PHASE_IN_STEEPNESS = 2.5  # tanh(2.5 s / S), as in the authors' forks.


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizerOverrides:
  """The groups ``quant.weights`` and ``quant.acts``; ``None``: as the recipe.

  Attributes:
    measure: see ``Quantizer``.
    range: see ``Quantizer``.
    scale: what shares a scale: "tensor", "channel" (weights) or "token"
      (activations).
    eps: see ``Quantizer``.
    rounding: see ``Quantizer``.
  """

  measure: str | None
  range: tuple[int, int] | None
  scale: str | None
  eps: float | None
  rounding: str | None

  def apply(self, quantizer: Quantizer | None, side: str) -> Quantizer | None:
    """Returns the quantizer of "weights" or "acts", what is given replaced.

    Raises:
      ValueError: if there is no quantizer to override, or for a bad value.
    """
    given = {n: v for n, v in vars(self).items() if v is not None}
    if not given:
      return quantizer
    key = f"quant.{side}"
    if quantizer is None:
      raise ValueError(
        f"{key} is {given}, but the recipe leaves this operand in float"
      )
    if "scale" in given:
      scale = given.pop("scale")
      given["axis"] = choices.pick(SCALES[side], scale, key=f"{key}.scale")
    return _naming(key, dataclasses.replace, quantizer, **given)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseIn:
  """The group ``quant.phase_in``: how quantization is phased in.

  Attributes:
    steps: how many it takes; 0 quantizes fully from ``start`` on.
    start: the step before which the strength is 0.
    shape: "linear", or "tanh": ``tanh(2.5 s / steps)``.
    optimizer: whether the state of the optimizer is to "keep" or to "reset" at
      ``start``; of a start of 0 it is fresh anyway.
  """

  steps: int
  start: int
  shape: str
  optimizer: str

  def __post_init__(self):
    choices.check(self.shape, PHASE_IN_SHAPES, key="quant.phase_in.shape")
    choices.check(
      self.optimizer, OPTIMIZER_STATES, key="quant.phase_in.optimizer"
    )
    if self.steps < 0 or self.start < 0:
      raise ValueError(
        f"quant.phase_in has steps {self.steps} and start {self.start}; neither"
        " may be negative"
      )

  @property
  def resets_at(self) -> int | None:
    """The step before which the state of the optimizer is reset."""
    return self.start if self.optimizer == "reset" else None

  @property
  def active_from(self) -> int:
    """The first step whose checkpoint is fully quantized."""
    return self.start + self.steps

  def check_active(self, step: int, what: str) -> None:
    """Raises a ValueError for a checkpoint that is not fully quantized.

    Args:
      step: step of the checkpoint.
      what: names it, for the message.
    """
    if self.strength(step) is not None:
      raise ValueError(
        f"{what} is step {step}, when quantization is still being phased in; it"
        f" is fully active from step {self.active_from} on"
      )

  def strength(self, step: int) -> np.float32 | None:
    """Returns the strength of the update that comes after ``step`` others.

    ``None`` is full quantization.
    """
    done = step - self.start
    if done >= self.steps:
      return None
    strength = max(done, 0) / max(self.steps, 1)
    if self.shape == "tanh":
      strength = np.tanh(PHASE_IN_STEEPNESS * strength)
    return np.float32(strength)


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantOptions:
  """The group ``quant``.

  Attributes:
    recipe: name of the recipe of all layers for which no rule decides.
    rules: (pattern, recipe name) pairs on layer names; the first match wins.
    weights: overrides of the recipe's weight quantizer.
    acts: overrides of its activation quantizer.
    norm: override of its norm; "none" for none.
    ste: override.
    bias_in_product: override.
    compute: override.
    backward: override.
    phase_in: how quantization is phased in.
  """

  recipe: str
  rules: tuple[Any, ...]
  weights: QuantizerOverrides
  acts: QuantizerOverrides
  norm: str | None
  ste: str | None
  bias_in_product: bool | None
  compute: str | None
  backward: str | None
  phase_in: PhaseIn

  def __post_init__(self):
    for rule in self.rules:
      if not (
        isinstance(rule, tuple)
        and len(rule) == 2
        and all(isinstance(part, str) for part in rule)
      ):
        raise ValueError(
          f"quant.rules has the entry {rule!r}; each must be a pair (pattern,"
          " recipe name)"
        )
      key = f"quant.rules[{rule[0]!r}]"
      choices.check(rule[1], RECIPES, key=key)
      try:
        re.compile(rule[0])
      except re.error as error:
        raise ValueError(
          f"{key}: the pattern is not a regular expression: {error}"
        ) from error

  def make_recipe(self) -> Recipe:
    """Returns the recipe with all overrides applied."""
    recipe = choices.pick(RECIPES, self.recipe, key="quant.recipe")
    given: dict[str, Any] = {
      name: getattr(self, name)
      for name in ("norm", "ste", "bias_in_product", "compute", "backward")
      if getattr(self, name) is not None
    }
    if given.get("norm") == "none":
      given["norm"] = None
    for side in ("weights", "acts"):
      given[side] = getattr(self, side).apply(getattr(recipe, side), side)
    return _naming("quant", dataclasses.replace, recipe, **given)

  def make_rules(self) -> Rules:
    """Returns the rules, with the recipe as the last."""
    return (*self.rules, (".*", self.make_recipe()))


def _naming(key, function, *args, **kwargs):
  """Calls a function, putting the config key in front of its complaint."""
  try:
    return function(*args, **kwargs)
  except ValueError as error:
    raise ValueError(f"{key}.{error}") from error
