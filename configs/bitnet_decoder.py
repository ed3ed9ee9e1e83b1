"""Llama-like ternary decoders, 99 million to 3.9 billion parameters.

The sizes "99M" and "190M" follow Spectra (2407.12327), "700M" to "3.9B" BitNet
b1.58 (2402.17764), and "2B4T" BitNet b1.58 2B4T (2504.12285), with the recipe
"bitnet_2b4t" and embeddings and output layer in full precision. Learning rate
and weight decay have two stages (2402.17764, training tips). Choose a corpus
and a vocabulary by `--config.data.source` and `--config.data.tokenizer`.

python experiments/train.py --config=configs/bitnet_decoder.py \
  --workdir=runs/bitnet-decoder
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "99M": dict(hidden=512, num_layers=16, num_heads=8, mlp_width=1280),
  "190M": dict(hidden=768, num_layers=16, num_heads=12, mlp_width=2048),
  "700M": dict(hidden=1536, num_layers=24, num_heads=24, mlp_width=4096),
  "1.3B": dict(hidden=2048, num_layers=24, num_heads=32, mlp_width=5460),
  "3B": dict(hidden=3200, num_layers=26, num_heads=32, mlp_width=8640),
  "3.9B": dict(hidden=3200, num_layers=26, num_heads=32, mlp_width=12800),
  "2B4T": dict(
    hidden=2560,
    num_layers=30,
    num_heads=20,
    num_kv_heads=5,
    mlp_width=6912,
    feed_forward="relu2_gated",
    sub_norm=True,
  ),
}


def get_config(variant: str = "700M") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("causal_lm", "decoder")
  c.total_steps = 100000
  c.log_every = 10
  c.eval_every = c.checkpoint_every = c.statistics_every = 1000
  c.data.update(
    source="tfds:c4/en",
    batch_size=512,
    eval_batch_size=512,
    tokenizer="unigram",
    vocab_size=32000,
    seq_len=2048,
  )
  c.model.update(
    rotary_base=500_000.0 if variant == "2B4T" else 10_000.0,
    max_length=2048,
    remat="products",
    dtype="bfloat16",
    **{"num_kv_heads": sizes["num_heads"], **sizes},
  )
  c.quant.update(
    recipe="bitnet_2b4t" if variant == "2B4T" else "b158",
    rules=(("head", "float"),),
  )
  c.optim.update(
    learning_rate=0.0015,
    schedule="two_stage",
    warmup_steps=375,
    second_learning_rate=1e-3,
    weight_decay=0.1,
    b2=0.95,
    clip_norm=1.0,
  )
  c.mesh.update(data=1, fsdp=-1)
  return c
