import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from bitnet_jax.data.batches import order, rows, spans
from bitnet_jax.data.text import tokenizers

TOKENIZER = tokenizers.load_tokenizer("bytes", texts=list, num_sentinels=100)


def ragged(count, longest):
  rng = np.random.default_rng(0)
  lengths = rng.integers(1, longest, size=count)
  return tokenizers.Ragged.of(rng.integers(256, size=n) for n in lengths)


def whole(examples, **options):
  """All examples in one batch."""
  options = dict(batch_size=len(examples)) | options
  (batch,) = order.eval_batches(examples, **options)
  return batch


def restored(inputs, targets, sentinels):
  """Puts the spans of targets where the sentinels of inputs are."""
  spans, current = {}, None
  for token in targets:
    if token in sentinels:
      current = spans.setdefault(token, [])
    else:
      current.append(token)
  found = []
  for token in inputs:
    found += spans.pop(token) if token in sentinels else [token]
  assert not spans
  return found


@hypothesis.given(
  input_len=strategies.integers(4, 80),
  noise_density=strategies.floats(0.05, 0.9),
  mean_span=strategies.floats(1, 6),
)
@hypothesis.settings(deadline=None, max_examples=100)
def test_text_can_be_restored_from_its_spans(
  input_len, noise_density, mean_span
):
  documents, eos = ragged(20, 400), TOKENIZER.eos_id
  examples = spans.span_corruption(
    documents,
    TOKENIZER,
    input_len=input_len,
    noise_density=noise_density,
    mean_span=mean_span,
  )
  batch = whole(examples)
  assert batch["inputs"].shape == (len(examples), examples.input_len)
  assert batch["targets"].shape == (len(examples), examples.target_len)
  assert examples.input_len <= input_len
  joined = np.concatenate([[*ids, eos] for ids in documents])
  sentinels = set(TOKENIZER.sentinels)
  for i in (0, len(examples) // 2, len(examples) - 1):
    inputs, targets = (batch[k][i].tolist() for k in ("inputs", "targets"))
    assert inputs[-1] == targets[-1] == eos
    assert batch["tokens"][i].tolist() == [TOKENIZER.bos_id, *targets[:-1]]
    start = min(i * examples.length, len(joined) - examples.length)
    assert restored(inputs[:-1], targets[:-1], sentinels) == (
      joined[start : start + examples.length].tolist()
    )
    used = [token for token in inputs if token in sentinels]
    assert used == list(TOKENIZER.sentinels[: len(used)])
    assert used == [token for token in targets if token in sentinels]
    # Spans do not touch: there is a token between two sentinels.
    for a, b in itertools.pairwise(inputs):
      assert not {a, b} <= sentinels


def test_sizes_are_those_of_t5():
  examples = spans.span_corruption(ragged(20, 400), TOKENIZER, input_len=512)
  # seqio: 568 tokens give inputs of 512 and targets of 114.
  assert (examples.length, examples.num_noise, examples.num_spans) == (
    568,
    85,
    28,
  )
  assert (examples.input_len, examples.target_len) == (512, 114)


def spans_of(input_len, rows=20_000, **options):
  """Draws spans; returns the examples, and what `_spans` does."""
  examples = spans.span_corruption(
    ragged(20, 400), TOKENIZER, input_len=input_len, **options
  )
  words = order.draw((0,), 0, rows, examples.length)
  return examples, *examples._spans(words)


@pytest.mark.parametrize("input_len", [4, 16, 32, 60])
def test_rows_have_as_many_spans_as_sentinels(input_len):
  examples, noise, first, sentinel = spans_of(input_len, rows=2000)
  assert (noise.sum(axis=1) == examples.num_noise).all()
  assert (first.sum(axis=1) == examples.num_spans).all()
  order = TOKENIZER.sentinels[: examples.num_spans]
  for row in range(20):
    assert tuple(sentinel[row][first[row]]) == order
  # Rows begin and end in every way.
  ends = {tuple(row) for row in noise[:, [0, -1]].tolist()}
  ways = {(False, False), (False, True), (True, False)}
  assert ends == ways | ({(True, True)} if examples.num_spans > 1 else set())


@pytest.mark.parametrize(
  ("input_len", "options", "least", "most"),
  [
    (16, {}, 0.9, 1.2),
    (24, {}, 0.9, 1.2),
    (32, {}, 0.9, 1.25),
    (128, {}, 0.9, 1.1),
    (512, {}, 0.9, 1.1),
    (128, {"mean_span": 1.0}, 0.9, 1.1),
    (64, {"noise_density": 0.5}, 0.9, 1.1),
    (16, {"noise_density": 0.3}, 0.8, 1.25),
    # Of five tokens in one span of two, ends are in fewer spans.
    (5, {"noise_density": 0.3}, 0.8, 1.3),
  ],
  ids=str,
)
def test_every_place_is_taken_out_as_often(input_len, options, least, most):
  rows = 20_000 if input_len < 100 else 4000
  examples, noise, *_ = spans_of(input_len, rows, **options)
  share = noise.mean(axis=0) * examples.length / examples.num_noise
  error = 4 * np.sqrt(examples.length / examples.num_noise / rows)
  assert share.min() > least - error
  assert share.max() < most + error


@pytest.mark.parametrize("size", [169, 159, 19])
def test_every_token_of_a_corpus_is_a_target_as_often(size):
  documents = tokenizers.Ragged.of([np.arange(size)])  # One more with its end.
  examples = spans.span_corruption(documents, TOKENIZER, input_len=16)
  assert examples.length == 17
  taken = np.zeros(TOKENIZER.vocab_size)
  rows = len(examples)
  epochs = order.train_batches(examples, batch_size=rows, seed=0)
  for step in range(600):
    np.add.at(taken, epochs(step)["targets"], epochs(step)["mask"])
  # Of 600 epochs 106 have a token: a standard error of 9.
  assert taken[:size].min() > 60
  assert taken[:size].max() < 160


def test_parts_are_as_likely():
  words = order.draw((0,), 0, 30_000, 4)
  parts = spans._partition(words, 3)
  assert (parts[:, 0] == 0).all() and (parts[:, -1] == 2).all()
  _, counts = np.unique(parts, axis=0, return_counts=True)
  assert len(counts) == 6  # of 4 places to cut at, 2
  np.testing.assert_allclose(counts / 30_000, 1 / 6, atol=0.01)


def test_start_is_bos_or_else_pad():
  assert rows.start_id(TOKENIZER) == TOKENIZER.bos_id
  make = tokenizers.Tokenizer
  plain = dict(vocab_size=9, fingerprint="", codec=TOKENIZER.codec)
  assert rows.start_id(make(pad_id=0, **plain)) == 0
  with pytest.raises(ValueError, match="a decoder without bos needs a token"):
    rows.start_id(make(**plain))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(input_len=3), "input_len must be at least 4, it is 3"),
    (dict(noise_density=0.0), r"noise_density must be in \(0, 1\)"),
    (dict(mean_span=0.5), "mean_span must be at least 1, it is 0.5"),
    (
      dict(input_len=4000),
      "masks 222 spans, but the vocabulary has 100 sentinels; load it with"
      " num_sentinels=222",
    ),
    (dict(input_len=600), "the documents have .* tokens, but .* takes 6"),
  ],
)
def test_impossible_spans_are_errors(options, message):
  options = dict(input_len=32) | options
  with pytest.raises(ValueError, match=message):
    spans.span_corruption(ragged(2, 100), TOKENIZER, **options)
