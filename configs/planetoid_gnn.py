"""Graph networks on the citation networks Cora, CiteSeer and PubMed.

What is the topic of a paper, told those of 20 papers of each topic and who
cites whom? The public split of Planetoid; from a file of arrays, or from the
published files through TFDS (data.source "tfds:planetoid/cora"):

python experiments/train.py --config=configs/planetoid_gnn.py:gcn \
  --workdir=runs/planetoid-gcn \
  --config.data.source=file:$DATA/planetoid/cora.npz

The variant sgc has the settings of the study in "When are 1.58 bits enough?"
(arXiv 2411.05882): its one layer is ternary, and PyTorch's initializer matters.
The others, gcn, sage and gat, get features that add up to 1 and much dropout,
as in their papers.
"""

import ml_collections
from ml_collections import config_dict

# What GCN, GraphSAGE and GAT share; found on the validation nodes of Cora.
_CONVOLUTIONS = dict(
  epochs=200,
  dispatch=1,
  row_normalize=True,
  optim=dict(
    learning_rate=0.005,
    schedule="cosine",
    weight_decay=1.0,
    decay_mask="kernels",
  ),
)
VARIANTS = {
  "sgc": dict(
    epochs=100,
    dispatch=20,
    row_normalize=False,
    model=dict(kind="sgc", width=64, heads=1, dropout=0.0, init="torch"),
    optim=dict(
      learning_rate=0.01,
      schedule="constant",
      weight_decay=0.01,
      decay_mask="all",
    ),
  ),
  "gcn": dict(
    model=dict(
      kind="gcn", width=64, heads=1, dropout=0.8, init="glorot_uniform"
    ),
    **_CONVOLUTIONS,
  ),
  "sage": dict(
    model=dict(
      kind="sage", width=64, heads=1, dropout=0.8, init="glorot_uniform"
    ),
    **_CONVOLUTIONS,
  ),
  "gat": dict(
    model=dict(
      kind="gat", width=64, heads=8, dropout=0.6, init="glorot_uniform"
    ),
    **_CONVOLUTIONS,
  ),
}


def get_config(variant: str = "sgc") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant is {variant!r}, not one of {list(VARIANTS)}")
  chosen = VARIANTS[variant]
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.total_steps = config_dict.placeholder(int)
  c.total_epochs = chosen["epochs"]
  c.log_every = 20
  c.eval_every = 50
  c.checkpoint_every = 200
  c.statistics_every = 100
  c.steps_per_dispatch = chosen["dispatch"]
  c.init_from = config_dict.placeholder(str)
  c.distill = dict(
    teacher=config_dict.placeholder(str),
    weight=0.5,
    temperature=2.0,
    features=(),
  )
  c.task = dict(name="node_classification", label_smoothing=0.0)
  c.data = dict(
    source="tfds:planetoid/cora",
    batch_size=1,
    eval_batch_size=config_dict.placeholder(int),
    num_classes=config_dict.placeholder(int),
    train_per_class=config_dict.placeholder(int),
    valid_fraction=0.0,
    split_seed=0,
    row_normalize=chosen["row_normalize"],
    data_dir=config_dict.placeholder(str),
  )
  c.model = dict(
    name="gnn",
    depth=1,
    steps=2,
    pooling="none",
    dtype="float32",
    param_dtype="float32",
    **chosen["model"],
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
    warmup_steps=0,
    final_fraction=0.0,
    decay_fraction=0.2,
    stage_fraction=0.5,
    second_learning_rate=config_dict.placeholder(float),
    second_weight_decay=0.0,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    clip_norm=config_dict.placeholder(float),
    accumulate_steps=1,
    gradient_dtype="float32",
    **chosen["optim"],
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
