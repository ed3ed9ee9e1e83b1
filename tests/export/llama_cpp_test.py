"""Exported decoders in llama.cpp, where llama-cpp-python is installed."""

import jax
import numpy as np
import pytest

from bitnet_jax.data.text.tokenizers import load_tokenizer
from bitnet_jax.export import write_gguf
from bitnet_jax.types import Packed
from tests.export import decoder, trained, vocabularies
from tests.train.tiny import log_softmax

library = pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
ARCHITECTURES = {
  "bitnet": dict(sub_norm=True, tie_embeddings=True),
  "llama": dict(sub_norm=False, tie_embeddings=False),
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def run(request, tmp_path_factory):
  folder = tmp_path_factory.mktemp(request.param) / "run"
  sizes = dict(feed_forward="swiglu", **ARCHITECTURES[request.param])
  return trained.train(folder, **sizes)


def compare(path, run):
  """Returns how often the argmax agrees, and the mean divergence in nats."""
  tokens = trained.prompts(run)
  model = run.experiment.task.model
  ours = log_softmax(jax.jit(model.apply)(run.variables, tokens))
  found = library.Llama(
    str(path), n_ctx=tokens.shape[1], logits_all=True, verbose=False
  )
  scores = []
  for row in tokens.tolist():
    found.reset()
    found.eval(row)
    scores.append(np.array(found.scores[: len(row)]))
  found.close()
  theirs = log_softmax(scores)
  agreement = (ours.argmax(-1) == theirs.argmax(-1)).mean()
  divergence = (np.exp(ours) * (ours - theirs)).sum(-1).mean()
  print(f"{path.name}: argmax {agreement:.4f}, divergence {divergence:.2g}")
  return agreement, divergence


@pytest.mark.parametrize("kind", ["tq2_0", "tq1_0", "f16"])
def test_trained_decoder_agrees(tmp_path, run, kind):
  path = tmp_path / f"{kind}.gguf"
  write_gguf(
    path,
    run.experiment.task.model,
    run.variables,
    tokenizer=run.experiment.data.tokenizer,
    kind=kind,
  )
  agreement, divergence = compare(path, run)
  assert agreement >= 0.95
  assert divergence <= 0.02
  found = library.Llama(str(path), vocab_only=True, verbose=False)
  text = "Größe: x + 1\n"
  expected = [
    run.experiment.data.tokenizer.eos_id,
    *run.experiment.data.tokenizer.encode(text),
  ]
  assert found.tokenize(text.encode()) == expected
  assert found.detokenize(expected[1:]).decode() == text
  found.close()


@pytest.mark.parametrize("spec", ["bytes", "bpe", "added"])
def test_vocabulary_reads_texts_as_ours_does(tmp_path, spec):
  if spec == "added":
    path = tmp_path / "tokenizer.json"
    tokenizer = vocabularies.make(path, added=vocabularies.ADDED)
  else:
    texts, size = vocabularies.texts(300), 1000 if spec == "bpe" else None
    tokenizer = load_tokenizer(spec, texts=lambda: texts, vocab_size=size)
  sizes = decoder.BITNET | {"vocab_size": tokenizer.vocab_size + 5}
  model = decoder.make_frozen(**sizes)
  write_gguf(tmp_path / "m.gguf", *model, tokenizer=tokenizer, kind="f16")
  found = library.Llama(
    str(tmp_path / "m.gguf"), vocab_only=True, verbose=False
  )
  for text in vocabularies.texts(1000):
    expected = [tokenizer.eos_id, *tokenizer.encode(text)]
    assert found.tokenize(text.encode()) == expected, text
  found.close()


def test_negated_codes_of_one_layer_do_not_pass(tmp_path, run):
  """The bounds above would notice."""
  model = run.experiment.task.model
  wrong = jax.tree_util.tree_map_with_path(
    lambda path, leaf: _negated(leaf) if _is_one_layer(path) else leaf,
    run.variables,
    is_leaf=lambda leaf: isinstance(leaf, Packed),
  )
  write_gguf(tmp_path / "wrong.gguf", model, wrong)
  agreement, divergence = compare(tmp_path / "wrong.gguf", run)
  assert agreement < 0.95 or divergence > 0.02


def _is_one_layer(path):
  names = [getattr(part, "key", None) for part in path]
  return "down" in names and "qvalue" in str(path[-1])


def _negated(packed):
  """Swaps the digits 0 and 2 of the first of the stacked kernels."""
  digits = np.asarray(packed.data[0])
  swapped = sum(
    (2 - (digits >> 2 * i & 3)).astype(np.uint8) << np.uint8(2 * i)
    for i in range(4)
  )
  return packed.replace(data=packed.data.at[0].set(swapped))
