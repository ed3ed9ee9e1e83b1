"""Ternary decoder on the help texts of Python, in subword tokens.

python experiments/train.py --config=configs/pydoc_decoder.py \
  --workdir=runs/pydoc-decoder
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "S": dict(hidden=96, num_layers=3, num_heads=4, mlp_width=256),
  "B": dict(hidden=256, num_layers=4, num_heads=4, mlp_width=1024),
  "2b4t": dict(
    hidden=96,
    num_layers=3,
    num_heads=4,
    mlp_width=256,
    feed_forward="relu2_gated",
    sub_norm=True,
  ),
}


def get_config(variant: str = "S") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("causal_lm", "decoder")
  c.update(total_steps=500, steps_per_dispatch=10)
  c.data.update(
    source="embedded:pydoc",
    batch_size=16,
    valid_fraction=0.1,
    test_fraction=0.1,
    tokenizer="bpe",
    vocab_size=1024,
    seq_len=128,
  )
  c.model.update(
    tie_embeddings=True,
    max_length=256,
    num_kv_heads=sizes["num_heads"],
    **sizes,
  )
  c.quant.recipe = "bitnet_2b4t" if variant == "2b4t" else "b158"
  c.optim.update(learning_rate=0.004, warmup_steps=50, clip_norm=1.0)
  return c
