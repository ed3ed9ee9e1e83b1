"""Optimizers and learning rate schedules by name, from optax."""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from bitnet_jax import choices
from bitnet_jax.train.optimizer.averaging import average_params

DECAY_MASKS = ("kernels", "all")
GRADIENT_DTYPES = ("float32", "bfloat16")
# Fields, a condition on their values, and how an error says it. NaN meets none.
_RANGES: tuple[tuple[str, Callable[[float], bool], str], ...] = (
  (
    "final_fraction decay_fraction stage_fraction",
    lambda value: 0 <= value <= 1,
    "lie in [0, 1]",
  ),
  ("b1 b2 ema warmup_fraction", lambda value: 0 <= value < 1, "lie in [0, 1)"),
  ("eps clip_norm", lambda value: value > 0, "exceed 0"),
  ("accumulate_steps", lambda value: value >= 1, "be >= 1"),
  (
    "learning_rate second_learning_rate weight_decay second_weight_decay"
    " warmup_steps",
    lambda value: value >= 0,
    "be >= 0",
  ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimOptions:
  """The group ``optim`` of a config: optimizer and schedules.

  Attributes:
    name: a name in ``OPTIMIZERS``: "adamw", or "adam", without weight decay.
    learning_rate: the peak of the schedule.
    schedule: a name in ``SCHEDULES``.
    warmup_steps: steps of linear rise to the peak, before any schedule.
    warmup_fraction: these steps as a fraction of the run, in a config with a
      budget whose ``warmup_steps`` is open; else ``None``.
    final_fraction: learning rate of the last update, as a fraction of the peak
      ("linear", "cosine", "warmup_stable_decay").
    decay_fraction: fraction of the steps that decay ("warmup_stable_decay").
    stage_fraction: fraction of the steps in the first stage ("two_stage").
    second_learning_rate: peak in the second stage ("two_stage").
    second_weight_decay: weight decay in the second stage ("two_stage").
    weight_decay: decay per step, times the learning rate ("adamw").
    decay_mask: what decays: "kernels" (parameters of two or more axes, except
      biases and scales) or "all".
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the denominator.
    clip_norm: largest global norm of the gradient; ``None`` never clips.
    accumulate_steps: number of parts of a batch whose gradients are summed.
    ema: decay of an exponential moving average of the parameters, in [0, 1).
      Whatever evaluates or reads a checkpoint takes the averages; training
      continues from the parameters themselves. ``None`` averages nothing.
    gradient_dtype: dtype in which devices sum the gradients of quantized
      kernels: "float32", or "bfloat16" for half the bytes.
  """

  name: str
  learning_rate: float
  schedule: str
  warmup_steps: int
  warmup_fraction: float | None = None
  final_fraction: float
  decay_fraction: float
  stage_fraction: float
  second_learning_rate: float | None
  second_weight_decay: float
  weight_decay: float
  decay_mask: str
  b1: float
  b2: float
  eps: float
  clip_norm: float | None
  accumulate_steps: int
  ema: float | None = None
  gradient_dtype: str

  def __post_init__(self):
    choices.check(self.name, OPTIMIZERS, key="optim.name")
    choices.check(self.schedule, SCHEDULES, key="optim.schedule")
    choices.check(self.decay_mask, DECAY_MASKS, key="optim.decay_mask")
    dtypes = GRADIENT_DTYPES
    choices.check(self.gradient_dtype, dtypes, key="optim.gradient_dtype")
    if self.schedule == "two_stage" and self.second_learning_rate is None:
      raise ValueError(
        "optim.schedule is 'two_stage', which needs optim.second_learning_rate"
      )
    for fields, fits, what in _RANGES:
      for field in fields.split():
        value = getattr(self, field)
        if value is not None and not fits(value):
          raise ValueError(f"optim.{field} is {value}; it must {what}")

  def with_numbers(self, numbers: Mapping[str, Any]) -> "OptimOptions":
    """Returns options with arguments of a program in place of fields.

    Args:
      numbers: by field, scalars that are not checked: their values are known
        only when the program runs.
    """
    options = copy.copy(self)
    for name, value in numbers.items():
      object.__setattr__(options, name, value)
    return options

  @property
  def second_decay(self) -> float:
    """The weight decay after the first stage."""
    is_two_stage = self.schedule == "two_stage"
    return self.second_weight_decay if is_two_stage else self.weight_decay

  @property
  def is_plain_adam(self) -> bool:
    """Whether updates are those of Adam, without decay and averages."""
    if self.ema is not None:
      return False
    decays = self.weight_decay or self.second_decay
    return self.name == "adam" or (self.name == "adamw" and not decays)


def _linear(options, steps):
  peak = options.learning_rate
  final = peak * options.final_fraction
  return optax.linear_schedule(peak, final, _intervals(steps))


def _cosine(options, steps):
  return optax.cosine_decay_schedule(
    options.learning_rate, _intervals(steps), options.final_fraction
  )


def _stable_then_decay(options, steps):
  """Constant, then linear over the last ``decay_fraction`` of all steps."""
  peak, fraction = options.learning_rate, options.decay_fraction
  if not fraction:
    return optax.constant_schedule(peak)
  decay = min(max(round(fraction * steps), 1), _intervals(steps))
  return optax.linear_schedule(
    peak, peak * options.final_fraction, decay, _intervals(steps) - decay
  )


def _two_stage(options, steps):
  """A linear decay to 0 whose peak drops at the start of the second stage.

  The training note of BitNet b1.58 (microsoft/unilm, "Training Tips, Code and
  FAQ") lowers the peak and stops weight decay half way.
  """
  peaks = (options.learning_rate, options.second_learning_rate)
  peak = optax.join_schedules(
    [*map(optax.constant_schedule, peaks)],
    [round(options.stage_fraction * steps)],
  )
  decay = optax.linear_schedule(1.0, 0.0, _intervals(steps))
  return lambda count: peak(count) * decay(count)


def _intervals(steps):
  """Returns the number of intervals from the first update to the last."""
  return max(steps - 1, 1)


# Each maps (options, steps after the warm-up) to a schedule from step 0.
SCHEDULES: dict[str, Callable[[OptimOptions, int], optax.Schedule]] = {
  "constant": lambda options, _: optax.constant_schedule(options.learning_rate),
  "linear": _linear,
  "cosine": _cosine,
  "warmup_stable_decay": _stable_then_decay,
  "two_stage": _two_stage,
}


def learning_rate_schedule(
  options: OptimOptions, total_steps: int
) -> optax.Schedule:
  """Returns the learning rate as a function of the number of updates made.

  The last update has the final rate. The first one of a warm-up has a positive
  rate, as if an update of rate 0 had come before it.
  """
  peak, warmup = options.learning_rate, options.warmup_steps
  after = SCHEDULES[options.schedule](options, total_steps - warmup)
  if not warmup:
    return after
  rise = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
  return optax.join_schedules([rise, after], [warmup])


def weight_decay_schedule(
  options: OptimOptions, total_steps: int
) -> optax.ScalarOrSchedule:
  """Returns the weight decay, which changes in the two-stage schedule only."""
  if options.schedule != "two_stage":
    return options.weight_decay
  after_warmup = total_steps - options.warmup_steps
  stage = options.warmup_steps + round(options.stage_fraction * after_warmup)
  decays = (options.weight_decay, options.second_decay)
  return optax.join_schedules([*map(optax.constant_schedule, decays)], [stage])


def decay_mask(options: OptimOptions, params: Any) -> Any:
  """Returns a tree that says for each parameter whether it decays."""
  if options.decay_mask == "all":
    return jax.tree.map(lambda p: True, params)

  def decays(path, p):
    # Biases and scales of stacked layers are matrices, too.
    name = jax.tree_util.keystr(path[-1:], simple=True)
    return p.ndim >= 2 and name not in ("bias", "scale")

  return jax.tree_util.tree_map_with_path(decays, params)


def _adam(options, total_steps):
  rate = learning_rate_schedule(options, total_steps)
  return optax.adam(rate, b1=options.b1, b2=options.b2, eps=options.eps)


def _adamw(options, total_steps):
  return optax.adamw(
    learning_rate_schedule(options, total_steps),
    b1=options.b1,
    b2=options.b2,
    eps=options.eps,
    weight_decay=weight_decay_schedule(options, total_steps),
    mask=lambda params: decay_mask(options, params),
  )


# Each maps (options, steps of the run) to an optimizer.
OPTIMIZERS: dict[
  str, Callable[[OptimOptions, int], optax.GradientTransformation]
] = {"adamw": _adamw, "adam": _adam}


def make_optimizer(
  options: OptimOptions, total_steps: int
) -> optax.GradientTransformation:
  """Returns the optimizer for a run of ``total_steps`` updates."""
  tx = OPTIMIZERS[options.name](options, total_steps)
  if options.clip_norm is not None:
    tx = optax.chain(optax.clip_by_global_norm(options.clip_norm), tx)
  if options.ema is not None:
    tx = optax.chain(tx, average_params(options.ema))
  return tx


def fresh_moments(
  tx: optax.GradientTransformation, opt_state: Any, params: Any
) -> Any:
  """Returns the optimizer state with new moments; its schedules continue."""

  def has_moments(state):
    return isinstance(state, optax.ScaleByAdamState)

  return jax.tree.map(
    lambda new, old: new if has_moments(old) else old,
    tx.init(params),
    opt_state,
    is_leaf=has_moments,
  )
