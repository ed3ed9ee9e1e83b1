"""Every config key with its default, by task and model.

The classes that the groups construct document the keys: those in
``train.config``, ``train.optimizer`` and ``train.tasks``, and the models in
``models``.

To add a key, add it here as ``Later`` and as a field of its class. It is then a
key of all configs and a flag. Older runs are read with its default, and it is
part of a run's identity only if its value differs from the default.
"""

from typing import Any, NamedTuple

from bitnet_jax import choices


class Later(NamedTuple):
  """The default of a key that older runs do not have.

  Attributes:
    default: the value in older runs; a type if the key is unset by default.
  """

  default: Any


# Here and below, a type stands for a key that is unset by default.
_SOURCE = {
  "source": str,
  "batch_size": int,
  "eval_batch_size": int,
  "valid_fraction": 0.0,
  "split_seed": 0,
}
_CUT = {"test_fraction": 0.0}
_PREPARED = {"data_dir": str}
_TOKENIZER = {"tokenizer": str, "vocab_size": int}
_TEXT = _SOURCE | _CUT | _PREPARED | _TOKENIZER
_TEXT |= {"split_names": (), "lowercase": bool}
_STREAM = _TEXT | {
  "documents": str,
  "marker": "<|endoftext|>",
  "column": "text",
  "skip_empty": False,
  "seq_len": int,
  "packing": "stream",
  "hold_out": Later("documents"),
}
_PREDICTION = {"label_smoothing": 0.0, "z_loss": 0.0}

# By the name of a task: the keys of the groups "task" and "data".
TASKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
  "classification": (
    {"label_smoothing": 0.0},
    {
      **_SOURCE,
      **_CUT,
      **_PREPARED,
      "num_classes": int,
      "standardize": True,
      "random_crop": 0,
      "random_flip": False,
      "image_size": int,
      "image_fit": Later("crop"),
      "in_memory": Later(bool),
      "label": Later("label"),
      "columns": Later(()),
      "train_examples": Later(int),
    },
  ),
  "detection": (
    {"box_weight": 1.0},
    {
      **_SOURCE,
      **_CUT,
      **_PREPARED,
      "canvas": int,
      "object_sizes": (8, 16),
      "objects": (1, 4),
    },
  ),
  "node_classification": (
    {"label_smoothing": 0.0},
    {
      **_SOURCE,
      **_PREPARED,
      "num_classes": int,
      "train_per_class": int,
      "row_normalize": False,
    },
  ),
  "graph_classification": (
    {"label_smoothing": 0.0},
    {
      **_SOURCE,
      **_CUT,
      "num_classes": int,
      "max_degree": 12,
      "row_normalize": False,
      "node_budget": int,
      "edge_budget": int,
    },
  ),
  "documents": (
    {"label_smoothing": 0.0},
    {
      **_SOURCE,
      **_CUT,
      **_PREPARED,
      **_TOKENIZER,
      "column": str,
      "label": "label",
      "special_tokens": True,
      "weighting": "mean",
    },
  ),
  "text_classification": (
    {"label_smoothing": 0.0, "regression": False},
    {
      **_TEXT,
      "columns": ("sentence",),
      "label": "label",
      "class_names": (),
      "seq_len": int,
      "too_long": "cut",
    },
  ),
  "causal_lm": (
    {**_PREDICTION},
    {**_STREAM, "eval_stride": int},
  ),
  "masked_lm": (
    {
      **_PREDICTION,
      "mask_rate": 0.15,
      "mask_share": 0.8,
      "random_share": 0.1,
      "predictions": Later(int),
    },
    {**_STREAM},
  ),
  "span_corruption": (
    {
      **_PREDICTION,
      "noise_density": 0.15,
      "mean_span": 3.0,
      "num_sentinels": 100,
    },
    {**_STREAM},
  ),
  "translation": (
    {
      **_PREDICTION,
      "num_beams": 4,
      "length_penalty": 1.0,
      "scores": ("bleu", "chrf"),
    },
    {
      **_TEXT,
      "languages": tuple,
      "input_len": int,
      "target_len": int,
      "too_long": "cut",
    },
  ),
}

_MODEL = {"dropout": 0.0, "dtype": "float32", "param_dtype": "float32"}
_TRANSFORMER = _MODEL | {
  "hidden": int,
  "num_layers": int,
  "num_heads": int,
  "num_kv_heads": int,
  "head_dim": int,
  "mlp_width": int,
  "feed_forward": "swiglu",
  "sub_norm": False,
  "norm": "rms_norm",
  "norm_eps": 1e-5,
  "use_bias": False,
  "positions": "rotary",
  "rotary_base": 10_000.0,
  "max_length": int,
  "scan_layers": True,
  "remat": "none",
}

# By the name of a model: the keys of the group "model".
MODELS: dict[str, dict[str, Any]] = {
  "mlp": {**_MODEL, "width": int, "depth": int},
  "wide_mlp": {**_MODEL, "width": int},
  "cnn": {
    **_MODEL,
    "channels": tuple,
    "convs_per_block": 1,
    "dense_width": int,
    "batch_norm": False,
  },
  "detector": {
    **_MODEL,
    "channels": tuple,
    "convs_per_block": 2,
    "width": int,
    "batch_norm": False,
  },
  "gnn": {
    **_MODEL,
    "kind": str,
    "width": int,
    "depth": 1,
    "heads": 1,
    "steps": 2,
    "init": "glorot_uniform",
    "pooling": "none",
  },
  "vit": {
    **_TRANSFORMER,
    "patch": int,
    "feed_forward": "gelu",
    "norm": "layer_norm",
    "norm_eps": 1e-6,
    "use_bias": True,
    "positions": "learned",
  },
  "encoder": {**_TRANSFORMER, "num_types": 2, "pooling": Later("first")},
  "decoder": {**_TRANSFORMER, "tie_embeddings": False},
  "encoder_decoder": {
    **_TRANSFORMER,
    "num_decoder_layers": int,
    "tie_embeddings": False,
  },
}

_RULES = (("batch", ("data", "fsdp")), ("embed", "fsdp"), ("mlp", "tensor"))
_TRANSFORMER_RULES = (
  ("batch", ("data", "fsdp")),
  ("embed", "fsdp"),
  ("heads", "tensor"),
  ("kv_heads", "tensor"),
  ("mlp", "tensor"),
  ("vocab", "tensor"),
)
# A tensor axis may not divide the classes, and so the head, of a ViT.
_VIT_RULES = (*_TRANSFORMER_RULES[:-1], ("vocab", None))


# Keys that the data decide in a config with a budget, see ``train.decisions``,
# each with a valid value that stands in for it before. ``OPTIONAL`` keys may
# also be decided to be ``None``.
OPEN: dict[str, Any] = {
  "total_steps": 1,
  "log_every": 1,
  "eval_every": 1,
  "checkpoint_every": 1,
  "statistics_every": 1,
  "steps_per_dispatch": 1,
  "task.regression": False,
  "data.source": "",
  "data.batch_size": 1,
  "data.valid_fraction": 0.0,
  "data.test_fraction": 0.0,
  "data.hold_out": "documents",
  "data.columns": (),
  "data.label": "label",
  "data.column": "text",
  "data.languages": (),
  "data.tokenizer": "bytes",
  "data.seq_len": 8,
  "data.input_len": 8,
  "data.target_len": 8,
  "optim.warmup_steps": 0,
  "checkpoint.metric": "valid/loss",
  "checkpoint.mode": "min",
  "checkpoint.keep_best": 1,
}
OPTIONAL = (
  "data.num_classes",
  "data.vocab_size",
  "data.image_size",
  "data.train_per_class",
)


def all_keys(task: str, model: str) -> dict[str, Any]:
  """Returns all keys of a task and a model with their defaults, in groups.

  Raises:
    ValueError: for an unknown task or model.
  """
  task_keys, data_keys = choices.pick(TASKS, task, key="task.name")
  model_keys = choices.pick(MODELS, model, key="model.name")
  best = {"metric": "valid/accuracy", "mode": "max"}
  if "z_loss" in task_keys:  # The task predicts tokens.
    best = {"metric": "valid/loss", "mode": "min"}
  if task == "detection":
    best = {"metric": "valid/map50", "mode": "max"}
  rules = _TRANSFORMER_RULES if "num_heads" in model_keys else _RULES
  return {
    "seed": 0,
    "budget": Later(str),
    "total_steps": int,
    "total_epochs": int,
    "log_every": 50,
    "eval_every": 100,
    "checkpoint_every": 200,
    "statistics_every": 100,
    "steps_per_dispatch": 1,
    "evaluations": Later(int),
    "init_from": str,
    "init_mapping": Later(()),
    "task": {"name": task, **task_keys},
    "data": data_keys,
    "model": {"name": model, **model_keys},
    "quant": _quant(),
    "optim": _optim(),
    "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
    "sharding_rules": _VIT_RULES if model == "vit" else rules,
    "checkpoint": {"keep_last": 2, "keep_best": 1, **best},
    "early_stopping": {"patience": int},
    "profile": {"start": int, "steps": 5},
    "distill": {
      "teacher": str,
      "weight": 0.5,
      "temperature": 2.0,
      "features": (),
    },
  }


def _quant() -> dict[str, Any]:
  overrides = {
    "measure": str,
    "range": tuple,
    "scale": str,
    "eps": float,
    "rounding": str,
  }
  return {
    "recipe": "b158",
    "rules": (),
    "weights": dict(overrides),
    "acts": dict(overrides),
    "norm": str,
    "ste": str,
    "bias_in_product": bool,
    "compute": str,
    "backward": str,
    "phase_in": {
      "steps": 0,
      "start": 0,
      "shape": "linear",
      "optimizer": Later("keep"),
    },
  }


def _optim() -> dict[str, Any]:
  return {
    "name": "adamw",
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "warmup_steps": 0,
    "warmup_fraction": Later(float),
    "final_fraction": 0.0,
    "decay_fraction": 0.2,
    "stage_fraction": 0.5,
    "second_learning_rate": float,
    "second_weight_decay": 0.0,
    "weight_decay": 0.01,
    "decay_mask": "kernels",
    "b1": 0.9,
    "b2": 0.999,
    "eps": 1e-8,
    "clip_norm": float,
    "accumulate_steps": 1,
    "ema": Later(float),
    "gradient_dtype": "float32",
  }
