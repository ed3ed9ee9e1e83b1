"""Ternary encoder that classifies your own texts, or gives them a number.

The columns, the classes or numbers, the splits, the vocabulary and the lengths
are decided from the data, and said at the start. A key that you give is not
decided: `--config.data.label=stars`.

python experiments/train.py --config=configs/texts.py \
  --config.data.source=file:reviews.tsv --workdir=runs/reviews

S takes minutes on two cores, M an hour there or minutes on an accelerator, L
hours on accelerators. docs/your-data.md describes the files. Pairs of texts are
for `configs/pairs.py`.
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "S": dict(hidden=128, num_layers=2, num_heads=4, max_length=128),
  "M": dict(hidden=256, num_layers=6, num_heads=8, max_length=256),
  "L": dict(hidden=512, num_layers=12, num_heads=8, max_length=512),
}


def get_config(variant: str = "S") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("text_classification", "encoder", budget=variant)
  c.evaluations = 10
  c.model.update(
    num_types=0,
    num_kv_heads=sizes["num_heads"],
    mlp_width=3 * sizes["hidden"],
    pooling="mean",
    dropout=0.1,
    **sizes,
  )
  c.quant.rules = (("head", "float"),)
  c.optim.update(warmup_fraction=0.05, clip_norm=1.0)
  return c
