"""Boxes: from the outputs of a detector to detections and their precision.

A box is (left, upper, right, lower), in pixels. The outputs of a cell are, in
their order: the log-odds of an object whose center is in the cell; the place of
the center as the log-odds of the fraction of the cell to the left and above;
the logarithms of width and height in cells; a logit a class.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax.models.detector import BOX_OUTPUTS

MIN_IOU = 0.5  # of a hit, and of a box that is suppressed
# Thresholds of the precision-recall curve: log-odds of -8 to 8.
BINS = 512
_LARGEST = 8.0
_MOST = 64  # detections of an image before suppression


class Detections(NamedTuple):
  """The detections of images, the most confident first.

  Attributes:
    boxes: float32 [b, k, 4].
    labels: int32 [b, k], the most probable class of each.
    scores: float32 [b, k], log-odds of an object of that class.
    kept: bool [b, k], false where a better box of the class overlaps.
  """

  boxes: jax.Array
  labels: jax.Array
  scores: jax.Array
  kept: jax.Array


def cells_of(boxes: jax.Array, cell: tuple[float, float]) -> jax.Array:
  """Returns center and size of boxes in cells: (x, y, width, height).

  Args:
    boxes: float32 [..., 4].
    cell: width and height of a cell in pixels.
  """
  corners = boxes / jnp.broadcast_to(jnp.array(cell * 2), boxes.shape)
  first, last = corners[..., :2], corners[..., 2:]
  return jnp.concatenate([(first + last) / 2, last - first], axis=-1)


def detect(outputs: jax.Array, cell: tuple[float, float]) -> Detections:
  """Returns the detections in the outputs of a detector.

  Args:
    outputs: [b, rows, columns, 5 + classes].
    cell: width and height of a cell in pixels.
  """
  b, rows, columns, _ = outputs.shape
  outputs = outputs.astype(jnp.float32)
  classes = jax.nn.log_softmax(outputs[..., BOX_OUTPUTS:])
  log_p = jax.nn.log_sigmoid(outputs[..., 0]) + jnp.max(classes, -1)
  log_p = jnp.minimum(log_p, -1e-6)  # The log-odds stay finite.
  y, x = jnp.mgrid[:rows, :columns]
  center = jnp.stack([x, y], -1)[None] + jax.nn.sigmoid(outputs[..., 1:3])
  half = jnp.exp(jnp.minimum(outputs[..., 3:5], 10)) / 2
  corners = jnp.concatenate([center - half, center + half], -1)
  corners *= jnp.broadcast_to(jnp.array(cell * 2), corners.shape)
  flat = {
    "boxes": corners.reshape(b, -1, 4),
    "labels": jnp.argmax(classes, -1).astype(jnp.int32).reshape(b, -1),
    "scores": (log_p - jnp.log(-jnp.expm1(log_p))).reshape(b, -1),
  }
  _, best = jax.lax.top_k(flat["scores"], min(_MOST, rows * columns))
  flat = {k: jax.vmap(lambda a, i: a[i])(x, best) for k, x in flat.items()}
  kept = jax.vmap(suppressed)(flat["boxes"], flat["labels"])
  return Detections(**flat, kept=kept)


def iou(first: jax.Array, second: jax.Array) -> jax.Array:
  """Returns the intersection over union, [n, m], of boxes [n, 4] and [m, 4].

  It is 0 for two boxes without area.
  """
  a, b = first[:, None], second[None]
  sides = jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(
    a[..., :2], b[..., :2]
  )
  both = jnp.prod(jnp.maximum(sides, 0), -1)
  areas = [jnp.prod(box[..., 2:] - box[..., :2], -1) for box in (a, b)]
  return both / jnp.maximum(sum(areas) - both, 1e-9)


def suppressed(boxes: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns which of the boxes [n, 4], the best first, suppression keeps."""
  same = labels[:, None] == labels[None]
  clash = jnp.triu((iou(boxes, boxes) > MIN_IOU) & same, 1)

  def decide(kept, i):
    return kept.at[i].set(~jnp.any(clash[:, i] & kept)), None

  n = len(labels)
  return jax.lax.scan(decide, jnp.ones(n, bool), jnp.arange(n))[0]


def _match(found, boxes, labels):
  """Returns which detections of an image are hits.

  The best detection chooses first: the object of its class that overlaps most,
  among those that no better one has taken.
  """
  overlaps = jnp.where(
    found.labels[:, None] == labels[None], iou(found.boxes, boxes), 0
  )

  def choose(free, row):
    overlap, kept = row
    overlap = jnp.where(free, overlap, 0)
    best = jnp.argmax(overlap)
    is_hit = kept & (overlap[best] >= MIN_IOU)
    return free.at[best].set(free[best] & ~is_hit), is_hit

  free = jnp.ones(len(labels), bool)
  return jax.lax.scan(choose, free, (overlaps, found.kept))[1]


def count(
  found: Detections,
  boxes: jax.Array,
  labels: jax.Array,
  mask: jax.Array,
  *,
  num_classes: int,
) -> dict[str, jax.Array]:
  """Returns sums over images from which the average precision follows.

  Args:
    found: the detections.
    boxes: float32 [b, most objects, 4].
    labels: int32 [b, most objects], negative for padding.
    mask: float32 [b], 0 for images that do not count.
    num_classes: number of classes.

  Returns:
    "hits" and "misses" [classes, BINS] of detections, the most confident in the
    first bin, and "objects" [classes].
  """
  hits = jax.vmap(_match)(found, boxes, labels)
  place = (_LARGEST - found.scores) * (BINS / (2 * _LARGEST))
  bins = jnp.clip(place, 0, BINS - 1).astype(jnp.int32)
  zeros = jnp.zeros((num_classes, BINS), jnp.float32)
  weight = mask[:, None] * found.kept
  where = (found.labels, bins)
  counted = jnp.where(labels < 0, num_classes, labels)
  return {
    "hits": zeros.at[where].add(weight * hits),
    "misses": zeros.at[where].add(weight * ~hits),
    "objects": zeros[:, 0]
    .at[counted]
    .add(jnp.broadcast_to(mask[:, None], labels.shape), mode="drop"),
  }


def average_precision(
  hits: np.ndarray, misses: np.ndarray, objects: float
) -> float:
  """Returns the area under the precision-recall curve of a class.

  The precision at a recall is the largest at that recall or a higher one, as in
  PASCAL VOC since 2010.

  Args:
    hits: number of hits in each bin of confidence, the most confident first.
    misses: number of other detections likewise.
    objects: number of objects; more than 0.
  """
  found = np.cumsum(np.asarray(hits, np.float64))
  total = found + np.cumsum(np.asarray(misses, np.float64))
  precision = found / np.maximum(total, 1)
  highest = np.maximum.accumulate(precision[::-1])[::-1]
  return float(np.sum(np.diff(found, prepend=0) * highest) / objects)


def mean_average_precision(
  hits: np.ndarray, misses: np.ndarray, objects: np.ndarray
) -> float:
  """Returns the mean of ``average_precision`` over the classes with objects.

  Arguments are those of ``average_precision`` with a first axis of classes. It
  is 0 without any object.
  """
  occurring = np.flatnonzero(objects)
  found = [average_precision(hits[c], misses[c], objects[c]) for c in occurring]
  return float(np.mean(found)) if found else 0.0
