import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from bitnet_jax.data.batches import order, rows
from bitnet_jax.data.text import tokenizers

TOKENIZER = tokenizers.load_tokenizer("bytes", texts=list)
BOS, EOS, PAD = TOKENIZER.bos_id, TOKENIZER.eos_id, TOKENIZER.pad_id
CLS, SEP = TOKENIZER.cls_id, TOKENIZER.sep_id
SOURCES = tokenizers.Ragged.of([[1, 2, 3], [4]])
TARGETS = tokenizers.Ragged.of([[5], [6, 7]])
LABELS = np.array([1, 0], np.int32)


def whole(examples):
  (batch,) = order.eval_batches(examples, batch_size=len(examples))
  return batch


def pairs(**options):
  options = dict(input_len=4, target_len=4) | options
  return rows.sequence_pairs(SOURCES, TARGETS, TOKENIZER, **options)


def test_pairs_are_read_and_written():
  batch = whole(pairs())
  expected = {
    "inputs": [[1, 2, 3, EOS], [4, EOS, PAD, PAD]],
    "input_mask": [[1, 1, 1, 1], [1, 1, 0, 0]],
    "tokens": [[BOS, 5, EOS, PAD], [BOS, 6, 7, EOS]],
    "targets": [[5, EOS, PAD, PAD], [6, 7, EOS, PAD]],
    "mask": [[1, 1, 0, 0], [1, 1, 1, 0]],
  }
  assert batch.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(batch[name], array, err_msg=name)


def test_pairs_that_are_too_long_are_an_error_or_cut(caplog):
  message = "example 0 has 4 tokens, more than input_len=3; 1 of 2 examples are"
  with pytest.raises(ValueError, match=message):
    pairs(input_len=3)
  with pytest.raises(
    ValueError, match=r"example 1 has 3 tokens, .*target_len=2"
  ):
    pairs(target_len=2)
  batch = whole(pairs(input_len=3, target_len=2, too_long="cut"))
  np.testing.assert_array_equal(batch["inputs"], [[1, 2, EOS], [4, EOS, PAD]])
  np.testing.assert_array_equal(batch["targets"], [[5, EOS], [6, EOS]])
  assert "Cut 1 of 2 examples to input_len=3 tokens; the" in caplog.text
  assert "Cut 1 of 2 examples to target_len=2 tokens; the" in caplog.text


def test_texts_are_classified():
  examples = rows.classified_rows([SOURCES], LABELS, TOKENIZER, seq_len=6)
  batch = whole(examples)
  expected = {
    "tokens": [[CLS, 1, 2, 3, SEP, PAD], [CLS, 4, SEP, PAD, PAD, PAD]],
    "segment_ids": [[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]],
    "type_ids": np.zeros((2, 6)),
    "labels": [1, 0],
    "mask": [1, 1],
  }
  assert batch.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(batch[name], array, err_msg=name)


def test_two_texts_are_told_apart():
  examples = rows.classified_rows(
    [SOURCES, TARGETS],
    np.array([0.5, 2.0], np.float32),
    TOKENIZER,
    seq_len=8,
  )
  batch = whole(examples)
  expected = {
    "tokens": [
      [CLS, 1, 2, 3, SEP, 5, SEP, PAD],
      [CLS, 4, SEP, 6, 7, SEP, PAD, PAD],
    ],
    "segment_ids": [[1, 1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 0, 0]],
    "type_ids": [[0, 0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1, 0, 0]],
    "labels": [0.5, 2.0],
    "mask": [1, 1],
  }
  for name, array in expected.items():
    np.testing.assert_array_equal(batch[name], array, err_msg=name)
  assert batch["labels"].dtype == np.float32


def test_rows_that_are_too_long_are_an_error_or_cut(caplog):
  texts = [SOURCES, TARGETS]
  message = "example 0 has 7 tokens, more than seq_len=6; 1 of 2 .* use 7"
  with pytest.raises(ValueError, match=message):
    rows.classified_rows(texts, LABELS, TOKENIZER, seq_len=6)
  examples = rows.classified_rows(
    texts, LABELS, TOKENIZER, seq_len=6, too_long="cut"
  )
  np.testing.assert_array_equal(
    whole(examples)["tokens"],
    [[CLS, 1, 2, SEP, 5, SEP], [CLS, 4, SEP, 6, 7, SEP]],
  )
  assert "Cut 1 of 2 examples to seq_len=6 tokens; the longest" in caplog.text


@hypothesis.given(
  first=strategies.integers(1, 20),
  second=strategies.integers(1, 20),
  seq_len=strategies.integers(5, 30),
)
@hypothesis.settings(deadline=None, max_examples=200)
def test_the_longer_text_is_cut_first(first, second, seq_len):
  a, b = first, second
  while a + b > seq_len - 3:  # as BERT does, a token at a time
    a, b = (a - 1, b) if a > b else (a, b - 1)
  texts = [
    tokenizers.Ragged.of([range(first)]),
    tokenizers.Ragged.of([range(100, 100 + second)]),
  ]
  examples = rows.classified_rows(
    texts, LABELS[:1], TOKENIZER, seq_len=seq_len, too_long="cut"
  )
  (tokens,) = whole(examples)["tokens"]
  expected = [CLS, *range(a), SEP, *range(100, 100 + b), SEP]
  assert tokens[: len(expected)].tolist() == expected
  assert (tokens[len(expected) :] == PAD).all()


def test_rows_without_padding_token_are_filled_with_zeros():
  plain = tokenizers.Tokenizer(
    vocab_size=400,
    fingerprint="",
    codec=TOKENIZER.codec,
    cls_id=300,
    sep_id=301,
  )
  examples = rows.classified_rows([SOURCES], LABELS, plain, seq_len=6)
  assert whole(examples)["tokens"][1].tolist() == [300, 4, 301, 0, 0, 0]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(input_len=1), "input_len must be at least 2, it is 1"),
    (dict(target_len=1), "target_len must be at least 2, it is 1"),
    (
      dict(input_len=3, too_long="drop"),
      "too_long is 'drop', .*'error', 'cut'",
    ),
  ],
)
def test_impossible_pairs_are_errors(options, message):
  with pytest.raises(ValueError, match=message):
    pairs(**options)


def test_impossible_rows_are_errors():
  with pytest.raises(ValueError, match="2 sources, but 1 targets"):
    rows.sequence_pairs(
      SOURCES,
      tokenizers.Ragged.of([[1]]),
      TOKENIZER,
      input_len=4,
      target_len=4,
    )
  with pytest.raises(ValueError, match="2 texts, but 1 labels"):
    rows.classified_rows([SOURCES], LABELS[:1], TOKENIZER, seq_len=8)
  with pytest.raises(ValueError, match="number of texts is 0"):
    rows.classified_rows([], LABELS, TOKENIZER, seq_len=8)
  with pytest.raises(ValueError, match="seq_len must be at least 5, it is 4"):
    rows.classified_rows([SOURCES, TARGETS], LABELS, TOKENIZER, seq_len=4)
