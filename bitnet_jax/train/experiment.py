"""An experiment: a model, its data, its optimizer and its jitted programs."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from absl import logging
from jax.sharding import NamedSharding, PartitionSpec

from bitnet_jax import backend
from bitnet_jax.analysis import chips, flops
from bitnet_jax.train.devices.gathering import GATHERED_AXIS
from bitnet_jax.train.devices.mesh import batch_sharding, replicate
from bitnet_jax.train.devices.speed import Speed
from bitnet_jax.train.evaluate import evaluate
from bitnet_jax.train.folder import records
from bitnet_jax.train.folder.checkpoint import Checkpoints
from bitnet_jax.train.folder.warm_start import (
  EarlierRun,
  warm_start,
  with_earlier,
)
from bitnet_jax.train.hooks import CodePrograms
from bitnet_jax.train.loop import place_strength
from bitnet_jax.train.model import INIT, TRAIN, ModelSetup, checkpoints_of
from bitnet_jax.train.optimizer import optim
from bitnet_jax.train.optimizer.sparse_adam import SparseAdam
from bitnet_jax.train.state import TrainState, make_init
from bitnet_jax.train.step import (
  TrainStep,
  make_eval_step,
  make_train_step,
  make_train_steps,
)
from bitnet_jax.train.tasks import base
from bitnet_jax.train.tasks.distillation import Distillation
from bitnet_jax.train.tasks.registry import TASKS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment(ModelSetup):
  """Everything that a run needs except its folder.

  Attributes:
    config: the resolved config; its length is in ``total_steps``.
    data: the batches.
    distillation: the training task, if there is a teacher.
    earlier: the run of a warm start, if any.
    teacher: the run of a teacher, if any.
    total_steps: length of the run.
  """

  config: dict[str, Any]
  data: base.TaskData
  distillation: Distillation | None
  earlier: EarlierRun | None
  teacher: EarlierRun | None
  total_steps: int

  @property
  def fingerprint(self) -> str:
    """The fingerprint of data, vocabulary and earlier runs."""
    return with_earlier(self.task.facts.fingerprint, self.earlier, self.teacher)

  @property
  def full_graph(self) -> bool:
    """Whether a batch is one graph, see ``TaskSpec``."""
    return TASKS[self.settings.task.name].full_graph

  @property
  def train_task(self) -> base.Task:
    """The task that training minimizes the loss of."""
    return self.distillation or self.task

  @property
  def run_id(self) -> str:
    """The hash of the run's identity."""
    return records.run_id(self.config, self.fingerprint)

  def epochs(self, step: int) -> float:
    """Returns the passes through the training split until a step."""
    facts = self.data.facts
    if facts.batches_per_epoch is not None:
      return step / facts.batches_per_epoch
    return step * self.settings.data.batch_size / facts.num_examples

  def optimizer(self) -> optax.GradientTransformation:
    """Returns the optimizer."""
    return optim.make_optimizer(self.settings.optim, self.total_steps)

  def init(self, key: jax.Array | None = None) -> TrainState:
    """Returns a freshly initialized state.

    Args:
      key: a random key on the mesh; by default that of the seed.
    """
    if key is None:
      data = jax.random.key_data(self.key(INIT))
      key = jax.random.wrap_key_data(replicate(data, self.mesh))
    return self._made_init.create(key)

  def abstract_state(self) -> TrainState:
    """Returns shapes, dtypes and shardings of a state."""
    made = self._made_init
    return jax.tree.map(
      lambda leaf, sharding: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=sharding
      ),
      made.shapes,
      made.shardings,
    )

  def step_arguments(self) -> tuple[Any, ...]:
    """Returns shapes, dtypes and shardings of a train step's arguments.

    Its strength is ``None``, full quantization.
    """
    batch = {
      name: jax.ShapeDtypeStruct(array.shape, array.dtype)
      for name, array in self.data.train_batch(0).items()
    }
    split = batch_sharding(self.mesh, full_graph=self.full_graph)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return (
      self.abstract_state(),
      {name: array.update(sharding=split) for name, array in batch.items()},
      key.update(sharding=self._everywhere),
      None,
    )

  def checkpoints(self, folder: pathlib.Path) -> Checkpoints:
    """Returns the checkpoints of a run folder."""
    return checkpoints_of(self.settings, folder)

  def start(self) -> TrainState:
    """Returns the initial state, with the parameters of a warm start."""
    state = self.init()
    if self.earlier is not None:
      state = warm_start(state, self.earlier)
    return state

  def train_step(self) -> TrainStep:
    """Returns the jitted step, which donates its state."""
    return self._jit_step(self._step)

  def train_steps(self) -> TrainStep | None:
    """Returns a jitted program of several steps, see ``make_train_steps``.

    Returns ``None`` if the settings request single steps, or if several steps
    in one program would be slow: XLA's CPU backend runs convolutions in a loop
    ten times slower, and sums them in another order.
    """
    if self.settings.steps_per_dispatch == 1:
      return None
    if backend.current() == "cpu" and self.convolves():
      logging.warning(
        "steps_per_dispatch is %d, but steps run one by one: on CPU,"
        " convolutions are slow in a loop",
        self.settings.steps_per_dispatch,
      )
      return None
    return self._jit_step(
      lambda task: make_train_steps(self._step(task), self.sparse_adam())
    )

  def sparse_adam(self) -> SparseAdam | None:
    """Returns the sparse optimizer of an embedding table, if it applies.

    It does not apply on several devices, where processes may read a row more
    than once, nor if the optimizer is reset, which concerns all rows at once.
    """
    resets_at = self.settings.quant.phase_in.resets_at
    name = self.task.sparse_param
    # A teacher with its own embedding table reads other rows.
    if name is None or self.distillation is not None:
      return None
    if self.mesh.size > 1 or resets_at is not None:
      return None
    return SparseAdam.make(name, self.settings.optim, self.total_steps)

  def step(self) -> TrainStep:
    """Returns the step of the training task, not jitted."""
    return self._step(self.train_task)

  def _step(self, task: base.Task):
    options = self.settings.optim
    return make_train_step(
      task,
      self.optimizer(),
      optim.learning_rate_schedule(options, self.total_steps),
      accumulate_steps=options.accumulate_steps,
      gradient_dtype=jnp.dtype(options.gradient_dtype),
      reset_at=self.settings.quant.phase_in.resets_at,
      **self.kernels(),
    )

  def kernels(self) -> dict[str, Any]:
    """Returns the layers to quantize once a step, and their shardings.

    They are arguments of ``shared_codes``, ``make_train_step`` and
    ``make_eval_step``.
    """
    shardings = None
    if self.mesh.shape[GATHERED_AXIS] > 1:
      shardings = self._made_init.shardings.params
    return {"layers": self.layers, "shardings": shardings}

  def _jit_step(self, make: Callable[[base.Task], TrainStep]) -> TrainStep:
    """Jits the step that ``make`` returns for the training task.

    The variables of a teacher are an argument of the program, because constants
    would be copied into it.
    """
    out = (self._made_init.shardings, self._everywhere)
    distillation = self.distillation
    if distillation is None:
      return jax.jit(make(self.task), donate_argnums=0, out_shardings=out)

    def step(variables, *args):
      return make(dataclasses.replace(distillation, variables=variables))(*args)

    jitted = jax.jit(step, donate_argnums=1, out_shardings=out)
    return functools.partial(jitted, self._placed_teacher)

  @functools.cached_property
  def _placed_teacher(self):
    """The variables of the teacher, on every device."""
    assert self.distillation is not None
    return jax.tree.map(
      lambda array: replicate(array, self.mesh), self.distillation.variables
    )

  @property
  def _everywhere(self):
    return NamedSharding(self.mesh, PartitionSpec())

  def convolves(self) -> bool:
    """Whether a step has convolutions, in the model or in its teacher."""
    jaxpr = self._made_init.jaxpr
    if self.distillation is not None:
      step = self.step()
      with self.activate():
        arguments = (self._made_init.shapes, self.data.train_batch(0))
        jaxpr = jax.make_jaxpr(step)(*arguments, self.train_key())
    return "conv_general_dilated" in str(jaxpr)

  @functools.cached_property
  def _made_init(self):
    """The function that creates a state, and what is known of it; cached."""
    # JAX traces again in another mesh, but does not know of other rules.
    with nn.logical_axis_rules(self.rules):
      return make_init(self.task.init, self.optimizer(), self.mesh, self.rules)

  def speed(self) -> Speed:
    """Returns the speed counter; it counts operations on known chips only."""
    counted = None
    if chips.find(self.mesh.devices.flat[0].device_kind) is not None:
      with self.activate():
        step = self.step()
        counted = flops.count(step, *self.step_arguments())
    rows = self.settings.data.batch_size
    return Speed(examples=rows, tokens=rows * self.data.tokens, flops=counted)

  def code_programs(self) -> CodePrograms:
    """Returns the programs of ``CodeStatistics``."""
    return CodePrograms.of(self.layers)

  def train_key(self) -> jax.Array:
    """Returns the key of dropout and stochastic rounding."""
    return self.key(TRAIN)

  def evaluator(
    self,
    between: Callable[[], None] | None = None,
    keep: Callable[[str, dict[str, Any]], None] | None = None,
  ) -> Callable[[str, TrainState], dict[str, float]]:
    """Returns a function from a split's name and a state to its metrics.

    A state is evaluated with the strength of its next update.

    Args:
      between: see ``evaluate``.
      keep: called with a split and its sums.
    """
    key = self.evaluation_key()
    phase_in = self.settings.quant.phase_in
    eval_step = jax.jit(
      make_eval_step(self.task, **self.kernels()),
      out_shardings=self._everywhere,
    )

    def run(split: str, state: TrainState) -> dict[str, float]:
      strength = phase_in.strength(int(jax.device_get(state.step)))
      sums = evaluate(
        eval_step,
        state,
        self.data.eval_batches(split),
        mesh=self.mesh,
        key=key,
        strength=place_strength(strength, self.mesh),
        full_graph=self.full_graph,
        between=between,
      )
      if keep is not None:
        keep(split, sums)
      return self.task.finish(split, sums)

    return run

  def score(self, split: str, state: TrainState) -> dict[str, float]:
    """Returns the scores of generated text; none for "train"."""
    if self.data.score is None or split == "train":
      return {}
    variables = {"params": state.evaluated_params, **state.variables}
    return self.data.score(self.task.model, split, variables, self.mesh)
