"""Experiments on texts that take a second."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax.train import evaluate as evaluation
from bitnet_jax.train import runner
from bitnet_jax.train.step import make_eval_step
from bitnet_jax.train.tasks import base
from tests.train.conftest import CONFIGS, SMALL

SIZES = {
  "model.hidden": 16,
  "model.num_layers": 1,
  "model.num_heads": 2,
  "model.num_kv_heads": 2,
  "model.mlp_width": 16,
  "model.max_length": 32,
  # A single layer compiles faster without a loop.
  "model.scan_layers": False,
}
RUN = {
  "total_steps": 4,
  "eval_every": 2,
  "checkpoint_every": 2,
  "statistics_every": 0,
  "optim.warmup_steps": 0,
  "data.batch_size": 8,
  "data.eval_batch_size": 8,
  "data.tokenizer": "bytes",
  "data.vocab_size": None,
}
TRANSLATION = dict(
  name="translation",
  label_smoothing=0.0,
  z_loss=0.0,
  scores=("bleu", "chrf", "rouge"),
  num_beams=1,
  length_penalty=1.0,
)
PAIRS = dict(
  languages=("en", "de"), input_len=16, target_len=12, too_long="error"
)
CLASSIFICATION = dict(
  name="text_classification", label_smoothing=0.0, regression=False
)
LABELLED = dict(
  columns=("text",),
  label="label",
  class_names=(),
  seq_len=16,
  too_long="error",
)
# What the data of all texts have.
_SHARED = (
  "source",
  "batch_size",
  "eval_batch_size",
  "split_names",
  "valid_fraction",
  "test_fraction",
  "split_seed",
  "data_dir",
  "tokenizer",
  "vocab_size",
  "lowercase",
)


def make(name, source, **overrides):
  """Returns the tiny config of a task, with ``__`` for dots.

  Args:
    name: "decoder", "encoder" or "encoder_decoder", which pre-train;
      "translation" or "classification".
    source: of the data.
    **overrides: by key.
  """
  family = {"translation": "encoder_decoder", "classification": "encoder"}
  family = family.get(name, name)
  small = {k: v for k, v in SMALL.items() if not k.startswith("model.")}
  small |= SIZES | RUN | {"data.source": source}
  if family == "encoder_decoder":
    small["model.num_decoder_layers"] = 1
  if name == family:
    small["data.seq_len"] = 16
    if source.endswith(".txt"):
      small["data.documents"] = "lines"
  path = str(CONFIGS / f"pydoc_{family}.py")
  config = runner.load_config(path, small)
  if name != family:
    task, data = {
      "translation": (TRANSLATION, PAIRS),
      "classification": (CLASSIFICATION, LABELLED),
    }[name]
    config["task"] = dict(task)
    kept = {key: config["data"][key] for key in _SHARED}
    config["data"] = kept | data
  override(config, overrides)
  return config


def override(config, overrides):
  """Changes a nested dict in place, by key with ``__`` for dots."""
  for key, value in overrides.items():
    *groups, last = key.split("__")
    group = config
    for part in groups:
      group = group[part]
    group[last] = value


def write(path, lines):
  """Writes lines, and returns the source that they are."""
  path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
  return f"file:{path}"


class Stub(nn.Module):
  """A causal model that compiles in no time: running means of embeddings.

  Of a row, it sees the last token only. It takes what any transformer takes.

  Attributes:
    outputs: of each token, or of a row if it is ``pooled``.
  """

  outputs: int
  pooled: bool = False

  @nn.compact
  def __call__(self, *ids, deterministic=True, strength=None, **masks):
    del strength
    embed = nn.Embed(400, 8, embedding_init=nn.initializers.normal(1.0))
    tokens = embed(ids[-1])
    counts = jnp.arange(1, tokens.shape[1] + 1)[None, :, None]
    x = jnp.cumsum(tokens, axis=1) / counts
    if len(ids) > 1:
      x = x + jnp.mean(embed(ids[0]), axis=1, keepdims=True)
    x = nn.Dropout(0.1, deterministic=deterministic)(x)
    if self.pooled:  # Ends of the texts, so that they differ.
      last = jnp.sum(masks["segment_ids"], axis=1) - 2
      x = jnp.take_along_axis(tokens, last[:, None, None], axis=1)[:, 0]
    return nn.Dense(self.outputs, name="head" if self.pooled else "tokens")(x)


def use_stubs(monkeypatch):
  """Has every experiment on texts take a ``Stub`` for its model."""

  def make_model(settings, facts):
    del settings
    features = facts.num_classes or facts.vocab_size
    return Stub(features, pooled=facts.num_classes is not None)

  monkeypatch.setattr(base, "make_model", make_model)
  monkeypatch.setattr(base, "find_layers", lambda *_, **__: ())


def sums_of(experiment, split="valid"):
  """Returns the sums over a split, for fresh parameters."""
  with experiment.activate():
    return evaluation.evaluate(
      jax.jit(make_eval_step(experiment.task)),
      experiment.init(),
      experiment.data.eval_batches(split),
      mesh=experiment.mesh,
      key=jax.random.key(0),
    )


def evaluate(experiment, split="valid"):
  """Returns the metrics of a split, for fresh parameters."""
  return experiment.task.finish(split, sums_of(experiment, split))


def training_totals(experiment, step=0):
  """Returns what a training step sums up, for fresh parameters."""
  task, batch = experiment.task, experiment.data.train_batch(step)
  totals = functools.partial(
    task.totals, key=jax.random.key(0), deterministic=False, strength=None
  )
  with experiment.activate():
    state = experiment.init()
    return jax.jit(totals)(state.params, state.variables, batch)[0]


def log_softmax(logits):
  """Returns log-probabilities in float64."""
  logits = np.asarray(logits, np.float64)
  logits = logits - logits.max(-1, keepdims=True)
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))
