"""Ternary CNN on the embedded handwritten digits.

python experiments/train.py --config=configs/digits_cnn.py \
  --workdir=runs/digits-cnn
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "S": dict(channels=(16, 32), dense_width=64),
  "B": dict(channels=(32, 64), dense_width=256),
}


def get_config(variant: str = "S") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("classification", "cnn")
  c.total_epochs = 40
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
