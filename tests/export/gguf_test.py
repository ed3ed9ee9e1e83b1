"""Decoders in files of llama.cpp, without it."""

import gguf
import numpy as np
import pytest

from bitnet_jax.data.text.tokenizers import load_tokenizer
from bitnet_jax.export import write_gguf
from bitnet_jax.ops.packing import unpacked
from tests.export.decoder import BITNET, LLAMA, make_frozen, make_shapes


def arrays(path):
  return {
    tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    for tensor in gguf.GGUFReader(path).tensors
  }


@pytest.fixture(scope="module")
def bitnet():
  return make_frozen(**BITNET)


@pytest.fixture(scope="module")
def llama():
  return make_frozen(**LLAMA)


@pytest.mark.parametrize("kind", ["tq2_0", "tq1_0", "f16"])
def test_codes_and_scales_of_bitnet_are_exact(tmp_path, bitnet, kind):
  model, variables = bitnet
  write_gguf(tmp_path / "m.gguf", model, variables, kind=kind)
  found = arrays(tmp_path / "m.gguf")
  kernel = variables["params"]["blocks"]["attention"]["key"]["kernel"]
  for i in range(model.cfg.num_layers):
    np.testing.assert_array_equal(
      found[f"blk.{i}.attn_k.weight"], unpacked(kernel).codes[i].T
    )
    np.testing.assert_array_equal(
      found[f"blk.{i}.attn_k.scale"], np.ravel(kernel.scale[i])
    )


@pytest.mark.slow
def test_rows_of_llama_are_paired_as_it_rotates_them(tmp_path, llama):
  model, variables = llama
  write_gguf(str(tmp_path / "m.gguf"), model, variables)
  found = arrays(tmp_path / "m.gguf")
  kernel = variables["params"]["blocks"]["attention"]["key"]["kernel"]
  rows = np.asarray(unpacked(kernel).codes)[0].T
  head = model.cfg.features_of_head
  for place in range(head):
    # Pairs (0, 1), (2, 3), ... there are (0, h/2), (1, h/2 + 1), ... here.
    own = place // 2 + place % 2 * head // 2
    np.testing.assert_array_equal(
      np.sign(found["blk.0.attn_k.weight"][place]), rows[own]
    )
  scale = np.float16(kernel.scale[0]).item()
  assert np.abs(found["blk.0.attn_k.weight"]).max() == scale


def test_vocabulary_is_that_of_training(tmp_path, bitnet):
  tokenizer = load_tokenizer("bytes", texts=tuple, num_sentinels=1)
  write_gguf(tmp_path / "m.gguf", *bitnet, tokenizer=tokenizer)
  fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
  tokens = fields["tokenizer.ggml.tokens"].contents()
  assert len(tokens) == 265
  assert tokens[ord("a")] == "a"
  assert tokens[ord(" ")] == "Ġ"
  assert tokens[264] == "<unused_264>"  # The model has one more.
  assert fields["tokenizer.ggml.bos_token_id"].contents() == tokenizer.eos_id


def test_other_vocabularies_are_refused(tmp_path, bitnet):
  tokenizer = load_tokenizer(
    "wordpiece", texts=lambda: ["some words"] * 9, vocab_size=200
  )
  with pytest.raises(ValueError, match=r"WordPiece.*'bytes', 'bpe'"):
    write_gguf(tmp_path / "m.gguf", *bitnet, tokenizer=tokenizer)


@pytest.mark.parametrize(
  ("recipe", "sizes", "message"),
  [
    ("b158", {}, "norm 'layer_norm'.*recipe 'bitnet_2b4t' works"),
    ("bitnet_2b4t", {"feed_forward": "relu2_gated"}, "llama.cpp has 'swiglu'"),
    ("bitnet_2b4t", {"tie_embeddings": False}, "llama.cpp ties embeddings"),
    ("bitnet_2b4t", {"mlp_width": 300}, "is 300.*multiples of 256: 256 or 512"),
    ("bitnet_2b4t", {"hidden": 64}, "model.hidden is 64.*: 256 works"),
  ],
)
def test_what_the_format_cannot_hold_is_refused(
  tmp_path, recipe, sizes, message
):
  model, variables = make_shapes(recipe, **(BITNET | sizes))
  path = tmp_path / "m.gguf"
  with pytest.raises(ValueError, match=f"gguf cannot hold .*{message}"):
    write_gguf(path, model, variables)
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_rows_of_any_length_are_written_in_half_precision(tmp_path):
  sizes = BITNET | dict(hidden=64, mlp_width=96)
  write_gguf(tmp_path / "m.gguf", *make_frozen(**sizes), kind="f16")
  assert arrays(tmp_path / "m.gguf")["blk.0.ffn_up.weight"].shape == (96, 64)


def test_nothing_is_overwritten(tmp_path, bitnet):
  (tmp_path / "m.gguf").write_text("mine")
  with pytest.raises(FileExistsError, match="choose another name"):
    write_gguf(tmp_path / "m.gguf", *bitnet)
  assert (tmp_path / "m.gguf").read_text() == "mine"


def test_files_that_read_differently_fail_loudly(tmp_path, bitnet, monkeypatch):
  quantize = gguf.quants.quantize
  monkeypatch.setattr(gguf.quants, "quantize", lambda a, t: quantize(-a, t))
  with pytest.raises(OSError, match=r"does not reproduce .* logits differ"):
    write_gguf(tmp_path / "m.gguf", *bitnet)
