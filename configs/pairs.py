"""Ternary encoder that compares two texts: classes of pairs, or a number.

The two columns, the classes or numbers, the splits, the vocabulary and the
lengths are decided from the data, and said at the start. A key that you give is
not decided: `--config.data.columns="('question','passage')"`.

python experiments/train.py --config=configs/pairs.py \
  --config.data.source=file:pairs.tsv --workdir=runs/pairs

S takes minutes on two cores, M an hour there or minutes on an accelerator, L
hours on accelerators. docs/your-data.md describes the files.
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
    num_kv_heads=sizes["num_heads"],
    mlp_width=3 * sizes["hidden"],
    pooling="mean",
    dropout=0.1,
    **sizes,
  )
  c.quant.rules = (("head", "float"),)
  c.optim.update(warmup_fraction=0.05, clip_norm=1.0)
  return c
