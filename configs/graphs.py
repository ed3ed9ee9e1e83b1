"""Ternary graph network that classifies your own graphs.

The classes, the splits and the length of the run are decided from the data, and
said at the start. A key that you give is not decided:
`--config.data.valid_fraction=0.2`.

python experiments/train.py --config=configs/graphs.py \
  --config.data.source=file:molecules --workdir=runs/molecules

S takes minutes on two cores, M and L more. docs/your-data.md describes the
files. The other kinds of networks are `--config.model.kind=sgc`, `sage`, `gat`.
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "S": dict(width=64, depth=2),
  "M": dict(width=128, depth=3),
  "L": dict(width=256, depth=4),
}


def get_config(variant: str = "S") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("graph_classification", "gnn", budget=variant)
  c.evaluations = 10
  c.model.update(kind="gcn", heads=4, pooling="mean", **sizes)
  c.quant.rules = (("head", "float"),)
  c.optim.update(learning_rate=3e-3, warmup_fraction=0.05)
  return c
