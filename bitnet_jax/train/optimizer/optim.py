"""Optimizers and schedules by name, for optax."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bitnet_jax import choices

OPTIMIZERS = ("adamw", "adam")
DECAY_MASKS = ("kernels", "all")
GRADIENT_DTYPES = ("float32", "bfloat16")
# Which fields, what holds of their values, and how an error says it. NaN is in
# no range.
_RANGES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
  (
    ("final_fraction", "decay_fraction", "stage_fraction"),
    lambda value: 0 <= value <= 1,
    "lie in [0, 1]",
  ),
  (("b1", "b2"), lambda value: 0 <= value < 1, "lie in [0, 1)"),
  (("eps", "clip_norm"), lambda value: value > 0, "exceed 0"),
  (("accumulate_steps",), lambda value: value >= 1, "be >= 1"),
  (
    (
      "learning_rate",
      "second_learning_rate",
      "weight_decay",
      "second_weight_decay",
      "warmup_steps",
    ),
    lambda value: value >= 0,
    "be >= 0",
  ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimOptions:
  """The optimizer; the group ``optim`` of a config.

  Attributes:
    name: "adamw", or "adam", which has no weight decay.
    learning_rate: the peak of the schedule.
    schedule: a name in ``SCHEDULES``.
    warmup_steps: steps of linear rise towards the peak, before any schedule.
    final_fraction: what is left of the learning rate at the last update
      ("linear", "cosine", "warmup_stable_decay").
    decay_fraction: share of the steps that decay ("warmup_stable_decay").
    stage_fraction: share of the steps in the first stage ("two_stage").
    second_learning_rate: peak in the second stage ("two_stage").
    second_weight_decay: weight decay in the second stage ("two_stage").
    weight_decay: decay per step, times the learning rate ("adamw").
    decay_mask: what decays: "kernels" (parameters of two or more axes but
      biases and scales) or "all".
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: term in the denominator.
    clip_norm: largest global norm of the gradient; ``None`` never clips.
    accumulate_steps: parts into which a batch is split, one after the other.
    gradient_dtype: in which the gradients of quantized kernels are summed over
      devices: "float32", or "bfloat16" for half the bytes.
  """

  name: str
  learning_rate: float
  schedule: str
  warmup_steps: int
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
  gradient_dtype: str

  def __post_init__(self):
    choices.check(self.name, OPTIMIZERS, key="optim.name")
    choices.check(self.schedule, SCHEDULES, key="optim.schedule")
    choices.check(self.decay_mask, DECAY_MASKS, key="optim.decay_mask")
    choices.check(
      self.gradient_dtype, GRADIENT_DTYPES, key="optim.gradient_dtype"
    )
    if self.schedule == "two_stage" and self.second_learning_rate is None:
      raise ValueError(
        "optim.schedule is 'two_stage', which needs optim.second_learning_rate"
      )
    for fields, fits, what in _RANGES:
      for field in fields:
        value = getattr(self, field)
        if value is not None and not fits(value):
          raise ValueError(f"optim.{field} is {value}; it must {what}")


def _constant(options, steps):
  del steps
  return optax.constant_schedule(options.learning_rate)


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
  peak, share = options.learning_rate, options.decay_fraction
  if not share:
    return optax.constant_schedule(peak)
  decay = min(max(round(share * steps), 1), _intervals(steps))
  return optax.linear_schedule(
    peak, peak * options.final_fraction, decay, _intervals(steps) - decay
  )


def _two_stage(options, steps):
  """A linear decay to 0 whose peak drops at the start of the second stage.

  The training note of BitNet b1.58 (microsoft/unilm, "Training Tips, Code and
  FAQ") lowers the peak and stops weight decay half way.
  """
  first, second = map(
    optax.constant_schedule,
    (options.learning_rate, options.second_learning_rate),
  )
  peak = optax.join_schedules(
    [first, second], [round(options.stage_fraction * steps)]
  )
  decay = optax.linear_schedule(1.0, 0.0, _intervals(steps))
  return lambda count: peak(count) * decay(count)


def _intervals(steps):
  """Returns how many intervals lie between the first update and the last."""
  return max(steps - 1, 1)


# Each maps (options, steps after the warm-up) to a schedule from step 0.
SCHEDULES: dict[str, Callable[[OptimOptions, int], optax.Schedule]] = {
  "constant": _constant,
  "linear": _linear,
  "cosine": _cosine,
  "warmup_stable_decay": _stable_then_decay,
  "two_stage": _two_stage,
}


def learning_rate_schedule(
  options: OptimOptions, total_steps: int
) -> optax.Schedule:
  """Returns the learning rate as a function of the number of updates made.

  The last update has the final rate; the first of a warm-up has a positive one,
  as if an update of rate 0 had come before it.
  """
  warmup = options.warmup_steps
  after = SCHEDULES[options.schedule](options, total_steps - warmup)
  if not warmup:
    return after
  peak = options.learning_rate
  rise = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
  return optax.join_schedules([rise, after], [warmup])


def weight_decay_schedule(
  options: OptimOptions, total_steps: int
) -> optax.ScalarOrSchedule:
  """Returns the weight decay, which only the two-stage schedule changes."""
  if options.schedule != "two_stage":
    return options.weight_decay
  after_warmup = total_steps - options.warmup_steps
  stage = options.warmup_steps + round(options.stage_fraction * after_warmup)

  def weight_decay(count):
    first = count < stage
    return jnp.where(first, options.weight_decay, options.second_weight_decay)

  return weight_decay


def decay_mask(options: OptimOptions, params: Any) -> Any:
  """Says for each parameter whether it decays."""
  if options.decay_mask == "all":
    return jax.tree.map(lambda p: True, params)

  def decays(path, p):
    # Stacked layers make matrices of biases and of the scales of norms.
    name = jax.tree_util.keystr(path[-1:], simple=True)
    return p.ndim >= 2 and name not in ("bias", "scale")

  return jax.tree_util.tree_map_with_path(decays, params)


def make_optimizer(
  options: OptimOptions, total_steps: int
) -> optax.GradientTransformation:
  """Returns the optimizer for a run of ``total_steps`` updates."""
  learning_rate = learning_rate_schedule(options, total_steps)
  moments = {"b1": options.b1, "b2": options.b2, "eps": options.eps}
  if options.name == "adam":
    tx = optax.adam(learning_rate, **moments)
  else:
    tx = optax.adamw(
      learning_rate,
      **moments,
      weight_decay=weight_decay_schedule(options, total_steps),
      mask=lambda params: decay_mask(options, params),
    )
  if options.clip_norm is not None:
    tx = optax.chain(optax.clip_by_global_norm(options.clip_norm), tx)
  return tx


def fresh_moments(
  tx: optax.GradientTransformation, opt_state: Any, params: Any
) -> Any:
  """Returns the state of the optimizer with fresh moments; schedules go on."""

  def has_moments(state):
    return isinstance(state, optax.ScaleByAdamState)

  return jax.tree.map(
    lambda new, old: new if has_moments(old) else old,
    tx.init(params),
    opt_state,
    is_leaf=has_moments,
  )
