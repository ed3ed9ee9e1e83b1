"""Ternary encoder on tasks of GLUE: sentences, pairs of them, and scores.

python experiments/train.py --config=configs/glue_encoder.py:sst2 \
  --workdir=runs/sst2 --config.data.source=file:DATA/sst2_{split}.tsv.gz

The test labels of GLUE are hidden: "test" is left out. MRPC and QQP are judged
by the F1 of their positive class. Other files than those of GLUE may call the
label of STS-B otherwise (`--config.data.label=score`).

To start from a masked language model, give its folder, and its vocabulary:
`--config.init_from=runs/wikitext2-encoder
--config.data.tokenizer=tokenizers:runs/wikitext2-encoder/tokenizer.json`.
"""

import ml_collections
from ml_collections import config_dict

# Names of the text columns, and what a task is judged by. Labels are numbers if
# that is a correlation.
VARIANTS = {
  "cola": (("sentence",), "accuracy"),
  "sst2": (("sentence",), "accuracy"),
  "mrpc": (("sentence1", "sentence2"), "f1"),
  "qqp": (("question1", "question2"), "f1"),
  "rte": (("sentence1", "sentence2"), "accuracy"),
  "stsb": (("sentence1", "sentence2"), "pearson"),
  "wnli": (("sentence1", "sentence2"), "accuracy"),
}


def get_config(variant: str = "sst2") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant is {variant!r}, not one of {list(VARIANTS)}")
  columns, metric = VARIANTS[variant]
  regression = metric == "pearson"
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.total_steps = config_dict.placeholder(int)
  c.total_epochs = 1
  c.log_every = 100
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
  c.task = dict(
    name="text_classification", label_smoothing=0.0, regression=regression
  )
  c.data = dict(
    source=f"tfds:glue/{variant}",
    batch_size=32,
    eval_batch_size=128,
    split_names=(),
    valid_fraction=0.0,
    test_fraction=0.0,
    split_seed=0,
    data_dir=config_dict.placeholder(str),
    tokenizer="wordpiece",
    vocab_size=8000,
    lowercase=config_dict.placeholder(bool),
    columns=columns,
    label="label",
    class_names=(),
    seq_len=64,
    too_long="cut",
  )
  c.model = dict(
    name="encoder",
    num_types=2,
    pooling="mean",
    head_dim=config_dict.placeholder(int),
    feed_forward="swiglu",
    norm="rms_norm",
    norm_eps=1e-5,
    sub_norm=False,
    use_bias=False,
    positions="rotary",
    rotary_base=10_000.0,
    max_length=64,
    dropout=0.1,
    scan_layers=True,
    remat="none",
    dtype="float32",
    param_dtype="float32",
    hidden=128,
    num_layers=4,
    num_heads=4,
    num_kv_heads=4,
    mlp_width=384,
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
    learning_rate=0.001,
    schedule="cosine",
    warmup_steps=200,
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
  c.checkpoint = dict(
    keep_last=2,
    keep_best=1,
    metric=f"valid/{metric}",
    mode="max",
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
