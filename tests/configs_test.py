"""Every file in ``configs/``: complete, by itself, and trainable."""

import ast
import itertools
import json
import os
import pathlib
import re
import runpy

import jax
import ml_collections
import numpy as np
import pytest
from flax import traverse_util

from bitnet_jax.config import without_later
from bitnet_jax.models import registry
from bitnet_jax.quantizers.recipe import RECIPES
from bitnet_jax.train.build import build
from bitnet_jax.train.config import flags, loading
from bitnet_jax.train.config.settings import parse_settings
from bitnet_jax.train.devices.mesh import place_batch
from bitnet_jax.train.state import count_params
from bitnet_jax.train.tasks.registry import TASKS

FOLDER = pathlib.Path(__file__).parents[1] / "configs"
GOLDEN = pathlib.Path(__file__).parent / "testdata" / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
# By the prefix of a config's name: shape of an image, number of classes.
IMAGES = {
  "mnist": ((28, 28), 10),
  "cifar10": ((32, 32, 3), 10),
  "cifar100": ((32, 32, 3), 100),
}
# Small, and of no effect on what is tested, by the model of a config.
SMALL = {
  "mlp": {"model.width": 8, "model.depth": 1},
  "wide_mlp": {"model.width": 8},
  "cnn": {"model.channels": (4, 4), "model.dense_width": 8},
  "detector": {"model.channels": (4, 4), "model.width": 8},
  "gnn": {"model.width": 8},
}
TRANSFORMERS = ("decoder", "encoder", "encoder_decoder", "vit")
for model in TRANSFORMERS:
  SMALL[model] = {
    "model.hidden": 16,
    "model.num_layers": 1,
    "model.num_heads": 2,
    "model.num_kv_heads": 2,
    "model.head_dim": None,
    "model.mlp_width": 16,
    "model.dtype": "float32",
  }
SMALL["encoder_decoder"] |= {"model.num_decoder_layers": 1}
# Texts of the same form, by task.
BYTES = {"data.tokenizer": "bytes", "data.vocab_size": None}
DOCUMENTS = {
  "data.source": "embedded:pydoc",
  "data.documents": None,
  "data.valid_fraction": 0.1,
  "data.seq_len": 32,
}
TEXTS = {
  "causal_lm": DOCUMENTS | BYTES,
  "documents": {
    "data.source": "embedded:docstrings",
    "data.test_fraction": 0.2,
  }
  | BYTES,
  "masked_lm": DOCUMENTS | BYTES,
  "span_corruption": DOCUMENTS | BYTES,
  "text_classification": BYTES,
  "translation": BYTES,
}
# Data for configs that ask theirs.
ASKED = {
  "features": {"data.source": "embedded:digits"},
  "graphs": {"data.source": "embedded:graphs"},
  "images": {"data.source": "embedded:digits"},
  "translate": {"data.languages": ("en", "de")},
}
PROBED = ("float", "b158", "b158_median")
OTHERS = [name for name in RECIPES if name not in PROBED]


def load(name, overrides=None):
  """Loads a config by its name, or by ``name:variant``."""
  name, *variant = name.split(":")
  path = ":".join([str(FOLDER / f"{name}.py"), *variant])
  return flags.load_config(path, overrides)


def flatten(config):
  return traverse_util.flatten_dict(config, keep_empty_nodes=True, sep=".")


def paths_of(config, prefix=()):
  """Returns the path of every key, groups included."""
  found = []
  for name, value in config.items():
    found.append((*prefix, name))
    if isinstance(value, dict):
      found += paths_of(value, (*prefix, name))
  return found


def parse(config):
  settings = parse_settings(config, TASKS)
  settings.quant.make_rules()
  settings.axis_rules()


def values_of(config, prefix=""):
  """Yields (dotted key, value, type) of every key that is no group."""
  for name in config:
    value, key = config[name], f"{prefix}{name}"
    if isinstance(value, ml_collections.ConfigDict):
      yield from values_of(value, f"{key}.")
    else:
      yield key, value, config.get_type(name)


@pytest.mark.parametrize("name", NAMES)
def test_docstring_gives_the_command_that_runs_the_file(name):
  text = (FOLDER / f"{name}.py").read_text()
  command = text.split('"""')[1].split("python ", 1)[1]
  assert command.startswith("experiments/train.py ")
  assert f"--config=configs/{name}.py" in command
  assert re.search(r"--workdir=runs/[a-z0-9-]+\b", command)
  for key in re.findall(r"--config\.([\w.]+)=", command):
    value = load(name)
    for part in key.split("."):
      value = value[part]


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_spelled_out(name):
  config = load(name)
  parse(config)
  for path in paths_of(config):
    without = json.loads(json.dumps(config))
    group = without
    for part in path[:-1]:
      group = group[part]
    del group[path[-1]]
    with pytest.raises(ValueError, match=path[-1]):
      parse(without)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_key_is_refused(name):
  for group in ("", "data.", "model.", "quant.", "optim."):
    with pytest.raises(ValueError, match=f"{group}unheard is not a key"):
      load(name, {f"{group}unheard": 1})


def task_of(name):
  return load(name)["task"]["name"]


@pytest.mark.parametrize("name", NAMES)
def test_types_are_those_of_the_first_config(name):
  """No bare None, and no integer where others have a float."""
  types, expected = (
    {
      key: type_
      for key, _, type_ in values_of(loading.load(str(FOLDER / f"{n}.py")))
      if not key.startswith("model.")
    }
    for n in (name, next(n for n in NAMES if task_of(n) == task_of(name)))
  )
  assert type(None) not in types.values()
  assert types == expected
  for key in (
    "optim.learning_rate",
    "optim.weight_decay",
    "optim.final_fraction",
    "optim.second_learning_rate",
    "optim.clip_norm",
    "data.valid_fraction",
    "quant.weights.eps",
  ):
    assert types.get(key, float) is float, key


@pytest.mark.parametrize("name", NAMES)
def test_unknown_variant_lists_the_variants(name):
  with pytest.raises(ValueError, match=r"variant is 'X', not one of \['\w"):
    flags.load_config(str(FOLDER / f"{name}.py:X"))


@pytest.mark.parametrize("name", NAMES)
def test_files_import_nothing_but_the_base(name):
  tree = ast.parse((FOLDER / f"{name}.py").read_text())
  imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import)]
  froms = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
  assert not imports
  assert froms == ["bitnet_jax.config"]


def variants_of(name):
  return runpy.run_path(str(FOLDER / f"{name}.py"))["VARIANTS"]


@pytest.mark.parametrize("name", NAMES)
def test_resolved_configs_are_those_of_the_golden_files(name):
  """UPDATE_GOLDEN=1 writes them: all keys of one variant, and differences.

  A key that came later need not be in them while it has its default.
  """
  loaded = {v: load(f"{name}:{v}") for v in variants_of(name)}
  found = {variant: flatten(config) for variant, config in loaded.items()}
  first, *others = found
  content = {first: found[first]}
  for variant in others:
    content[variant] = {
      key: value
      for key, value in found[variant].items()
      if value != found[first][key]
    }
  path = GOLDEN / f"{name}.json"
  if os.environ.get("UPDATE_GOLDEN") == "1":
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
  golden = json.loads(path.read_text())
  needed = flatten(without_later(loaded[first])).keys() | golden[first].keys()
  content[first] = {k: v for k, v in found[first].items() if k in needed}
  assert golden == json.loads(json.dumps(content))


def images(name, folder):
  kind = name.split("_")[0]
  if kind not in IMAGES:
    return {}
  shape, classes = IMAGES[kind]
  rng = np.random.default_rng(0)
  arrays = {}
  for split in ("train", "test"):
    arrays[f"x_{split}"] = rng.integers(0, 256, (200, *shape), np.uint8)
    arrays[f"y_{split}"] = (np.arange(200) % classes).astype(np.uint8)
  np.savez(folder / "made_up.npz", **arrays)
  # Of two examples a class a smaller share would be none.
  fraction = {"data.valid_fraction": 0.3} if classes == 100 else {}
  return {"data.source": f"file:{folder / 'made_up.npz'}"} | fraction


def pairs(folder):
  for split, language in itertools.product(("val", "train"), ("en", "de")):
    (folder / f"{split}.{language}").write_text("a word\nand others\n" * 10)
  return {
    "data.source": f"file:{folder}/{{split}}.{{lang}}",
    "data.split_names": (("valid", "val"),),
  }


def labelled(folder, columns=("sentence",)):
  for split in ("train", "dev"):
    rows = [("label", *columns)]
    rows += [("yes", "good", "news"), ("no", "bad", "news")] * 10
    lines = ["\t".join(row[: 1 + len(columns)]) for row in rows]
    (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
  return {"data.source": f"file:{folder}/{{split}}.tsv"}


def citations(folder):
  rng = np.random.default_rng(0)
  np.savez(
    folder / "graph.npz",
    edges=rng.integers(0, 12, (20, 2)),
    features=rng.integers(0, 2, (12, 8)),
    labels=np.arange(12) % 3,
    train_idx=np.arange(6),
    val_idx=np.arange(6, 9),
    test_idx=np.arange(9, 12),
  )
  return {
    "data.source": f"file:{folder / 'graph.npz'}",
    "data.batch_size": 1,
    "data.num_classes": 3,
  }


@pytest.fixture
def source(tmp_path):
  """Returns ``source(config_name)``: a source of the same form, made up."""

  def source(name):
    task = task_of(name)
    if task == "classification":
      return images(name, tmp_path) | ASKED.get(name, {})
    if name == "pairs":
      return BYTES | labelled(tmp_path, ("sentence1", "sentence2"))
    made = {
      "translation": pairs,
      "text_classification": labelled,
      "node_classification": citations,
    }
    files = made[task](tmp_path) if task in made else {}
    return TEXTS.get(task, {}) | files | ASKED.get(name, {})

  return source


def take_steps(config, steps):
  """Returns the losses of the first steps, and the kernels before and after."""
  experiment = build(config)
  losses = []
  with experiment.activate():
    state, train_step = experiment.init(), experiment.train_step()
    before = jax.tree.map(np.asarray, state.params)
    for step in range(steps):
      batch = place_batch(experiment.data.train_batch(step), experiment.mesh)
      state, metrics = train_step(state, batch, experiment.train_key())
      losses.append(float(metrics["loss"]))
  return losses, before, jax.tree.map(np.asarray, state.params)


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[pytest.mark.slow] * (name != "digits_mlp"))
    for name in NAMES
  ],
)
def test_trains_with_every_kind_of_recipe(name, source):
  small = SMALL.get(load(name)["model"]["name"], {})
  first = {}
  for recipe in (*PROBED, OTHERS[NAMES.index(name) % len(OTHERS)]):
    overrides = {
      "data.batch_size": 16,
      **source(name),
      **small,
      "quant.recipe": recipe,
      "total_steps": 2,
      "total_epochs": None,
      "optim.warmup_steps": 0,
      "mesh.data": 1,
    }
    losses, before, after = take_steps(load(name, overrides), 1)
    assert np.isfinite(losses).all()
    first[recipe] = losses[0]
    for path, kernel in traverse_util.flatten_dict(before, sep="/").items():
      if path.endswith("kernel"):
        moved = traverse_util.flatten_dict(after, sep="/")[path] - kernel
        assert np.abs(moved).max() > 0, (recipe, path)
  assert len({first[recipe] for recipe in PROBED}) == len(PROBED)


@pytest.mark.parametrize(
  ("name", "variant", "shape", "expected"),
  [
    ("mnist_mlp", "S", (28, 28, 1), 101_770),
    ("mnist_cnn", "S", (28, 28, 1), None),
    ("cifar10_cnn", "B", (32, 32, 3), None),
  ],
)
def test_number_of_parameters_is_what_the_docstring_says(
  name, variant, shape, expected
):
  config = flags.load_config(f"{FOLDER / name}.py:{variant}")
  settings = parse_settings(config, TASKS)
  model = registry.get_family(settings.model.name).module(
    settings.model.make(num_classes=10), "b158"
  )
  x = jax.ShapeDtypeStruct((1, *shape), np.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
  n = count_params(params)
  text = (FOLDER / f"{name}.py").read_text().split('"""')[1]
  number, unit = re.search(r"about ([\d.]+) (\w+)", text).groups()
  scale = {"thousand": 1e3, "million": 1e6}[unit]
  # "About" leaves a tenth.
  assert abs(n / (float(number) * scale) - 1) < 0.1, n
  assert expected in (None, n)
