"""Language models: what is predicted, measured, refused, and how runs go on."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.data.text.tokenizers import load_tokenizer
from bitnet_jax.quantizers.recipe import RECIPES
from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.tasks.facts import DataFacts
from bitnet_jax.train.tasks.losses import cross_entropy
from bitnet_jax.train.tasks.token_prediction import (
  TokenOptions,
  TokenPrediction,
  most_likely,
)
from tests.train import tiny
from tests.train.conftest import final_state, first_losses, lines_without_time

# Losses are computed in float32, and summed over some hundred tokens.
FLOAT32 = 1e-5
BYTES = load_tokenizer("bytes", texts=list)
WORDS = "some words, naïve ones too, that stand in no order at all".split()
LINES = [
  " ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 2 + i % 7))
  for i in range(40)
]


@pytest.fixture
def source(tmp_path):
  return tiny.write(tmp_path / "lines.txt", LINES)


@pytest.fixture
def stubs(monkeypatch):
  tiny.use_stubs(monkeypatch)


def texts_of(config, split):
  """The documents of a split, found by what its batches must say."""
  (rows,) = [build(config).data.eval_batches(split)]
  targets = [
    token
    for batch in rows
    for token in batch["targets"][batch["mask"] > 0].tolist()
  ]
  texts, text = [], []
  for token in targets:
    if token == BYTES.eos_id:
      texts.append(bytes(text).decode())
      text = []
    else:
      text.append(token)
  assert not text
  return texts


def test_metrics_are_those_of_the_models_own_logits(source):
  config = tiny.make("decoder", source, quant__recipe="float")
  texts = texts_of(config, "valid")
  assert len(texts) == 4 and {*texts} <= {*LINES}
  experiment = build(config)
  sequence = [BYTES.eos_id]
  for text in texts:
    sequence += [*text.encode(), BYTES.eos_id]
  with experiment.activate():
    state = experiment.init()
    metrics = experiment.evaluator()("valid", state)
    logits = jax.jit(experiment.task.model.apply)
    nll, hits = [], 0
    for start in range(0, len(sequence) - 1, 16):
      window = sequence[start : start + 17]
      tokens = np.zeros((1, 16), np.int32)
      tokens[0, : len(window) - 1] = window[:-1]
      logs = tiny.log_softmax(logits({"params": state.params}, tokens)[0])
      for place, target in enumerate(window[1:]):
        nll.append(-logs[place, target])
        hits += logs[place].argmax() == target
  assert len(nll) == len(sequence) - 1
  num_bytes = sum(len(text.encode()) for text in texts)
  words = sum(len(text.split()) + 1 for text in texts)
  expected = {
    "loss": np.mean(nll),
    "accuracy": hits / len(nll),
    "perplexity": np.exp(np.mean(nll)),
    "bits_per_byte": sum(nll) / num_bytes / np.log(2),
    "word_perplexity": np.exp(sum(nll) / words),
  }
  assert metrics.keys() == expected.keys()
  assert {*metrics} == {*experiment.task.metric_names}
  for name, value in expected.items():
    # An exponential multiplies the error of its argument, here up to 50.
    np.testing.assert_allclose(metrics[name], value, 50 * FLOAT32, err_msg=name)


@pytest.mark.parametrize(
  "rows",
  [
    {},
    {"data__seq_len": 1},
    {"data__eval_stride": 5},
    {"data__packing": "documents"},
    {"data__packing": "documents", "data__seq_len": 7},
    {"data__eval_batch_size": 3},
  ],
  ids=str,
)
def test_every_token_and_every_end_is_predicted_once(source, stubs, rows):
  experiment = build(tiny.make("decoder", source, **rows))
  found = collections.Counter()
  for split in experiment.data.facts.splits:
    for batch in experiment.data.eval_batches(split):
      assert {*np.unique(batch["mask"])} <= {0, 1}
      found.update(batch["targets"][batch["mask"] > 0].tolist())
  content = "".join(LINES).encode()
  assert found == collections.Counter([*content, *[BYTES.eos_id] * len(LINES)])


@pytest.mark.parametrize("packing", ["stream", "documents"])
def test_evaluation_does_not_depend_on_the_batch_size(source, stubs, packing):
  metrics = [
    tiny.evaluate(
      build(
        tiny.make(
          "decoder", source, data__eval_batch_size=size, data__packing=packing
        )
      )
    )
    for size in (1, 5, 64)
  ]
  for other in metrics[1:]:
    assert other == pytest.approx(metrics[0], rel=FLOAT32)


def test_stride_gives_context_and_counts_the_same_tokens(source, stubs):
  def evaluated(stride):
    experiment = build(tiny.make("decoder", source, data__eval_stride=stride))
    batches = experiment.data.eval_batches("valid")
    weight = sum(batch["mask"].sum() for batch in batches)
    return tiny.evaluate(experiment)["loss"], weight

  plain, fine = evaluated(None), evaluated(4)
  assert evaluated(16) == plain
  assert fine[1] == plain[1]
  assert abs(fine[0] - plain[0]) > 1e-3  # Many times what rounding can do.


def totals_of(options, *, deterministic, mask):
  logits = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)

  class Constant(tiny.Stub):
    def __call__(self, tokens, **more):
      return jnp.asarray(logits)

  batch = {
    "tokens": np.zeros((2, 3), np.int32),
    "targets": np.array([[0, 1, 2], [3, 4, 0]], np.int32),
    "mask": np.asarray(mask, np.float32),
  }
  task = TokenPrediction(Constant(5), DataFacts(), TokenOptions(**options))
  totals = functools.partial(
    task.totals,
    key=jax.random.key(0),
    deterministic=deterministic,
    strength=None,
  )
  totals, _ = jax.jit(totals)({}, {}, batch)
  assert task.weight(batch) == max(batch["mask"].sum(), 1)
  return totals, tiny.log_softmax(logits), batch


MASK = [[1, 0, 1], [1, 1, 0]]


def test_smoothing_and_z_loss_are_for_training_only():
  plain = {"label_smoothing": 0.0, "z_loss": 0.0}
  both = {"label_smoothing": 0.25, "z_loss": 0.5}
  evaluated, logs, batch = totals_of(both, deterministic=True, mask=MASK)
  counted = batch["mask"] > 0
  nll = -np.take_along_axis(logs, batch["targets"][..., None], 2)[..., 0]
  np.testing.assert_allclose(evaluated["loss"], nll[counted].sum(), FLOAT32)
  hits = logs.argmax(-1) == batch["targets"]
  assert evaluated["accuracy"] == hits[counted].sum()
  assert evaluated["weight"] == 4
  trained, *_ = totals_of(plain, deterministic=False, mask=MASK)
  np.testing.assert_allclose(trained["loss"], evaluated["loss"], FLOAT32)
  for name in both:
    trained, *_ = totals_of(
      plain | {name: both[name]}, deterministic=False, mask=MASK
    )
    assert abs(trained["loss"] - evaluated["loss"]) > 0.01


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_most_likely_is_the_first_of_the_largest(dtype):
  # Few values, so that there are ties.
  logits = np.random.default_rng(0).integers(-3, 3, (4, 50, 9))
  logits = jnp.asarray(logits, dtype).at[0, 0].set(-jnp.inf)
  np.testing.assert_array_equal(most_likely(logits), jnp.argmax(logits, -1))
  logits = logits.at[0].set(jnp.nan).at[1, 2, 3].set(jnp.nan)
  found = most_likely(logits)
  np.testing.assert_array_equal(found[0], 9)
  np.testing.assert_array_equal(found[1] == 9, np.arange(50) == 2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_most_likely_of_nan_is_no_token(dtype):
  logits = np.random.default_rng(0).normal(size=(2, 64, 300))
  logits[0, 7, 250], logits[1, 63, 299], logits[1, 0] = np.nan, np.nan, np.nan
  expected = np.where(np.isnan(logits).any(-1), 300, logits.argmax(-1))
  logits = jnp.asarray(logits, dtype)
  if dtype == "bfloat16":  # which has ties
    expected = np.where(expected == 300, 300, jnp.argmax(logits, -1))
  np.testing.assert_array_equal(most_likely(logits), expected)
  np.testing.assert_array_equal(jax.jit(most_likely)(logits), expected)


def test_batch_without_a_target_has_no_loss_rather_than_nan():
  options = {"label_smoothing": 0.0, "z_loss": 0.0}
  nothing = np.zeros((2, 3))
  trained, *_ = totals_of(options, deterministic=False, mask=nothing)
  assert (trained["loss"], trained["weight"]) == (0, 1)
  evaluated, *_ = totals_of(options, deterministic=True, mask=nothing)
  assert evaluated["weight"] == 0


@pytest.mark.parametrize(
  "family", ["decoder", pytest.param("encoder", marks=pytest.mark.slow)]
)
def test_document_is_predicted_whatever_stands_beside_it(source, family):
  config = tiny.make(
    family,
    source,
    data__packing="documents",
    data__eval_batch_size=1,
    quant__recipe="float",
  )
  experiment = build(config)
  batch = next(
    batch
    for batch in experiment.data.eval_batches("train")
    if batch["segment_ids"].max() >= 2
  )
  with experiment.activate():
    state = experiment.init()

    @jax.jit
    def losses(batch):
      args, kwargs = experiment.task.inputs(batch)
      model = experiment.task.model
      logits = model.apply({"params": state.params}, *args, **kwargs)
      return cross_entropy(logits, batch["targets"])

    before = losses(batch)
    for document in (1, 2):
      own = batch["segment_ids"] == document
      tokens = np.where(own, batch["tokens"], 7)
      after = losses(batch | {"tokens": tokens})
      np.testing.assert_allclose(after[own], before[own], FLOAT32)
      assert not np.allclose(after[~own], before[~own], FLOAT32)


def test_chosen_tokens_are_what_counts_and_the_same_each_time(source, stubs):
  experiment = build(tiny.make("encoder", source, task__mask_rate=0.3))
  task = experiment.task
  weight = 0
  for batch in experiment.data.eval_batches("train"):
    chosen = batch["mask"] > 0
    fills = ~chosen.any(1, keepdims=True)
    assert (chosen | fills | (batch["tokens"] == batch["targets"])).all()
    assert task.weight(batch) == chosen.sum()
    weight += chosen.sum()
  letters = len("".join(LINES).encode())
  assert 0.2 * letters < weight < 0.3 * letters  # Of 80 % of the lines.
  assert tiny.evaluate(experiment) == tiny.evaluate(experiment)
  first, later = (experiment.data.train_batch(step) for step in (0, 20))
  again = experiment.data.train_batch(0)
  jax.tree.map(np.testing.assert_array_equal, first, again)
  assert (first["mask"] != later["mask"]).any()


def test_logits_of_the_chosen_tokens_alone_give_the_same_loss(source):
  few, every = (
    build(
      tiny.make("encoder", source, task__predictions=n, quant__recipe="float")
    )
    for n in (16, None)
  )
  with few.activate():
    state = few.init()

    def totals(experiment):
      batch = experiment.data.train_batch(0)
      task = experiment.task
      run = functools.partial(
        task.totals, key=jax.random.key(0), deterministic=True, strength=None
      )
      return jax.jit(run)(state.params, {}, batch)[0], batch

    (expected, whole), (found, batch) = totals(every), totals(few)
  # Of as many as a row has tokens none is left out.
  assert batch["places"].shape == whole["tokens"].shape
  assert found["weight"] > 10
  for name in expected:
    np.testing.assert_allclose(found[name], expected[name], FLOAT32)


def test_spans_are_only_scored_per_token(source, stubs):
  experiment = build(tiny.make("encoder_decoder", source))
  assert experiment.task.metric_names == ("accuracy", "loss", "perplexity")
  batch = experiment.data.train_batch(0)
  assert batch["inputs"].shape[1] == 16
  assert experiment.data.tokenizer.vocab_size == BYTES.vocab_size + 16


def test_perplexity_of_a_word_stays_finite(tmp_path, stubs):
  text = "零一二三四五六七八九" * 50
  source = tiny.write(tmp_path / "no_spaces.txt", [text] * 10)
  metrics = tiny.evaluate(build(tiny.make("decoder", source)))
  assert metrics["word_perplexity"] == np.finfo(float).max
  assert metrics["bits_per_byte"] < 20


def assert_resumes_and_dispatches_alike(name, source, run_in, **options):
  """Compares a run with one in two starts that takes steps two at a time."""
  options = {"optim__schedule": "constant", "statistics_every": 3} | options

  def start(folder, **more):
    config = tiny.make(name, source, **options, **more)
    return config, runner.run(config, run_in / folder)

  config, once = start("once")
  start("twice", total_steps=2, steps_per_dispatch=2)
  _, twice = start("twice", steps_per_dispatch=2)
  assert twice["metrics"] == once["metrics"]
  folders = [run_in / "once", run_in / "twice"]
  lines = [lines_without_time(folder) for folder in folders]
  assert lines[0] == lines[1] and len(lines[0]) == 4
  jax.tree.map(
    np.testing.assert_array_equal,
    *[final_state(config, folder) for folder in folders],
  )
  return once


@pytest.mark.parametrize(
  ("name", "options"),
  [
    pytest.param(
      "encoder_decoder",
      {"data__tokenizer": "bpe", "data__vocab_size": 290},
      marks=pytest.mark.slow,
    ),
    pytest.param("decoder", {}, marks=pytest.mark.slow),
    pytest.param(
      "encoder", {"data__packing": "documents"}, marks=pytest.mark.slow
    ),
  ],
  ids=str,
)
def test_run_goes_on_where_it_stopped(source, stubs, tmp_path, name, options):
  result = assert_resumes_and_dispatches_alike(
    name, source, tmp_path, **options
  )
  metrics = build(result["config"], tmp_path / "once").task.metric_names
  assert {*result["metrics"]} == {
    f"{split}/{metric}" for split in ("valid", "test") for metric in metrics
  }


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("decoder", {"model__dropout": 0.1}),
    ("decoder", {"quant__weights__rounding": "stochastic"}),
    ("encoder", {"data__packing": "documents"}),
    ("encoder_decoder", {"quant__phase_in__steps": 3}),
    ("decoder", {"data__packing": "documents", "optim__accumulate_steps": 2}),
  ],
  ids=str,
)
def test_transformer_goes_on_where_it_stopped(source, tmp_path, name, options):
  options = options | {"model__scan_layers": True}
  assert_resumes_and_dispatches_alike(name, source, tmp_path, **options)


@pytest.mark.slow
def test_bytes_are_predicted_better_than_by_their_frequencies(tmp_path):
  config = tiny.make(
    "decoder",
    "embedded:pydoc",
    total_steps=150,
    eval_every=0,
    checkpoint__keep_best=0,
    checkpoint_every=150,
    steps_per_dispatch=50,
    data__batch_size=16,
    data__seq_len=64,
    data__eval_batch_size=64,
    model__max_length=64,
    model__hidden=64,
    model__mlp_width=128,
    model__num_layers=2,
  )
  result = runner.run(config, tmp_path / "run")
  batches = build(config).data.eval_batches("valid")
  targets = np.concatenate([b["targets"][b["mask"] > 0] for b in batches])
  shares = np.bincount(targets) / len(targets)
  shares = shares[shares > 0]
  entropy = -(shares * np.log(shares)).sum()
  # By 0.3 nats: what bigrams give is about one.
  assert result["metrics"]["valid/loss"] < entropy - 0.3


@pytest.mark.slow
@pytest.mark.parametrize("family", ["decoder", "encoder", "encoder_decoder"])
@pytest.mark.parametrize("recipe", [*RECIPES, "phase-in"])
def test_every_recipe_takes_a_step(source, family, recipe):
  options = {"quant__recipe": recipe}
  if recipe == "phase-in":
    options = {"quant__phase_in__steps": 4}
  losses = first_losses(tiny.make(family, source, **options), steps=2)
  assert np.isfinite(losses).all()
  assert losses[0] == pytest.approx(np.log(BYTES.vocab_size), abs=1.5)
  assert losses[0] != losses[1]


BAD = {
  "longer than the model": (
    "decoder",
    {"data__seq_len": 40},
    r"data.seq_len is 40, more than model.max_length, 32",
  ),
  "longer than the encoder": (
    "encoder_decoder",
    {"data__seq_len": 40},
    r"data.seq_len is 40, more than model.max_length, 32",
  ),
  "row of a masked model": (
    "encoder",
    {"data__seq_len": 2},
    r"data.seq_len is 2; it must be at least 3",
  ),
  "row of spans": (
    "encoder_decoder",
    {"data__seq_len": 3},
    r"data.seq_len is 3; it must be at least 4",
  ),
  "no row": ("decoder", {"data__seq_len": 0}, r"data.seq_len is 0"),
  "packing": (
    "decoder",
    {"data__packing": "document"},
    r"data.packing is 'document', .* 'stream', 'documents' .did you mean",
  ),
  "stride of documents": (
    "decoder",
    {"data__packing": "documents", "data__eval_stride": 4},
    r"data.eval_stride is 4, which needs data.packing 'stream'",
  ),
  "stride": (
    "decoder",
    {"data__eval_stride": 17},
    r"data.eval_stride is 17; it must be in 1..16 \(data.seq_len\)",
  ),
  "stride of an encoder": (
    "encoder",
    {"data__eval_stride": 4},
    r"data.eval_stride is not a key",
  ),
  "spans of documents": (
    "encoder_decoder",
    {"data__packing": "documents"},
    r"data.packing is 'documents'; span corruption takes 'stream' only",
  ),
  "mask rate": (
    "encoder",
    {"task__mask_rate": 0.0},
    r"task.mask_rate is 0.0; it must lie in \(0, 1\]",
  ),
  "predictions": (
    "encoder",
    {"task__predictions": 0},
    r"task.predictions is 0; it must be at least 1",
  ),
  "predictions of a row": (
    "encoder",
    {"task__predictions": 17},
    r"task.predictions is 17, but a row has 16 tokens \(data.seq_len\)",
  ),
  "mask share": (
    "encoder",
    {"task__mask_share": -0.1},
    r"task.mask_share is -0.1; it must be at least 0",
  ),
  "mask shares": (
    "encoder",
    {"task__mask_share": 0.8, "task__random_share": 0.3},
    r"task.mask_share is 0.8 and task.random_share is 0.3; together",
  ),
  "noise": (
    "encoder_decoder",
    {"task__noise_density": 1.0},
    r"task.noise_density is 1.0; it must lie in \(0, 1\)",
  ),
  "mean span": (
    "encoder_decoder",
    {"task__mean_span": 0.5},
    r"task.mean_span is 0.5; it must be at least 1",
  ),
  "sentinels": (
    "encoder_decoder",
    {"task__num_sentinels": 1, "task__mean_span": 1.0},
    r"masks 2 spans, but the vocabulary has 1 sentinels",
  ),
  "smoothing": (
    "decoder",
    {"task__label_smoothing": 1.0},
    r"task.label_smoothing is 1.0; it must lie in \[0, 1\)",
  ),
  "z-loss": ("decoder", {"task__z_loss": -1.0}, r"task.z_loss is -1.0"),
  "type": (
    "decoder",
    {"data__seq_len": "16"},
    r"data.seq_len is '16', of type str; it must be int",
  ),
  "type of a choice": (
    "encoder",
    {"data__skip_empty": "yes"},
    r"data.skip_empty is 'yes', of type str; it must be bool",
  ),
  "key of another task": (
    "decoder",
    {"task__mask_rate": 0.15},
    r"task.mask_rate is not a key \(its value is 0.15\); the keys are:",
  ),
  "task": (
    "decoder",
    {"task__name": "causal"},
    r"task.name is 'causal', which is not one of: .*'causal_lm'",
  ),
  "model": (
    "decoder",
    {"model__name": "encoder"},
    r"model.name is 'encoder', which is not for task.name 'causal_lm'; .*:"
    r" decoder",
  ),
  "metric": (
    "encoder",
    {"checkpoint__metric": "valid/bits_per_byte"},
    r"checkpoint.metric is 'valid/bits_per_byte', which is not one of:"
    r" 'valid/accuracy', 'valid/loss', 'valid/perplexity'",
  ),
  "tokenizer": (
    "decoder",
    {"data__tokenizer": "byte"},
    r"unknown tokenizer 'byte'; choose among bytes, bpe",
  ),
  "size of a vocabulary": (
    "decoder",
    {"data__vocab_size": 100},
    r"vocab_size is 100, but bytes has 263 tokens",
  ),
  "documents": (
    "decoder",
    {"data__documents": "pages"},
    r"documents is 'pages', which is not one of: 'lines', 'paragraphs'",
  ),
  "split of too little": (
    "decoder",
    {"data__valid_fraction": 0.001},
    r"valid_fraction=0.001 of .* leaves no example for valid",
  ),
}


@pytest.mark.parametrize(
  ("name", "options", "message"), BAD.values(), ids=BAD.keys()
)
def test_mistake_is_named(source, name, options, message):
  with pytest.raises(ValueError, match=message):
    build(tiny.make(name, source, **options))


def test_metrics_of_text_may_choose_the_best(source):
  for name in ("bits_per_byte", "word_perplexity"):
    build(tiny.make("decoder", source, checkpoint__metric=f"valid/{name}"))


def test_empty_document_is_named_by_file_and_line(tmp_path):
  source = tiny.write(tmp_path / "gap.txt", ["one", "two", " ", *LINES])
  with pytest.raises(ValueError, match=r"gap.txt, line 3: text is empty"):
    build(tiny.make("decoder", source))
  build(tiny.make("decoder", source, data__skip_empty=True))


def test_split_that_is_too_short_is_found_before_training(tmp_path):
  for split, lines in (("train", LINES), ("valid", ["short"]), ("test", LINES)):
    tiny.write(tmp_path / f"{split}.txt", lines)
  source = f"file:{tmp_path}/{{split}}.txt"
  message = r"valid: the documents have 6 tokens, but an example .* takes 17"
  with pytest.raises(ValueError, match=message):
    build(tiny.make("encoder_decoder", source))


def test_file_that_is_not_there_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"no file .*none.txt"):
    build(tiny.make("decoder", f"file:{tmp_path}/none.txt"))
