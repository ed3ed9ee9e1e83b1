"""Ternary vision transformer on the embedded handwritten digits.

python experiments/train.py --config=configs/digits_vit.py \
  --workdir=runs/digits-vit
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "S": dict(hidden=64, num_layers=4, num_heads=4, mlp_width=256),
  "B": dict(hidden=192, num_layers=6, num_heads=6, mlp_width=768),
}


def get_config(variant: str = "S") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("classification", "vit")
  c.update(total_epochs=40, steps_per_dispatch=20)
  c.data.update(
    source="embedded:digits",
    batch_size=64,
    num_classes=10,
    valid_fraction=0.1,
    test_fraction=0.2,
  )
  c.model.update(
    patch=2,
    num_kv_heads=sizes["num_heads"],
    max_length=16,
    dropout=0.1,
    **sizes,
  )
  c.quant.rules = (("patches|head", "float"),)
  c.optim.update(learning_rate=3e-3, warmup_steps=50)
  return c
