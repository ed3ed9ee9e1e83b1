import collections
import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from bitnet_jax.data.batches import order, packing
from bitnet_jax.data.text import tokenizers

TOKENIZER = tokenizers.load_tokenizer("bytes", texts=list)
EOS, CLS, SEP = TOKENIZER.eos_id, TOKENIZER.cls_id, TOKENIZER.sep_id

# Every token is unlike all others, so that it can be told where it went.
LENGTHS = strategies.lists(strategies.integers(1, 20), min_size=1, max_size=12)


def distinct(lengths):
  """Documents of the tokens 1000, 1001, ..."""
  ends = 1000 + np.cumsum([0, *lengths])
  return tokenizers.Ragged.of(
    np.arange(a, b) for a, b in itertools.pairwise(ends)
  )


def whole(examples):
  """All examples in one batch."""
  (batch,) = order.eval_batches(examples, batch_size=len(examples))
  return batch


def predicted(batch):
  """How often each (token before, target) is predicted."""
  real = batch["mask"] == 1
  pairs = zip(batch["tokens"][real], batch["targets"][real], strict=True)
  return collections.Counter((int(a), int(b)) for a, b in pairs)


def expected(documents):
  """Each token, and the end, of each document once, in its place."""
  pairs = collections.Counter()
  for document in documents:
    ids = [EOS, *document.tolist(), EOS]
    pairs.update(itertools.pairwise(ids))
  return pairs


@hypothesis.given(
  lengths=LENGTHS, seq_len=strategies.integers(1, 30), data=strategies.data()
)
@hypothesis.settings(deadline=None, max_examples=150)
def test_every_token_is_predicted_exactly_once(lengths, seq_len, data):
  documents = distinct(lengths)
  stride = data.draw(strategies.integers(1, seq_len))
  for examples in (
    packing.chunks(documents, TOKENIZER, seq_len=seq_len),
    packing.chunks(documents, TOKENIZER, seq_len=seq_len, stride=stride),
    packing.packed(documents, TOKENIZER, seq_len=seq_len),
  ):
    assert predicted(whole(examples)) == expected(documents)


def test_chunks_overlap_by_one():
  documents = tokenizers.Ragged.of([[1, 2, 3], [4], [5, 6]])
  batch = whole(packing.chunks(documents, TOKENIZER, seq_len=4))
  np.testing.assert_array_equal(
    batch["tokens"],
    [[EOS, 1, 2, 3], [EOS, 4, EOS, 5], [6, EOS, EOS, EOS]],
  )
  np.testing.assert_array_equal(
    batch["targets"],
    [[1, 2, 3, EOS], [4, EOS, 5, 6], [EOS, EOS, EOS, EOS]],
  )
  np.testing.assert_array_equal(batch["mask"], [[1] * 4, [1] * 4, [1, 0, 0, 0]])


def test_stride_gives_context_to_what_is_predicted():
  documents = distinct([30])
  batch = whole(packing.chunks(documents, TOKENIZER, seq_len=8, stride=2))
  np.testing.assert_array_equal(batch["mask"][0], 1)
  for row in range(1, len(batch["mask"])):
    np.testing.assert_array_equal(batch["mask"][row, :6], 0)
  assert batch["mask"].sum() == 31
  np.testing.assert_array_equal(batch["tokens"][1][:-2], batch["tokens"][0][2:])


def test_packed_rows_hold_whole_documents():
  documents = tokenizers.Ragged.of([[1, 2, 3, 4], [5, 6, 7], [8], [9, 10]])
  batch = whole(packing.packed(documents, TOKENIZER, seq_len=6))
  pad = TOKENIZER.pad_id
  # With an end before each, they take 5, 4, 2 and 3 of 6 places: the third fits
  # with the second, and the last with none.
  np.testing.assert_array_equal(
    batch["tokens"],
    [
      [EOS, 1, 2, 3, 4, pad],
      [EOS, 5, 6, 7, EOS, 8],
      [EOS, 9, 10, pad, pad, pad],
    ],
  )
  np.testing.assert_array_equal(
    batch["targets"],
    [
      [1, 2, 3, 4, EOS, pad],
      [5, 6, 7, EOS, 8, EOS],
      [9, 10, EOS, pad, pad, pad],
    ],
  )
  np.testing.assert_array_equal(
    batch["segment_ids"],
    [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 2, 2], [1, 1, 1, 0, 0, 0]],
  )
  np.testing.assert_array_equal(
    batch["positions"],
    [[0, 1, 2, 3, 4, 0], [0, 1, 2, 3, 0, 1], [0, 1, 2, 0, 0, 0]],
  )
  np.testing.assert_array_equal(batch["mask"], batch["segment_ids"] > 0)


@hypothesis.given(lengths=LENGTHS, seq_len=strategies.integers(3, 25))
@hypothesis.settings(deadline=None, max_examples=100)
def test_packing_cuts_only_what_is_too_long(lengths, seq_len):
  documents = distinct(lengths)
  batch = whole(packing.packed(documents, TOKENIZER, seq_len=seq_len))
  pieces = []
  for tokens, segments, positions in zip(
    batch["tokens"], batch["segment_ids"], batch["positions"], strict=True
  ):
    used = int((segments > 0).sum())
    assert (segments[:used] > 0).all()  # filling is at the end
    for segment in range(1, segments.max() + 1):
      inside = segments == segment
      pieces.append(tokens[inside].tolist())
      np.testing.assert_array_equal(positions[inside], range(inside.sum()))
  wanted = []
  for document in documents:
    ids = [EOS, *document.tolist()]
    wanted += [ids[i : i + seq_len] for i in range(0, len(ids), seq_len)]
  assert sorted(pieces) == sorted(wanted)


def test_packing_leaves_little_room():
  rng = np.random.default_rng(0)
  documents = distinct(rng.integers(1, 100, size=1000))
  batch = whole(packing.packed(documents, TOKENIZER, seq_len=128))
  assert (batch["segment_ids"] > 0).mean() > 0.97  # row after row: 0.78


def test_segments_of_long_documents_are_logged(caplog):
  documents = distinct([3, 20, 9, 4])
  packing.packed(documents, TOKENIZER, seq_len=6)
  message = "Cut 2 of 4 documents, which have more than 6 tokens with its end"
  assert f"{message}, into 6 segments" in caplog.text
  caplog.clear()
  packing.packed(documents, TOKENIZER, seq_len=21)
  packing.encoder_rows(documents, TOKENIZER, seq_len=6)
  assert not caplog.text


def test_rows_for_an_encoder_are_one_text_cut_into_rows():
  documents = tokenizers.Ragged.of([[1, 2, 3], [4], [5, 6]])
  batch = whole(packing.encoder_rows(documents, TOKENIZER, seq_len=5))
  pad = TOKENIZER.pad_id
  np.testing.assert_array_equal(
    batch["tokens"],
    [[CLS, 1, 2, 3, SEP], [CLS, SEP, 4, SEP, SEP], [CLS, 5, 6, SEP, pad]],
  )
  np.testing.assert_array_equal(
    batch["segment_ids"], [[1] * 5, [1] * 5, [1, 1, 1, 1, 0]]
  )
  np.testing.assert_array_equal(batch["positions"][0], range(5))


def test_rows_for_an_encoder_can_hold_whole_documents(caplog):
  documents = tokenizers.Ragged.of([[1, 2], [3], [4, 5, 6, 7, 8, 9]])
  examples = packing.encoder_rows(documents, TOKENIZER, seq_len=7, joined=False)
  batch = whole(examples)
  np.testing.assert_array_equal(
    batch["tokens"],
    [
      [CLS, 1, 2, SEP, CLS, 3, SEP],
      [CLS, 4, 5, 6, 7, 8, SEP],
      [CLS, 9, SEP, *[TOKENIZER.pad_id] * 4],
    ],
  )
  np.testing.assert_array_equal(
    batch["segment_ids"], [[1, 1, 1, 1, 2, 2, 2], [1] * 7, [1] * 3 + [0] * 4]
  )
  assert "Cut 1 of 3 documents, which have more than 5 tokens" in caplog.text


@pytest.mark.parametrize(
  ("make", "options", "message"),
  [
    ("chunks", dict(seq_len=0), "seq_len must be at least 1, it is 0"),
    ("packed", dict(seq_len=0), "seq_len must be at least 1, it is 0"),
    ("encoder_rows", dict(seq_len=2), "seq_len must be at least 3, it is 2"),
    ("chunks", dict(seq_len=4, stride=5), r"stride must be in 1\.\.4, it is 5"),
    ("chunks", dict(seq_len=4, stride=0), r"stride must be in 1\.\.4, it is 0"),
  ],
)
def test_impossible_lengths_are_errors(make, options, message):
  with pytest.raises(ValueError, match=message):
    getattr(packing, make)(distinct([3]), TOKENIZER, **options)


@pytest.mark.parametrize("make", ["chunks", "packed", "encoder_rows"])
def test_no_document_and_no_special_token_are_errors(make):
  build = getattr(packing, make)
  with pytest.raises(ValueError, match="no document"):
    build(tokenizers.Ragged.of([]), TOKENIZER, seq_len=8)
  plain = tokenizers.Tokenizer(
    vocab_size=9, fingerprint="", codec=TOKENIZER.codec
  )
  with pytest.raises(ValueError, match=r"needs a token (eos|cls), which the"):
    build(distinct([3]), plain, seq_len=8)
