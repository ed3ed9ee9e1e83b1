"""Graph networks that tell which random generator made a graph.

Four generators, all with about twice as many edges as nodes; nodes bring their
degree, and whatever else there is to know is in the edges.

python experiments/train.py --config=configs/graphs_gnn.py:gcn \
  --workdir=runs/graphs-gcn

The same with sgc, sage and gat; and with graphs of your own, one .npz file
each: --config.data.source=file:FOLDER.
"""

import ml_collections
from ml_collections import config_dict

VARIANTS = {
  "gcn": dict(kind="gcn", width=64, depth=2, heads=1),
  "sgc": dict(kind="sgc", width=64, depth=2, heads=1),
  "sage": dict(kind="sage", width=64, depth=2, heads=1),
  "gat": dict(kind="gat", width=64, depth=2, heads=4),
}


def get_config(variant: str = "gcn") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant is {variant!r}, not one of {list(VARIANTS)}")
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.total_steps = config_dict.placeholder(int)
  c.total_epochs = 40
  c.log_every = 50
  c.eval_every = 100
  c.checkpoint_every = 200
  c.statistics_every = 100
  c.steps_per_dispatch = 20
  c.init_from = config_dict.placeholder(str)
  c.distill = dict(
    teacher=config_dict.placeholder(str),
    weight=0.5,
    temperature=2.0,
    features=(),
  )
  c.task = dict(name="graph_classification", label_smoothing=0.0)
  c.data = dict(
    source="embedded:graphs",
    batch_size=32,
    eval_batch_size=config_dict.placeholder(int),
    num_classes=4,
    valid_fraction=0.1,
    test_fraction=0.2,
    split_seed=0,
    max_degree=12,
    row_normalize=False,
    node_budget=config_dict.placeholder(int),
    edge_budget=config_dict.placeholder(int),
  )
  c.model = dict(
    name="gnn",
    steps=2,
    dropout=0.0,
    pooling="mean",
    init="glorot_uniform",
    dtype="float32",
    param_dtype="float32",
    **VARIANTS[variant],
  )
  c.quant = dict(
    recipe="b158",
    rules=() if variant == "sgc" else (("head", "float"),),
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
    schedule="cosine",
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
