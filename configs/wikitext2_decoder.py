"""Ternary decoder of about 1 million parameters on WikiText-2.

`word_perplexity` counts the 217,646 words of the validation split as they are
in the file, including line ends.

python experiments/train.py --config=configs/wikitext2_decoder.py \
  --workdir=runs/wikitext2-decoder
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "S": dict(hidden=128, num_layers=4, num_heads=4, mlp_width=384),
  "M": dict(hidden=256, num_layers=4, num_heads=4, mlp_width=1024),
}


def get_config(variant: str = "S") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("causal_lm", "decoder")
  c.total_steps = 6000
  c.log_every = 100
  c.eval_every = c.checkpoint_every = 1000
  c.statistics_every = 500
  c.steps_per_dispatch = 25
  c.data.update(
    source="file:data/wikitext2/{split}.txt.xz",
    batch_size=16,
    eval_batch_size=32,
    tokenizer="bpe",
    vocab_size=2048,
    documents="whole",
    seq_len=128,
  )
  c.model.update(
    tie_embeddings=True,
    max_length=1024,
    num_kv_heads=sizes["num_heads"],
    **sizes,
  )
  c.optim.update(learning_rate=0.003, warmup_steps=200, clip_norm=1.0)
  return c
