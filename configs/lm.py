"""Ternary decoder that learns to write like your own texts.

The vocabulary, the length of a row, the splits and the length of the run are
decided from the data, and said at the start. A key that you give is not
decided: `--config.data.tokenizer=bytes`.

python experiments/train.py --config=configs/lm.py \
  --config.data.source=file:book.txt --workdir=runs/book

S takes minutes on two cores, M an hour there or minutes on an accelerator, L
hours on accelerators. docs/your-data.md describes the files. Then
`experiments/generate.py --workdir=runs/book` writes. All sizes can be exported
to transformers and llama.cpp (`--check_export=gguf:tq2_0`).
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "S": dict(hidden=256, num_layers=2, num_heads=4, max_length=128),
  "M": dict(hidden=512, num_layers=6, num_heads=8, max_length=256),
  "L": dict(hidden=768, num_layers=12, num_heads=12, max_length=1024),
}


def get_config(variant: str = "S") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("causal_lm", "decoder", budget=variant)
  c.evaluations = 10
  c.data.skip_empty = True
  c.model.update(
    tie_embeddings=True,
    num_kv_heads=sizes["num_heads"],
    mlp_width=3 * sizes["hidden"],
    sub_norm=True,
    **sizes,
  )
  c.quant.recipe = "bitnet_2b4t"
  c.optim.update(learning_rate=2e-3, warmup_fraction=0.1, clip_norm=1.0)
  return c
