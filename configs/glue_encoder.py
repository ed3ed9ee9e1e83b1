"""Ternary encoder on GLUE tasks: sentences, sentence pairs, and regression.

python experiments/train.py --config=configs/glue_encoder.py:sst2 \
  --workdir=runs/sst2 --config.data.source=file:DATA/sst2_{split}.tsv.gz

GLUE's test labels are not public, so there is no test split. MRPC and QQP are
scored by the F1 of their positive class. Files from elsewhere may name the
label of STS-B differently (`--config.data.label=score`).

To start from a masked language model, give its run folder and its vocabulary:
`--config.init_from=runs/wikitext2-encoder
--config.data.tokenizer=tokenizers:runs/wikitext2-encoder/tokenizer.json`.
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

# Text columns and metric of each task. Labels are numbers if the metric is a
# correlation.
VARIANTS = {
  "cola": (("sentence",), "accuracy"),
  "sst2": (("sentence",), "accuracy"),
  "mrpc": (("sentence1", "sentence2"), "f1"),
  "qqp": (("question1", "question2"), "f1"),
  "rte": (("sentence1", "sentence2"), "accuracy"),
  "stsb": (("sentence1", "sentence2"), "pearson"),
  "wnli": (("sentence1", "sentence2"), "accuracy"),
}


def get_config(variant: str = "sst2") -> ConfigDict:
  columns, metric = pick_variant(VARIANTS, variant)
  c = base("text_classification", "encoder")
  c.total_epochs = 1
  c.log_every = 100
  c.eval_every = c.checkpoint_every = c.statistics_every = 500
  c.steps_per_dispatch = 20
  c.task.regression = metric == "pearson"
  c.data.update(
    source=f"tfds:glue/{variant}",
    batch_size=32,
    eval_batch_size=128,
    tokenizer="wordpiece",
    vocab_size=8000,
    columns=columns,
    seq_len=64,
  )
  c.model.update(hidden=128, num_layers=4, num_heads=4, num_kv_heads=4)
  c.model.update(mlp_width=384, max_length=64, pooling="mean", dropout=0.1)
  c.quant.rules = (("head", "float"),)
  c.optim.update(warmup_steps=200, clip_norm=1.0)
  c.checkpoint.metric = f"valid/{metric}"
  return c
