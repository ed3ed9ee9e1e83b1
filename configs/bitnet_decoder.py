"""Llama-like ternary decoders, 99 million to 3.9 billion parameters.

Sizes: "99M" and "190M" as Spectra (2407.12327), "700M" to "3.9B" as BitNet
b1.58 (2402.17764), "2B4T" as BitNet b1.58 2B4T (2504.12285), with recipe
"bitnet_2b4t" and embeddings and output layer in full precision. Two stages of
learning rate and weight decay (2402.17764, training tips). A corpus and a
vocabulary are named by `--config.data.source` and `--config.data.tokenizer`.

python experiments/train.py --config=configs/bitnet_decoder.py \
  --workdir=runs/bitnet-decoder
"""

import ml_collections
from ml_collections import config_dict

VARIANTS = {
  "99M": dict(
    hidden=512,
    num_layers=16,
    num_heads=8,
    num_kv_heads=8,
    mlp_width=1280,
    feed_forward="swiglu",
    sub_norm=False,
  ),
  "190M": dict(
    hidden=768,
    num_layers=16,
    num_heads=12,
    num_kv_heads=12,
    mlp_width=2048,
    feed_forward="swiglu",
    sub_norm=False,
  ),
  "700M": dict(
    hidden=1536,
    num_layers=24,
    num_heads=24,
    num_kv_heads=24,
    mlp_width=4096,
    feed_forward="swiglu",
    sub_norm=False,
  ),
  "1.3B": dict(
    hidden=2048,
    num_layers=24,
    num_heads=32,
    num_kv_heads=32,
    mlp_width=5460,
    feed_forward="swiglu",
    sub_norm=False,
  ),
  "3B": dict(
    hidden=3200,
    num_layers=26,
    num_heads=32,
    num_kv_heads=32,
    mlp_width=8640,
    feed_forward="swiglu",
    sub_norm=False,
  ),
  "3.9B": dict(
    hidden=3200,
    num_layers=26,
    num_heads=32,
    num_kv_heads=32,
    mlp_width=12800,
    feed_forward="swiglu",
    sub_norm=False,
  ),
  "2B4T": dict(
    hidden=2560,
    num_layers=30,
    num_heads=20,
    num_kv_heads=5,
    mlp_width=6912,
    feed_forward="relu2_gated",
    sub_norm=True,
  ),
}


def get_config(variant: str = "700M") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant is {variant!r}, not one of {list(VARIANTS)}")
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.total_steps = 100000
  c.total_epochs = config_dict.placeholder(int)
  c.log_every = 10
  c.eval_every = 1000
  c.checkpoint_every = 1000
  c.statistics_every = 1000
  c.steps_per_dispatch = 1
  c.init_from = config_dict.placeholder(str)
  c.distill = dict(
    teacher=config_dict.placeholder(str),
    weight=0.5,
    temperature=2.0,
    features=(),
  )
  c.task = dict(name="causal_lm", label_smoothing=0.0, z_loss=0.0)
  c.data = dict(
    source="tfds:c4/en",
    batch_size=512,
    eval_batch_size=512,
    split_names=(),
    valid_fraction=0.0,
    test_fraction=0.0,
    split_seed=0,
    data_dir=config_dict.placeholder(str),
    tokenizer="unigram",
    vocab_size=32000,
    lowercase=config_dict.placeholder(bool),
    documents=config_dict.placeholder(str),
    marker="<|endoftext|>",
    column="text",
    skip_empty=False,
    seq_len=2048,
    packing="stream",
    eval_stride=config_dict.placeholder(int),
  )
  c.model = dict(
    name="decoder",
    tie_embeddings=False,
    head_dim=config_dict.placeholder(int),
    norm="rms_norm",
    norm_eps=1e-5,
    use_bias=False,
    positions="rotary",
    rotary_base=500_000.0 if variant == "2B4T" else 10_000.0,
    max_length=2048,
    dropout=0.0,
    scan_layers=True,
    remat="products",
    dtype="bfloat16",
    param_dtype="float32",
    **VARIANTS[variant],
  )
  c.quant = dict(
    recipe="bitnet_2b4t" if variant == "2B4T" else "b158",
    rules=(("head", "float"),),
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
    learning_rate=0.0015,
    schedule="two_stage",
    warmup_steps=375,
    final_fraction=0.0,
    decay_fraction=0.2,
    stage_fraction=0.5,
    second_learning_rate=1e-3,
    second_weight_decay=0.0,
    weight_decay=0.1,
    decay_mask="kernels",
    b1=0.9,
    b2=0.95,
    eps=1e-8,
    clip_norm=1.0,
    accumulate_steps=1,
    gradient_dtype="float32",
  )
  c.mesh = dict(data=1, fsdp=-1, tensor=1)
  c.sharding_rules = (
    ("batch", ("data", "fsdp")),
    ("embed", "fsdp"),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("mlp", "tensor"),
    ("vocab", "tensor"),
  )
  c.checkpoint = dict(keep_last=2, keep_best=1, metric="valid/loss", mode="min")
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
