"""From a config to checked options: every mistake is named before any work."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from bitnet_jax import choices
from bitnet_jax.models import registry
from bitnet_jax.quantizers.quantizer import Quantizer
from bitnet_jax.quantizers.recipe import RECIPES, Recipe, Rules
from bitnet_jax.train.checkpoint import CheckpointOptions
from bitnet_jax.train.construct import construct
from bitnet_jax.train.optim import OptimOptions
from bitnet_jax.train.state import AxisRules

# How a config says which elements share a scale, as the axis of a Quantizer.
SCALES = {
  "weights": {"tensor": None, "channel": 0},
  "acts": {"tensor": None, "token": -1},
}
PHASE_IN_SHAPES = ("linear", "tanh")
PHASE_IN_STEEPNESS = 2.5  # tanh(2.5 s / S), as in the authors' forks.


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions:
  """The group ``data``.

  Attributes:
    source: "embedded:digits", "embedded:xor", "tfds:NAME" or "file:PATH.npz".
    batch_size: examples of one update, over all devices and processes.
    eval_batch_size: examples of one evaluation step; ``None``: as batch_size.
    num_classes: checked against the labels; ``None``: as the source says.
    valid_fraction: share of the training split, for a source without "valid".
    test_fraction: share of the training split, for a source without "test".
    split_seed: seed of these cuts.
    standardize: whether inputs get mean 0 and deviation 1, per channel (or
      feature) of the training split; else uint8 pixels are divided by 255.
    random_crop: padding of random crops, in pixels; 0 for none.
    random_flip: whether images are mirrored at random.
    data_dir: where TFDS looks.
    image_size: side to which TFDS images are resized and cropped.
  """

  source: str
  batch_size: int
  eval_batch_size: int | None
  num_classes: int | None
  valid_fraction: float
  test_fraction: float
  split_seed: int
  standardize: bool
  random_crop: int
  random_flip: bool
  data_dir: str | None
  image_size: int | None

  def __post_init__(self):
    for field, least in (
      ("batch_size", 1),
      ("eval_batch_size", 1),
      ("num_classes", 1),
      ("image_size", 1),
      ("random_crop", 0),
      ("split_seed", 0),
    ):
      value = getattr(self, field)
      if value is not None and value < least:
        raise ValueError(
          f"data.{field} is {value}; it must be at least {least}"
        )


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
  """The group ``quant.phase_in``: how quantization sets in.

  Attributes:
    steps: how many it takes; 0 quantizes fully from ``start`` on.
    start: the step before which the strength is 0.
    shape: "linear", or "tanh": ``tanh(2.5 s / steps)``.
  """

  steps: int
  start: int
  shape: str

  def __post_init__(self):
    choices.check(self.shape, PHASE_IN_SHAPES, key="quant.phase_in.shape")
    if self.steps < 0 or self.start < 0:
      raise ValueError(
        f"quant.phase_in has steps {self.steps} and start {self.start}; neither"
        " may be negative"
      )

  def strength(self, step: int) -> np.float32 | None:
    """Returns the share of quantization in force for the update after ``step``
    others; ``None`` for all of it.
    """
    done = step - self.start
    if done >= self.steps:
      return None
    share = max(done, 0) / max(self.steps, 1)
    if self.shape == "tanh":
      share = np.tanh(PHASE_IN_STEEPNESS * share)
    return np.float32(share)


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
    phase_in: how quantization sets in.
  """

  recipe: str
  rules: tuple[Any, ...]
  weights: Mapping[str, Any]
  acts: Mapping[str, Any]
  norm: str | None
  ste: str | None
  bias_in_product: bool | None
  compute: str | None
  backward: str | None
  phase_in: Mapping[str, Any]

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
      overrides = construct(
        QuantizerOverrides, getattr(self, side), group=f"quant.{side}"
      )
      given[side] = overrides.apply(getattr(recipe, side), side)
    return _naming("quant", dataclasses.replace, recipe, **given)

  def make_rules(self) -> Rules:
    """Returns the rules, with the recipe as the last."""
    return (*self.rules, (".*", self.make_recipe()))

  def make_phase_in(self) -> PhaseIn:
    """Returns the phase-in schedule."""
    return construct(PhaseIn, self.phase_in, group="quant.phase_in")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshOptions:
  """The group ``mesh``; see ``make_mesh``."""

  data: int
  fsdp: int
  tensor: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyStopping:
  """The group ``early_stopping``.

  Attributes:
    patience: evaluations without a new best after which a run ends; ``None``
      never ends it.
  """

  patience: int | None

  def __post_init__(self):
    if self.patience is not None and self.patience < 1:
      raise ValueError(
        f"early_stopping.patience is {self.patience}; it must be at least 1"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfileOptions:
  """The group ``profile``.

  Attributes:
    start: step after which a trace starts; ``None`` for no trace.
    steps: how many steps are traced.
  """

  start: int | None
  steps: int

  def __post_init__(self):
    for field in ("start", "steps"):
      value = getattr(self, field)
      if value is not None and value < 1:
        raise ValueError(f"profile.{field} is {value}; it must be at least 1")


@dataclasses.dataclass(frozen=True)
class ModelOptions:
  """The group ``model``: a name, and the sizes of that model.

  Attributes:
    name: a name in ``MODELS``.
    sizes: the other keys, checked but for the number of classes.
  """

  name: str
  sizes: Mapping[str, Any]

  @classmethod
  def parse(cls, group: Any) -> "ModelOptions":
    """Checks the group, with a stand-in for the number of classes."""
    if not isinstance(group, Mapping) or "name" not in group:
      raise ValueError(f"model is {group!r}; it must be a group with a name")
    options = cls(group["name"], {k: group[k] for k in group if k != "name"})
    options.make(num_classes=2)
    return options

  def make(self, *, num_classes: int) -> Any:
    """Returns the sizes in the model's own class."""
    family = registry.get_family(self.name)
    return construct(
      family.config, self.sizes, group="model", num_classes=num_classes
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """A whole config, checked; fields as in its groups.

  Attributes:
    seed: of everything random but the cuts of the data.
    total_steps: length in updates; else ``None``.
    total_epochs: length in passes through the data; else ``None``.
    log_every: cadence of training metrics, in steps like the next three.
    eval_every: cadence of evaluations; 0 or ``None`` for none.
    checkpoint_every: cadence of checkpoints.
    statistics_every: cadence of code statistics; 0 or ``None`` for none.
    steps_per_dispatch: how many steps at most run without the host, see
      ``loop.train``; the results are the same.
    data: see its class, like the rest.
    model: name and sizes.
    quant: recipe, rules, overrides, phase-in.
    optim: optimizer and schedule.
    mesh: sizes of the mesh.
    sharding_rules: (logical axis, mesh axis or axes) pairs.
    checkpoint: what is kept.
    early_stopping: when to give up.
    profile: which steps are traced.
  """

  seed: int
  total_steps: int | None
  total_epochs: int | None
  log_every: int
  eval_every: int | None
  checkpoint_every: int
  statistics_every: int | None
  steps_per_dispatch: int
  data: DataOptions
  model: ModelOptions
  quant: QuantOptions
  optim: OptimOptions
  mesh: MeshOptions
  sharding_rules: tuple[Any, ...]
  checkpoint: CheckpointOptions
  early_stopping: EarlyStopping
  profile: ProfileOptions

  def __post_init__(self):
    if (self.total_steps is None) == (self.total_epochs is None):
      raise ValueError(
        f"total_steps is {self.total_steps} and total_epochs is"
        f" {self.total_epochs}; give exactly one of them"
      )
    for field, least in (
      ("seed", 0),
      ("total_steps", 1),
      ("total_epochs", 1),
      ("log_every", 1),
      ("eval_every", 0),
      ("checkpoint_every", 1),
      ("statistics_every", 0),
      ("steps_per_dispatch", 1),
    ):
      value = getattr(self, field)
      if value is not None and value < least:
        raise ValueError(f"{field} is {value}; it must be at least {least}")

  def count_steps(self, *, examples: int) -> int:
    """Returns the length of the run on so many training examples."""
    if self.total_epochs is None:
      assert self.total_steps is not None
      return self.total_steps
    return math.ceil(self.total_epochs * examples / self.data.batch_size)

  def axis_rules(self) -> AxisRules:
    """Returns the sharding rules in the form that Flax takes.

    Raises:
      ValueError: for an entry that is not a pair.
    """
    for rule in self.sharding_rules:
      if not isinstance(rule, tuple) or len(rule) != 2:
        raise ValueError(
          f"sharding_rules has the entry {rule!r}; each must be a pair (logical"
          " axis, mesh axis or axes)"
        )
    return self.sharding_rules


_GROUPS = {
  "data": DataOptions,
  "quant": QuantOptions,
  "optim": OptimOptions,
  "mesh": MeshOptions,
  "checkpoint": CheckpointOptions,
  "early_stopping": EarlyStopping,
  "profile": ProfileOptions,
}


def parse_settings(config: Mapping[str, Any]) -> Settings:
  """Checks a config and returns it as options.

  Args:
    config: nested dict, as ``ConfigDict.to_dict()`` returns it.

  Raises:
    ValueError: naming key, value and choices of the first mistake.
  """
  config = dict(config)
  for group, cls in _GROUPS.items():
    if group in config:
      config[group] = construct(cls, config[group], group=group)
  if "model" in config:
    config["model"] = ModelOptions.parse(config["model"])
  return construct(Settings, config, group="")


def _naming(key, function, *args, **kwargs):
  """Calls a function, putting the config key in front of its complaint."""
  try:
    return function(*args, **kwargs)
  except ValueError as error:
    raise ValueError(f"{key}.{error}") from error
