"""Predictions of each further task are those of evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.data.sources import random_graphs
from bitnet_jax.data.splits import NO_CUTS
from bitnet_jax.programs import frozen
from bitnet_jax.programs.predicting import finders, inputs, language, predictor
from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.tasks import boxes, nodes, translation
from tests.programs.predicting.predictor_test import DAYS, answers, write_table
from tests.train import tiny

pytestmark = pytest.mark.slow
CELLS = 16  # of the small detector


def predict(config, folder, **request):
  """Trains; returns metrics, and the answers of the run and frozen model."""
  metrics = runner.run(config, folder / "run")["metrics"]
  frozen.freeze_run(folder / "run", folder / "frozen")
  models = (
    predictor.open_run(folder / "run"),
    predictor.open_frozen(folder / "frozen"),
  )
  found, same = (answers(m, inputs.Request(**request)) for m in models)
  assert [a.to_json(None) for a in found] == [a.to_json(None) for a in same]
  return metrics, found


def hits(found, labels):
  pairs = zip(found, labels, strict=True)
  return np.mean([answer.best == label for answer, label in pairs])


@pytest.mark.parametrize("kind", ["gcn", "sgc"])
def test_nodes_have_the_accuracy_of_evaluation(make_config, tmp_path, kind):
  config = make_config("karate_gnn", data__batch_size=1, model__kind=kind)
  config["data"]["eval_batch_size"] = None
  metrics, found = predict(config, tmp_path)
  graph = nodes.load_graph(build(config).settings)
  assert len(found) == graph.graph.num_nodes
  assert found[0].names == ("Mr. Hi", "Officer")
  for split in ("valid", "test"):
    rows = graph.splits[split]
    accuracy = hits([found[row] for row in rows], graph.labels[rows])
    assert accuracy == pytest.approx(metrics[f"{split}/accuracy"])
  model = predictor.open_run(tmp_path / "run")
  some = answers(model, inputs.Request(places=["33", "2"]))
  chosen = [found[i].to_json(None) for i in (33, 2)]
  assert [a.to_json(None) for a in some] == chosen


def test_graphs_have_the_accuracy_of_evaluation(make_config, tmp_path):
  (tmp_path / "new").mkdir()
  table = random_graphs.read("", NO_CUTS).splits["valid"]
  labels = []
  for i, members in enumerate(table.records):
    labels.append(int(members["label"]))
    alone = {k: v for k, v in members.items() if k != "label"}
    np.savez(tmp_path / "new" / f"{i:03}.npz", **alone)
  config = make_config("graphs_gnn", model__width=8, model__depth=1)
  metrics, found = predict(config, tmp_path, places=[str(tmp_path / "new")])
  accuracy = hits(found, labels)
  assert accuracy == pytest.approx(metrics["valid/accuracy"])
  assert found[0].names == tuple(random_graphs.GENERATORS)


def test_objects_have_the_precision_of_evaluation(make_config, tmp_path):
  config = make_config(
    "digits_detector",
    data__canvas=16,
    data__object_sizes=(4, 8),
    model__channels=(8, 16),
    model__convs_per_block=1,
    model__width=16,
    total_steps=60,
  )
  valid = [*build(config).data.eval_batches("valid")]
  arrays = {
    name: np.concatenate([b[name][b["mask"] > 0] for b in valid])
    for name in ("inputs", "boxes", "labels")
  }
  np.savez(tmp_path / "x.npz", x=arrays["inputs"])
  metrics, found = predict(config, tmp_path, places=[str(tmp_path / "x.npz")])
  n = len(found)
  detected = boxes.Detections(
    boxes=np.zeros((n, CELLS, 4), np.float32),
    labels=np.zeros((n, CELLS), np.int32),
    scores=np.full((n, CELLS), -20, np.float32),
    kept=np.zeros((n, CELLS), bool),
  )
  for i, answer in enumerate(found):
    likely = answer.to_json(None)["objects"]
    assert len(likely) == len(answer.columns(None))
    assert all(0.5 <= one["probability"] <= 1 for one in likely)
    for k, one in enumerate(answer.to_json(CELLS)["objects"]):
      p = np.clip(one["probability"], 1e-9, 1 - 1e-6)
      detected.boxes[i, k] = one["box"]
      detected.labels[i, k] = int(one["class"])
      detected.scores[i, k] = np.log(p / (1 - p))
      detected.kept[i, k] = True
  sums = boxes.count(
    jax.tree.map(jnp.asarray, detected),
    jnp.asarray(arrays["boxes"]),
    jnp.asarray(arrays["labels"]),
    jnp.ones(n),
    num_classes=10,
  )
  counts = (np.asarray(sums[name]) for name in ("hits", "misses", "objects"))
  # Probabilities are rounded, so a few detections may be in the next bin.
  expected = pytest.approx(metrics["valid/map50"], abs=2e-3)
  assert boxes.mean_average_precision(*counts) == expected
  assert metrics["valid/map50"] > 0


def split_days(folder):
  """Writes the days as pairs; returns their source."""
  for split, rows in {"train": DAYS[:30], "valid": DAYS[30:]}.items():
    pairs = [(a, f"{a} then", *rest) for a, *rest in rows]
    write_table(folder / f"{split}.tsv", pairs, "a\tb\tlabel\tdegrees")
  return f"file:{folder}/{{split}}.tsv"


def test_numbers_of_pairs_have_the_loss_of_evaluation(tmp_path):
  config = tiny.make(
    "classification",
    split_days(tmp_path),
    task__regression=True,
    data__label="degrees",
    data__columns=("a", "b"),
    data__too_long="cut",
    data__test_fraction=0.0,
    checkpoint__metric="valid/spearman",
  )
  table = str(tmp_path / "valid.tsv")
  metrics, found = predict(config, tmp_path, places=[table])
  values = np.array([answer.values["value"] for answer in found])
  degrees = np.array([row[2] for row in DAYS[30:]])
  loss = np.mean((values - degrees) ** 2)
  assert loss == pytest.approx(metrics["valid/loss"], rel=1e-5)


def test_translations_are_those_of_evaluation(tmp_path):
  config = tiny.make(
    "translation",
    split_days(tmp_path),
    data__languages=("a", "b"),
    data__too_long="cut",
    data__test_fraction=0.0,
  )
  table = str(tmp_path / "valid.tsv")
  _, found = predict(config, tmp_path, places=[table])
  model = predictor.open_run(tmp_path / "run").found
  data = build(config, tmp_path / "run").data
  expected = []
  for batch in data.eval_batches("valid"):
    with model.activate():
      ids = translation.translate(
        model.settings,
        model.tokenizer,
        model.model,
        model.variables,
        batch,
        model.mesh,
      )
    expected += [translation.decode(row, model.tokenizer) for row in ids]
  assert [a.text for a in found] == expected[: len(found)]


def test_likelihood_of_a_text_is_that_of_evaluation(tmp_path):
  for split in ("train", "valid"):
    tiny.write(tmp_path / f"{split}.txt", ["the cat sat on the mat"] * 9)
  config = tiny.make(
    "decoder",
    f"file:{tmp_path}/{{split}}.txt",
    data__documents=None,
    data__test_fraction=0.0,
  )
  texts = [str(tmp_path / "valid.txt"), "the dog"]
  metrics, found = predict(config, tmp_path, places=texts)
  for name in ("perplexity", "bits_per_byte"):
    value = found[0].values[name]
    assert value == pytest.approx(metrics[f"valid/{name}"], rel=1e-5)


@pytest.mark.parametrize("predictions", [None, 4])
def test_masked_tokens_are_found(tmp_path, predictions):
  for split in ("train", "valid"):
    tiny.write(tmp_path / f"{split}.txt", ["aaaa aaaa"] * 40)
  config = tiny.make(
    "encoder",
    f"file:{tmp_path}/{{split}}.txt",
    data__packing="documents",
    task__predictions=predictions,
    total_steps=40,
    data__test_fraction=0.0,
    optim__learning_rate=3e-2,
  )
  text = f"a{language.MASK}a{language.MASK}"
  _, (found,) = predict(config, tmp_path, places=[text])
  assert [len(tokens) for tokens in found.found] == [100, 100]
  assert [tokens[0][0] for tokens in found.found] == ["a", "a"]
  model = predictor.open_run(tmp_path / "run")
  for text, message in {
    "aaa": r"it has no \[MASK\]",
    language.MASK * 5: "it has 5 masks; the model reads 4 at most",
    "a" * 99 + language.MASK: "it has 102 tokens; the model reads 16",
  }.items():
    if predictions is None and "masks" in message:
      continue
    items = finders.find(inputs.Request(texts=[text]), model.family)
    (one,) = model.predict(items)
    with pytest.raises(ValueError, match=message):
      raise one.error
