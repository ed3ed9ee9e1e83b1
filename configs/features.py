"""Ternary MLP that classifies the rows of your own table of numbers.

The columns, the classes, the splits and the length of the run are decided from
the data, and said at the start. A key that you give is not decided:
`--config.data.label=species`.

python experiments/train.py --config=configs/features.py \
  --config.data.source=file:flowers.csv --workdir=runs/flowers

S takes minutes on two cores, M and L more. docs/your-data.md describes the
files.
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "S": dict(width=128, depth=2),
  "M": dict(width=512, depth=3),
  "L": dict(width=2048, depth=4),
}


def get_config(variant: str = "S") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("classification", "mlp", budget=variant)
  c.evaluations = 10
  c.model.update(dropout=0.1, **sizes)
  c.quant.rules = (("head", "float"),)
  c.optim.update(learning_rate=3e-3, warmup_fraction=0.05)
  return c
