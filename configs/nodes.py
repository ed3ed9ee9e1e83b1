"""Ternary graph network that classifies the nodes of your own graph.

The classes, the splits and the length of the run are decided from the data, and
said at the start. A key that you give is not decided:
`--config.data.train_per_class=10`.

python experiments/train.py --config=configs/nodes.py \
  --config.data.source=file:graph.npz --workdir=runs/graph

S takes minutes on two cores, M and L more. docs/your-data.md describes the
files. The other kinds of networks are `--config.model.kind=sgc`, `sage`, `gat`.
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "S": dict(width=32, depth=1, heads=4),
  "M": dict(width=128, depth=1, heads=8),
  "L": dict(width=256, depth=2, heads=8),
}


def get_config(variant: str = "S") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("node_classification", "gnn", budget=variant)
  c.evaluations = 10
  c.model.update(kind="gcn", dropout=0.5, **sizes)
  c.optim.update(learning_rate=1e-2, schedule="constant", weight_decay=5e-4)
  return c
