"""Graph networks on the citation networks Cora, CiteSeer and PubMed.

The task is to predict the topic of a paper, given the citation graph and the
topics of 20 papers of each topic: the public Planetoid split. The data come
from an .npz file, or from the published files in the folder of TFDS
(data.source "tfds:planetoid/cora"):

python experiments/train.py --config=configs/planetoid_gnn.py:gcn \
  --workdir=runs/planetoid-gcn \
  --config.data.source=file:$DATA/planetoid/cora.npz

The variant sgc has the settings of "When are 1.58 bits enough?" (arXiv
2411.05882): its one layer is ternary, and PyTorch's initializer matters. The
variants gcn, sage and gat use row-normalized features and strong dropout, as in
their papers.
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

# Shared by GCN, GraphSAGE and GAT; chosen on the validation nodes of Cora.
_CONVOLUTIONS = dict(
  epochs=200,
  dispatch=1,
  row_normalize=True,
  optim=dict(
    learning_rate=0.005,
    schedule="cosine",
    weight_decay=1.0,
    decay_mask="kernels",
  ),
)
VARIANTS = {
  "sgc": dict(
    epochs=100,
    dispatch=20,
    row_normalize=False,
    model=dict(kind="sgc", width=64, heads=1, dropout=0.0, init="torch"),
    optim=dict(
      learning_rate=0.01,
      schedule="constant",
      weight_decay=0.01,
      decay_mask="all",
    ),
  ),
  "gcn": dict(
    model=dict(
      kind="gcn", width=64, heads=1, dropout=0.8, init="glorot_uniform"
    ),
    **_CONVOLUTIONS,
  ),
  "sage": dict(
    model=dict(
      kind="sage", width=64, heads=1, dropout=0.8, init="glorot_uniform"
    ),
    **_CONVOLUTIONS,
  ),
  "gat": dict(
    model=dict(
      kind="gat", width=64, heads=8, dropout=0.6, init="glorot_uniform"
    ),
    **_CONVOLUTIONS,
  ),
}


def get_config(variant: str = "sgc") -> ConfigDict:
  chosen = pick_variant(VARIANTS, variant)
  c = base("node_classification", "gnn")
  c.total_epochs = chosen["epochs"]
  c.log_every = 20
  c.eval_every = 50
  c.steps_per_dispatch = chosen["dispatch"]
  c.data.update(
    source="tfds:planetoid/cora",
    batch_size=1,
    row_normalize=chosen["row_normalize"],
  )
  c.model.update(**chosen["model"])
  c.optim.update(**chosen["optim"])
  c.mesh.data = 1
  return c
