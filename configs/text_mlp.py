"""Wide MLP with a ternary head on the document data sets of TextGCN.

The network of "When are 1.58 bits enough?" (arXiv 2411.05882), whose authors
train for 100 epochs: BERT's subword tokens, the mean of 1,024-wide embeddings,
ReLU, dropout, and a linear layer, the only ternary layer. DATA is a folder with
the data sets and BERT's vocabulary:

python experiments/train.py --config=configs/text_mlp.py:r8 \
  --workdir=runs/text-r8 --config.data.source=textgcn:$DATA/text_gcn/R8.raw \
  --config.data.tokenizer=bert:$DATA/tokenizers/bert_base_uncased_vocab.txt
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

# The names of the data sets in the files.
VARIANTS = {
  "20ng": "20ng.clean",
  "mr": "mr.raw",
  "ohsumed": "ohsumed.raw",
  "r52": "R52.raw",
  "r8": "R8.raw",
}


def get_config(variant: str = "r8") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("documents", "wide_mlp")
  c.total_epochs = 100
  c.log_every = 100
  c.eval_every = 0
  c.checkpoint_every = 10_000
  c.statistics_every = 1_000
  c.steps_per_dispatch = 16
  c.data.update(
    source=f"textgcn:data/text_gcn/{sizes}",
    batch_size=16,
    eval_batch_size=256,
    tokenizer="bert:data/tokenizers/bert_base_uncased_vocab.txt",
  )
  c.model.update(width=1024, dropout=0.5)
  c.optim.update(schedule="linear", weight_decay=0.0)
  c.checkpoint.keep_best = 0
  return c
