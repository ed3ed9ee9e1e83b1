"""Ternary encoder-decoder that turns one text into another, as in your pairs.

Translations, summaries, answers: the columns that are read and written, the
splits, the vocabulary and the lengths are decided from the data, and said at
the start. A key that you give is not decided:
`--config.data.languages="('article','summary')"`.

python experiments/train.py --config=configs/translate.py \
  --config.data.source=file:pairs.tsv --workdir=runs/pairs

S takes minutes on two cores, M an hour there or minutes on an accelerator, L
hours on accelerators. docs/your-data.md describes the files.
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "S": dict(hidden=128, num_layers=2, num_heads=4, max_length=128),
  "M": dict(hidden=256, num_layers=4, num_heads=8, max_length=256),
  "L": dict(hidden=512, num_layers=6, num_heads=8, max_length=512),
}


def get_config(variant: str = "S") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("translation", "encoder_decoder", budget=variant)
  c.evaluations = 10
  c.task.label_smoothing = 0.1
  c.model.update(
    tie_embeddings=True,
    num_kv_heads=sizes["num_heads"],
    num_decoder_layers=sizes["num_layers"],
    mlp_width=3 * sizes["hidden"],
    dropout=0.1,
    **sizes,
  )
  c.optim.update(learning_rate=2e-3, warmup_fraction=0.1, clip_norm=1.0)
  return c
