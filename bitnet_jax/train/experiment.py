"""What a config asks for, built: data, model, task, optimizer, mesh."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from jax.sharding import Mesh

from bitnet_jax import choices
from bitnet_jax.data import images, pipeline, sources
from bitnet_jax.layers import bit_layers
from bitnet_jax.layers.introspection import BitLayer
from bitnet_jax.models import registry
from bitnet_jax.train import optim, records
from bitnet_jax.train.evaluate import evaluate
from bitnet_jax.train.loop import BatchAt, place_strength
from bitnet_jax.train.settings import Settings, parse_settings
from bitnet_jax.train.sharding import batch_shards, make_mesh
from bitnet_jax.train.state import AxisRules, TrainState, make_init
from bitnet_jax.train.step import (
  TrainStep,
  make_eval_step,
  make_train_step,
  make_train_steps,
)
from bitnet_jax.train.tasks import Classification

_INIT, _TRAIN, _EVALUATE = range(3)  # What a key is folded with, by purpose.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """Everything a run needs but its folder.

  Attributes:
    settings: the checked config.
    config: the resolved config: its length is in ``total_steps``.
    dataset: all splits.
    task: model, loss and metrics.
    layers: the quantizable layers of the model.
    mesh: the devices.
    rules: logical axis to mesh axis.
    total_steps: length of the run.
  """

  settings: Settings
  config: dict[str, Any]
  dataset: sources.Dataset
  task: Classification
  layers: Sequence[BitLayer]
  mesh: Mesh
  rules: AxisRules
  total_steps: int

  def key(self, purpose: int) -> jax.Array:
    """Returns the random key of one purpose."""
    return jax.random.fold_in(jax.random.key(self.settings.seed), purpose)

  @property
  def run_id(self) -> str:
    """Names the run."""
    return records.run_id(self.config, self.dataset.fingerprint)

  def optimizer(self) -> optax.GradientTransformation:
    """Returns the optimizer."""
    return optim.make_optimizer(self.settings.optim, self.total_steps)

  def init(self) -> TrainState:
    """Returns a fresh state."""
    create, _ = self._make_init()
    return create(self.key(_INIT))

  def train_step(self) -> TrainStep:
    """Returns the jitted step, which takes its state over."""
    return self._jit_step(self._step())

  def train_steps(self) -> TrainStep | None:
    """Returns several steps in one program, jitted likewise.

    ``None`` where the settings ask for single steps, or where steps in one
    program would be slow: XLA's CPU backend runs convolutions in a loop ten
    times slower, and sums them in another order.
    """
    if self.settings.steps_per_dispatch == 1:
      return None
    step = self._step()
    if jax.default_backend() == "cpu" and self._convolves(step):
      logging.warning(
        "steps_per_dispatch is %d, but steps are taken one by one: on CPU,"
        " convolutions are slow in a loop",
        self.settings.steps_per_dispatch,
      )
      return None
    return self._jit_step(make_train_steps(step))

  def _step(self):
    options = self.settings.optim
    return make_train_step(
      self.task,
      self.optimizer(),
      optim.learning_rate_schedule(options, self.total_steps),
      layers=self.layers,
      accumulate_steps=options.accumulate_steps,
    )

  def _jit_step(self, step):
    _, shardings = self._make_init()
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))

  def _convolves(self, step):
    with self.activate():
      key = self.train_key()
      state = jax.eval_shape(self._make_init()[0], key)
      jaxpr = jax.make_jaxpr(step)(state, self.batch_at()(0), key)
    return "conv_general_dilated" in str(jaxpr)

  def _make_init(self):
    return make_init(self.task.init, self.optimizer(), self.mesh, self.rules)

  def train_key(self) -> jax.Array:
    """Returns the key of dropout and stochastic rounding."""
    return self.key(_TRAIN)

  def batch_at(self) -> BatchAt:
    """Returns a function from a step to its batch for this process."""
    data = self.settings.data
    batches = pipeline.train_batches(
      self.dataset.splits["train"],
      batch_size=data.batch_size,
      seed=self.settings.seed,
      random_crop=data.random_crop,
      random_flip=data.random_flip,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )

    def batch_at(step: int) -> Mapping[str, np.ndarray]:
      batch = batches[step]
      assert batch is not None
      return batch

    return batch_at

  def evaluator(self) -> Callable[[str, TrainState], dict[str, float]]:
    """Returns a function from a split's name and a state to its metrics.

    A state is evaluated with the strength of quantization that its next update
    would have.
    """
    data, key = self.settings.data, self.key(_EVALUATE)
    phase_in = self.settings.quant.make_phase_in()
    eval_step = jax.jit(make_eval_step(self.task))

    def run(split: str, state: TrainState) -> dict[str, float]:
      strength = phase_in.strength(int(jax.device_get(state.step)))
      return evaluate(
        eval_step,
        state,
        pipeline.eval_batches(
          self.dataset.splits[split],
          batch_size=data.eval_batch_size or data.batch_size,
          process_index=jax.process_index(),
          process_count=jax.process_count(),
        ),
        mesh=self.mesh,
        key=key,
        strength=place_strength(strength, self.mesh),
      )

    return run

  @contextlib.contextmanager
  def activate(self) -> Iterator[None]:
    """Puts mesh and rules in force for a block of code."""
    with jax.set_mesh(self.mesh), nn.logical_axis_rules(self.rules):
      yield


def build(config: Mapping[str, Any]) -> Experiment:
  """Builds an experiment, making every check that can be made before training.

  Args:
    config: nested dict, as a config file or a ``config.json`` gives it.

  Raises:
    ValueError: for a mistake in the config or the data, naming it.
    FileNotFoundError: if the data is not there.
  """
  settings = parse_settings(config)
  data = settings.data
  sources.check_name(data.source)
  _check_evaluation(settings)
  rules = settings.axis_rules()
  mesh = make_mesh(**dataclasses.asdict(settings.mesh))
  _check_batch(settings, mesh)
  recipe_rules = settings.quant.make_rules()
  settings.quant.make_phase_in()
  dataset = sources.load(
    data.source,
    valid_fraction=data.valid_fraction,
    test_fraction=data.test_fraction,
    split_seed=data.split_seed,
    num_classes=data.num_classes,
    data_dir=data.data_dir,
    image_size=data.image_size,
  )
  if settings.eval_every and "valid" not in dataset.splits:
    raise ValueError(
      f"eval_every is {settings.eval_every}, but {data.source} has no"
      " validation split and data.valid_fraction is 0; set one of them"
    )
  inputs = dataset.splits["train"].inputs
  model_config = settings.model.make(num_classes=dataset.num_classes)
  model = registry.get_family(settings.model.name).module(
    model_config, recipe_rules
  )
  mean, std = _standardization(inputs, standardize=data.standardize)
  task = Classification(model, inputs.shape[1:], mean, std)
  example = jax.ShapeDtypeStruct((1, *inputs.shape[1:]), jnp.float32)
  try:
    layers = bit_layers(model, example)
  except (TypeError, ValueError) as error:
    raise ValueError(
      f"model.name is {settings.model.name!r}, which does not take inputs of"
      f" the shape {inputs.shape[1:]} that {data.source} has: {error}"
    ) from error
  registry.check_rules(settings.quant.rules, layers)
  total_steps = settings.count_steps(examples=len(inputs))
  if settings.optim.warmup_steps >= total_steps:
    raise ValueError(
      f"optim.warmup_steps is {settings.optim.warmup_steps}; it must be less"
      f" than the {total_steps} steps of the run"
    )
  resolved = {**config, "total_steps": total_steps, "total_epochs": None}
  resolved = json.loads(json.dumps(resolved))
  experiment = Experiment(
    settings=settings,
    config=resolved,
    dataset=dataset,
    task=task,
    layers=layers,
    mesh=mesh,
    rules=rules,
    total_steps=total_steps,
  )
  experiment.batch_at()  # Checks what is asked of the data.
  return experiment


def _check_evaluation(settings: Settings) -> None:
  metric = settings.checkpoint.metric
  names = [f"valid/{name}" for name in Classification.metric_names]
  choices.check(metric, names, key="checkpoint.metric")
  if not settings.eval_every:
    for key, value in (
      ("checkpoint.keep_best", settings.checkpoint.keep_best),
      ("early_stopping.patience", settings.early_stopping.patience),
    ):
      if value:
        raise ValueError(
          f"{key} is {value}, which needs evaluations, but eval_every is"
          f" {settings.eval_every}"
        )


def _check_batch(settings: Settings, mesh: Mesh) -> None:
  """Checks that batches split evenly over devices and accumulation."""
  data, parts = settings.data, settings.optim.accumulate_steps
  shards = batch_shards(mesh)
  if data.batch_size % (shards * parts):
    raise ValueError(
      f"data.batch_size is {data.batch_size}, which is not a multiple of"
      f" {shards} (shards of the mesh) x {parts} (optim.accumulate_steps);"
      " set mesh.data to use fewer devices"
    )
  eval_batch_size = data.eval_batch_size or data.batch_size
  if eval_batch_size % shards:
    raise ValueError(
      f"data.eval_batch_size is {eval_batch_size}, which is not a multiple of"
      f" the {shards} shards of the mesh"
    )


def _standardization(inputs: np.ndarray, *, standardize: bool):
  """Returns what is subtracted and what divides, of the rank of the inputs."""
  if standardize:
    mean, std = images.channel_statistics(inputs)
  else:
    largest = 255 if inputs.dtype == np.uint8 else 1
    mean, std = np.zeros(1, np.float32), np.array([largest], np.float32)
  shape = (1,) * (inputs.ndim - 1) + (-1,)
  return mean.reshape(shape), std.reshape(shape)
