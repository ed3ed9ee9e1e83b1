"""WideMLP with a ternary head on the text classification sets of TextGCN.

The set-up of "When are 1.58 bits enough?" (arXiv 2411.05882), whose authors
train 100 epochs: sub-words of BERT, a mean of 1,024-wide embeddings, ReLU,
dropout, and a linear layer, the only one that is ternary. DATA is a folder with
the files of the sets, and the vocabulary of BERT:

python experiments/train.py --config=configs/text_mlp.py:r8 \
  --workdir=runs/text-r8 --config.data.source=textgcn:$DATA/text_gcn/R8.raw \
  --config.data.tokenizer=bert:$DATA/tokenizers/bert_base_uncased_vocab.txt
"""

import ml_collections
from ml_collections import config_dict

# The names that the sets have in the files.
VARIANTS = {
  "20ng": "20ng.clean",
  "mr": "mr.raw",
  "ohsumed": "ohsumed.raw",
  "r52": "R52.raw",
  "r8": "R8.raw",
}


def get_config(variant: str = "r8") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant is {variant!r}, not one of {list(VARIANTS)}")
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.total_steps = config_dict.placeholder(int)
  c.total_epochs = 100
  c.log_every = 100
  c.eval_every = 0
  c.checkpoint_every = 10_000
  c.statistics_every = 1_000
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
    source=f"textgcn:data/text_gcn/{VARIANTS[variant]}",
    column=config_dict.placeholder(str),
    label="label",
    batch_size=16,
    eval_batch_size=256,
    tokenizer="bert:data/tokenizers/bert_base_uncased_vocab.txt",
    vocab_size=config_dict.placeholder(int),
    special_tokens=True,
    weighting="mean",
    valid_fraction=0.0,
    test_fraction=0.0,
    split_seed=0,
    data_dir=config_dict.placeholder(str),
  )
  c.model = dict(
    name="wide_mlp",
    width=1024,
    dropout=0.5,
    dtype="float32",
    param_dtype="float32",
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
    learning_rate=1e-3,
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
    keep_last=2, keep_best=0, metric="valid/accuracy", mode="max"
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
