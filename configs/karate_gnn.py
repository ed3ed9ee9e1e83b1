"""Graph networks on Zachary's karate club, a graph of 34 nodes.

The task is to predict which of two clubs each member joined, given the club of
four members of each. The graph of friendships is the only information.

python experiments/train.py --config=configs/karate_gnn.py:gcn \
  --workdir=runs/karate-gcn

The other variants are sgc, sage and gat.
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "gcn": dict(kind="gcn", width=16, dropout=0.2),
  "sgc": dict(kind="sgc", width=16, dropout=0.0),
  "sage": dict(kind="sage", width=16, dropout=0.2),
  "gat": dict(kind="gat", width=16, dropout=0.2),
}


def get_config(variant: str = "gcn") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("node_classification", "gnn")
  c.update(total_epochs=100, log_every=20, eval_every=20, checkpoint_every=100)
  c.data.update(
    source="embedded:karate",
    batch_size=1,
    num_classes=2,
    train_per_class=4,
    valid_fraction=0.3,
  )
  c.model.update(heads=4, **sizes)
  c.optim.update(learning_rate=1e-2, schedule="constant")
  c.mesh.data = 1
  return c
