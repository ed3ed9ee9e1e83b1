"""Ternary vision transformer on CIFAR-10, with crops and flips.

python experiments/train.py --config=configs/cifar10_vit.py \
  --workdir=runs/cifar10-vit
"""

import ml_collections
from ml_collections import config_dict

VARIANTS = {
  "S": dict(hidden=64, num_layers=4, num_heads=4, mlp_width=256),
  "M": dict(hidden=128, num_layers=6, num_heads=4, mlp_width=512),
  "B": dict(hidden=256, num_layers=8, num_heads=8, mlp_width=1024),
}


def get_config(variant: str = "S") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant is {variant!r}, not one of {list(VARIANTS)}")
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.total_steps = config_dict.placeholder(int)
  c.total_epochs = 20
  c.log_every = 50
  c.eval_every = 500
  c.checkpoint_every = 500
  c.statistics_every = 500
  c.steps_per_dispatch = 20
  c.init_from = config_dict.placeholder(str)
  c.distill = dict(
    teacher=config_dict.placeholder(str),
    weight=0.5,
    temperature=2.0,
    features=(),
  )
  c.task = dict(name="classification", label_smoothing=0.0)
  c.data = dict(
    source="tfds:cifar10",
    batch_size=128,
    eval_batch_size=512,
    num_classes=10,
    valid_fraction=0.05,
    test_fraction=0.2,
    split_seed=0,
    standardize=True,
    random_crop=4,
    random_flip=True,
    data_dir=config_dict.placeholder(str),
    image_size=config_dict.placeholder(int),
  )
  c.model = dict(
    name="vit",
    patch=4,
    num_kv_heads=VARIANTS[variant]["num_heads"],
    head_dim=config_dict.placeholder(int),
    feed_forward="gelu",
    norm="layer_norm",
    norm_eps=1e-6,
    sub_norm=False,
    use_bias=True,
    positions="learned",
    rotary_base=10_000.0,
    max_length=64,
    dropout=0.0,
    scan_layers=True,
    remat="none",
    dtype="float32",
    param_dtype="float32",
    **VARIANTS[variant],
  )
  c.quant = dict(
    recipe="b158",
    rules=(("patches|head", "float"),),
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
    learning_rate=1e-3,
    schedule="cosine",
    warmup_steps=300,
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
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("mlp", "tensor"),
    ("vocab", None),
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
