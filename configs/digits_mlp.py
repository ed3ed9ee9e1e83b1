"""Ternary MLP on the embedded handwritten digits, a first run.

python experiments/train.py --config=configs/digits_mlp.py \
  --workdir=runs/digits
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {"S": dict(width=128, depth=2), "B": dict(width=512, depth=3)}


def get_config(variant: str = "S") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("classification", "mlp")
  c.update(total_epochs=60, steps_per_dispatch=20)
  c.data.update(
    source="embedded:digits",
    batch_size=64,
    num_classes=10,
    valid_fraction=0.1,
    test_fraction=0.2,
  )
  c.model.update(dropout=0.1, **sizes)
  c.quant.rules = (("head", "float"),)
  c.optim.learning_rate = 3e-3
  return c
