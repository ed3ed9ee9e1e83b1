"""Learning from a trained network beside the labels.

Hinton et al., Distilling the Knowledge in a Neural Network (1503.02531).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bitnet_jax.files import PathLike
from bitnet_jax.train.config.groups import FROM_DATA
from bitnet_jax.train.config.settings import Settings, parse_settings
from bitnet_jax.train.folder import bucket, warm_start, workdir
from bitnet_jax.train.tasks import base
from bitnet_jax.train.tasks.registry import KINDS

KEY = "distill.teacher"
LOGITS = ""  # The path of a model itself.
Outputs = dict[str, jax.Array]


def divergence(
  student: Float[Array, "*batch classes"],
  teacher: Float[Array, "*batch classes"],
  temperature: float,
) -> Float[Array, "*batch"]:
  """Returns how far the student's distribution is from the teacher's.

  The Kullback-Leibler divergence of both at a temperature, in nats, times its
  square, so that gradients do not vanish with it; in float32.
  """
  p, q = (
    jax.nn.log_softmax(logits.astype(jnp.float32) / temperature)
    for logits in (teacher, student)
  )
  return temperature**2 * jnp.sum(jnp.exp(p) * (p - q), axis=-1)


@dataclasses.dataclass(frozen=True)
class Distillation:
  """A task whose network learns from another one as well.

  The loss is ``(1 - weight) * loss + weight * divergence``, and with features
  the mean squared difference of these is added. Evaluation is that of the task.

  Attributes:
    task: of the student.
    teacher: the same, of the teacher.
    variables: of the teacher, by collection, NumPy arrays or others.
    weight_of_teacher: its share in the loss.
    temperature: of both distributions.
    features: paths of modules whose outputs are compared too.
  """

  task: base.Task
  teacher: base.Task
  variables: Mapping[str, Any]
  weight_of_teacher: float
  temperature: float
  features: tuple[str, ...] = ()

  @property
  def model(self) -> nn.Module:
    """The student."""
    return self.task.model

  def init(self, key: jax.Array) -> Mapping[str, Any]:
    """See ``base.Task``."""
    return self.task.init(key)

  def weight(self, batch: base.Batch) -> jax.Array:
    """See ``base.Task``."""
    return self.task.weight(batch)

  def totals(
    self,
    params: Any,
    variables: Any,
    batch: base.Batch,
    *,
    key: jax.Array,
    deterministic: bool,
    strength: jax.Array | None,
  ) -> tuple[base.Totals, Any]:
    """See ``base.Task``."""
    own = {"key": key, "strength": strength}
    if deterministic:
      return self.task.totals(
        params, variables, batch, deterministic=True, **own
      )
    (totals, variables), found = self._watch(
      lambda: self.task.totals(
        params, variables, batch, deterministic=False, **own
      )
    )
    known = dict(jax.tree.map(jnp.asarray, self.variables))
    learned = known.pop("params")
    _, expected = self._watch(
      lambda: self.teacher.totals(
        learned, known, batch, key=key, deterministic=True, strength=None
      )
    )
    expected = jax.lax.stop_gradient(expected)
    student, teacher = found.pop(LOGITS), expected.pop(LOGITS)
    losses = divergence(student, teacher, self.temperature)
    mask = _items(batch)
    taught = jnp.sum(losses * mask)
    share = self.weight_of_teacher
    loss = (1 - share) * totals["loss"] + share * taught
    totals = totals | {"divergence": taught}
    for path, features in found.items():
      squares = jnp.square(
        features.astype(jnp.float32) - expected[path].astype(jnp.float32)
      )
      # One number for each example, or token, that counts.
      squares = jnp.mean(squares, axis=tuple(range(mask.ndim, squares.ndim)))
      loss = loss + jnp.sum(squares * mask)
    return totals | {"loss": loss}, variables

  def _watch(self, run) -> tuple[Any, Outputs]:
    """Returns what a function returns, and what modules in it put out."""
    found: Outputs = {}
    wanted = (LOGITS, *self.features)

    def note(next_fun, args, kwargs, context):
      y = next_fun(*args, **kwargs)
      path = "/".join(context.module.path)
      if context.method_name == "__call__" and path in wanted:
        found[path] = y
      return y

    with nn.intercept_methods(note):
      return run(), found


def _items(batch: base.Batch) -> jax.Array:
  """Returns which of the examples, or tokens, count."""
  return batch["mask"] if "mask" in batch else base.example_mask(batch)


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
  settings = parse_settings(config, KINDS)
  settings.quant.make_phase_in().check_active(run.step, f"{KEY} {folder}")
  return Teacher(run=run, settings=settings)


def distill(problem: base.Problem, teacher: Teacher, settings: Settings) -> Any:
  """Returns a problem in which the network learns from another one as well.

  Args:
    problem: of the student.
    teacher: the other.
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
  warm_start.check_vocabulary(teacher.run, problem.fingerprint)
  task: Any = problem.task
  cfg = task.model.cfg
  from_data = {n: getattr(cfg, n) for n in FROM_DATA if hasattr(cfg, n)}
  model = base.make_model(teacher.settings, **from_data)
  taught = Distillation(
    task,
    dataclasses.replace(task, model=model),
    warm_start.load_variables(teacher.run),
    settings.distill.weight,
    settings.distill.temperature,
    settings.distill.features,
  )
  batch = problem.train_batch(0)
  if "places" in batch and taught.features:
    raise ValueError(
      f"distill.features is {taught.features}, which needs all tokens of a row,"
      f" but task.predictions is {batch['places'].shape[1]}; make one of them"
      " empty, () or None"
    )
  _check(taught, key, batch)
  # A teacher with an embedding of its own reads other rows.
  return dataclasses.replace(problem, task=taught, sparse_param=None)


def _check(taught: Distillation, key: str, batch: Mapping[str, Any]) -> None:
  """Raises a ValueError for a teacher that does not fit."""
  random = jax.eval_shape(lambda: jax.random.key(0))
  try:
    fresh = nn.unbox(jax.eval_shape(taught.teacher.init, random))
  except (IndexError, TypeError, ValueError) as error:
    raise ValueError(
      f"{key}, which does not take this data: {error}"
    ) from error
  expected, found = map(_shapes, (fresh, taught.variables))
  if expected != found:
    other = sorted(expected.items() ^ found.items())[0][0]
    raise ValueError(
      f"{key}, whose variables do not fit this data:"
      f" {warm_start.name_of(other)} has the shape {found.get(other)}, not"
      f" {expected.get(other)}"
    )
  own, theirs, items = _outputs(taught, random, batch)
  for path in taught.features:
    for seen, whose in ((own, "student"), (theirs, "teacher")):
      if path not in seen:
        raise ValueError(
          f"distill.features has {path!r}, which the {whose} has not, or not"
          " called"
        )
  for path in own:
    what = f"the output of {path}" if path else "its output"
    shapes = [getattr(seen[path], "shape", None) for seen in (theirs, own)]
    if shapes[0] != shapes[1]:
      raise ValueError(
        f"{key}; {what} has the shape {shapes[0]}, the student's {shapes[1]}"
      )
    if shapes[0] is None or shapes[0][: items.ndim] != items.shape:
      raise ValueError(
        f"{key}; {what} is {shapes[0] or 'no array'}, which does not begin with"
        f" the shape {items.shape} of what is learned"
      )
  if own[LOGITS].shape[-1] < 2:
    raise ValueError(f"{key}, but a regression has no distribution to learn")


def _outputs(
  taught: Distillation, random: Any, batch: Mapping[str, Any]
) -> Any:
  """Returns, as shapes, what student and teacher put out, and the mask."""

  def outputs(task, key, batch):
    variables = nn.unbox(task.init(key))
    params = variables.pop("params")
    _, seen = taught._watch(
      lambda: task.totals(
        params, variables, batch, key=key, deterministic=True, strength=None
      )
    )
    return seen

  try:
    own, theirs = (
      jax.eval_shape(lambda k, b, t=task: outputs(t, k, b), random, batch)
      for task in (taught.task, taught.teacher)
    )
  except jax.errors.UnexpectedTracerError as error:
    raise ValueError(
      f"distill.features is {taught.features}; those inside of blocks that are"
      " scanned cannot be seen (model.scan_layers=False)"
    ) from error
  return own, theirs, jax.eval_shape(_items, batch)


def _shapes(variables: Any) -> dict[tuple[str, ...], tuple[int, ...]]:
  flat = warm_start.flatten(variables)
  return {path: tuple(leaf.shape) for path, leaf in flat.items()}
