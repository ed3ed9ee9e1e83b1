"""Graph networks on Zachary's karate club, the smallest of graphs.

Which of its two clubs did each of 34 members join, told that of four members of
each club? The network sees the friendships, and of a member nothing else.

python experiments/train.py --config=configs/karate_gnn.py:gcn \
  --workdir=runs/karate-gcn

The same with sgc, sage and gat.
"""

import ml_collections
from ml_collections import config_dict

VARIANTS = {
  "gcn": dict(kind="gcn", width=16, dropout=0.2),
  "sgc": dict(kind="sgc", width=16, dropout=0.0),
  "sage": dict(kind="sage", width=16, dropout=0.2),
  "gat": dict(kind="gat", width=16, dropout=0.2),
}


def get_config(variant: str = "gcn") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant is {variant!r}, not one of {list(VARIANTS)}")
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.total_steps = config_dict.placeholder(int)
  c.total_epochs = 100
  c.log_every = 20
  c.eval_every = 20
  c.checkpoint_every = 100
  c.statistics_every = 100
  c.steps_per_dispatch = 1
  c.init_from = config_dict.placeholder(str)
  c.distill = dict(
    teacher=config_dict.placeholder(str),
    weight=0.5,
    temperature=2.0,
    features=(),
  )
  c.task = dict(name="node_classification", label_smoothing=0.0)
  c.data = dict(
    source="embedded:karate",
    batch_size=1,
    eval_batch_size=config_dict.placeholder(int),
    num_classes=2,
    train_per_class=4,
    valid_fraction=0.3,
    split_seed=0,
    row_normalize=False,
    data_dir=config_dict.placeholder(str),
  )
  c.model = dict(
    name="gnn",
    depth=1,
    heads=4,
    steps=2,
    pooling="none",
    init="glorot_uniform",
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
    learning_rate=1e-2,
    schedule="constant",
    warmup_steps=0,
    final_fraction=0.0,
    decay_fraction=0.2,
    stage_fraction=0.5,
    second_learning_rate=config_dict.placeholder(float),
    second_weight_decay=0.0,
    weight_decay=0.01,
    decay_mask="kernels",
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    clip_norm=config_dict.placeholder(float),
    accumulate_steps=1,
    gradient_dtype="float32",
  )
  c.mesh = dict(data=1, fsdp=1, tensor=1)
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
