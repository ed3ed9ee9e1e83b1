"""Graph networks that classify graphs by their random generator.

All four generators make about twice as many edges as nodes. The node features
are the degrees; all other information is in the edges.

python experiments/train.py --config=configs/graphs_gnn.py:gcn \
  --workdir=runs/graphs-gcn

The other variants are sgc, sage and gat. To use your own graphs, one .npz file
each: --config.data.source=file:FOLDER.
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "gcn": dict(kind="gcn", width=64, depth=2, heads=1),
  "sgc": dict(kind="sgc", width=64, depth=2, heads=1),
  "sage": dict(kind="sage", width=64, depth=2, heads=1),
  "gat": dict(kind="gat", width=64, depth=2, heads=4),
}


def get_config(variant: str = "gcn") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("graph_classification", "gnn")
  c.update(total_epochs=40, steps_per_dispatch=20)
  c.data.update(
    source="embedded:graphs",
    batch_size=32,
    num_classes=4,
    valid_fraction=0.1,
    test_fraction=0.2,
  )
  c.model.update(pooling="mean", **sizes)
  c.quant.rules = () if variant == "sgc" else (("head", "float"),)
  c.optim.learning_rate = 3e-3
  return c
