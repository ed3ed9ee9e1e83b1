"""Detection: boxes, suppression, precision, and the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.train.build import build
from bitnet_jax.train.tasks import boxes
from bitnet_jax.train.tasks.detection import BoxLossOptions, Detection
from bitnet_jax.train.tasks.facts import ArraySpec, DataFacts

CELL = (8.0, 4.0)
FLOAT32 = 1e-5


# Compiled, as a whole: operation by operation would take longer.
cells_of = jax.jit(lambda box: boxes.cells_of(box, CELL))
detect = jax.jit(lambda outputs: boxes.detect(outputs, CELL))
count = jax.jit(
  lambda outputs, *truth: boxes.count(
    boxes.detect(outputs, CELL), *truth, num_classes=3
  )
)


def outputs_of(objects, rows=3, columns=2, classes=3):
  """Returns outputs for certain objects: (row, column, box, label, score)."""
  outputs = np.zeros((1, rows, columns, 5 + classes), np.float32)
  outputs[..., 0] = -20
  for row, column, box, label, score in objects:
    x, y, width, height = np.asarray(cells_of(jnp.array(box)))
    place = np.array([x - column, y - row])
    cell = outputs[0, row, column]
    cell[0] = score
    cell[1:3] = np.log(place / (1 - place))
    cell[3:5] = np.log([width, height])
    cell[5 + label] = 30
  return jnp.asarray(outputs)


def test_detections_are_what_the_outputs_say_the_most_confident_first():
  first, second = [1.0, 2.0, 7.0, 12.0], [9.0, 6.0, 13.0, 12.0]
  outputs = outputs_of([(1, 0, first, 2, 0.5), (2, 1, second, 0, 3.0)])
  found = detect(outputs)
  np.testing.assert_allclose(found.boxes[0, :2], [second, first], FLOAT32)
  np.testing.assert_array_equal(found.labels[0, :2], [0, 2])
  np.testing.assert_allclose(found.scores[0, :2], [3, 0.5], 1e-4)


def test_iou_of_boxes_worked_by_hand():
  a = jnp.array([[0.0, 0, 4, 4], [1, 1, 1, 1]])
  b = jnp.array([[0.0, 0, 4, 4], [2, 2, 6, 4], [5, 5, 6, 6], [1, 1, 1, 1]])
  expected = [[1, 4 / 20, 0, 0], [0, 0, 0, 0]]
  np.testing.assert_allclose(boxes.iou(a, b), expected, FLOAT32)


def kept_of(corners, labels):
  labels = jnp.array(labels, jnp.int32)
  return jax.jit(boxes.suppressed)(jnp.array(corners), labels)


def test_suppression_keeps_the_best_of_a_class():
  # The third overlaps the second, which the first has suppressed.
  corners = [[0.0, 0, 10, 10], [0, 2, 10, 12], [0, 5, 10, 15], [0, 0, 10, 10]]
  assert kept_of(corners, [1, 1, 1, 2]).tolist() == [True, False, True, True]
  assert kept_of(corners[1:], [1, 1, 1]).tolist() == [True, False, False]


def counted(objects, boxes_, labels, mask=1.0):
  outputs = outputs_of(objects)
  truth = (
    jnp.array([[*boxes_, *[[0.0] * 4] * (3 - len(boxes_))]]),
    jnp.array([[*labels, *[-1] * (3 - len(labels))]], jnp.int32),
    jnp.array([mask]),
  )
  sums = count(outputs, *truth)
  return jax.tree.map(np.asarray, sums)


BOX, OTHER = [1.0, 2.0, 7.0, 8.0], [9.0, 6.0, 15.0, 12.0]


def test_hits_misses_and_objects_are_counted_once():
  sums = counted(
    [(1, 0, BOX, 2, 3.0), (2, 1, OTHER, 0, 1.0)],
    [BOX, OTHER],
    [2, 1],
  )
  assert sums["objects"].tolist() == [0, 1, 1]
  assert sums["hits"].sum() == sums["hits"][2].sum() == 1
  # Cells without an object are misses, of the least confidence.
  assert sums["misses"][:, : boxes.BINS // 2].sum(-1).tolist() == [1, 0, 0]
  # A bin a 1/32 of log-odds, from 8 down: 3 is at (8 - 3) * 32.
  assert abs(sums["hits"][2].argmax() - 160) <= 1
  none = counted([(1, 0, BOX, 2, 3.0)], [BOX], [2], mask=0.0)
  assert not any(total.any() for total in none.values())


def test_an_object_is_hit_once():
  # Both overlap the object (IoU 0.52), but hardly each other.
  above, below = [1.0, 0.1, 7.0, 6.1], [1.0, 3.9, 7.0, 9.9]
  sums = counted([(0, 0, above, 2, 3.0), (1, 0, below, 2, 2.0)], [BOX], [2])
  assert sums["hits"].sum() == 1
  assert abs(sums["hits"][2].argmax() - 160) <= 1
  assert sums["misses"][2, : boxes.BINS // 2].sum() == 1


@pytest.mark.parametrize(
  ("hits", "misses", "objects", "expected"),
  [
    ([1, 1], [0, 0], 2, 1.0),
    ([0, 1], [1, 0], 1, 0.5),
    # Precision 1, 1/2, 2/3, 2/4: the envelope is 1, then 2/3.
    ([1, 0, 1, 0], [0, 1, 0, 1], 2, (1 + 2 / 3) / 2),
    # Two of four objects are found; those of one bin rank equally.
    ([2], [2], 4, 0.25),
    ([0], [0], 3, 0.0),
  ],
)
def test_average_precision_of_curves_worked_by_hand(
  hits, misses, objects, expected
):
  found = boxes.average_precision(np.array(hits), np.array(misses), objects)
  assert found == pytest.approx(expected)


def test_classes_without_objects_have_no_part_in_the_mean():
  hits, misses = np.array([[1.0], [1], [0]]), np.array([[1.0], [0], [5]])
  mean = boxes.mean_average_precision
  assert mean(hits, misses, np.array([1, 1, 0])) == pytest.approx(0.75)
  assert mean(hits, misses, np.zeros(3)) == 0


def make_task():
  inputs = ArraySpec(shape=(1, 12, 16, 1), dtype="uint8")
  facts = DataFacts(num_classes=3, example={"inputs": inputs})
  return Detection(None, facts, BoxLossOptions(box_weight=2.0))  # type: ignore


def test_loss_is_none_for_what_is_there_and_grows_with_each_error():
  batch = {
    "boxes": jnp.array([[BOX, OTHER, [0.0] * 4]]),
    "labels": jnp.array([[2, 1, -1]], jnp.int32),
    "mask": jnp.ones(1),
  }

  @jax.jit
  def loss(outputs):
    sums = make_task().sums(outputs, batch, deterministic=False)
    assert sums.keys() == {"loss"}
    return sums["loss"]

  right = outputs_of([(1, 0, BOX, 2, 20.0), (2, 1, OTHER, 1, 20.0)])
  assert loss(right) == pytest.approx(0, abs=FLOAT32)
  for place, change, error in (
    ((0, 0, 0), 40.0, 20.0),  # An object that is not there.
    ((2, 1, 3), 0.25, 0.5),  # Its width is e^0.25 of the true one, weight 2.
    ((2, 1, 7), 31.0, 1.0),  # A wrong class, by a logit.
  ):
    wrong = right.at[(0, *place)].add(change)
    assert loss(wrong) == pytest.approx(error, rel=0.5), place


SMALL = {
  "data__canvas": 16,
  "data__object_sizes": (4, 8),
  "model__channels": (4, 4),
  "model__width": 8,
  "mesh__data": 1,
}


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"data__object_sizes": (9, 8)}, r"data.object_sizes is .*, at least 1"),
    ({"data__objects": (0, 2)}, r"data.objects is .*\(least, largest\)"),
    ({"data__object_sizes": (4, 17)}, "larger than data.canvas, 16"),
    ({"task__box_weight": -1.0}, "task.box_weight is -1.0"),
  ],
)
def test_options_out_of_range_are_named(make_config, changes, message):
  with pytest.raises(ValueError, match=message):
    build(make_config("digits_detector", **SMALL | changes))
