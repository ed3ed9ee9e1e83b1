"""Continuing prompts, with a cache."""

import dataclasses
import importlib

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
from bitnet_jax.quantizers.recipe import RECIPES
from tests.inference.writers import (
  SEARCH,
  VOCAB,
  boxed_decoder,
  boxed_translator,
  decoder,
  search,
  spoiled,
  translator,
)

# The function has the name of its module.
generate_module = importlib.import_module("bitnet_jax.inference.generate")

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


SETTINGS = {
  "x64": lambda: jax.enable_x64(True),
  "strict": lambda: jax.numpy_dtype_promotion("strict"),
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", SETTINGS)
def test_writing_does_not_depend_on_settings_of_dtypes(mode):
  sampling = Sampling(temperature=2.0, top_k=5, top_p=0.9)
  options = {"max_new_tokens": 5, "sampling": sampling}

  def write():
    model, variables = decoder()
    rows = generate(model, variables, PROMPTS, **options)
    steps = [*stream(model, variables, PROMPTS, **options)]
    assert [list(row) for row in zip(*steps, strict=True)] == rows
    return rows, search(num_beams=3).tolist()

  expected = write()
  with SETTINGS[mode]():
    assert write() == expected


@pytest.mark.parametrize("mode", SETTINGS)
def test_writing_can_be_traced_under_any_setting_of_dtypes(mode):
  """The quick half of the test above, which compiles it, too."""
  model, variables = decoder()
  tokens = np.zeros((3, 5), np.int32)
  allowed = generate_module._allowed(model, 1, ())
  with SETTINGS[mode]():
    args = model, variables, tokens, tokens, jax.random.key(0), allowed
    options = {"max_new_tokens": 5, "sampling": Sampling(temperature=2.0)}
    written, lengths = generate_module._generate.eval_shape(*args, **options)
    model, variables, *arrays = translator()
    found = jax.eval_shape(
      lambda v: beam_search(model, v, *arrays, **SEARCH), variables
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


def test_norm_over_all_tokens_generates_no_text():
  leaking = dataclasses.replace(RECIPES["b158"], norm="layer_norm_all")
  model = decoder()[0].clone(recipe=leaking)
  with pytest.raises(ValueError, match="'layer_norm_all', which runs"):
    generate(model, {}, PROMPTS, max_new_tokens=1)
  model, variables, inputs, mask = translator()
  model = model.clone(recipe=(("decoder.*", leaking), (".*", "b158")))
  with pytest.raises(ValueError, match="has the norm 'layer_norm_all'"):
    beam_search(model, variables, inputs, mask, **SEARCH)
