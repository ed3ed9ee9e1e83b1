"""Distillation: a student network learns from a trained teacher.

Hinton et al., Distilling the Knowledge in a Neural Network (1503.02531).
"""

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from bitnet_jax.files import PathLike
from bitnet_jax.train.config.groups import DistillOptions
from bitnet_jax.train.config.settings import Settings, parse_settings
from bitnet_jax.train.folder import bucket, warm_start, workdir
from bitnet_jax.train.tasks import base
from bitnet_jax.train.tasks.registry import TASKS

KEY = "distill.teacher"
LOGITS = ""  # The path of a model itself.
Outputs = dict[str, jax.Array]


def divergence(
  student: Float[Array, "*batch classes"],
  teacher: Float[Array, "*batch classes"],
  temperature: float,
) -> Float[Array, "*batch"]:
  """Returns the divergence of the student from the teacher.

  It is the Kullback-Leibler divergence of both at a temperature, in nats and
  float32, times the squared temperature, which keeps the size of gradients.
  """
  p, q = (
    jax.nn.log_softmax(logits.astype(jnp.float32) / temperature)
    for logits in (teacher, student)
  )
  return temperature**2 * optax.losses.kl_divergence_with_log_targets(q, p)


@contextlib.contextmanager
def outputs_of(paths: Collection[str]) -> Iterator[Outputs]:
  """Collects the outputs of modules that are called within the block.

  Args:
    paths: of the modules, as "blocks/attention"; ``LOGITS`` for the model.
  """
  outputs: Outputs = {}

  def note(next_fun, args, kwargs, context):
    y = next_fun(*args, **kwargs)
    path = "/".join(context.module.path)
    if context.method_name == "__call__" and path in paths:
      outputs[path] = y
    return y

  with nn.intercept_methods(note):
    yield outputs


@dataclasses.dataclass(frozen=True)
class Distillation:
  """The training task of a network that has a teacher; see ``base.Task``.

  The loss is ``(1 - weight) * loss + weight * divergence``, and with features
  the mean squared difference of these is added. Evaluation is that of the
  student.

  Attributes:
    student: its task.
    teacher: the same task, with the teacher's model.
    variables: variables of the teacher, by collection, NumPy arrays or others.
    options: weight, temperature and features.
  """

  student: base.Supervised
  teacher: base.Supervised
  variables: Mapping[str, Any]
  options: DistillOptions

  @property
  def paths(self) -> tuple[str, ...]:
    """Of the modules whose outputs are compared."""
    return (LOGITS, *self.options.features)

  def weight(self, batch: base.Batch) -> jax.Array:
    """See ``base.Task``."""
    return self.student.weight(batch)

  def totals(
    self, params: Any, variables: Any, batch: base.Batch, **options: Any
  ) -> tuple[base.Totals, Any]:
    """See ``base.Task``."""
    with outputs_of(self.paths) as found:
      totals, variables = self.student.totals(
        params, variables, batch, **options
      )
    of_teacher = dict(jax.tree.map(jnp.asarray, self.variables))
    options |= {"deterministic": True, "strength": None}
    with outputs_of(self.paths) as expected:
      self.teacher.totals(
        of_teacher.pop("params"), of_teacher, batch, **options
      )
    expected = jax.lax.stop_gradient(expected)
    mask, weight = base.target_mask(batch), self.options.weight
    losses = divergence(
      found.pop(LOGITS), expected.pop(LOGITS), self.options.temperature
    )
    distilled = jnp.sum(losses * mask)
    loss = (1 - weight) * totals["loss"] + weight * distilled
    for path, features in found.items():
      squares = jnp.square(
        features.astype(jnp.float32) - expected[path].astype(jnp.float32)
      )
      # One number for each example, or token, that counts.
      squares = jnp.mean(squares, axis=tuple(range(mask.ndim, squares.ndim)))
      loss = loss + jnp.sum(squares * mask)
    return totals | {"divergence": distilled, "loss": loss}, variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teacher:
  """A run that others learn from.

  Attributes:
    run: where its parameters are.
    settings: its config.
  """

  run: warm_start.EarlierRun
  settings: Settings


def find_teacher(folder: PathLike) -> Teacher:
  """Looks a run up.

  Raises:
    ValueError: if there is no run or no checkpoint.
  """
  folder = bucket.place(folder)
  run = warm_start.find(folder, key=KEY)
  try:
    config, _ = workdir.read_run(folder)
  except workdir.WorkdirError as error:
    raise ValueError(f"{KEY}: {error}") from error
  settings = parse_settings(config, TASKS)
  settings.quant.phase_in.check_active(run.step, f"{KEY} {folder}")
  return Teacher(run=run, settings=settings)


def make_distillation(
  task: base.Supervised, teacher: Teacher, settings: Settings
) -> Distillation:
  """Returns the training task of a student with a teacher.

  Args:
    task: of the student.
    teacher: the run that it learns from.
    settings: of the student.

  Raises:
    ValueError: for a teacher of another task or vocabulary, or whose outputs
      differ in shape from the student's, or for unknown features.
  """
  key = f"distill.teacher is {teacher.run.folder}"
  if teacher.settings.task.name != settings.task.name:
    raise ValueError(
      f"{key}, which was trained for task.name {teacher.settings.task.name!r},"
      f" not {settings.task.name!r}"
    )
  facts, features = task.facts, settings.distill.features
  warm_start.check_vocabulary(teacher.run, facts.fingerprint)
  if "places" in facts.example and features:
    raise ValueError(
      f"distill.features is {features}, which needs all tokens of a row, but"
      f" task.predictions is {facts.example['places'].shape[1]}; make one of"
      " them empty, () or None"
    )
  model = base.make_model(teacher.settings, facts)
  made = Distillation(
    task,
    dataclasses.replace(task, model=model),
    warm_start.load_variables(teacher.run),
    settings.distill,
  )
  _check(made, key)
  return made


def _check(made: Distillation, key: str) -> None:
  """Raises a ValueError for a teacher that does not fit."""
  try:
    fresh = jax.eval_shape(lambda: nn.unbox(made.teacher.init(_key())))
  except (IndexError, TypeError, ValueError) as error:
    raise ValueError(
      f"{key}, which does not take this data: {error}"
    ) from error
  expected, found = map(_shapes, (fresh, made.variables))
  if expected != found:
    other = sorted(expected.items() ^ found.items())[0][0]
    raise ValueError(
      f"{key}, whose variables do not fit this data:"
      f" {warm_start.name_of(other)} has the shape {found.get(other)}, not"
      f" {expected.get(other)}"
    )
  own, theirs = (_outputs(made, task) for task in (made.student, made.teacher))
  mask = jax.eval_shape(base.target_mask, made.student.facts.shapes()).shape
  for path in made.options.features:
    for seen, whose in ((own, "student"), (theirs, "teacher")):
      if path not in seen:
        raise ValueError(
          f"distill.features has {path!r}, which the {whose} does not have, or"
          " does not call"
        )
  for path in own:
    what = f"the output of {path}" if path else "its output"
    shapes = [getattr(seen[path], "shape", None) for seen in (theirs, own)]
    if shapes[0] != shapes[1]:
      raise ValueError(
        f"{key}; {what} has the shape {shapes[0]}, the student's {shapes[1]}"
      )
    if shapes[0] is None or shapes[0][: len(mask)] != mask:
      raise ValueError(
        f"{key}; {what} is {shapes[0] or 'no array'}, which does not begin with"
        f" the shape {mask} of the targets"
      )
  if own[LOGITS].shape[-1] < 2:
    raise ValueError(f"{key}, but a regression has no distribution to learn")


def _key() -> jax.Array:
  return jax.random.key(0)


def _outputs(made: Distillation, task: base.Supervised) -> Outputs:
  """Returns the outputs that are compared, as shapes."""

  def outputs(batch):
    variables = nn.unbox(task.init(_key()))
    params = variables.pop("params")
    with outputs_of(made.paths) as found:
      task.totals(
        params,
        variables,
        batch,
        key=_key(),
        deterministic=True,
        strength=None,
      )
    return found

  try:
    return jax.eval_shape(outputs, made.student.facts.shapes())
  except jax.errors.UnexpectedTracerError as error:
    raise ValueError(
      f"distill.features is {made.options.features}; those inside of blocks"
      " that are scanned cannot be seen (model.scan_layers=False)"
    ) from error


def _shapes(variables: Any) -> dict[tuple[str, ...], tuple[int, ...]]:
  flat = warm_start.flatten(variables)
  return {path: tuple(leaf.shape) for path, leaf in flat.items()}
