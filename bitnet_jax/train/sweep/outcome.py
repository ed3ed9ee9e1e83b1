"""What training gives for a member of a group."""

import dataclasses
from collections.abc import Mapping
from typing import Any

# Names of code statistics in records, and as metrics.
CODE_NAMES = {
  "zeros": "zero_fraction",
  "negative": "negative_fraction",
  "positive": "positive_fraction",
  "scale": "scale",
}


@dataclasses.dataclass(kw_only=True)
class Outcome:
  """What a member came to.

  Attributes:
    name: name of the member.
    config: its resolved config.
    run_id: what names the run.
    result: the content of ``result.json``; ``None`` if it failed.
    curves: the lines of ``metrics.jsonl``.
    layers: fractions "zeros", "negative" and "positive", and "scale", of the
      last codes of each quantized layer, by path.
    variables: the last parameters, and other variables, as NumPy arrays.
    error: why it failed, if it did.
    diverged: the step whose metrics were not finite, if any.
  """

  name: str
  config: Mapping[str, Any]
  run_id: str
  result: dict[str, Any] | None = None
  curves: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  layers: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
  variables: dict[str, Any] = dataclasses.field(default_factory=dict)
  error: str | None = None
  diverged: int | None = None


def named_codes(layers: Mapping[str, Any]) -> dict[str, dict[str, float]]:
  """Returns statistics of codes under the names that records have."""
  return {
    path: {name: float(found[full]) for name, full in CODE_NAMES.items()}
    for path, found in layers.items()
  }
