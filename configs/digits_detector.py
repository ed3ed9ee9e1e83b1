"""Ternary detector of handwritten digits on canvases of one to four digits.

python experiments/train.py --config=configs/digits_detector.py \
  --workdir=runs/digits-detector
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "S": dict(channels=(8, 16, 32), width=64),
  "B": dict(channels=(16, 32, 64), width=128),
}


def get_config(variant: str = "S") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("detection", "detector")
  c.total_epochs = 40
  c.data.update(
    source="embedded:digits",
    batch_size=64,
    valid_fraction=0.1,
    test_fraction=0.2,
    canvas=48,
    object_sizes=(8, 16),
  )
  c.model.update(**sizes)
  c.quant.rules = (("head", "float"),)
  c.optim.learning_rate = 3e-3
  return c
