"""Decoders in the files of transformers, without it."""

import dataclasses
import json
import random
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tokenizers

from bitnet_jax.data.text import saved
from bitnet_jax.data.text.tokenizers import load_tokenizer
from bitnet_jax.export import read_hf, write_hf
from bitnet_jax.ops.packing import unpacked
from bitnet_jax.types import QTensor
from tests.corruption import corrupt
from tests.export import vocabularies
from tests.export.decoder import make, make_frozen, make_shapes

CONFIG, TENSORS = "config.json", "model.safetensors"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """A folder that holds a decoder."""
  folder = tmp_path_factory.mktemp("hf") / "written"
  write_hf(str(folder), *make_frozen())
  return folder


@pytest.fixture
def copied(written, tmp_path):
  """One that may be changed."""
  return shutil.copytree(written, tmp_path / "copied")


def leaves(variables):
  found = jax.tree.leaves(
    variables, is_leaf=lambda leaf: isinstance(leaf, QTensor)
  )
  return [unpacked(q) if isinstance(q, QTensor) else q for q in found]


def edit(folder, **values):
  config = json.loads((folder / CONFIG).read_text())
  (folder / CONFIG).write_text(json.dumps(config | values))


def edit_tensors(folder, **values):
  tensors = safetensors.numpy.load_file(folder / TENSORS)
  for name, change in values.items():
    name = name.replace("__", ".")
    tensors[name] = change(tensors[name])
  safetensors.numpy.save_file(tensors, folder / TENSORS)


@pytest.mark.slow
@pytest.mark.parametrize("linear_class", ["autobitlinear", "bitlinear"])
@pytest.mark.parametrize(
  "sizes",
  [
    {},
    {"sub_norm": False, "feed_forward": "geglu", "tie_embeddings": True},
  ],
)
def test_what_is_written_reads_as_the_same_codes(tmp_path, linear_class, sizes):
  model, variables = make_frozen(**sizes)
  write_hf(tmp_path, model, variables, linear_class=linear_class)
  found = read_hf(tmp_path)
  assert found.is_frozen
  cfg = found.model.cfg
  assert dataclasses.replace(cfg, head_dim=None) == model.cfg
  jax.tree.map(
    np.testing.assert_array_equal,
    leaves(found.variables),
    leaves({"params": variables["params"]}),
  )


def test_layout_is_the_published_one(written):
  """Rows a quarter apart share a byte, the first in the lowest bits."""
  _, variables = make_frozen()
  tensors = safetensors.numpy.load_file(written / TENSORS)
  data = tensors["model.layers.1.mlp.down_proj.weight"]
  assert data.dtype == np.uint8
  kernel = variables["params"]["blocks"]["feed_forward"]["down"]["kernel"]
  rows = np.asarray(unpacked(kernel).codes)[1].T
  assert data.shape == (rows.shape[0] // 4, rows.shape[1])
  for quarter in range(4):
    start = quarter * len(data)
    np.testing.assert_array_equal(
      (data >> 2 * quarter & 3).astype(np.int8) - 1,
      rows[start : start + len(data)],
    )
  scale = tensors["model.layers.1.mlp.down_proj.weight_scale"]
  np.testing.assert_array_equal(scale, np.ravel(kernel.scale[1]))


def test_unrolled_model_is_written_as_a_scanned_one(tmp_path):
  model, variables = make_frozen(scan_layers=False)
  write_hf(tmp_path, model, variables)
  assert read_hf(tmp_path).model.cfg.scan_layers


@pytest.mark.slow
def test_latent_weights_are_in_bfloat16(tmp_path):
  model, variables = make()
  write_hf(tmp_path, model, variables)
  found = read_hf(tmp_path)
  assert not found.is_frozen
  expected = jax.tree.map(
    lambda a: a.astype(jnp.bfloat16).astype(jnp.float32), variables
  )
  jax.tree.map(np.testing.assert_array_equal, found.variables, expected)
  quantization = json.loads((tmp_path / CONFIG).read_text())
  mode = quantization["quantization_config"]["quantization_mode"]
  assert mode == "online"


@pytest.mark.slow
def test_variables_may_be_in_their_boxes(tmp_path):
  model, variables = make()
  tokens = jnp.zeros((1, 4), jnp.int32)
  boxed = jax.jit(model.init)(jax.random.key(0), tokens)
  assert jax.tree.structure(boxed) != jax.tree.structure(variables)
  write_hf(tmp_path, model, boxed)
  assert not read_hf(tmp_path).is_frozen
  with pytest.raises(ValueError, match=r"variables hold .*, but not 'params'"):
    write_hf(tmp_path, model, boxed["params"])


def test_several_files_are_read(copied):
  expected = leaves(read_hf(copied).variables)
  tensors = safetensors.numpy.load_file(copied / TENSORS)
  (copied / TENSORS).unlink()
  names = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(tensors)}
  for part in set(names.values()):
    own = {name: tensors[name] for name in tensors if names[name] == part}
    safetensors.numpy.save_file(own, copied / part)
  index = copied / f"{TENSORS}.index.json"
  index.write_text(json.dumps({"weight_map": names}))
  jax.tree.map(
    np.testing.assert_array_equal, leaves(read_hf(copied).variables), expected
  )
  for name in ("../part-0.safetensors", "a\0b", "\ud800"):
    index.write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(ValueError, match="not a file in the same folder"):
      read_hf(copied)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("recipe", "sizes", "message"),
  [
    ("b158", {}, "-127..127.*norm 'layer_norm'.*'bitnet_2b4t' works"),
    ("int8", {}, "not ternary"),
    ("float", {}, "not ternary"),
    ("bitnet_2b4t", {"norm": "layer_norm"}, "model.norm is 'layer_norm'"),
    ("bitnet_2b4t", {"positions": "learned"}, "model.positions is 'learned'"),
    ("bitnet_2b4t", {"use_bias": True}, "model.use_bias is True"),
    ("bitnet_2b4t", {"feed_forward": "gelu"}, "'gelu', not gated: .*swiglu"),
    ("bitnet_2b4t", {"mlp_width": 98}, "model.mlp_width is 98.*multiple of 4"),
    ("bitnet_2b4t", {"head_dim": 8}, "head_dim is not model.hidden, 64"),
  ],
)
def test_what_the_format_cannot_hold_is_refused(
  tmp_path, recipe, sizes, message
):
  model, variables = make_shapes(recipe, **sizes)
  with pytest.raises(
    ValueError, match=f"hf cannot hold this model: .*{message}"
  ):
    write_hf(tmp_path / "out", model, variables)
  assert not (tmp_path / "out").exists()


def test_files_that_read_differently_fail_loudly(tmp_path, monkeypatch):
  model, variables = make_frozen()
  monkeypatch.setattr(
    "bitnet_jax.export.decoders.hf_unpack",
    lambda data: np.zeros((4 * data.shape[0], data.shape[1]), np.int8),
  )
  with pytest.raises(OSError, match=r"does not reproduce .* logits differ"):
    write_hf(tmp_path, model, variables)


QUERY = "model__layers__0__self_attn__q_proj__weight"


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(model_type="gpt2"), "model_type is 'gpt2'.*'bitnet', 'llama'"),
    (dict(hidden_act="tanh"), "hidden_act is 'tanh'"),
    (dict(hidden_size="64"), "hidden is '64', of type str; it must be"),
    (dict(rms_norm_eps=-1.0), "rms_norm_eps is -1.0, which is not positive"),
    (dict(rope_parameters={"rope_theta": 10**400}), "config.json"),
    (dict(vocab_size=265.5), "vocab_size is 265.5, of type float"),
    (dict(tie_word_embeddings="no"), "tie_embeddings is 'no', of type str"),
    (dict(hidden_size=1 << 40), "q_proj.weight is uint8"),
    (dict(num_hidden_layers=1 << 40), "num_hidden_layers is 1099511627776"),
    (dict(num_hidden_layers=1), "the model has no place for the arrays"),
    (dict(attention_bias=True), "attention_bias is True"),
    (dict(rope_parameters={"rope_type": "yarn"}), "only default"),
    (
      dict(quantization_config={"quant_method": "awq"}),
      "quant_method is 'awq'",
    ),
  ],
)
def test_configs_of_others_are_errors(copied, change, message):
  edit(copied, **change)
  with pytest.raises(ValueError, match=message):
    read_hf(copied)


@pytest.mark.parametrize(
  ("name", "change", "message"),
  [
    (QUERY, lambda a: a[1:], r"q_proj.weight is uint8\[15, 64\], not"),
    (QUERY, lambda a: a | 3, "has a byte that is no valid code"),
    (QUERY, lambda a: a.astype(np.float32), "is float32.*, not uint8"),
    (QUERY + "_scale", lambda a: 0 * a, "not positive"),
    (QUERY + "_scale", lambda a: np.nan * a, "not finite"),
    ("model__norm__weight", lambda a: a[:3], r"norm.weight is float32\[3\]"),
  ],
)
def test_arrays_of_others_are_errors(copied, name, change, message):
  edit_tensors(copied, **{name: change})
  with pytest.raises(ValueError, match=message):
    read_hf(copied)


def test_missing_files_are_named(copied):
  (copied / TENSORS).unlink()
  with pytest.raises(FileNotFoundError, match=TENSORS):
    read_hf(copied)
  (copied / CONFIG).unlink()
  with pytest.raises(FileNotFoundError, match=CONFIG):
    read_hf(copied)


def test_vocabulary_has_what_training_puts_in_front(tmp_path):
  tokenizer = load_tokenizer("bytes", texts=tuple, num_sentinels=2)
  write_hf(tmp_path, *make_frozen(), tokenizer=tokenizer)
  found = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
  assert found.encode("Hé").ids == [tokenizer.eos_id, *"Hé".encode()]
  config = json.loads((tmp_path / CONFIG).read_text())
  assert config["bos_token_id"] == config["eos_token_id"] == tokenizer.eos_id


@pytest.mark.parametrize("spec", ["bytes", "bpe", "wordpiece", "unigram"])
def test_names_of_special_tokens_are_text(spec):
  texts = ["Say <pad> and <eos>, or new words of 12 letters.\n"] * 20
  size = None if spec == "bytes" else 340
  tokenizer = load_tokenizer(spec, texts=lambda: texts, vocab_size=size)
  content = json.dumps(saved.describe(tokenizer))
  found = tokenizers.Tokenizer.from_str(content)
  found.encode_special_tokens = True  # as tokenizer_config.json says
  for text in ("<pad>", "say <eos><unk> 1", "<pad <pad>"):
    ids = found.encode(text, add_special_tokens=False).ids
    assert ids == tokenizer.encode(text).tolist()


def test_settings_of_the_vocabulary_are_those_of_training(tmp_path):
  path = tmp_path / "tokenizer.json"
  tokenizer = vocabularies.make(path, rules={"add_prefix_space": True})
  write_hf(tmp_path / "hf", *make_frozen(), tokenizer=tokenizer)
  config = (tmp_path / "hf" / "tokenizer_config.json").read_text()
  assert json.loads(config)["split_special_tokens"] is True
  assert json.loads(config)["add_prefix_space"] is True


def check_corrupted(folder, seed):
  """Corrupts a file; nothing but an error that is meant may come of it."""
  rng = random.Random(seed)
  path = folder / rng.choice([CONFIG, TENSORS])
  original = path.read_bytes()
  path.write_bytes(corrupt(original, rng))
  try:
    read_hf(folder)
  except (OSError, ValueError):
    pass
  finally:
    path.write_bytes(original)


@pytest.mark.slow
def test_many_corrupted_files_are_errors_within_memory(copied):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  for seed in range(2000):
    check_corrupted(copied, seed)
  grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
  assert grown * 1024 < 1e9


def test_corrupted_files_are_errors(copied):
  for seed in range(40):
    check_corrupted(copied, seed)
