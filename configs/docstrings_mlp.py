"""Wide MLP with a ternary head: which module is a docstring from?

The documents are docstrings of eight modules of Python's library.

python experiments/train.py --config=configs/docstrings_mlp.py \
  --workdir=runs/docstrings
"""

import ml_collections
from ml_collections import config_dict

VARIANTS = {"S": dict(width=256), "B": dict(width=1024)}


def get_config(variant: str = "S") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant is {variant!r}, not one of {list(VARIANTS)}")
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.total_steps = config_dict.placeholder(int)
  c.total_epochs = 15
  c.log_every = 50
  c.eval_every = 320
  c.checkpoint_every = 640
  c.statistics_every = 320
  c.steps_per_dispatch = 16
  c.init_from = config_dict.placeholder(str)
  c.distill = dict(
    teacher=config_dict.placeholder(str),
    weight=0.5,
    temperature=2.0,
    features=(),
  )
  c.task = dict(name="documents", label_smoothing=0.0)
  c.data = dict(
    source="embedded:docstrings",
    column=config_dict.placeholder(str),
    label="label",
    batch_size=16,
    eval_batch_size=256,
    tokenizer="wordpiece",
    vocab_size=2_000,
    special_tokens=True,
    weighting="mean",
    valid_fraction=0.1,
    test_fraction=0.2,
    split_seed=0,
    data_dir=config_dict.placeholder(str),
  )
  c.model = dict(
    name="wide_mlp",
    dropout=0.5,
    dtype="float32",
    param_dtype="float32",
    **VARIANTS[variant],
  )
  c.quant = dict(
    recipe="b158",
    rules=(),
    weights=_no_overrides(),
    acts=_no_overrides(),
    norm=config_dict.placeholder(str),
    ste=config_dict.placeholder(str),
    bias_in_product=config_dict.placeholder(bool),
    compute=config_dict.placeholder(str),
    backward=config_dict.placeholder(str),
    phase_in=dict(steps=0, start=0, shape="linear", optimizer="keep"),
  )
  c.optim = dict(
    name="adamw",
    learning_rate=3e-3,
    schedule="linear",
    warmup_steps=0,
    final_fraction=0.0,
    decay_fraction=0.2,
    stage_fraction=0.5,
    second_learning_rate=config_dict.placeholder(float),
    second_weight_decay=0.0,
    weight_decay=0.0,
    decay_mask="kernels",
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    clip_norm=config_dict.placeholder(float),
    accumulate_steps=1,
    gradient_dtype="float32",
  )
  c.mesh = dict(data=-1, fsdp=1, tensor=1)
  c.sharding_rules = (
    ("batch", ("data", "fsdp")),
    ("embed", "fsdp"),
    ("mlp", "tensor"),
  )
  c.checkpoint = dict(
    keep_last=2, keep_best=1, metric="valid/accuracy", mode="max"
  )
  c.early_stopping = dict(patience=config_dict.placeholder(int))
  c.profile = dict(start=config_dict.placeholder(int), steps=5)
  return c


def _no_overrides():
  return dict(
    measure=config_dict.placeholder(str),
    range=config_dict.placeholder(tuple),
    scale=config_dict.placeholder(str),
    eps=config_dict.placeholder(float),
    rounding=config_dict.placeholder(str),
  )
