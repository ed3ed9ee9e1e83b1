"""``data_facts.json``: what the data of a run decided about its model.

A run writes it beside its config, with its vocabulary, so that the model can be
opened without the data.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bitnet_jax.data.text.saved import (
  load_vocabulary,
  save_vocabulary,
  spec_of,
)
from bitnet_jax.data.text.tokenizers import Tokenizer
from bitnet_jax.train.folder import records, workdir
from bitnet_jax.train.folder.lock import FACTS_FILE
from bitnet_jax.train.tasks.facts import LATER, DataFacts

# Means and deviations that differ less were summed in another order.
_ROUNDING = 1e-5
_SHOWN = 200  # Characters of a value in a message.
# What older files lack; some sources had no names of classes.
_ADDED = (*LATER, "class_names")


class Recorded(NamedTuple):
  """The content of ``data_facts.json``.

  Attributes:
    facts: what the data decided.
    vocabulary: how the vocabulary is loaded again, see ``load_vocabulary``;
      ``None`` for none.
  """

  facts: DataFacts
  vocabulary: Mapping[str, Any] | None


def read(folder: pathlib.Path) -> Recorded | None:
  """Returns the recorded facts of a run; ``None`` for a run without the file.

  Raises:
    WorkdirError: if the file is damaged, naming it.
  """
  path = folder / FACTS_FILE
  content = workdir.read_object(path)
  if content is None:
    return None
  vocabulary = content.pop("vocabulary", "missing")
  if not isinstance(vocabulary, dict | None):
    raise workdir.WorkdirError(
      f"{path} is damaged: vocabulary is {vocabulary!r:.{_SHOWN}}; it must be"
      " an object or null"
    )
  try:
    return Recorded(DataFacts.from_json(content, f"{path}"), vocabulary)
  except ValueError as error:
    raise workdir.WorkdirError(f"{error}") from error


def read_tokenizer(folder: pathlib.Path, found: Recorded) -> Tokenizer | None:
  """Returns the recorded vocabulary of a run; ``None`` if there is none.

  Raises:
    FileNotFoundError: if a file of the vocabulary is missing.
    ValueError: if the vocabulary is not the one that the facts name.
  """
  if found.vocabulary is None:
    return None
  tokenizer = load_vocabulary(found.vocabulary, folder)
  bag, fingerprint = found.facts.bag, found.facts.fingerprint
  expected = fingerprint if bag is None else bag.tokenizer
  if not expected.endswith(tokenizer.fingerprint):
    raise ValueError(
      f"{folder / FACTS_FILE} is damaged: fingerprint is {expected!r}, but the"
      f" vocabulary is {tokenizer.fingerprint}"
    )
  return tokenizer


def read_spec(folder: pathlib.Path) -> str | None:
  """Returns the spec of a run's recorded vocabulary; ``None`` without one.

  Raises:
    WorkdirError: if the file of the facts is damaged.
  """
  found = read(folder)
  if found is None or found.vocabulary is None:
    return None
  return spec_of(found.vocabulary, folder)


def claim(
  folder: pathlib.Path,
  facts: DataFacts,
  tokenizer: Tokenizer | None,
  data: Any,
) -> None:
  """Writes ``data_facts.json``, or checks that the one there says the same.

  What an older file lacks is added to it.

  Args:
    folder: the workdir, locked.
    facts: what the data decided.
    tokenizer: the vocabulary, if there is one.
    data: the group ``data`` of the settings, which says where it came from.

  Raises:
    WorkdirError: if the file there is damaged, or says something else, naming
      the keys that differ with both values.
  """
  found = read(folder)
  vocabulary = None if found is None else found.vocabulary
  if found is not None:
    lacking = {
      n: getattr(facts, n) for n in _ADDED if not getattr(found.facts, n)
    }
    complete = dataclasses.replace(found.facts, **lacking)
    _check_same(folder / FACTS_FILE, complete, facts)
    has_vocabulary = vocabulary is not None or tokenizer is None
    if complete == found.facts and has_vocabulary:
      return
    facts = complete
  if vocabulary is None and tokenizer is not None:
    vocabulary = save_vocabulary(
      tokenizer, data.tokenizer, folder, lowercase=data.lowercase
    )
  write(folder, Recorded(facts, vocabulary))


def write(folder: pathlib.Path, found: Recorded) -> None:
  """Writes ``data_facts.json`` into a folder; its vocabulary is there."""
  content = {**found.facts.to_json(), "vocabulary": found.vocabulary}
  workdir.write_json(folder / FACTS_FILE, content)


def _check_same(path: pathlib.Path, old: DataFacts, new: DataFacts) -> None:
  """Raises a WorkdirError for facts that are not those of the file."""
  there, here = (json.loads(json.dumps(f.to_json())) for f in (old, new))
  for facts in (there, here):
    facts["example"] = _without_padding(facts["example"])
  for key in ("mean", "std"):
    sizes = {len(there[key]), len(here[key])}
    if len(sizes) == 1 and np.allclose(
      there[key], here[key], rtol=_ROUNDING, atol=_ROUNDING
    ):
      here[key] = there[key]
  changed = records.differences(there, here)
  if changed:
    shown = "; ".join(f"{text:.{_SHOWN}}" for text in changed)
    raise workdir.WorkdirError(
      f"{path} is of other data; what differs: {shown}. Choose another folder"
    )


def _without_padding(example: Mapping[str, Any]) -> dict[str, Any]:
  """Returns shapes of arrays without what depends on the devices.

  Nodes and edges of a graph are padded to what all devices share.
  """
  if "nodes" not in example:
    return dict(example)
  return {
    name: {**spec, "shape": spec["shape"][2:]} for name, spec in example.items()
  }
