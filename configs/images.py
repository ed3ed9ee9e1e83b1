"""Ternary CNN that classifies your own pictures.

The classes, the splits, the size of the pictures and the length of the run are
decided from the data, and said at the start. A key that you give is not
decided: `--config.data.image_size=48`.

python experiments/train.py --config=configs/images.py \
  --config.data.source=file:pictures.npz --workdir=runs/pictures

S takes minutes on two cores, M an hour there or minutes on an accelerator, L
hours on accelerators. docs/your-data.md describes the files.
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "S": dict(channels=(16, 32, 64), dense_width=128),
  "M": dict(channels=(32, 64, 128), convs_per_block=2, dense_width=256),
  "L": dict(channels=(64, 128, 256, 512), convs_per_block=2, dense_width=512),
}


def get_config(variant: str = "S") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("classification", "cnn", budget=variant)
  c.evaluations = 10
  c.model.update(dropout=0.1, **sizes)
  c.quant.rules = (("head", "float"),)
  c.optim.update(learning_rate=3e-3, warmup_fraction=0.05)
  return c
