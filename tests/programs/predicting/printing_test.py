"""What is printed of predictions."""

import json

import numpy as np
import pytest

from bitnet_jax.programs.predicting import answers, inputs, printing
from bitnet_jax.programs.predicting.predictor import Predicted

LOGITS = np.log(np.array([0.25, 0.7, 0.05]))
CLASSES = answers.Classes.of_logits(("cat", "dog", "zebra"), LOGITS)


def predicted(shown, answer=CLASSES, name="place", **more):
  return Predicted(inputs.Item(name, shown, lambda: None), answer, **more)


FAILED = predicted("a.png", None, "a.png", error=ValueError("it is\nempty"))


def test_columns_align():
  columns = printing.Columns()
  lines = [
    columns(predicted("pets/1.png"), None),
    columns(predicted(["first text", "second\n text"]), 2),
    columns(predicted("short"), 2),
  ]
  assert lines == [
    "pets/1.png    dog    70.0 %",
    "first text | second text  dog    70.0 %  cat    25.0 %",
    "short                     dog    70.0 %  cat    25.0 %",
  ]


def test_long_inputs_are_shortened():
  columns = printing.Columns()
  assert columns(predicted("word " * 30), None).startswith("word word")
  assert len(columns(predicted("word " * 30), None)) < 70
  assert columns(predicted(f"{'a/' * 30}end.png"), None).startswith("...a/a")


def test_json_has_all_classes_in_their_order():
  line = json.loads(printing.as_json(predicted("é"), None))
  assert line == {
    "input": "é",
    "class": "dog",
    "probability": 0.7,
    "probabilities": {"cat": 0.25, "dog": 0.7, "zebra": 0.05},
  }
  assert [*line["probabilities"]] == ["cat", "dog", "zebra"]
  line = json.loads(printing.as_json(predicted("é", note="cut"), 2))
  assert line["probabilities"] == {"dog": 0.7, "cat": 0.25}
  assert line["note"] == "cut"


def test_errors_stand_in_their_place(capsys):
  assert not printing.show_all([predicted("b"), FAILED], printing.as_json)
  shown = capsys.readouterr()
  first, second = map(json.loads, shown.out.splitlines())
  assert first["class"] == "dog"
  assert second == {"input": "a.png", "error": "it is empty"}
  assert shown.err.splitlines() == [
    "error: a.png: it is empty",
    "error: 1 of 2 inputs have no prediction",
  ]


def test_single_error_is_one_line(capsys):
  assert not printing.show_all([FAILED], printing.Columns())
  assert capsys.readouterr() == ("", "error: a.png: it is empty\n")
  with pytest.raises(ValueError, match="there is no input"):
    printing.show_all([], printing.Columns())


def test_name_that_is_not_utf8_is_printed(capsys):
  name = b"\xff.png".decode(errors="surrogateescape")
  for form in (printing.Columns(), printing.as_json):
    assert printing.show_all([predicted(name, name=name)], form)
  assert not printing.show_all(
    [predicted(name, None, name, error=OSError("gone"))], printing.Columns()
  )
  shown = capsys.readouterr()
  assert shown.out.count(r"udcff.png") == 2
  assert shown.err == "error: \\udcff.png: gone\n"


def test_values_and_texts_are_shown():
  value = answers.Values({"value": 2.34567891})
  assert value.columns(None) == ["2.346"]
  assert value.to_json(None) == {"value": 2.34568}
  text = answers.Written("zwei\nZeilen")
  assert text.columns(None) == ["zwei Zeilen"]
  assert text.to_json(None) == {"text": "zwei\nZeilen"}


def test_probabilities_need_finite_logits():
  with pytest.raises(FloatingPointError, match="NaN or infinity"):
    answers.Classes.of_logits("ab", np.array([np.nan, 0]))
