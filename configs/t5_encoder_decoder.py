"""T5 v1.1 sizes with ternary layers, by span corruption.

"base" is that of "When are 1.58 bits enough?" (2411.05882) as the authors'
training code has it, with rotary positions in place of relative biases.

python experiments/train.py --config=configs/t5_encoder_decoder.py \
  --workdir=runs/t5-encoder-decoder
"""

import ml_collections
from ml_collections import config_dict

VARIANTS = {
  "small": dict(
    hidden=512,
    num_layers=8,
    num_heads=6,
    num_kv_heads=6,
    mlp_width=1024,
    head_dim=64,
    num_decoder_layers=8,
  ),
  "base": dict(
    hidden=768,
    num_layers=12,
    num_heads=12,
    num_kv_heads=12,
    mlp_width=2048,
    head_dim=64,
    num_decoder_layers=12,
  ),
}


def get_config(variant: str = "base") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant is {variant!r}, not one of {list(VARIANTS)}")
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.total_steps = 65536
  c.total_epochs = config_dict.placeholder(int)
  c.log_every = 50
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
  c.task = dict(
    name="span_corruption",
    label_smoothing=0.0,
    z_loss=0.0,
    noise_density=0.15,
    mean_span=3.0,
    num_sentinels=100,
  )
  c.data = dict(
    source="tfds:c4/en",
    batch_size=128,
    eval_batch_size=config_dict.placeholder(int),
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
    seq_len=512,
    packing="stream",
  )
  c.model = dict(
    name="encoder_decoder",
    tie_embeddings=False,
    feed_forward="geglu",
    norm="rms_norm",
    norm_eps=1e-5,
    sub_norm=False,
    use_bias=False,
    positions="rotary",
    rotary_base=10_000.0,
    max_length=512,
    dropout=0.0,
    scan_layers=True,
    remat="none",
    dtype="bfloat16",
    param_dtype="float32",
    **VARIANTS[variant],
  )
  c.quant = dict(
    recipe="b158",
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
    learning_rate=0.002,
    schedule="cosine",
    warmup_steps=10000,
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
