"""The sources embedded:NAME: data that come with Python and its packages."""

import importlib.metadata

import numpy as np

from bitnet_jax.data import splits
from bitnet_jax.data.sources.tables import Records, Source, Table
from bitnet_jax.extras import needed_by

_SEED = 0  # of the bits of embedded:xor
_XOR_TRAIN = 5_000


def digits(name: str, cuts: splits.Cuts) -> Source:
  """The 8 x 8 handwritten digits that come with scikit-learn."""
  with needed_by("embedded:digits", "scikit-learn"):
    package = importlib.metadata.distribution("scikit-learn")
  # What its load_digits reads. To import that takes more than a second.
  path = package.locate_file("sklearn/datasets/data/digits.csv.gz")
  rows = np.loadtxt(str(path), delimiter=",", dtype=np.int64)
  columns = {
    "inputs": rows[:, :-1].astype(np.uint8).reshape(-1, 8, 8, 1),
    "labels": rows[:, -1],
  }
  return Source(
    splits={"train": Table(columns=columns, name="embedded:digits")},
    num_classes=10,
    fingerprint=f"embedded:digits scikit-learn {package.version}",
  )


def xor(name: str, cuts: splits.Cuts) -> Source:
  """Four fair bits; the label is x0 XOR x1, so that x2 and x3 are noise."""
  bits = np.random.default_rng(_SEED).integers(2, size=(10_000, 4))
  inputs, labels = bits.astype(np.float32), bits[:, 0] ^ bits[:, 1]
  rows = {"train": slice(_XOR_TRAIN), "test": slice(_XOR_TRAIN, None)}
  return Source(
    splits={
      key: Table(
        columns={"inputs": inputs[part], "labels": labels[part]},
        name="embedded:xor",
      )
      for key, part in rows.items()
    },
    num_classes=2,
    fingerprint=f"embedded:xor numpy {np.__version__}",
  )


def pydoc(name: str, cuts: splits.Cuts) -> Source:
  """The help texts that come with Python, in the order of their names."""
  from pydoc_data.topics import topics

  texts = [topics[name] for name in sorted(topics)]
  table = Table(columns={"text": texts}, name="embedded:pydoc", unit="topic")
  return Source(splits={"train": table}, texts=("text",))


def karate(name: str, cuts: splits.Cuts) -> Source:
  """Zachary's karate club; the only feature of a node is its number."""
  with needed_by("embedded:karate", "networkx"):
    import networkx
  club = networkx.karate_club_graph()
  sides = [club.nodes[node]["club"] for node in club]
  names, labels = np.unique(sides, return_inverse=True)
  members = {
    "edges": np.array(club.edges),
    "features": np.eye(len(sides), dtype=np.float32),
    "labels": labels,
  }
  return Source(
    splits={"train": Records(records=[members], name="embedded:karate")},
    fingerprint=f"embedded:karate networkx {networkx.__version__}",
    class_names={"labels": names.tolist()},
  )
