"""Ternary translation from English to German on Multi30k.

python experiments/train.py --config=configs/multi30k_encoder_decoder.py \
  --workdir=runs/multi30k-encoder-decoder
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "S": dict(
    hidden=128, num_layers=2, num_heads=4, mlp_width=512, num_decoder_layers=2
  ),
  "M": dict(
    hidden=256, num_layers=3, num_heads=4, mlp_width=1024, num_decoder_layers=3
  ),
}


def get_config(variant: str = "S") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("translation", "encoder_decoder")
  c.total_epochs = 5
  c.log_every = 100
  c.eval_every = c.checkpoint_every = 1000
  c.statistics_every = 500
  c.steps_per_dispatch = 20
  c.task.label_smoothing = 0.1
  c.data.update(
    source="file:data/multi30k/{split}.{lang}.gz",
    batch_size=64,
    split_names=(("valid", "val"), ("test", "test_2016_flickr")),
    tokenizer="unigram",
    vocab_size=4000,
    languages=("en", "de"),
    input_len=40,
    target_len=40,
  )
  c.model.update(
    tie_embeddings=True,
    max_length=64,
    dropout=0.1,
    num_kv_heads=sizes["num_heads"],
    **sizes,
  )
  c.optim.update(learning_rate=0.002, warmup_steps=400, clip_norm=1.0)
  return c
