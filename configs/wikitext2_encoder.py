"""Ternary masked language model on WikiText-2, for fine-tuning.

python experiments/train.py --config=configs/wikitext2_encoder.py \
  --workdir=runs/wikitext2-encoder
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "S": dict(hidden=128, num_layers=4, num_heads=4, mlp_width=384),
}


def get_config(variant: str = "S") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("masked_lm", "encoder")
  c.total_steps = 6000
  c.log_every = 100
  c.eval_every = c.checkpoint_every = 2000
  c.statistics_every = 1000
  c.steps_per_dispatch = 25
  c.task.predictions = 16
  c.data.update(
    source="file:data/wikitext2/{split}.txt.xz",
    batch_size=32,
    eval_batch_size=64,
    tokenizer="wordpiece",
    vocab_size=8000,
    lowercase=True,
    documents="whole",
    seq_len=64,
  )
  c.model.update(max_length=64, num_kv_heads=sizes["num_heads"], **sizes)
  c.optim.update(learning_rate=0.002, warmup_steps=500, clip_norm=1.0)
  return c
