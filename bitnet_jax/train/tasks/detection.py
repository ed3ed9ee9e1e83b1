"""Detection of objects on canvases: a class and a box for each."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bitnet_jax.data import standardization
from bitnet_jax.data.batches import order
from bitnet_jax.data.views import canvases
from bitnet_jax.models.detector import BOX_OUTPUTS
from bitnet_jax.train.config import groups
from bitnet_jax.train.config.settings import RunContext, Settings, TaskSpec
from bitnet_jax.train.tasks import base, boxes
from bitnet_jax.train.tasks.classification import standardized
from bitnet_jax.train.tasks.facts import DataFacts, sizes_of, specs_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class CanvasOptions(groups.DataOptions):
  """The group ``data`` of the task "detection"; see ``canvases.load``.

  Attributes:
    source: uint8 images of one object each, as for "classification".
    canvas: height and width of a canvas in pixels.
    object_sizes: least and largest size of an object in pixels.
    objects: least and largest number of objects of a canvas.
  """

  test_fraction: float
  data_dir: str | None
  canvas: int
  object_sizes: tuple[int, int]
  objects: tuple[int, int]

  def __post_init__(self):
    super().__post_init__()
    for key in ("object_sizes", "objects"):
      value = getattr(self, key)
      if not 1 <= value[0] <= value[1]:
        raise ValueError(
          f"data.{key} is {value}; it must be (least, largest), at least 1"
        )
    if self.object_sizes[1] > self.canvas:
      raise ValueError(
        f"data.object_sizes is {self.object_sizes}, larger than data.canvas,"
        f" {self.canvas}"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxLossOptions:
  """The group ``task`` of the task "detection".

  Attributes:
    box_weight: weight of the error of boxes in the loss.
  """

  box_weight: float

  def __post_init__(self):
    groups.check_least("task", self, box_weight=0)


class Detection(base.Supervised):
  """Detects objects, one for each cell; metrics "loss" and "map50".

  The loss of an image is the binary cross-entropy of all cells, whether an
  object has its center there, plus for each object, in the cell of its center,
  the cross-entropy of its class and the absolute error of its box: of the
  center in cells, and of the logarithms of width and height. "map50" is the
  mean average precision at an intersection over union of 0.5, of detections
  after suppression; their confidences are rounded, see ``boxes.BINS``.
  """

  @property
  def metric_names(self) -> tuple[str, ...]:
    """See ``Supervised``."""
    return ("loss", "map50")

  def inputs(self, batch: Mapping[str, Any]) -> base.Inputs:
    """See ``Supervised``."""
    return (standardized(batch["inputs"], self.facts),), {}

  def sums(
    self, outputs: Any, batch: base.Batch, *, deterministic: bool
  ) -> base.Totals:
    """See ``Supervised``."""
    mask, cell = base.target_mask(batch), cell_of(outputs, self.facts)
    losses = jax.vmap(self._loss)(
      outputs.astype(jnp.float32),
      boxes.cells_of(batch["boxes"], cell),
      batch["labels"],
    )
    totals = {"loss": jnp.sum(losses * mask)}
    if deterministic:
      totals |= boxes.count(
        boxes.detect(outputs, cell),
        batch["boxes"],
        batch["labels"],
        mask,
        num_classes=self.facts.num_classes or 0,
      )
    return totals

  def _loss(self, outputs, targets, labels):
    """Returns the loss of an image; targets [objects, 4] are in cells."""
    rows, columns, _ = outputs.shape
    x, y = jnp.floor(targets[:, 0]), jnp.floor(targets[:, 1])
    is_object = labels >= 0
    index = (y * columns + x).astype(jnp.int32)
    index = jnp.where(is_object, index, rows * columns)
    cells = outputs.reshape(rows * columns, -1)
    has_center = jnp.zeros(rows * columns).at[index].set(1, mode="drop")
    loss = jnp.sum(
      optax.losses.sigmoid_binary_cross_entropy(cells[:, 0], has_center)
    )
    found = cells[jnp.minimum(index, rows * columns - 1)]
    place = targets[:, :2] - jnp.stack([x, y], -1)
    size = jnp.log(jnp.where(is_object[:, None], targets[:, 2:], 1))
    error = jnp.abs(jax.nn.sigmoid(found[:, 1:3]) - place)
    error += jnp.abs(found[:, 3:BOX_OUTPUTS] - size)
    of_class = optax.losses.softmax_cross_entropy_with_integer_labels(
      found[:, BOX_OUTPUTS:], jnp.maximum(labels, 0)
    )
    of_object = of_class + self.options.box_weight * jnp.sum(error, -1)
    return loss + jnp.sum(jnp.where(is_object, of_object, 0))

  def finish(self, split: str, sums: Mapping[str, Any]) -> dict[str, float]:
    """See ``Supervised``."""
    counts = (sums[name] for name in ("hits", "misses", "objects"))
    map50 = boxes.mean_average_precision(*counts)
    return super().finish(split, sums) | {"map50": map50}


def cell_of(outputs: Any, facts: DataFacts) -> tuple[float, float]:
  """Returns width and height of a cell in pixels, for outputs of a batch."""
  height, width = facts.example["inputs"].shape[1:3]
  return width / outputs.shape[2], height / outputs.shape[1]


def load(settings: Settings, context: RunContext) -> base.TaskData:
  """Draws the canvases; see ``TaskSpec``."""
  data: CanvasOptions = settings.data
  dataset = canvases.load(
    data.source,
    data.cuts(),
    side=data.canvas,
    object_sizes=data.object_sizes,
    objects=data.objects,
  )
  train = dataset.splits["train"]
  mean, std = standardization.channel_statistics(train.inputs)
  part = base.of_training(settings, context)

  def train_batches(seed: int) -> Callable[[int], order.Batch]:
    return order.train_batches(train, **part | {"seed": seed})

  train_batch = train_batches(settings.seed)
  return base.TaskData(
    facts=DataFacts(
      fingerprint=dataset.fingerprint,
      splits=sizes_of(dataset.splits),
      example=specs_of(train_batch(0)),
      num_classes=dataset.num_classes,
      class_names=dataset.class_names,
      mean=tuple(mean.tolist()),
      std=tuple(std.tolist()),
    ),
    train_batch=train_batch,
    reseed=train_batches,
    eval_batches=lambda split: order.eval_batches(
      dataset.splits[split], **base.of_evaluation(settings, context)
    ),
  )


SPEC = TaskSpec(CanvasOptions, BoxLossOptions, load, Detection, ("detector",))
