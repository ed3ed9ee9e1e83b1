"""The small language models of "BitNet b1.58 Reloaded" (2407.09527).

The sizes 6M, 12M, 24M, 48M and 100M follow the authors' configs and counts.
Every linear layer is ternary, including the output layer. Choose a corpus and a
vocabulary of 8,000 tokens by `--config.data.source` and
`--config.data.tokenizer`.

python experiments/train.py --config=configs/reloaded_decoder.py \
  --workdir=runs/reloaded-decoder
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "6M": dict(hidden=32, num_layers=4, num_heads=1, mlp_width=14336),
  "12M": dict(hidden=64, num_layers=4, num_heads=1, mlp_width=14336),
  "24M": dict(hidden=128, num_layers=4, num_heads=2, mlp_width=14336),
  "48M": dict(hidden=256, num_layers=4, num_heads=4, mlp_width=14336),
  "100M": dict(hidden=512, num_layers=4, num_heads=8, mlp_width=14336),
}


def get_config(variant: str = "12M") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("causal_lm", "decoder")
  c.total_epochs = 10
  c.eval_every = c.checkpoint_every = c.statistics_every = 1000
  c.steps_per_dispatch = 10
  c.data.update(
    source="file:data/books/{split}.txt.xz",
    batch_size=128,
    eval_batch_size=32,
    tokenizer="unigram",
    vocab_size=8000,
    documents="whole",
    seq_len=1024,
  )
  c.model.update(max_length=1024, num_kv_heads=sizes["num_heads"], **sizes)
  c.optim.update(warmup_steps=100, weight_decay=0.05, clip_norm=1.0)
  return c
