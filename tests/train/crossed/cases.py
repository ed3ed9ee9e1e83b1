"""Which options are crossed, in which small experiments.

Compiling is what a case costs, so that a case has as many options as can be
used together, and few cases meet most pairs of them.
"""

import copy
import itertools
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import pytest

from bitnet_jax.train import runner
from bitnet_jax.train.config.settings import parse_settings
from bitnet_jax.train.tasks.registry import TASKS
from tests.train import tiny
from tests.train.conftest import CONFIGS

STEPS = 6
STOPPED_AT = 3  # Between two evaluations and before the first checkpoint.
_RUN = {
  "total_steps": STEPS,
  "total_epochs": None,
  "log_every": 1,
  "eval_every": 2,
  "checkpoint_every": 4,
  "statistics_every": 0,
  "steps_per_dispatch": 1,
  "data.batch_size": 8,
  "data.eval_batch_size": 200,
  "mesh.data": 1,
}
_TEXTS = [
  f"day {chr(65 + i % 26)} of {chr(97 + i * 7 % 26)}" for i in range(40)
]
_PAIRS = {
  "en": [f"one {i} two {i % 3}" for i in range(30)],
  "de": [f"a {i} b {i % 3}" for i in range(30)],
}

# By name, what an option changes; it may suit some families only.
OPTIONS: dict[str, dict[str, Any]] = {
  "float": {"quant__recipe": "float", "quant__rules": ()},
  "median": {"quant__recipe": "b158_median"},
  "int8 weights": {"quant__recipe": "int8"},
  "2B4T": {"quant__recipe": "bitnet_2b4t"},
  "stochastic weights": {"quant__weights__rounding": "stochastic"},
  "scale a channel": {"quant__weights__scale": "channel"},
  "clipped gradient": {"quant__ste": "clipped"},
  "RMS norm": {"quant__norm": "rms_norm"},
  "backward int8": {"quant__backward": "int8"},
  "backward bfloat16": {"quant__backward": "bfloat16"},
  "a rule": {"quant__rules": (("head|.*/query", "int8"),)},
  "slow phase-in": {
    "quant__phase_in__start": 1,
    "quant__phase_in__steps": 3,
    "quant__phase_in__shape": "tanh",
  },
  "late switch": {
    "quant__phase_in__start": 3,
    "quant__phase_in__optimizer": "reset",
  },
  "keep two best": {"checkpoint__keep_best": 2},
  "best loss": {"checkpoint__metric": "valid/loss", "checkpoint__mode": "min"},
  "patience": {"early_stopping__patience": 2, "eval_every": 1},
  "checkpoint each step": {"checkpoint_every": 1},
  "accumulation": {"optim__accumulate_steps": 2},
  "dispatch": {"steps_per_dispatch": 2},
  "data parallel": {"mesh__data": 2},
  "fully sharded": {"mesh__fsdp": 2},
  "tensor parallel": {"mesh__tensor": 2},
  "whole vocabulary": {
    "sharding_rules": (
      ("batch", ("data", "fsdp")),
      ("embed", "fsdp"),
      ("mlp", "tensor"),
    )
  },
  "bfloat16 gradients": {"optim__gradient_dtype": "bfloat16"},
  "bfloat16 model": {"model__dtype": "bfloat16"},
  "bfloat16 parameters": {"model__param_dtype": "bfloat16"},
  "scan": {"model__scan_layers": True, "model__num_layers": 2},
  "remat": {"model__remat": "full"},
  "dropout": {"model__dropout": 0.3},
  "label smoothing": {"task__label_smoothing": 0.1},
  "z-loss": {"task__z_loss": 1e-3},
  "batch norm": {"model__batch_norm": True},
  "augmentation": {"data__random_crop": 1, "data__random_flip": True},
  "adam": {"optim__name": "adam"},
  "all decay": {"optim__decay_mask": "all", "optim__weight_decay": 0.1},
  "clipping": {"optim__clip_norm": 0.5},
  "warm-up": {"optim__warmup_steps": 2},
  "two stages": {
    "optim__schedule": "two_stage",
    "optim__second_learning_rate": 1e-3,
  },
  "code statistics": {"statistics_every": 2},
  "packed documents": {"data__packing": "documents"},
  "stride": {"data__eval_stride": 4},
  "predictions": {"task__predictions": 6},
  "beams": {"task__num_beams": 2},
  "regression": {
    "task__regression": True,
    "data__label": "number",
    "checkpoint__metric": "valid/loss",
  },
  "tf-idf": {"data__weighting": "tfidf"},
  # Of another case, see ``Case.earlier``.
  "init_from": {},
  "teacher": {},
}


class Case(NamedTuple):
  """Options that are used together.

  Attributes:
    family: kind of experiment, see ``make_config``.
    options: names in ``OPTIONS``.
    earlier: name of the case with the run for "init_from" and "teacher".
  """

  family: str
  options: tuple[str, ...]
  earlier: str | None = None


CASES = {
  "mlp": Case(
    "mlp",
    (
      "median",
      "keep two best",
      "dropout",
      "label smoothing",
      "dispatch",
      "warm-up",
      "clipping",
      "patience",
    ),
  ),
  "mlp sharded": Case(
    "mlp",
    (
      "stochastic weights",
      "fully sharded",
      "accumulation",
      "bfloat16 gradients",
      "augmentation",
      "all decay",
      "patience",
      "checkpoint each step",
      "code statistics",
    ),
  ),
  "mlp tuned": Case(
    "mlp",
    (
      "init_from",
      "teacher",
      "backward int8",
      "scale a channel",
      "late switch",
      "adam",
      "best loss",
      "dispatch",
    ),
    earlier="mlp",
  ),
  "cnn": Case(
    "cnn",
    (
      "batch norm",
      "dropout",
      "accumulation",
      "augmentation",
      "data parallel",
      "a rule",
      "clipped gradient",
      "keep two best",
    ),
  ),
  "cnn tuned": Case(
    "cnn",
    (
      "batch norm",
      "init_from",
      "teacher",
      "bfloat16 model",
      "slow phase-in",
      "RMS norm",
      "label smoothing",
      "two stages",
      "tensor parallel",
    ),
    earlier="cnn",
  ),
  "detector": Case(
    "detector",
    (
      "batch norm",
      "dropout",
      "accumulation",
      "data parallel",
      "bfloat16 model",
      "slow phase-in",
      "keep two best",
    ),
  ),
  "documents": Case(
    "documents",
    (
      "adam",
      "dispatch",
      "dropout",
      "label smoothing",
      "tf-idf",
      "late switch",
      "patience",
      "warm-up",
    ),
  ),
  "nodes": Case(
    "nodes",
    (
      "dropout",
      "label smoothing",
      "data parallel",
      "RMS norm",
      "best loss",
      "checkpoint each step",
      "clipping",
    ),
  ),
  "graphs": Case(
    "graphs",
    (
      "accumulation",
      "data parallel",
      "int8 weights",
      "slow phase-in",
      "dispatch",
      "all decay",
      "patience",
    ),
  ),
  "causal": Case(
    "causal",
    (
      "scan",
      "remat",
      "bfloat16 model",
      "z-loss",
      "label smoothing",
      "accumulation",
      "fully sharded",
      "whole vocabulary",
      "tensor parallel",
      "stride",
      "keep two best",
    ),
  ),
  "masked": Case(
    "masked",
    (
      "predictions",
      "accumulation",
      "a rule",
      "backward bfloat16",
      "dropout",
      "z-loss",
      "bfloat16 parameters",
      "late switch",
    ),
  ),
  "labels": Case(
    "labels",
    ("init_from", "float", "dropout", "label smoothing", "dispatch"),
    earlier="masked",
  ),
  "translation": Case(
    "translation",
    (
      "beams",
      "accumulation",
      "dropout",
      "label smoothing",
      "data parallel",
      "2B4T",
    ),
  ),
}


# Those that compile for long; what they cross is worth it now and then.
SLOW = (
  "causal",
  "cnn",
  "cnn tuned",
  "detector",
  "nodes",
  "graphs",
  "documents",
  "masked",
  "mlp tuned",
  "labels",
  "translation",
)


def covered(names: Iterable[str]) -> set[tuple[str, str]]:
  """Returns the pairs of options that are used together in any case."""
  return {
    pair
    for name in names
    for pair in itertools.combinations(sorted(CASES[name].options), 2)
  }


def of_families(*families: str) -> list[Any]:
  """Returns the names of the cases of some families, to parametrize with."""
  return [
    pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW))
    for name, case in CASES.items()
    if case.family in families
  ]


def make_config(
  case: Case, folder: pathlib.Path, earlier: pathlib.Path | None = None
) -> dict[str, Any]:
  """Returns the config of a case.

  Args:
    case: which.
    folder: where its data goes.
    earlier: the run for "init_from" and "teacher".
  """
  config = _FAMILIES[case.family](folder)
  config["model"]["dropout"] = 0.0
  for option in case.options:
    changes = OPTIONS[option]
    if option == "init_from":
      changes = {"init_from": str(earlier)}
    elif option == "teacher":
      changes = {"distill__teacher": str(earlier)}
    before = copy.deepcopy(config)
    tiny.override(config, changes)
    assert config != before, f"{option} changes nothing"
    parse_settings(config, TASKS)  # Every key is one of this kind of run.
  return config


def _load(name, **overrides):
  changes = {key.replace("__", "."): v for key, v in overrides.items()}
  return runner.load_config(str(CONFIGS / name), _RUN | changes)


def _mlp(folder):
  del folder
  return _load("digits_mlp.py", model__width=8, model__depth=1)


def _cnn(folder):
  del folder
  return _load("digits_cnn.py", model__channels=(4,), model__dense_width=8)


def _detector(folder):
  del folder
  return _load(
    "digits_detector.py",
    data__canvas=16,
    data__object_sizes=(4, 8),
    model__channels=(4, 4),
    model__convs_per_block=1,
    model__width=8,
  )


def _nodes(folder):
  del folder
  batch = {"data__batch_size": 1, "data__eval_batch_size": None}
  return _load("karate_gnn.py:gat", **batch, model__width=4, model__heads=2)


def _graphs(folder):
  del folder
  return _load("graphs_gnn.py:gcn", model__width=8, model__depth=1)


def _documents(folder):
  return _load(
    "docstrings_mlp.py",
    data__source=_labelled(folder),
    data__column="text",
    data__tokenizer="bytes",
    data__vocab_size=None,
    model__width=8,
    data__eval_batch_size=16,
  )


def _texts(name, folder):
  source = tiny.write(folder / "texts.txt", _TEXTS)
  return _tiny(name, source)


def _labels(folder):
  return _tiny("classification", _labelled(folder))


def _translation(folder):
  for language, texts in _PAIRS.items():
    tiny.write(folder / f"pairs.{language}", texts)
  return _tiny("translation", f"file:{folder}/pairs.{{lang}}")


def _labelled(folder):
  lines = [
    f"{text}\t{'ab'[i % 2]}\t{i * i % 17}" for i, text in enumerate(_TEXTS)
  ]
  return tiny.write(folder / "labelled.tsv", ["text\tlabel\tnumber", *lines])


def _tiny(name, source):
  run = {"total_steps": STEPS, "eval_every": 2, "checkpoint_every": 4}
  return tiny.make(name, source, data__eval_batch_size=16, **run)


_FAMILIES = {
  "mlp": _mlp,
  "cnn": _cnn,
  "detector": _detector,
  "nodes": _nodes,
  "graphs": _graphs,
  "documents": _documents,
  "causal": lambda folder: _texts("decoder", folder),
  "masked": lambda folder: _texts("encoder", folder),
  "spans": lambda folder: _texts("encoder_decoder", folder),
  "labels": _labels,
  "translation": _translation,
}
