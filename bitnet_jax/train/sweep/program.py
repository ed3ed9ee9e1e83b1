"""The programs that train and evaluate several members at a time.

They are those of a run (``make_train_step`` and others), with the numbers in
which members differ as arguments. Under ``jax.vmap``, every array of a state
but the step has a leading axis of members. A program of a single member has no
such axis.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from bitnet_jax.ops import statistics
from bitnet_jax.train.devices.mesh import replicate
from bitnet_jax.train.experiment import Experiment
from bitnet_jax.train.folder.warm_start import with_variables
from bitnet_jax.train.hooks import CodePrograms
from bitnet_jax.train.model import EVALUATE, INIT, TRAIN
from bitnet_jax.train.state import TrainState
from bitnet_jax.train.step import make_eval_step, make_train_steps
from bitnet_jax.train.sweep import sharing

KEEP, INDICES, TEACHER = "keep", "indices", "teacher"
_PURPOSES = (INIT, TRAIN, EVALUATE)


class Program:
  """Jitted functions for ``size`` members at a time.

  Attributes:
    experiment: of one of the members.
    size: number of members; 1 for no leading axis.
    several: whether several steps run in one dispatch.
  """

  def __init__(self, experiment: Experiment, size: int):
    self.experiment, self.size = experiment, size
    steps = experiment.settings.steps_per_dispatch
    self.several = steps > 1 and experiment.train_steps() is not None
    fields = dataclasses.fields(TrainState)
    by_field: dict[str, Any] = {f.name: 0 for f in fields} | {"step": None}
    axes = self.axes = TrainState(**by_field)
    everywhere = NamedSharding(experiment.mesh, PartitionSpec())
    jit = functools.partial(jax.jit, out_shardings=everywhere)
    lift, shared = self._lift, None
    self._init = jit(self._fresh)
    one = lift(self._step, (0, shared, axes, 0, 0, shared), (axes, 0))
    self.train_step = jit(one, donate_argnums=2)
    self.train_steps = jit(self._steps(one), donate_argnums=2)
    evaluate = make_eval_step(experiment.task, **experiment.kernels())
    evaluate = lift(evaluate, (axes, shared, 0, shared), 0)
    self.eval_step = jit(evaluate)
    self.statistics = CodePrograms.of(
      experiment.layers, lambda f: lift(f, 0, 0)
    )
    self.describe = jit(lift(self._describe, 0, 0))
    self.keep_better = jit(
      lift(_better, (0, axes, axes), axes), donate_argnums=2
    )

  def _lift(self, function, in_axes, out_axes) -> Callable[..., Any]:
    if self.size == 1:
      return function
    return jax.vmap(function, in_axes=in_axes, out_axes=out_axes)

  def stack(self, values: Sequence[Any]) -> np.ndarray:
    """Puts values of the members along a leading axis, if there is one."""
    return np.stack(values) if self.size > 1 else np.asarray(values[0])

  def place(self, values: Sequence[Any]) -> Any:
    """Puts what ``stack`` returns on the device, for each leaf of trees."""
    return jax.tree.map(
      lambda *leaves: replicate(self.stack(leaves), self.experiment.mesh),
      *values,
    )

  def numbers(self, members: Sequence[Experiment]) -> dict[str, Any]:
    """Returns the arguments in which members differ.

    They are numbers, float32, and the variables of teachers.
    """
    optim = self.experiment.settings.optim
    names = [n for n in sharing.RATES if getattr(optim, n) is not None]
    names += sharing.traced_decays(self.experiment.config)
    found = {
      name: [getattr(m.settings.optim, name) for m in members] for name in names
    }
    if _dropout(self.experiment) > 0:
      found[KEEP] = [1 - _dropout(member) for member in members]
    placed = {
      name: self.place([np.float32(value) for value in values])
      for name, values in found.items()
    }
    teachers = [m.distillation.variables for m in members if m.distillation]
    return placed | ({TEACHER: self.place(teachers)} if teachers else {})

  def keys(self, seeds: Sequence[int]) -> dict[int, jax.Array]:
    """Returns the random keys of the members, by purpose."""
    keys = {seed: _keys_of(seed) for seed in {*seeds}}
    return {
      purpose: jax.random.wrap_key_data(
        self.place([keys[seed][purpose] for seed in seeds])
      )
      for purpose in _PURPOSES
    }

  def init(self, keys: jax.Array) -> TrainState:
    """Returns fresh states of the members, from their random keys."""
    return self._init(keys)

  def start(
    self, keys: jax.Array, starts: Sequence[Mapping[tuple[str, ...], Any]]
  ) -> TrainState:
    """Returns fresh states with the variables of warm starts, by path."""
    state = self.init(keys)
    if not any(starts):
      return state
    states = [
      with_variables(self.state_of(state, i, 0), found)
      for i, found in enumerate(starts)
    ]
    parts = self.place([{**vars(own), "step": ()} for own in states])
    return TrainState(**parts | {"step": state.step})

  def _fresh(self, keys):
    return self._lift(self.experiment.init, 0, self.axes)(keys)

  def _step(self, numbers, stored, state, batch, key, strength):
    """Takes a step of one member."""
    if stored and self.experiment.full_graph:
      batch = stored
    elif stored:
      rows = batch[INDICES]
      batch = {name: array[rows] for name, array in stored.items()}
    with _dropping(numbers.get(KEEP)):
      step = with_numbers(self.experiment, numbers).step()
      return step(state, batch, key, strength)

  def _steps(self, one) -> Callable[..., Any]:
    def steps(numbers, stored, state, batches, key, count, strengths):
      def step(state, batch, key, strength):
        return one(numbers, stored, state, batch, key, strength)

      sparse = None
      if self.size == 1:
        sparse = with_numbers(self.experiment, numbers).sparse_adam()
      take = make_train_steps(step, sparse)
      return take(state, batches, key, count, strengths)

    return steps

  def _describe(self, params):
    """Returns the statistics of the codes of each quantized layer."""
    return {
      layer.path: statistics.describe_codes(layer.quantize_kernel(params))
      for layer in self.experiment.layers
      if layer.recipe.weights is not None
    }

  def member(self, tree: Any, index: int) -> Any:
    """Returns the arrays of one member, on the host."""
    tree = jax.device_get(tree)
    if self.size == 1:
      return tree
    return jax.tree.map(lambda array: array[index].copy(), tree)

  def state_of(self, state: TrainState, index: int, step: int) -> TrainState:
    """Returns the state of one member, on the device."""
    step_of = jnp.asarray(step, jnp.int32)
    parts: dict[str, Any] = {**vars(state), "step": ()}
    if self.size > 1:
      parts = jax.tree.map(lambda array: array[index], parts)
    return TrainState(**parts | {"step": step_of})


def with_numbers(
  experiment: Experiment, numbers: Mapping[str, Any]
) -> Experiment:
  """Returns an experiment that takes numbers and teacher from arguments."""
  others = (KEEP, TEACHER)
  settings, distilled = experiment.settings, experiment.distillation
  optim = settings.optim.with_numbers(
    {name: value for name, value in numbers.items() if name not in others}
  )
  if distilled is not None:
    distilled = dataclasses.replace(distilled, variables=numbers[TEACHER])
  settings = dataclasses.replace(settings, optim=optim)
  return dataclasses.replace(
    experiment, settings=settings, distillation=distilled
  )


def _dropout(experiment: Experiment) -> float:
  return experiment.settings.model.sizes["dropout"]


def _keys_of(seed: int) -> dict[int, np.ndarray]:
  """Returns the data of a seed's random keys, by purpose."""
  key = jax.random.key(seed)
  return {
    purpose: np.asarray(jax.random.key_data(jax.random.fold_in(key, purpose)))
    for purpose in _PURPOSES
  }


def _better(is_better, state, best):
  """Returns the better one of two states, and the step of the first."""
  kept = jax.tree.map(
    lambda new, old: jnp.where(is_better, new, old),
    {**vars(state), "step": ()},
    {**vars(best), "step": ()},
  )
  return TrainState(**kept | {"step": state.step})


@contextlib.contextmanager
def _dropping(keep: jax.Array | None) -> Iterator[None]:
  """Has dropout layers keep a fraction of their inputs, given to a program.

  They would compare their rate with 0, which takes a constant.

  Args:
    keep: 1 - rate, which 1 makes the identity; ``None`` changes nothing.
  """
  if keep is None:
    yield
    return

  def drop(next_fun, args, kwargs, context):
    layer = context.module
    if not isinstance(layer, nn.Dropout) or context.method_name != "__call__":
      return next_fun(*args, **kwargs)
    return _drop(layer, keep, *args, **kwargs)

  with nn.intercept_methods(drop):
    yield


def _drop(layer, keep, inputs, deterministic=None, rng=None):
  """Does what ``nn.Dropout`` does, with its random numbers."""
  deterministic = nn.merge_param(
    "deterministic", layer.deterministic, deterministic
  )
  if deterministic:
    return inputs
  rng = layer.make_rng(layer.rng_collection) if rng is None else rng
  shape = list(inputs.shape)
  for axis in layer.broadcast_dims:
    shape[axis] = 1
  mask = jax.random.bernoulli(rng, keep, shape)
  mask = jnp.broadcast_to(mask, inputs.shape)
  kept = inputs / keep.astype(inputs.dtype)
  return jax.lax.select(mask, kept, jnp.zeros_like(inputs))
