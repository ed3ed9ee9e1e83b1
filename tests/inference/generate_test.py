"""Writing: sampling, generation with a cache, beam search."""

import dataclasses
import functools
import importlib
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.inference import (
  Sampling,
  beam_search,
  freeze,
  generate,
  stream,
)
from bitnet_jax.inference.sampling import NO_TOKEN
from bitnet_jax.models.decoder import Decoder, DecoderConfig
from bitnet_jax.models.encoder_decoder import (
  EncoderDecoder,
  EncoderDecoderConfig,
)
from bitnet_jax.quantizers.recipe import RECIPES
from tests.models.transformers_test import SIZES

# The function has the name of its module.
generate_module = importlib.import_module("bitnet_jax.inference.generate")

VOCAB = 7
LOGITS = jnp.log(jnp.asarray([[0.1, 0.4, 0.2, 0.3], [0.7, 0.1, 0.1, 0.1]]))


def allowed(logits=LOGITS, **options):
  restricted = Sampling(temperature=1.0, **options).restrict(logits)
  return [np.flatnonzero(row > -np.inf).tolist() for row in restricted]


def test_only_the_likeliest_tokens_are_kept():
  assert allowed() == [[0, 1, 2, 3], [0, 1, 2, 3]]
  assert allowed(top_k=2)[0] == [1, 3]
  assert allowed(top_k=9) == allowed()
  assert allowed(top_p=0.6) == [[1, 3], [0]]
  assert allowed(top_p=0.71)[0] == [1, 2, 3]
  assert allowed(top_p=1e-6) == [[1], [0]]
  assert allowed(top_k=3, top_p=0.75)[0] == [1, 3]  # Of what top_k left.


def test_equally_likely_tokens_are_cut_by_their_ids():
  equal = jnp.zeros((1, 8))
  assert allowed(equal, top_k=1) == [[0]]
  assert allowed(equal, top_k=3) == [[0, 1, 2]]
  assert allowed(equal, top_p=0.5) == [[0, 1, 2, 3]]
  assert allowed(equal, top_p=1.0) == [[*range(8)]]
  assert allowed(jnp.zeros((1, 8), jnp.bfloat16), top_p=0.25) == [[0, 1]]
  ties = jnp.asarray([[1.0, 3.0, 2.0, 3.0, 3.0]])
  assert allowed(ties, top_k=2) == [[1, 3]]
  assert allowed(ties, top_k=4) == [[1, 2, 3, 4]]


def test_no_token_is_lost_where_all_may_be_drawn():
  # All but the first share 1e-7, less than float32 tells from 1.
  logits = jnp.log(jnp.asarray([[1.0] + [1e-10] * 1000]))
  assert len(allowed(logits, top_p=1.0)[0]) == 1001
  assert allowed(logits, top_p=1e-46) == [[0]]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("temperature", [1e-300, 1e-45, 1e-38, 1e-30])
def test_cold_sampling_takes_the_likeliest_token(temperature, dtype):
  logits = jnp.asarray([[-9.0, 2.5, -jnp.inf, 2.0], [3e4, 1.0, -3e4, 0.0]])
  sampling = Sampling(temperature=temperature)
  keys = jax.random.split(jax.random.key(0), 20)
  tokens = jax.vmap(lambda k: sampling(logits.astype(dtype), k))(keys)
  assert tokens.tolist() == [[1, 0]] * 20


def test_hot_sampling_draws_all_that_is_possible():
  logits = jnp.asarray([[50.0, -jnp.inf, 0.0, -50.0]])
  keys = jax.random.split(jax.random.key(0), 600)
  for temperature in (1e6, 1e38, 1e300):
    sampling = Sampling(temperature=temperature)
    tokens = jax.vmap(lambda key, s=sampling: s(logits, key))(keys)[:, 0]
    shares = np.bincount(tokens, minlength=4) / len(keys)
    assert shares == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3], abs=0.08)


@pytest.mark.parametrize("jit", [jax.jit, lambda function: function])
@pytest.mark.parametrize(
  "options",
  [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 3, "top_p": 0.9}],
)
def test_logits_that_tell_nothing_choose_no_token(options, jit):
  logits = np.random.default_rng(0).normal(size=(5, 8192))
  logits[1, 5000] = np.nan
  logits[2, 8191] = np.inf
  logits[3] = -np.inf
  logits[4, :4000] = -np.inf
  sampling = jit(Sampling(**options))
  for dtype in ("float32", "float16", "bfloat16"):
    tokens = sampling(jnp.asarray(logits, dtype), jax.random.key(0)).tolist()
    assert tokens[1:4] == [NO_TOKEN] * 3
    assert tokens[0] >= 0
    assert tokens[4] >= 4000


def test_temperature_scales_the_logits():
  keys = jax.random.split(jax.random.key(0), 4000)

  def share(temperature):
    sampling = Sampling(temperature=temperature)
    tokens = jax.vmap(lambda key: sampling(LOGITS[:1], key))(keys)
    return float(jnp.mean(tokens == 1))

  assert share(0.0) == 1.0
  assert share(1.0) == pytest.approx(0.4, abs=0.03)
  squares = np.square([0.1, 0.4, 0.2, 0.3])
  assert share(0.5) == pytest.approx(0.16 / squares.sum(), abs=0.03)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"temperature": -1.0}, "temperature is -1.0"),
    ({"temperature": np.nan}, "temperature is nan"),
    ({"temperature": np.inf}, "temperature is inf; it must be finite"),
    ({"top_k": 0}, "top_k is 0"),
    ({"top_k": -1}, "top_k is -1"),
    ({"top_k": 2.5}, "top_k is 2.5; it must be a whole number"),
    ({"top_p": 0.0}, "top_p is 0.0"),
    ({"top_p": -0.1}, "top_p is -0.1"),
    ({"top_p": 1.5}, "top_p is 1.5"),
    ({"top_p": np.nan}, "top_p is nan"),
  ],
)
def test_bad_sampling_is_named(options, message):
  with pytest.raises(ValueError, match=message):
    Sampling(**options)


@functools.cache
def boxed_decoder(recipe):
  more = {"tie_embeddings": False, "vocab_size": VOCAB}
  model = Decoder(DecoderConfig(**(SIZES | more)), recipe)
  init = jax.jit(model.init)
  return model, init(jax.random.key(3), jnp.zeros((1, 4), int))


def decoder(recipe="b158"):
  model, variables = boxed_decoder(recipe)
  return model, nn.unbox(variables)


PROMPTS = [[1, 2, 3], [4], [5, 6, 1, 2, 0]]


def greedy(model, variables, prompt, n):
  """Always the likeliest token of the whole sequence, without a cache."""
  apply = jax.jit(model.apply)
  sequence = list(prompt)
  for _ in range(n):
    padded = sequence + [0] * (12 - len(sequence))
    logits = apply(variables, jnp.asarray([padded]))
    sequence.append(int(jnp.argmax(logits[0, len(sequence) - 1])))
  return sequence[len(prompt) :]


@pytest.mark.slow
@pytest.mark.parametrize(
  "recipe", [pytest.param("float", marks=pytest.mark.slow), "b158"]
)
def test_greedy_generation_is_the_likeliest_token_each_time(recipe):
  model, variables = decoder(recipe)
  written = generate(model, variables, PROMPTS, max_new_tokens=5)
  assert written == [greedy(model, variables, p, 5) for p in PROMPTS]


@pytest.mark.slow
def test_no_key_is_needed_where_nothing_is_drawn():
  recipe = dataclasses.replace(RECIPES["b158"], backward="int8")
  model, variables = decoder(recipe)
  expected = generate(model, variables, PROMPTS, max_new_tokens=5)
  frozen = freeze(variables, model)
  assert generate(model, frozen, PROMPTS, max_new_tokens=5) == expected


def test_text_ends_before_the_stop_token():
  model, variables = decoder()
  full = generate(model, variables, PROMPTS, max_new_tokens=5)
  stop = full[0][2]
  found = generate(model, variables, PROMPTS, max_new_tokens=5, stop_id=stop)
  ends = [row.index(stop) if stop in row else 5 for row in full]
  assert found == [row[:end] for row, end in zip(full, ends, strict=True)]


def test_sampling_depends_on_the_seed_alone():
  model, variables = decoder()
  sampling = Sampling(temperature=5.0)

  def run(seed):
    return generate(
      model,
      variables,
      PROMPTS,
      max_new_tokens=6,
      sampling=sampling,
      seed=seed,
    )

  assert run(0) == run(0)
  assert run(0) != run(1)


def test_each_of_several_stop_tokens_ends_a_text():
  model, variables = decoder()
  full = generate(model, variables, PROMPTS, max_new_tokens=5)
  stops = [full[0][2], full[2][1]]
  expected = [
    row[: min(row.index(stop) if stop in row else 5 for stop in stops)]
    for row in full
  ]
  options = {"max_new_tokens": 5, "stop_id": stops}
  assert generate(model, variables, PROMPTS, **options) == expected
  steps = [*stream(model, variables, PROMPTS, **options)]
  rows = [[t for t in row if t is not None] for row in zip(*steps, strict=True)]
  assert rows == expected


def test_banned_tokens_are_never_written():
  model, variables = decoder()
  hot = {"max_new_tokens": 6, "sampling": Sampling(temperature=5.0)}
  for options in ({"max_new_tokens": 5}, hot):
    rows = generate(model, variables, PROMPTS, **options, banned=[0, 2, 5])
    assert {token for row in rows for token in row} <= {1, 3, 4, 6}
  (step, *_) = stream(
    model, variables, PROMPTS, max_new_tokens=5, banned=[*range(6)]
  )
  assert step == [6, 6, 6]
  with pytest.raises(ValueError, match="banned holds all of the 7 ids"):
    generate(model, variables, [[1]], max_new_tokens=1, banned=range(VOCAB))


def as_array(rows):
  return np.asarray(rows, np.int64)


@pytest.mark.parametrize("kind", [as_array, jnp.asarray, tuple])
def test_prompts_may_be_arrays(kind):
  rows = [[1, 2, 3, 4, 5], [4, 5, 6, 0, 0], [0, 0, 0, 0, 1]]
  expected = generate(*decoder(), rows, max_new_tokens=5)
  assert generate(*decoder(), kind(rows), max_new_tokens=5) == expected
  each = [kind(row) for row in rows]
  assert generate(*decoder(), each, max_new_tokens=5) == expected


@pytest.mark.parametrize(
  ("mode", "streams"),
  [
    pytest.param("x64", True, marks=pytest.mark.slow),
    pytest.param("strict", True, marks=pytest.mark.slow),
    ("strict", False),
  ],
)
def test_writing_does_not_depend_on_settings_of_dtypes(mode, streams):
  options = {"max_new_tokens": 5}
  if streams:
    options["sampling"] = Sampling(temperature=2.0, top_k=5, top_p=0.9)

  def write():
    model, variables = decoder()
    rows = generate(model, variables, PROMPTS, **options)
    if streams:
      steps = [*stream(model, variables, PROMPTS, **options)]
      assert [list(row) for row in zip(*steps, strict=True)] == rows
    return rows, search(num_beams=3).tolist()

  expected = write()
  settings = {
    "x64": jax.enable_x64(True),
    "strict": jax.numpy_dtype_promotion("strict"),
  }
  with settings[mode]:
    assert write() == expected


def test_writing_can_be_traced_with_x64():
  """The quick half of the test above, which compiles it, too."""
  model, variables = decoder()
  tokens = np.zeros((3, 5), np.int32)
  allowed = generate_module._allowed(model, 1, ())
  with jax.enable_x64(True):
    args = model, variables, tokens, tokens, jax.random.key(0), allowed
    options = {"max_new_tokens": 5, "sampling": Sampling(temperature=2.0)}
    written, lengths = generate_module._generate.eval_shape(*args, **options)
    model, *rest = translator()
    found = jax.eval_shape(
      lambda v: beam_search(model, v, *rest[1:], **SEARCH), rest[0]
    )
  assert {written.dtype, lengths.dtype, found.dtype} == {np.dtype("int32")}


def test_variables_may_be_in_their_boxes():
  model, boxed = boxed_decoder("b158")
  variables = nn.unbox(boxed)
  assert jax.tree.structure(boxed) != jax.tree.structure(variables)
  expected = generate(model, variables, PROMPTS, max_new_tokens=5)
  assert generate(model, boxed, PROMPTS, max_new_tokens=5) == expected
  model, boxed, *arrays = boxed_translator()
  found = beam_search(model, boxed, *arrays, **SEARCH)
  np.testing.assert_array_equal(found, search())
  with pytest.raises(ValueError, match=r"variables hold .*, but not 'params'"):
    generate(decoder()[0], variables["params"], PROMPTS, max_new_tokens=5)


def spoiled(variables, value):
  """Variables whose head has another value in the column of one token."""
  params = variables["params"]
  kernel = params["head"]["kernel"].at[:, 3].set(value)
  head = params["head"] | {"kernel": kernel}
  return {"params": params | {"head": head}}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_model_that_computes_no_numbers_fails(value):
  model, variables = decoder()
  variables, options = spoiled(variables, value), {"max_new_tokens": 5}
  message = "prompt 0, new token 0: the logits are NaN or infinite"
  with pytest.raises(FloatingPointError, match=message):
    generate(model, variables, PROMPTS, **options)
  with pytest.raises(FloatingPointError, match=message):
    next(stream(model, variables, PROMPTS, **options))
  model, variables, *arrays = translator()
  variables = spoiled(variables, value)
  for num_beams in (1, 3):
    beams = SEARCH | {"num_beams": num_beams}
    with pytest.raises(FloatingPointError, match="row 0: the logits are NaN"):
      beam_search(model, variables, *arrays, **beams)


@pytest.mark.parametrize(
  ("prompts", "n", "message"),
  [
    ([], 1, "there are no prompts"),
    (np.zeros((0, 3), int), 1, "there are no prompts"),
    ([[1], []], 1, "prompt 1 is empty"),
    ([[1, 7]], 1, r"prompt 0 holds the id 7; ids must be in 0..6"),
    (np.asarray([[1, 7]]), 1, r"prompt 0 holds the id 7; ids must be in 0..6"),
    ([[-1]], 1, "prompt 0 holds the id -1"),
    ([np.asarray([2**40])], 1, "prompt 0 holds the id 1099511627776"),
    ([[1.0, 2.0]], 1, "prompt 0 holds float64; ids are integers"),
    ([[True]], 1, "prompt 0 holds bool"),
    ([["a"]], 1, "prompt 0 holds <U1"),
    ([[10**30]], 1, "prompt 0 holds object"),
    ([1, 2], 1, r"prompt 0 is 1; it must be a row of ids, such as \[1, 2\]"),
    (np.asarray([1, 2]), 1, "prompt 0 is .*1.*; it must be a row of ids"),
    ([[[1, 2], [3]]], 1, "prompt 0 is .*; it must be a row of ids"),
    (["text"], 1, "prompt 0 is the text 'text'; encode it"),
    ("text", 1, "prompts is 'text'; it must hold rows of ids"),
    (1, 1, "prompts is 1; it must hold rows of ids"),
    ([[1]], 0, "max_new_tokens is 0"),
    ([[1]], 2.5, "max_new_tokens is 2.5; it must be a whole number"),
    ([[1], [1] * 9], 4, r"longest prompt has 9 tokens; .* 4 .*max_length, 12"),
  ],
)
def test_bad_prompt_is_named(prompts, n, message):
  with pytest.raises(ValueError, match=message):
    generate(*decoder(), prompts, max_new_tokens=n)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"stop_id": -1}, "stop_id holds the id -1"),
    ({"stop_id": [1, 7]}, "stop_id holds the id 7"),
    ({"stop_id": "</s>"}, "stop_id holds <U4; ids are integers"),
    ({"stop_id": [[1]]}, r"stop_id is \[\[1\]\]; it must be a row of ids"),
    ({"banned": [7]}, "banned holds the id 7"),
  ],
)
def test_bad_id_is_named(options, message):
  with pytest.raises(ValueError, match=message):
    generate(*decoder(), [[1]], max_new_tokens=1, **options)


@functools.cache
def boxed_translator():
  more = {"num_decoder_layers": 1, "tie_embeddings": False, "vocab_size": VOCAB}
  model = EncoderDecoder(EncoderDecoderConfig(**(SIZES | more)), "float")
  inputs = jnp.asarray(np.random.default_rng(0).integers(2, VOCAB, (3, 5)))
  variables = jax.jit(model.init)(jax.random.key(1), inputs, inputs)
  mask = jnp.asarray([[1] * 5, [1] * 3 + [0] * 2, [1] * 4 + [0]])
  return model, variables, inputs, mask


def translator():
  model, variables, *arrays = boxed_translator()
  return model, nn.unbox(variables), *arrays


SEARCH = {"start_id": 0, "stop_id": 1, "max_length": 4}


def search(**options):
  model, variables, inputs, mask = translator()
  given = {"inputs": inputs, "input_mask": mask} | SEARCH | options
  return np.asarray(beam_search(model, variables, **given))


@functools.partial(jax.jit, static_argnames="model")
def logits_of(model, variables, inputs, tokens, mask):
  return model.apply(variables, inputs, tokens, input_mask=mask)


def log_probabilities(outputs):
  """Of outputs [b, t]; nothing counts behind the first stop."""
  model, variables, inputs, mask = translator()
  starts = jnp.pad(outputs[:, :-1], ((0, 0), (1, 0)))
  logits = logits_of(model, variables, inputs, starts, mask)
  steps = np.take_along_axis(
    np.asarray(jax.nn.log_softmax(logits)), outputs[..., None], axis=-1
  )[..., 0]
  ended = np.cumsum(outputs == 1, axis=-1) - (outputs == 1)
  return (steps * (ended == 0)).sum(-1)


@pytest.mark.slow
def test_one_beam_is_greedy_search():
  model, variables, inputs, mask = translator()
  sequence = np.zeros((3, 1), int)
  for _ in range(4):
    logits = logits_of(model, variables, inputs, sequence, mask)
    following = np.asarray(jnp.argmax(logits[:, -1:], axis=-1))
    sequence = np.concatenate([sequence, following], axis=1)
  expected = sequence[:, 1:]
  ended = np.cumsum(expected == 1, axis=-1) > 0
  np.testing.assert_array_equal(search(), np.where(ended, 1, expected))


@pytest.mark.slow
def test_enough_beams_find_the_likeliest_output():
  every = np.asarray(list(itertools.product(range(VOCAB), repeat=2)))
  best = np.max([log_probabilities(np.tile(row, (3, 1))) for row in every], 0)
  found = search(max_length=2, num_beams=VOCAB, length_penalty=0.0)
  np.testing.assert_allclose(log_probabilities(found), best, atol=1e-5)


@pytest.mark.slow
def test_more_beams_are_no_less_likely():
  one, four = (
    search(length_penalty=0.0),
    search(num_beams=4, length_penalty=0.0),
  )
  assert np.all(log_probabilities(four) >= log_probabilities(one) - 1e-5)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_banned_tokens_are_in_no_output(num_beams):
  banned = [0, 4, 6]
  free = search(num_beams=num_beams)
  assert np.isin(free, banned).any()
  assert not np.isin(search(num_beams=num_beams, banned=banned), banned).any()


def test_inputs_may_be_arrays_of_numpy():
  _, _, inputs, mask = translator()
  found = search(inputs=np.asarray(inputs, np.int64), input_mask=mask > 0)
  np.testing.assert_array_equal(found, search())


@pytest.mark.slow
def test_outputs_that_cannot_be_chosen_are_none_within_jit():
  model, variables, inputs, mask = translator()
  jitted = jax.jit(lambda v: beam_search(model, v, inputs, mask, **SEARCH))
  np.testing.assert_array_equal(jitted(variables), search())
  assert np.all(np.asarray(jitted(spoiled(variables, np.nan))) == NO_TOKEN)


ONES = np.ones((3, 5), int)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"inputs": ONES[0]}, r"inputs has the shape \[5\]; it must be \[b, s\]"),
    ({"inputs": ONES[:, :0]}, r"inputs has the shape \[3, 0\]"),
    ({"inputs": ONES * 0.5}, "inputs holds float64; ids are integers"),
    ({"inputs": ONES * 7}, "inputs holds the id 7"),
    ({"input_mask": ONES[:, 1:]}, r"input_mask .*\[3, 4\], not .* \[3, 5\]"),
    ({"start_id": 7}, "start_id holds the id 7"),
    ({"stop_id": -1}, "stop_id holds the id -1"),
    ({"stop_id": (0, 1)}, r"stop_id is \(0, 1\); it must be one id"),
    ({"length_penalty": np.nan}, "length_penalty is nan"),
    (
      {"length_penalty": 1e3},
      "length_penalty is 1000.0; a length of 4 to this",
    ),
    ({"num_beams": 5, "banned": [4, 5, 6]}, "is 5, more than the 4 tokens"),
    ({"num_beams": 0}, "num_beams is 0"),
    ({"max_length": 0}, "max_length is 0"),
    ({"num_beams": 8}, "num_beams is 8, more than the 7 tokens"),
    ({"max_length": 13}, "13 tokens, more than model.max_length, 12"),
  ],
)
def test_bad_search_is_named(options, message):
  with pytest.raises(ValueError, match=message):
    search(**options)
