"""Ternary encoder-decoders of T5 v1.1 sizes, trained by span corruption.

"base" follows the authors' training code of "When are 1.58 bits enough?"
(2411.05882), with rotary positions in place of relative biases.

python experiments/train.py --config=configs/t5_encoder_decoder.py \
  --workdir=runs/t5-encoder-decoder
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "small": dict(
    hidden=512,
    num_layers=8,
    num_heads=6,
    mlp_width=1024,
    head_dim=64,
    num_decoder_layers=8,
  ),
  "base": dict(
    hidden=768,
    num_layers=12,
    num_heads=12,
    mlp_width=2048,
    head_dim=64,
    num_decoder_layers=12,
  ),
}


def get_config(variant: str = "base") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("span_corruption", "encoder_decoder")
  c.total_steps = 65536
  c.eval_every = c.checkpoint_every = c.statistics_every = 1000
  c.data.update(
    source="tfds:c4/en",
    batch_size=128,
    tokenizer="unigram",
    vocab_size=32000,
    seq_len=512,
  )
  c.model.update(
    feed_forward="geglu",
    max_length=512,
    dtype="bfloat16",
    num_kv_heads=sizes["num_heads"],
    **sizes,
  )
  c.quant.rules = (("head", "float"),)
  c.optim.update(
    learning_rate=0.002, warmup_steps=10000, weight_decay=0.0, clip_norm=1.0
  )
  return c
