"""Every mistake in a config is named before any work."""

import numpy as np
import pytest

from bitnet_jax.quantizers.recipe import RECIPES
from bitnet_jax.train.build import build
from bitnet_jax.train.config.quant_options import PhaseIn
from bitnet_jax.train.config.settings import parse_settings
from bitnet_jax.train.tasks.registry import TASKS

GROUPS = (
  "",
  "data",
  "model",
  "quant",
  "quant.weights",
  "quant.acts",
  "quant.phase_in",
  "optim",
  "mesh",
  "checkpoint",
  "early_stopping",
  "profile",
)


def group_of(config, path):
  for name in filter(None, path.split(".")):
    config = config[name]
  return config


def parse_all(config):
  """Parses a config, with the parts of ``quant`` that are parsed on use."""
  settings = parse_settings(config, TASKS)
  settings.quant.make_rules()
  return settings


@pytest.mark.parametrize("path", GROUPS)
def test_unknown_key_is_named_at_every_depth(make_config, path):
  config = make_config()
  group = group_of(config, path)
  group["unheard_of"] = 3
  key = f"{path}.unheard_of".lstrip(".")
  there = ", ".join(k for k in group if k not in ("unheard_of", "name"))[:20]
  with pytest.raises(
    ValueError, match=rf"^{key} is not a key .*is 3"
  ) as caught:
    parse_all(config)
  assert str(caught.value).split("keys are: ")[1]
  assert there.split(", ")[0] in str(caught.value)


@pytest.mark.parametrize("path", GROUPS)
def test_every_missing_key_is_named(make_config, path):
  for name in list(group_of(make_config(), path)):
    config = make_config()
    del group_of(config, path)[name]
    key = f"{path}.{name}".lstrip(".")
    expected = f"^{key} is missing"
    if key == "model.name":
      expected = "model is .*; it must be a group with a name"
    with pytest.raises(ValueError, match=expected):
      parse_all(config)


@pytest.mark.parametrize("path", GROUPS[1:])
def test_group_that_is_a_value_is_named(make_config, path):
  config = make_config()
  parent, _, name = path.rpartition(".")
  group_of(config, parent)[name] = 3
  with pytest.raises(ValueError, match=rf"^{path} is 3"):
    parse_all(config)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    # Of another type.
    ({"seed": 1.5}, "seed is 1.5, of type float; it must be int"),
    ({"seed": None}, "seed is None, .*it must be int"),
    ({"log_every": True}, "log_every is True, of type bool; it must be int"),
    ({"eval_every": "x"}, "eval_every is 'x', .* it must be int or None"),
    ({"data.standardize": 1}, "data.standardize is 1, .* it must be bool"),
    ({"data.source": None}, "data.source is None, .* it must be str"),
    ({"optim.learning_rate": "x"}, "optim.learning_rate is 'x', .* be float"),
    ({"model.width": 8.0}, "model.width is 8.0, .* it must be int"),
    (
      {"quant.weights.range": 1},
      r"quant.weights.range is 1, .*tuple\[int, int\]",
    ),
    ({"quant.weights.range": (1,)}, r"quant.weights.range is \(1,\)"),
    (
      {"quant.bias_in_product": 1},
      "quant.bias_in_product is 1, .* bool or None",
    ),
    # No such choice.
    (
      {"quant.recipe": "b185"},
      r"quant.recipe is 'b185', .* 'float', 'b158', .*mean 'b158'",
    ),
    (
      {"model.name": "mpl"},
      r"model.name is 'mpl', .* 'mlp', .*mean 'mlp'",
    ),
    ({"model.dtype": "int8"}, "model.dtype is 'int8', .* 'bfloat16'"),
    ({"model.param_dtype": "f32"}, "model.param_dtype is 'f32', .* 'float32'"),
    ({"optim.name": "lion"}, "optim.name is 'lion', .* 'adamw', 'adam'"),
    ({"optim.schedule": "step"}, "optim.schedule is 'step', .* 'cosine'"),
    (
      {"quant.weights.measure": "mean"},
      "quant.weights.measure is 'mean', .* 'absmean', 'absmedian', 'absmax'",
    ),
    (
      {"quant.acts.rounding": "up"},
      "quant.acts.rounding is 'up', .* 'nearest', 'stochastic'",
    ),
    (
      {"quant.acts.scale": "channel"},
      "quant.acts.scale is 'channel', .* 'tensor', 'token'$",
    ),
    (
      {"quant.weights.scale": "token"},
      "quant.weights.scale is 'token', .* 'tensor', 'channel'$",
    ),
    ({"quant.norm": "batch"}, "quant.norm is 'batch', .* 'layer_norm'"),
    ({"quant.ste": "hard"}, "quant.ste is 'hard', .* 'identity', 'clipped'"),
    ({"quant.compute": "int4"}, "quant.compute is 'int4', .* 'auto'"),
    (
      {"quant.phase_in.shape": "cos"},
      "quant.phase_in.shape is 'cos', .* 'linear', 'tanh'",
    ),
    ({"checkpoint.mode": "best"}, "checkpoint.mode is 'best', .* 'max', 'min'"),
    # Out of range.
    ({"seed": -1}, "seed is -1; it must be at least 0"),
    ({"total_steps": 0}, "total_steps is 0; it must be at least 1"),
    ({"log_every": 0}, "log_every is 0; it must be at least 1"),
    ({"eval_every": -1}, "eval_every is -1; it must be at least 0"),
    ({"checkpoint_every": -1}, "checkpoint_every is -1"),
    ({"statistics_every": -1}, "statistics_every is -1"),
    ({"data.batch_size": 0}, "data.batch_size is 0; it must be at least 1"),
    ({"data.eval_batch_size": 0}, "data.eval_batch_size is 0"),
    ({"data.num_classes": 0}, "data.num_classes is 0"),
    ({"data.image_size": 0}, "data.image_size is 0"),
    ({"data.random_crop": -1}, "data.random_crop is -1; .* at least 0"),
    ({"data.split_seed": -1}, "data.split_seed is -1; it must be at least 0"),
    ({"model.width": 0}, "model.width is 0; it must be at least 1"),
    ({"model.dropout": 1.0}, r"model.dropout is 1.0; it must lie in \[0, 1\)"),
    ({"quant.weights.range": (1, -1)}, r"quant.weights.range is \(1, -1\)"),
    ({"quant.acts.range": (-129, 1)}, r"quant.acts.range is \(-129, 1\)"),
    ({"quant.acts.eps": 0.0}, "quant.acts.eps is 0.0; it must be positive"),
    ({"quant.phase_in.steps": -1}, "quant.phase_in has steps -1"),
    ({"quant.phase_in.start": -1}, "quant.phase_in has steps 0 and start -1"),
    ({"early_stopping.patience": 0}, "early_stopping.patience is 0"),
    ({"profile.start": 0}, "profile.start is 0; it must be at least 1"),
    ({"profile.steps": 0}, "profile.steps is 0; it must be at least 1"),
    # Of no use together.
    (
      {"total_epochs": 3},
      "total_steps is 12 and total_epochs is 3; give exactly",
    ),
    ({"total_steps": None}, "total_steps is None and total_epochs is None"),
    (
      {"quant.recipe": "float", "quant.weights.eps": 0.1},
      r"quant.weights is \{'eps': 0.1\}, but the recipe leaves this operand",
    ),
    (
      {"quant.recipe": "trilm", "quant.acts.scale": "tensor"},
      r"quant.acts is .*'tensor'.*, but the recipe leaves this operand",
    ),
    (
      {"quant.recipe": "trilm", "quant.compute": "int8"},
      "quant.compute is 'int8', but the recipe leaves an operand in float",
    ),
    (
      {"quant.acts.rounding": "sign"},
      r"quant.acts.rounding 'sign' is for the range \(-1, 1\)",
    ),
    # Rules.
    (
      {"quant.rules": ("head",)},
      r"quant.rules has the entry 'head'; .* a pair",
    ),
    (
      {"quant.rules": (("head", 3),)},
      r"quant.rules has the entry \('head', 3\)",
    ),
    (
      {"quant.rules": (("head", "flaot"),)},
      r"quant.rules\['head'\] is 'flaot', .*mean 'float'",
    ),
    (
      {"quant.rules": (("(", "float"),)},
      r"quant.rules\['\('\]: the pattern is not a regular expression: missing",
    ),
  ],
  ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_mistake_names_key_value_and_choices(make_config, change, message):
  config = make_config()
  for key, value in change.items():
    *parents, last = key.split(".")
    group_of(config, ".".join(parents))[last] = value
  with pytest.raises(ValueError, match=f"^{message}"):
    parse_all(config)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (
      {"quant__rules": (("haed", "float"),)},
      r"the rule 'haed' applies to no layer; the layers are: layer_0, head",
    ),
    (
      {"quant__rules": ((".*", "float"), ("head", "b158"))},
      r"the rule 'head' applies to no layer; .*first rule that matches wins",
    ),
    (
      {"data__source": "embedded:iris"},
      "unknown source of arrays 'embedded:iris'",
    ),
    ({"data__source": "digits"}, "unknown source of arrays 'digits'"),
    ({"data__valid_fraction": 1.5}, "valid_fraction.* 1.5"),
    (
      {"data__valid_fraction": 0.0},
      "eval_every is 4, but embedded:digits has no validation split",
    ),
    (
      {"data__source": "embedded:xor", "data__num_classes": 2}
      | {"data__random_crop": 1},
      r"random_crop=1 needs images .* the shape \[4500, 4\]",
    ),
    ({"task__name": "classificaton"}, "task.name is 'classificaton', .*mean"),
    ({"task__label_smoothing": 1.0}, "task.label_smoothing is 1.0"),
    ({"checkpoint__metric": "valid/acc"}, "checkpoint.metric is 'valid/acc'"),
    (
      {"eval_every": None},
      "checkpoint.keep_best is 1, which needs evaluations, but eval_every is",
    ),
    (
      {"eval_every": None, "checkpoint__keep_best": 0}
      | {"early_stopping__patience": 2},
      "early_stopping.patience is 2, which needs evaluations",
    ),
    ({"optim__warmup_steps": 12}, "optim.warmup_steps is 12; .* than the 12"),
    (
      {"mesh__data": 3},
      "data.batch_size is 32, which is not a multiple of 3 .* x 1",
    ),
    (
      {"optim__accumulate_steps": 5},
      r"data.batch_size is 32, .* of 1 .* x 5 \(optim.accumulate_steps\)",
    ),
    (
      {"mesh__data": 8},
      "data.eval_batch_size is 100, which is not a multiple of the 8",
    ),
    ({"mesh__data": 16}, "mesh is .*16.* does not fit 8 devices"),
    ({"sharding_rules": ("batch",)}, "sharding_rules has the entry 'batch'"),
    (
      {"config_name": "digits_cnn", "model__channels": (2, 2, 2, 2)},
      "model.name is 'cnn', .*4 blocks, .*but the images are 8x8",
    ),
    (
      {"config_name": "digits_cnn", "data__source": "embedded:xor"}
      | {"data__num_classes": 2},
      r"model.name is 'cnn', which does not take inputs of the shape \(1, 4\)"
      " that embedded:xor has",
    ),
  ],
  ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_mistake_is_found_before_any_work(make_config, change, message):
  with pytest.raises(ValueError, match=message):
    build(make_config(**change))


def test_metric_names_are_those_of_an_evaluation(make_config):
  experiment = build(make_config())
  with experiment.activate():
    metrics = experiment.evaluator()("test", experiment.init())
  assert sorted(metrics) == sorted(experiment.task.metric_names)


def test_model_of_another_family_says_whose_keys_do_not_fit(make_config):
  with pytest.raises(ValueError, match=r"model.depth is not a key .*channels"):
    build(make_config(model__name="cnn"))


def test_number_of_classes_is_no_key_of_the_model(make_config):
  config = make_config()
  config["model"]["num_classes"] = 3
  with pytest.raises(
    ValueError, match=r"model.num_classes is not a key"
  ) as error:
    parse_settings(config, TASKS)
  assert "num_classes" not in str(error.value).split("keys are: ")[1]


def test_mlp_takes_images_and_features(make_config):
  assert build(make_config()).data.facts.example["inputs"].shape[1:] == (
    8,
    8,
    1,
  )
  xor = {"data__source": "embedded:xor", "data__num_classes": 2}
  assert build(make_config(**xor)).data.facts.example["inputs"].shape[1:] == (
    4,
  )


def test_numbers_of_the_config_reach_the_recipe(make_config):
  quant = make_config(
    quant__weights__measure="absmax",
    quant__weights__range=(-2, 1),
    quant__weights__scale="channel",
    quant__weights__eps=0.5,
    quant__acts__scale="tensor",
    quant__norm="none",
    quant__ste="clipped",
    quant__bias_in_product=True,
    quant__compute="int8",
    quant__rules=(("head", "float"),),
  )["quant"]
  rules = parse_settings(
    make_config() | {"quant": quant}, TASKS
  ).quant.make_rules()
  assert rules[0] == ("head", "float")
  pattern, recipe = rules[1]
  assert pattern == ".*"
  weights, acts = recipe.weights, recipe.acts
  assert (weights.measure, weights.range) == ("absmax", (-2, 1))
  assert (weights.axis, weights.eps) == (0, 0.5)
  assert (acts.measure, acts.range, acts.axis) == ("absmax", (-128, 127), None)
  assert (recipe.norm, recipe.ste) == (None, "clipped")
  assert (recipe.bias_in_product, recipe.compute) == (True, "int8")


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_without_overrides_is_the_one_of_that_name(make_config, name):
  settings = parse_settings(make_config(quant__recipe=name), TASKS)
  assert settings.quant.make_recipe() == RECIPES[name]


def test_lists_of_json_are_taken_for_tuples(make_config):
  rules = {
    "quant__rules": [["head", "float"]],
    "sharding_rules": [["a", ["b"]]],
  }
  config = make_config()
  config["quant"]["rules"] = rules["quant__rules"]
  config["sharding_rules"] = rules["sharding_rules"]
  settings = parse_settings(config, TASKS)
  assert settings.quant.rules == (("head", "float"),)
  assert settings.axis_rules() == (("a", ("b",)),)


def phase_in(steps, start, shape):
  return PhaseIn(steps=steps, start=start, shape=shape, optimizer="keep")


@pytest.mark.parametrize(
  ("phase_in", "expected"),
  [
    (phase_in(0, 0, "linear"), [None, None, None]),
    (phase_in(0, 1, "linear"), [0, None, None]),
    (phase_in(4, 0, "linear"), [0, 0.25, 0.5, 0.75, None]),
    (phase_in(2, 1, "linear"), [0, 0, 0.5, None, None]),
    (phase_in(2, 0, "tanh"), [0, np.tanh(1.25), None]),
  ],
)
def test_strength_by_step(phase_in, expected):
  actual = [phase_in.strength(step) for step in range(len(expected))]
  assert [s is None for s in actual] == [s is None for s in expected]
  for value, wanted in zip(actual, expected, strict=True):
    if wanted is not None:
      assert value == np.float32(wanted)
      assert value.dtype == np.float32


@pytest.mark.parametrize(
  ("epochs", "examples", "steps"), [(1, 64, 2), (1, 65, 3), (3, 65, 7)]
)
def test_epochs_are_rounded_up(make_config, epochs, examples, steps):
  settings = parse_settings(
    make_config(total_steps=None, total_epochs=epochs), TASKS
  )
  assert settings.count_steps(examples=examples) == steps
