"""Groups of a config become dataclasses, or an error that says the key."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from bitnet_jax.construct import construct


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
  integer: int = 0
  number: float = 0.0
  flag: bool = False
  text: str = ""
  open: int | None = None
  pair: tuple[int, int] = (0, 0)
  many: tuple[str, ...] = ()
  group: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  anything: Any = None


VALUES = dataclasses.asdict(Group())


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("integer", -3),
    ("number", 2.5),
    ("number", 2),
    ("flag", True),
    ("text", "x"),
    ("open", 3),
    ("open", None),
    ("pair", (1, 2)),
    ("many", ()),
    ("group", {"a": 1}),
    ("anything", object()),
  ],
)
def test_value_of_the_right_type_is_taken(key, value):
  group = construct(Group, VALUES | {key: value}, group="g")
  assert getattr(group, key) == value


def test_lists_of_json_become_tuples():
  values = {"pair": [1, 2], "many": ["a"], "anything": [[1, ["a"]], 2]}
  group = construct(Group, VALUES | values, group="g")
  assert (group.pair, group.many) == ((1, 2), ("a",))
  assert group.anything == ((1, ("a",)), 2)


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("integer", 1.0, "g.integer is 1.0, of type float; it must be int"),
    ("integer", "1", "g.integer is '1', of type str; it must be int"),
    ("integer", True, "g.integer is True, of type bool; it must be int"),
    ("integer", None, "g.integer is None, of type NoneType; it must be int"),
    ("number", "1", "g.number is '1', of type str; it must be float"),
    ("number", True, "g.number is True, of type bool; it must be float"),
    ("flag", 1, "g.flag is 1, of type int; it must be bool"),
    ("flag", "yes", "g.flag is 'yes', of type str; it must be bool"),
    ("text", 3, "g.text is 3, of type int; it must be str"),
    ("text", None, "g.text is None, of type NoneType; it must be str"),
    ("open", "x", "g.open is 'x', of type str; it must be int or None"),
    ("pair", (1,), r"g.pair is \(1,\), .* it must be tuple\[int, int\]"),
    ("pair", (1, 2, 3), r"g.pair is \(1, 2, 3\), .* tuple\[int, int\]"),
    ("pair", (1, "2"), r"g.pair is \(1, '2'\), .* tuple\[int, int\]"),
    ("pair", 1, r"g.pair is 1, of type int; it must be tuple\[int, int\]"),
    ("many", "abc", r"g.many is 'abc', .* it must be tuple\[str, \.\.\.\]"),
    ("many", ("a", 1), r"g.many is \('a', 1\), of type tuple"),
    ("group", 3, "g.group is 3, of type int; it must be Mapping"),
  ],
)
def test_value_of_another_type_is_named(key, value, message):
  with pytest.raises(ValueError, match=message):
    construct(Group, VALUES | {key: value}, group="g")


def test_unknown_key_names_the_nearest_and_all():
  message = (
    r"g.numbr is not a key \(its value is 3\); the keys are: integer, number,"
    r" .*anything \(did you mean 'number'\?\)"
  )
  with pytest.raises(ValueError, match=message):
    construct(Group, VALUES | {"numbr": 3}, group="g")


@pytest.mark.parametrize("key", VALUES)
def test_missing_key_is_an_error_even_with_a_default(key):
  values = {k: v for k, v in VALUES.items() if k != key}
  with pytest.raises(ValueError, match=rf"^g.{key} is missing"):
    construct(Group, values, group="g")
  with pytest.raises(ValueError, match=rf"^{key} is missing"):
    construct(Group, values, group="")


@pytest.mark.parametrize("values", [None, 3, "x", ()])
def test_what_is_not_a_group_is_an_error(values):
  with pytest.raises(ValueError, match=r"g is .*; it must be a group of keys"):
    construct(Group, values, group="g")


def test_derived_field_is_given_but_is_no_key():
  values = {k: v for k, v in VALUES.items() if k != "integer"}
  assert construct(Group, values, group="g", integer=3).integer == 3
  with pytest.raises(ValueError, match="the keys are: number, flag"):
    construct(Group, VALUES, group="g", integer=3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
  inner: Group
  number: int


def test_group_within_a_group_is_constructed_and_its_keys_are_named():
  values = {"inner": VALUES | {"text": "x"}, "number": 1}
  assert construct(Outer, values, group="o").inner == Group(text="x")
  made = values | {"inner": Group(integer=7)}
  assert construct(Outer, made, group="").inner.integer == 7
  for group, prefix in (("o", "o.inner"), ("", "inner")):
    for inner, message in (
      ({"integer": "1"}, rf"^{prefix}.integer is '1', of type str"),
      ({"intger": 1}, rf"^{prefix}.intger is not a key"),
    ):
      with pytest.raises(ValueError, match=message):
        construct(Outer, values | {"inner": VALUES | inner}, group=group)
    with pytest.raises(ValueError, match=rf"^{prefix} is 3; it must be a gr"):
      construct(Outer, values | {"inner": 3}, group=group)
