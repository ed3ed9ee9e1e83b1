"""Decoders of realistic width that have learned something."""

import functools

from bitnet_jax.programs import frozen
from bitnet_jax.train import runner
from tests.train.conftest import CONFIGS

SIZES = {
  "model.hidden": 256,
  "model.num_layers": 4,
  "model.num_heads": 4,
  "model.num_kv_heads": 2,
  "model.mlp_width": 512,
  "model.max_length": 64,
  "model.sub_norm": True,
  "quant.recipe": "bitnet_2b4t",
  "quant.rules": (("head", "float"),),
  "data.tokenizer": "bytes",
  "data.vocab_size": None,
  "data.seq_len": 64,
  "data.batch_size": 16,
  "total_steps": 120,
  "total_epochs": None,
  "eval_every": 60,
  "checkpoint_every": 60,
  "statistics_every": 0,
  "optim.warmup_steps": 10,
  "mesh.data": 1,
}
PROMPTS = 20, 64


@functools.cache
def train(folder, **sizes):
  """Returns a short run on the help texts of Python, frozen."""
  config = str(CONFIGS / "pydoc_decoder.py")
  overrides = SIZES | {f"model.{key}": value for key, value in sizes.items()}
  if overrides.get("model.tie_embeddings"):
    overrides["quant.rules"] = ()
  runner.run(runner.load_config(config, overrides), folder)
  return frozen.load_frozen_run(folder, "last")


def prompts(run):
  """Returns rows of the text that it was evaluated on, [20, 64]."""
  (batch, *_) = run.experiment.data.eval_batches("valid")
  count, length = PROMPTS
  return batch["tokens"][:count, :length]
