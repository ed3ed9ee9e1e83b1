"""Look-ups by name."""

import pytest

from bitnet_jax import choices

TABLE = {"cosine": 1, "linear": 2}


def test_pick_returns_what_is_under_the_name():
  assert choices.pick(TABLE, "linear", key="optim.schedule") == 2


def test_error_names_key_value_choices_and_the_nearest():
  with pytest.raises(ValueError) as error:
    choices.pick(TABLE, "cosin", key="optim.schedule")
  assert str(error.value) == (
    "optim.schedule is 'cosin', which is not one of: 'cosine', 'linear' (did"
    " you mean 'cosine'?)"
  )


def test_nothing_is_suggested_where_nothing_is_near():
  with pytest.raises(ValueError, match=r"one of: 'cosine', 'linear'$"):
    choices.check("x", iter(TABLE), key="k")


def test_choices_need_not_be_names():
  choices.check(None, (None, 0), key="axis")
  with pytest.raises(ValueError, match=r"axis is 1, .* one of: None, 0$"):
    choices.check(1, (None, 0), key="axis")


def test_nearest_is_a_suggestion_or_nothing():
  assert choices.nearest("linera", TABLE) == " (did you mean 'linear'?)"
  assert choices.nearest("x", TABLE) == ""
