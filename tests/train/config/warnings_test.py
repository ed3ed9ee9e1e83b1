"""What is warned of before a run."""

import types

import pytest

from bitnet_jax.quantizers.recipe import RECIPES, Recipe
from bitnet_jax.train.config.quant_options import PhaseIn
from bitnet_jax.train.config.settings import warn_of_rarely_meant

MIXING = Recipe(norm="layer_norm_all")


def warn(
  *, step=0, total=100, eval_every=20, recipe="b158", profiled=None, **changes
):
  options = dict(start=0, steps=0, metric="valid/accuracy", mode="max")
  options = types.SimpleNamespace(**(options | {"patience": None} | changes))
  phase_in = PhaseIn(
    start=options.start, steps=options.steps, shape="linear", optimizer="keep"
  )
  settings = types.SimpleNamespace(
    eval_every=eval_every,
    quant=types.SimpleNamespace(phase_in=phase_in),
    checkpoint=options,
    early_stopping=options,
    profile=types.SimpleNamespace(start=profiled),
  )
  recipe = RECIPES.get(recipe, MIXING)
  layers = [types.SimpleNamespace(recipe=recipe, path="query")]
  warn_of_rarely_meant(settings, layers, step=step, total_steps=total)


@pytest.mark.parametrize(
  ("options", "expected"),
  [
    ({}, []),
    ({"eval_every": 0}, []),
    ({"eval_every": 50}, ["few evaluations count (2,"]),
    # The last step is evaluated as well.
    ({"eval_every": 40}, []),
    ({"eval_every": 1000}, ["few evaluations count (1,"]),
    ({"start": 70, "steps": 5}, ["(2, from step 75 on)"]),
    ({"start": 100}, ["(1, from step 100 on)"]),
    ({"start": 101}, ["ends at step 100, before", "(0, from step 101 on)"]),
    ({"start": 101, "eval_every": 0}, ["before quantization is fully active"]),
    ({"start": 101, "eval_every": 0, "recipe": "float"}, []),
    ({"patience": 4}, []),
    ({"patience": 5}, ["patience is 5, which never ends"]),
    ({"profiled": 60, "step": 50}, []),
    ({"profiled": 40, "step": 50}, ["profile.start is 40, but"]),
    ({"profiled": 100}, ["goes from step 0 to 100: nothing is profiled"]),
    ({"metric": "valid/loss", "mode": "min"}, []),
    ({"metric": "valid/loss"}, ["the worst valid/loss would be best"]),
    ({"metric": "valid/word_perplexity"}, ["the worst valid/word_perplexity"]),
    ({"recipe": "mixing"}, ["norm of query is 'layer_norm_all', which mixes"]),
    ({"mode": "min"}, ["the worst valid/accuracy would be best; 'max'"]),
  ],
)
def test_course_that_is_rarely_meant_is_said(options, expected, caplog):
  warn(**options)
  assert len(caplog.messages) == len(expected)
  for message, part in zip(caplog.messages, expected, strict=True):
    assert part in message
