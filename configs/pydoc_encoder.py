"""Ternary masked language model on the help texts of Python, in bytes.

The bytes around a masked byte reveal it, so a model soon learns to attend to
them; with subword tokens that takes thousands of steps.

python experiments/train.py --config=configs/pydoc_encoder.py \
  --workdir=runs/pydoc-encoder
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "S": dict(hidden=96, num_layers=3, num_heads=4, mlp_width=256),
}


def get_config(variant: str = "S") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("masked_lm", "encoder")
  c.update(total_steps=400, steps_per_dispatch=10)
  c.data.update(
    source="embedded:pydoc",
    batch_size=32,
    valid_fraction=0.1,
    test_fraction=0.1,
    tokenizer="bytes",
    seq_len=128,
  )
  c.model.update(
    num_types=0,
    max_length=128,
    num_kv_heads=sizes["num_heads"],
    **sizes,
  )
  c.optim.update(learning_rate=0.004, warmup_steps=50, clip_norm=1.0)
  return c
