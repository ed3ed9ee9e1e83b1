"""Ternary MLP on exclusive or, with two noise inputs.

The network of "When are 1.58 bits enough?" (arXiv 2411.05882): both layers are
ternary and have biases.

python experiments/train.py --config=configs/xor_mlp.py \
  --workdir=runs/xor-mlp
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "S": dict(width=8, depth=1),
  "M": dict(width=16, depth=1),
  "B": dict(width=32, depth=1),
}


def get_config(variant: str = "S") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("classification", "mlp")
  c.total_epochs = 200
  c.log_every = 100
  c.eval_every = 500
  c.checkpoint_every = 1000
  c.statistics_every = 500
  c.steps_per_dispatch = 100
  c.data.update(
    source="embedded:xor",
    batch_size=100,
    num_classes=2,
    valid_fraction=0.1,
    test_fraction=0.2,
    standardize=False,
  )
  c.model.update(**sizes)
  c.optim.update(learning_rate=1e-2, schedule="constant")
  c.mesh.data = 1
  return c
