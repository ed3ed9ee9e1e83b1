"""Wide MLP with a ternary head, which classifies docstrings by module.

The documents are docstrings of eight modules of Python's standard library.

python experiments/train.py --config=configs/docstrings_mlp.py \
  --workdir=runs/docstrings
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {"S": dict(width=256), "B": dict(width=1024)}


def get_config(variant: str = "S") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("documents", "wide_mlp")
  c.total_epochs = 15
  c.eval_every = 320
  c.checkpoint_every = 640
  c.statistics_every = 320
  c.steps_per_dispatch = 16
  c.data.update(
    source="embedded:docstrings",
    batch_size=16,
    eval_batch_size=256,
    tokenizer="wordpiece",
    vocab_size=2_000,
    valid_fraction=0.1,
    test_fraction=0.2,
  )
  c.model.update(dropout=0.5, **sizes)
  c.optim.update(learning_rate=3e-3, schedule="linear", weight_decay=0.0)
  return c
