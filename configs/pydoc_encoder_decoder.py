"""Ternary T5-style span corruption on the help texts of Python.

python experiments/train.py --config=configs/pydoc_encoder_decoder.py \
  --workdir=runs/pydoc-encoder-decoder
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "S": dict(
    hidden=96, num_layers=2, num_heads=4, mlp_width=256, num_decoder_layers=2
  ),
}


def get_config(variant: str = "S") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("span_corruption", "encoder_decoder")
  c.update(total_steps=450, steps_per_dispatch=10)
  c.task.num_sentinels = 16
  c.data.update(
    source="embedded:pydoc",
    batch_size=32,
    valid_fraction=0.1,
    test_fraction=0.1,
    tokenizer="bpe",
    vocab_size=1024,
    seq_len=96,
  )
  c.model.update(
    tie_embeddings=True,
    max_length=128,
    num_kv_heads=sizes["num_heads"],
    **sizes,
  )
  c.optim.update(learning_rate=0.004, warmup_steps=50, clip_norm=1.0)
  return c
