"""The four transformers: what they see, their cache, their forms, mistakes."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.layers import bit_layers
from bitnet_jax.layers.introspection import quantize_kernels, with_codes
from bitnet_jax.models.cache import make_cache
from bitnet_jax.models.decoder import Decoder, DecoderConfig
from bitnet_jax.models.encoder import Encoder, EncoderConfig
from bitnet_jax.models.encoder_decoder import (
  EncoderDecoder,
  EncoderDecoderConfig,
)
from bitnet_jax.models.vit import Vit, VitConfig, split_patches
from tests.models.conftest import EVERY_RECIPE

SIZES = {
  "hidden": 16,
  "num_layers": 2,
  "num_heads": 2,
  "num_kv_heads": 1,
  "head_dim": None,
  "mlp_width": 24,
  "feed_forward": "swiglu",
  "norm": "rms_norm",
  "norm_eps": 1e-5,
  "sub_norm": False,
  "use_bias": False,
  "positions": "rotary",
  "rotary_base": 1e4,
  "max_length": 12,
  "dropout": 0.0,
  "scan_layers": True,
  "remat": "none",
  "dtype": "float32",
  "param_dtype": "float32",
}
VOCAB = 11
FAMILIES = {
  "decoder": (
    Decoder,
    DecoderConfig,
    {"tie_embeddings": False, "vocab_size": VOCAB},
  ),
  "encoder": (
    Encoder,
    EncoderConfig,
    {
      "num_types": 2,
      "pooling": "first",
      "vocab_size": VOCAB,
      "num_classes": None,
    },
  ),
  "classifier": (
    Encoder,
    EncoderConfig,
    {
      "num_types": 0,
      "pooling": "mean",
      "vocab_size": VOCAB,
      "num_classes": 3,
    },
  ),
  "encoder_decoder": (
    EncoderDecoder,
    EncoderDecoderConfig,
    {"num_decoder_layers": 3, "tie_embeddings": True, "vocab_size": VOCAB},
  ),
  "vit": (Vit, VitConfig, {"patch": 2, "num_classes": 4}),
}
OTHER_FORM = {
  "feed_forward": "relu2_gated",
  "norm": "layer_norm",
  "sub_norm": True,
  "use_bias": True,
  "positions": "learned",
}


# Those that are compiled by every run of the tests; the rest share their code.
FEW = [
  pytest.param(
    name, marks=[pytest.mark.slow] * (name not in ("decoder", "vit"))
  )
  for name in FAMILIES
]


def make(family, recipe="b158", **changes):
  cls, config, more = FAMILIES[family]
  return cls(config(**(SIZES | more | changes)), recipe)


def ids(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).integers(2, VOCAB, shape))


def inputs_of(family, batch=2):
  if family == "vit":
    return (
      jnp.asarray(np.random.default_rng(0).normal(size=(batch, 4, 6, 3))),
    )
  if family == "encoder_decoder":
    return ids(0, batch, 5), ids(1, batch, 7)
  return (ids(0, batch, 8),)


def init(model, *inputs):
  return nn.unbox(jax.jit(model.init)(jax.random.key(0), *inputs))


@functools.partial(
  jax.jit, static_argnames=("model", "method", "deterministic")
)
def apply(model, variables, *inputs, **kwargs):
  return model.apply(variables, *inputs, **kwargs)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", ["plain", "other"])
def test_parameters_are_those_of_the_golden_file(check_golden, family, form):
  changes = OTHER_FORM if form == "other" else {}
  model = make(family, **changes)
  check_golden(f"{family}_{form}", model, *inputs_of(family))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", EVERY_RECIPE)
@pytest.mark.parametrize("family", ["decoder", "vit"])
def test_overfits_one_batch(overfit, family, recipe):
  (x,) = inputs_of(family)
  labels = jnp.asarray([1, 3])
  if family == "decoder":
    labels = jnp.roll(x, -1, axis=1)
  losses = overfit(make(family, recipe, hidden=32), x, labels, steps=40)
  assert losses[0] > 0.9
  assert losses[-1] < 0.35


@pytest.mark.slow
@pytest.mark.parametrize("family", ["encoder", "classifier"])
def test_encoders_overfit_one_batch(overfit, family):
  (x,) = inputs_of(family)
  labels = x if family == "encoder" else jnp.asarray([1, 2])
  losses = overfit(make(family, hidden=32), x, labels, steps=60)
  assert losses[-1] < 0.35


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["float", "b158"])
@pytest.mark.parametrize("family", FEW)
def test_scanned_and_named_blocks_compute_the_same(family, recipe):
  inputs = inputs_of(family)
  scanned = make(family, recipe)
  named = make(family, recipe, scan_layers=False)
  variables = init(scanned, *inputs)
  params = dict(variables["params"])
  for stack in ("blocks", "encoder", "decoder"):
    if stack in params:
      stacked = params.pop(stack)
      for i in range(jax.tree.leaves(stacked)[0].shape[0]):
        params[f"{stack}_{i}"] = jax.tree.map(lambda p, i=i: p[i], stacked)
  assert jax.tree.structure(params) == jax.tree.structure(
    init(named, *inputs)["params"]
  )
  np.testing.assert_allclose(
    apply(named, {"params": params}, *inputs),
    apply(scanned, variables, *inputs),
    atol=1e-5,
  )


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["products", "full"])
def test_remat_changes_no_gradient(remat):
  inputs = inputs_of("decoder")
  plain, saving = make("decoder"), make("decoder", remat=remat)
  variables = init(plain, *inputs)

  def gradient(model):
    def loss(variables):
      return jnp.sum(model.apply(variables, *inputs) ** 2)

    return jax.jit(jax.grad(loss))(variables)

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    gradient(plain),
    gradient(saving),
  )


def sees(run, tokens):
  """Returns [t, s]: whether the output at t depends on the token at s.

  ``run`` maps one-hot tokens, [1, s, v], to outputs, [1, t, ...].
  """
  one_hot = jax.nn.one_hot(tokens, VOCAB)
  jacobian = jax.jit(jax.jacrev(lambda x: jnp.sum(run(x)[0] ** 2, axis=-1)))
  jacobian = jacobian(one_hot)
  return np.asarray(jnp.any(jacobian[:, 0] != 0, axis=-1))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["float", "b158"])
def test_no_token_sees_a_later_one_or_another_document(recipe):
  tokens = ids(0, 1, 7)
  model = make("decoder", recipe)
  variables = init(model, tokens)
  segments = jnp.asarray([[1, 1, 1, 2, 2, 0, 0]])
  table = variables["params"]["embed"]["tokens"]["embedding"]

  def run(one_hot, segment_ids=None):
    return apply_embedded(model, variables, one_hot @ table, segment_ids)

  causal = np.tril(np.ones((7, 7), bool))
  np.testing.assert_array_equal(sees(run, tokens), causal)
  seen = sees(lambda x: run(x, segments), tokens)[:5]
  same = np.asarray(segments[0][:, None] == segments[0][None])
  np.testing.assert_array_equal(seen, (causal & same)[:5])


def apply_embedded(model, variables, x, segment_ids):
  """Calls a model on embedded tokens, by its own call otherwise."""

  def embed(next_fun, args, kwargs, context):
    if context.module.name == "embed" and context.method_name == "__call__":
      return x
    return next_fun(*args, **kwargs)

  tokens = jnp.zeros(x.shape[:2], jnp.int32)
  with nn.intercept_methods(embed):
    return model.apply(variables, tokens, segment_ids=segment_ids)


@pytest.mark.slow
@pytest.mark.parametrize(
  "recipe", [pytest.param("float", marks=pytest.mark.slow), "b158"]
)
def test_encoder_sees_all_of_its_document_but_no_padding(recipe):
  tokens = ids(0, 1, 6)
  model = make("encoder", recipe)
  variables = init(model, tokens)
  segments = jnp.asarray([[1, 1, 1, 2, 2, 0]])
  table = variables["params"]["embed"]["tokens"]["embedding"]
  seen = sees(
    lambda x: apply_embedded(model, variables, x @ table, segments), tokens
  )[:5]
  same = np.asarray(segments[0][:, None] == segments[0][None])
  np.testing.assert_array_equal(seen, same[:5])


@pytest.mark.slow
def test_decoder_does_not_see_the_padding_of_its_memory():
  inputs, tokens = ids(0, 1, 5), ids(1, 1, 4)
  model = make("encoder_decoder", "float")
  variables = init(model, inputs, tokens)
  mask = jnp.asarray([[1, 1, 1, 0, 0]])
  y = apply(model, variables, inputs, tokens, input_mask=mask)
  other = inputs.at[0, 3:].set(1)
  np.testing.assert_array_equal(
    apply(model, variables, other, tokens, input_mask=mask), y
  )
  other = inputs.at[0, 2].set(1)
  changed = apply(model, variables, other, tokens, input_mask=mask)
  assert not np.allclose(changed, y, atol=1e-4)


def step_by_step(model, variables, tokens, first):
  """Logits with a cache: ``first`` tokens at once, then one by one."""
  b, t = tokens.shape
  positions = jnp.broadcast_to(jnp.arange(t), (b, t))
  cache = make_cache(model.cfg, batch=b, length=t)
  outputs = []
  for start, stop in [(0, first), *((i, i + 1) for i in range(first, t))]:
    part = slice(start, stop)
    logits, cache = apply(
      model,
      variables,
      tokens[:, part],
      positions[:, part],
      cache,
      method="decode",
    )
    outputs.append(logits)
  assert int(cache.index) == t
  return jnp.concatenate(outputs, axis=1)


@pytest.mark.parametrize("recipe", ["float", "b158"])
@pytest.mark.parametrize(
  "changes",
  [
    {},
    pytest.param(
      OTHER_FORM | {"scan_layers": False, "num_kv_heads": 2},
      marks=pytest.mark.slow,
    ),
  ],
)
def test_cache_gives_what_the_whole_sequence_gives(recipe, changes):
  tokens = ids(0, 3, 12)
  model = make("decoder", recipe, **changes)
  variables = init(model, tokens)
  whole = apply(model, variables, tokens)
  cached = step_by_step(model, variables, tokens, first=5)
  if recipe == "float":
    np.testing.assert_allclose(cached, whole, atol=1e-5)
  agreement = np.mean(np.argmax(cached, -1) == np.argmax(whole, -1))
  assert agreement >= 0.99


def test_filling_in_front_of_a_prompt_changes_nothing():
  tokens = ids(0, 1, 6)
  model = make("decoder", "float")
  variables = init(model, tokens)
  cache = make_cache(model.cfg, batch=1, length=9)
  filled = jnp.pad(tokens, ((0, 0), (3, 0)))
  positions = jnp.asarray([[-1, -1, -1, 0, 1, 2, 3, 4, 5]])
  logits, _ = apply(model, variables, filled, positions, cache, method="decode")
  whole = apply(model, variables, tokens)
  np.testing.assert_allclose(logits[:, 3:], whole, atol=1e-5)


@pytest.mark.parametrize(
  "family",
  ["decoder", pytest.param("encoder_decoder", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(
  "scan_layers", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_kernels_rounded_beforehand_give_the_same_bits(family, scan_layers):
  inputs = inputs_of(family)
  model = make(family, scan_layers=scan_layers)
  variables = init(model, *inputs)
  codes = quantize_kernels(bit_layers(model, *inputs), variables["params"])
  assert codes
  rounded = {"params": with_codes(variables["params"], codes)}
  np.testing.assert_array_equal(
    apply(model, rounded, *inputs), apply(model, variables, *inputs)
  )


def test_every_projection_is_a_quantizable_layer_of_its_own_path():
  paths = [layer.path for layer in bit_layers(make("decoder"), ids(0, 1, 4))]
  attention = [
    f"blocks/attention/{n}" for n in ("query", "key", "value", "out")
  ]
  rest = [f"blocks/feed_forward/{n}" for n in ("gate", "up", "down")]
  assert paths == [*attention, *rest, "head"]
  named = bit_layers(make("decoder", scan_layers=False), ids(0, 1, 4))
  assert named[0].path == "blocks_0/attention/query"
  assert named[7].path == "blocks_1/attention/query"


def test_rules_reach_the_layers():
  rules = (("blocks/.*/(query|key)", "float"), (".*", "b158"))
  layers = bit_layers(make("decoder", rules), ids(0, 1, 4))
  floats = [layer.path for layer in layers if layer.recipe.is_float]
  assert floats == ["blocks/attention/query", "blocks/attention/key"]


@pytest.mark.slow
@pytest.mark.parametrize("family", FEW)
def test_dropout_is_active_only_when_training(family):
  inputs = inputs_of(family)
  model = make(family, dropout=0.5)
  variables = init(model, *inputs)

  def run(seed, deterministic):
    rngs = {"dropout": jax.random.key(seed)}
    return apply(
      model, variables, *inputs, deterministic=deterministic, rngs=rngs
    )

  np.testing.assert_array_equal(run(0, True), run(1, True))
  assert not np.allclose(run(0, False), run(1, False))


@pytest.mark.slow
@pytest.mark.parametrize("family", FEW)
def test_strength_is_passed_down_and_one_is_full(family):
  inputs = inputs_of(family)
  model = make(family)
  variables = init(model, *inputs)
  y = [
    apply(model, variables, *inputs, strength=s)
    for s in (None, jnp.float32(1), jnp.float32(0))
  ]
  assert not np.allclose(y[2], y[0], atol=1e-3)
  np.testing.assert_allclose(y[1], y[0], atol=1e-4)


@pytest.mark.parametrize(
  "family",
  ["decoder", pytest.param("vit", marks=pytest.mark.slow)],
)
def test_half_precision_activations(family):
  inputs = inputs_of(family)
  model = make(family, dtype="bfloat16")
  variables = init(model, *inputs)
  assert apply(model, variables, *inputs).dtype == jnp.bfloat16
  dtypes = {p.dtype for p in jax.tree.leaves(variables)}
  assert dtypes == {jnp.dtype("float32")}


@pytest.mark.parametrize("family", ["decoder", "encoder", "encoder_decoder"])
def test_sequence_longer_than_the_model_is_refused(family):
  inputs = tuple(ids(0, 1, 13) for _ in inputs_of(family))
  with pytest.raises(ValueError, match=r"has 13 tokens, .*max_length, 12"):
    init(make(family), *inputs)


def test_cache_longer_than_the_model_is_refused():
  with pytest.raises(ValueError, match=r"has 13 tokens, .*max_length, 12"):
    make_cache(make("decoder").cfg, batch=1, length=13)


def test_patches_are_squares_of_the_image():
  x = jnp.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
  patches = split_patches(x, 2)
  assert patches.shape == (2, 6, 12)
  np.testing.assert_array_equal(patches[1, 4].reshape(2, 2, 3), x[1, 2:, 2:4])
  with pytest.raises(ValueError, match=r"model.patch is 4, .* 4 x 6"):
    split_patches(x, 4)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"hidden": 0}, "model.hidden is 0"),
    ({"num_kv_heads": 3}, r"num_kv_heads is 3; it must divide .*num_heads, 2"),
    ({"hidden": 15}, r"num_heads is 2; it must divide model.hidden, 15"),
    ({"head_dim": 5}, "a head has 5 features .* rotary"),
    ({"feed_forward": "glu"}, "model.feed_forward is 'glu', .*'swiglu'"),
    ({"positions": "alibi"}, "model.positions is 'alibi', .*'rotary'"),
    ({"norm": "batch"}, "model.norm is 'batch'"),
    ({"remat": "all"}, "model.remat is 'all', .*'products'"),
    ({"dtype": "float64"}, "model.dtype is 'float64'"),
    ({"dropout": 1.0}, "model.dropout is 1.0"),
  ],
)
def test_bad_size_is_named(change, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(make("decoder").cfg, **change)


@pytest.mark.slow
def test_classifier_reads_the_first_token_or_the_mean_of_all_but_padding():
  tokens = ids(0, 1, 6)
  segments = jnp.asarray([[1, 1, 1, 1, 0, 0]])
  model = make("classifier", "float", num_layers=1)
  variables = init(model, tokens)
  kernel = variables["params"]["pooler"]["kernel"]

  def outputs_of(segment_ids, **changes):
    """Returns the logits, and what came out of the last norm."""
    classifier = make("classifier", "float", num_layers=1, **changes)
    logits, state = classifier.apply(
      variables,
      tokens,
      segment_ids=segment_ids,
      capture_intermediates=lambda m, _: m.name in ("final_norm", "pooler"),
    )
    found = state["intermediates"]
    return logits, found["final_norm"]["__call__"][0], found["pooler"]

  for segment_ids, length in ((segments, 4), (None, 6)):
    for pooling, pooled in (
      ("first", lambda x: x[:, 0]),
      ("mean", lambda x: x.mean(axis=1)),
    ):
      logits, x, result = outputs_of(segment_ids, pooling=pooling)
      assert logits.shape == (1, 3)
      np.testing.assert_allclose(
        result["__call__"][0],
        pooled(x[:, :length]) @ kernel,
        rtol=1e-5,
        atol=1e-6,
      )


def test_unknown_pooling_is_named():
  with pytest.raises(ValueError, match=r"pooling is 'max', .*'first', 'mean'"):
    dataclasses.replace(make("classifier").cfg, pooling="max")
  with pytest.raises(ValueError, match=r"pooling is 'mean', .*'first' there"):
    dataclasses.replace(make("encoder").cfg, pooling="mean")


def test_classifier_has_no_places():
  (tokens,) = inputs_of("classifier")
  model = make("classifier", "float")
  with pytest.raises(ValueError, match="places are of a model of tokens"):
    jax.eval_shape(lambda t: model.init(jax.random.key(0), t, places=t), tokens)
