"""The small language models of "BitNet b1.58 Reloaded" (2407.09527).

Sizes 6M, 12M, 24M, 48M and 100M, as the authors' configs and counts say;
every linear layer is ternary, the output layer too. `--config.data.source` and
`--config.data.tokenizer` name a corpus and a vocabulary of 8,000 pieces.

python experiments/train.py --config=configs/reloaded_decoder.py \
  --workdir=runs/reloaded-decoder
"""

import ml_collections
from ml_collections import config_dict

VARIANTS = {
  "6M": dict(
    hidden=32, num_layers=4, num_heads=1, num_kv_heads=1, mlp_width=14336
  ),
  "12M": dict(
    hidden=64, num_layers=4, num_heads=1, num_kv_heads=1, mlp_width=14336
  ),
  "24M": dict(
    hidden=128, num_layers=4, num_heads=2, num_kv_heads=2, mlp_width=14336
  ),
  "48M": dict(
    hidden=256, num_layers=4, num_heads=4, num_kv_heads=4, mlp_width=14336
  ),
  "100M": dict(
    hidden=512, num_layers=4, num_heads=8, num_kv_heads=8, mlp_width=14336
  ),
}


def get_config(variant: str = "12M") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant is {variant!r}, not one of {list(VARIANTS)}")
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.total_steps = config_dict.placeholder(int)
  c.total_epochs = 10
  c.log_every = 50
  c.eval_every = 1000
  c.checkpoint_every = 1000
  c.statistics_every = 1000
  c.steps_per_dispatch = 10
  c.init_from = config_dict.placeholder(str)
  c.distill = dict(
    teacher=config_dict.placeholder(str),
    weight=0.5,
    temperature=2.0,
    features=(),
  )
  c.task = dict(name="causal_lm", label_smoothing=0.0, z_loss=0.0)
  c.data = dict(
    source="file:data/books/{split}.txt.xz",
    batch_size=128,
    eval_batch_size=32,
    split_names=(),
    valid_fraction=0.0,
    test_fraction=0.0,
    split_seed=0,
    data_dir=config_dict.placeholder(str),
    tokenizer="unigram",
    vocab_size=8000,
    lowercase=config_dict.placeholder(bool),
    documents="whole",
    marker="<|endoftext|>",
    column="text",
    skip_empty=False,
    seq_len=1024,
    packing="stream",
    eval_stride=config_dict.placeholder(int),
  )
  c.model = dict(
    name="decoder",
    tie_embeddings=False,
    head_dim=config_dict.placeholder(int),
    feed_forward="swiglu",
    norm="rms_norm",
    norm_eps=1e-5,
    sub_norm=False,
    use_bias=False,
    positions="rotary",
    rotary_base=10_000.0,
    max_length=1024,
    dropout=0.0,
    scan_layers=True,
    remat="none",
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
    learning_rate=0.001,
    schedule="cosine",
    warmup_steps=100,
    final_fraction=0.0,
    decay_fraction=0.2,
    stage_fraction=0.5,
    second_learning_rate=config_dict.placeholder(float),
    second_weight_decay=0.0,
    weight_decay=0.05,
    decay_mask="kernels",
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    clip_norm=1.0,
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
