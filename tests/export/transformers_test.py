"""Exported decoders in transformers, where PyTorch and it are installed."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.data.text.tokenizers import load_tokenizer
from bitnet_jax.export import write_hf
from bitnet_jax.ops import bit_dot
from bitnet_jax.quantizers.recipe import RECIPES
from tests.export import decoder, trained

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # It would compile each layer.
torch = pytest.importorskip("torch", reason="needs PyTorch and transformers")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings("ignore"),  # of PyTorch
]
WIDE = dict(
  hidden=256, num_layers=4, mlp_width=512, num_heads=4, num_kv_heads=2
)
SWIGLU = dict(feed_forward="swiglu", tie_embeddings=True)


def load(folder):
  model = transformers.AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.float32
  )
  return model.eval()


def logits_of(model, tokens):
  with torch.no_grad():
    return model(torch.tensor(tokens).long()).logits.numpy()


def moved_logits_of(model, tokens):
  """The same once the embeddings have moved by one ulp."""
  embeddings = model.get_input_embeddings().weight.data
  moved = torch.nextafter(embeddings, torch.full_like(embeddings, 1e9))
  embeddings.copy_(moved)
  return logits_of(model, tokens)


def distance(found, expected):
  """Returns the largest difference of logits, and the share of equal argmax."""
  equal = found.argmax(-1) == expected.argmax(-1)
  return np.abs(found - expected).max(), equal.mean()


def compare(folder, model, variables, tokens, **options):
  """Returns differences of logits, ours and of an ulp, and share of argmax."""
  write_hf(folder, model, variables, **options)
  found = load(folder)
  theirs = logits_of(found, tokens)
  ours = np.asarray(jax.jit(model.apply)(variables, tokens))
  difference, agreement = distance(ours, theirs)
  ulp, own = distance(moved_logits_of(found, tokens), theirs)
  print(
    f"{difference:.2g}, argmax {agreement:.4f};"
    f" transformers itself, an ulp apart: {ulp:.2g}, {own:.4f}"
  )
  return difference, ulp, agreement


@pytest.mark.parametrize("linear_class", ["autobitlinear", "bitlinear"])
@pytest.mark.parametrize("sizes", [{}, SWIGLU, SWIGLU | dict(sub_norm=False)])
def test_logits_differ_no_more_than_by_rounding(tmp_path, sizes, linear_class):
  model, variables = decoder.make_frozen(**WIDE, **sizes)
  tokens = np.random.default_rng(0).integers(0, 256, (32, 64), np.int32)
  difference, ulp, agreement = compare(
    tmp_path, model, variables, tokens, linear_class=linear_class
  )
  assert difference <= 3 * ulp
  assert agreement >= 0.98


def test_latent_weights_are_rounded_as_ours_are(tmp_path):
  model, variables = decoder.make(**WIDE)
  variables = jax.tree.map(
    lambda a: a.astype(jnp.bfloat16).astype(jnp.float32), variables
  )
  tokens = np.random.default_rng(0).integers(0, 256, (4, 64), np.int32)
  difference, ulp, _ = compare(tmp_path, model, variables, tokens)
  assert difference <= 3 * ulp


def test_trained_decoder_agrees(tmp_path):
  run = trained.train(
    tmp_path / "run", feed_forward="relu2_gated", tie_embeddings=False
  )
  model = run.experiment.task.model
  tokens = trained.prompts(run)
  difference, ulp, agreement = compare(
    tmp_path / "hf", model, run.variables, tokens
  )
  assert difference <= 3 * ulp
  assert agreement >= 0.98


@pytest.mark.parametrize("linear_class", ["autobitlinear", "bitlinear"])
def test_each_layer_agrees_given_the_same_input(tmp_path, linear_class):
  model, variables = decoder.make_frozen(**WIDE)
  write_hf(tmp_path, model, variables, linear_class=linear_class)
  found, seen = load(tmp_path), {}
  for name, layer in found.named_modules():
    if type(layer).__name__ in ("BitLinear", "AutoBitLinear"):
      layer.register_forward_hook(
        lambda _, x, y, name=name: seen.update({name: (x[0], y)})
      )
  tokens = np.random.default_rng(0).integers(0, 256, (4, 64), np.int32)
  logits_of(found, tokens)
  assert len(seen) == 7 * WIDE["num_layers"]
  parts = {
    "q_proj": ("attention", "query"),
    "k_proj": ("attention", "key"),
    "v_proj": ("attention", "value"),
    "o_proj": ("attention", "out"),
    "gate_proj": ("feed_forward", "gate"),
    "up_proj": ("feed_forward", "up"),
    "down_proj": ("feed_forward", "down"),
  }
  for name, (x, y) in seen.items():
    _, _, layer, _, part = name.split(".")
    group, own = parts[part]
    stacked = variables["params"]["blocks"][group][own]["kernel"]
    kernel = jax.tree.map(lambda a, i=int(layer): a[i], stacked)
    ours = bit_dot(jnp.asarray(x.numpy()), kernel, RECIPES["bitnet_2b4t"])
    theirs = y.numpy()
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max(), name


def test_vocabulary_reads_text_as_ours_does(tmp_path):
  tokenizer = load_tokenizer("bytes", texts=tuple)
  write_hf(tmp_path, *decoder.make_frozen(), tokenizer=tokenizer)
  found = transformers.AutoTokenizer.from_pretrained(tmp_path)
  ids = found("Größe 漢").input_ids
  assert ids == [tokenizer.eos_id, *tokenizer.encode("Größe 漢")]
  assert found.decode(ids, skip_special_tokens=True) == "Größe 漢"
  assert found.eos_token_id == tokenizer.eos_id
