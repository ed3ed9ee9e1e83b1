"""Measures SGC with the authors' PyTorch layer, for the table of README.md.

python experiments/graphs/torch_reference.py --data=DATA/planetoid

Optional: needs PyTorch and bitlinear (2.4.6 was used), but not this package.
The model is SGC: features propagated twice, then one linear layer, trained with
the settings of run.py. Each run appends a JSON line to torch.jsonl; recorded
runs are skipped.
"""

import argparse
import importlib.metadata
import json
import pathlib

import numpy as np
import torch
from torch import nn

SETS = ("cora", "citeseer", "pubmed")
LAYERS = ("Linear", "AbsMean", "AbsMedian")
RESULTS = pathlib.Path(__file__).parent / "torch.jsonl"
STEPS, LEARNING_RATE, EPOCHS = 2, 0.01, 100


def propagated_features(data):
  """Returns ``A^2 X`` float32 [n, f], A normalized with self loops."""
  n = int(data["shape"][0])
  loops = np.stack([np.arange(n)] * 2, axis=1)
  edges = np.concatenate([data["edges"], data["edges"][:, ::-1], loops])
  degrees = np.bincount(edges[:, 1], minlength=n)
  weights = degrees[edges[:, 0]] ** -0.5 * degrees[edges[:, 1]] ** -0.5
  adjacency = torch.sparse_coo_tensor(
    torch.tensor(edges.T.copy()), torch.tensor(weights, dtype=torch.float32)
  )
  rows = np.repeat(np.arange(n), np.diff(data["indptr"]))
  x = np.zeros(tuple(data["shape"]), np.float32)
  x[rows, data["indices"]] = data["data"]
  x = torch.tensor(x)
  for _ in range(STEPS):
    x = torch.sparse.mm(adjacency, x)
  return x


def make_layer(kind, d_in, d_out):
  """Returns a linear layer, or bitlinear's with that measure."""
  if kind == "Linear":
    return nn.Linear(d_in, d_out)
  from bitlinear import bitlinear

  return bitlinear.BitLinear(d_in, d_out, weight_measure=kind)


def train(x, labels, splits, kind, seed):
  """Returns the accuracy on each split after the last epoch."""
  torch.manual_seed(seed)
  layer = make_layer(kind, x.shape[1], int(labels.max()) + 1)
  optimizer = torch.optim.AdamW(layer.parameters(), lr=LEARNING_RATE)
  rows = splits["train"]
  for _ in range(EPOCHS):
    optimizer.zero_grad()
    nn.functional.cross_entropy(layer(x[rows]), labels[rows]).backward()
    optimizer.step()
  with torch.no_grad():
    hits = layer(x).argmax(-1) == labels
  return {
    f"{name}/accuracy": hits[rows].float().mean().item()
    for name, rows in splits.items()
  }


def main():
  """Runs every case that has no record yet."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--data", type=pathlib.Path, required=True)
  parser.add_argument("--seeds", type=int, default=20)
  arguments = parser.parse_args()
  torch.set_num_threads(1)
  versions = {p: importlib.metadata.version(p) for p in ("torch", "bitlinear")}
  runs = (
    [json.loads(line) for line in open(RESULTS)] if RESULTS.exists() else []
  )
  done = {(run["set"], run["layer"], run["seed"]) for run in runs}
  for name in SETS:
    with np.load(arguments.data / f"{name}.npz", allow_pickle=False) as data:
      x, labels = propagated_features(data), torch.tensor(data["labels"]).long()
      splits = {
        split: torch.tensor(data[f"{key}_idx"]).long()
        for split, key in (
          ("train", "train"),
          ("valid", "val"),
          ("test", "test"),
        )
      }
    for kind in LAYERS:
      for seed in range(arguments.seeds):
        if (name, kind, seed) in done:
          continue
        metrics = train(x, labels, splits, kind, seed)
        record = {"set": name, "layer": kind, "seed": seed, "metrics": metrics}
        with RESULTS.open("a", encoding="utf-8") as file:
          file.write(json.dumps(record | {"versions": versions}) + "\n")


if __name__ == "__main__":
  main()
