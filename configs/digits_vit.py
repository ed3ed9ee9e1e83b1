"""Ternary vision transformer on the embedded handwritten digits.

python experiments/train.py --config=configs/digits_vit.py \
  --workdir=runs/digits-vit
"""

import ml_collections
from ml_collections import config_dict

VARIANTS = {
  "S": dict(hidden=64, num_layers=4, num_heads=4, mlp_width=256),
  "B": dict(hidden=192, num_layers=6, num_heads=6, mlp_width=768),
}


def get_config(variant: str = "S") -> ml_collections.ConfigDict:
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
  c.task = dict(name="classification", label_smoothing=0.0)
  c.data = dict(
    source="embedded:digits",
    batch_size=64,
    eval_batch_size=config_dict.placeholder(int),
    num_classes=10,
    valid_fraction=0.1,
    test_fraction=0.2,
    split_seed=0,
    standardize=True,
    random_crop=0,
    random_flip=False,
    data_dir=config_dict.placeholder(str),
    image_size=config_dict.placeholder(int),
  )
  c.model = dict(
    name="vit",
    patch=2,
    num_kv_heads=VARIANTS[variant]["num_heads"],
    head_dim=config_dict.placeholder(int),
    feed_forward="gelu",
    norm="layer_norm",
    norm_eps=1e-6,
    sub_norm=False,
    use_bias=True,
    positions="learned",
    rotary_base=10_000.0,
    max_length=16,
    dropout=0.1,
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
    learning_rate=3e-3,
    schedule="cosine",
    warmup_steps=50,
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
