"""Are 1.58 bits enough to classify the nodes of a graph?

python experiments/graphs/run.py --data=DATA --workdir=runs/graphs
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import functools
import itertools
from typing import Any

from bitnet_jax import studies
from bitnet_jax.studies import comparisons

MAIN = ("float32", "b158", "b158_median")
SETS, OTHERS = ("cora", "citeseer", "pubmed"), ("gcn", "sage", "gat")
# Models, graphs, precisions and seeds of each scale.
GRIDS: dict[str, list[Any]] = {
  "ci": [(("sgc", "gcn"), ("karate",), MAIN, 2)],
  "cpu": [
    (("sgc",), SETS, tuple(studies.PRECISIONS), 30),
    (OTHERS, SETS, MAIN, 10),
  ],
  "paper": [(("sgc", *OTHERS), SETS, tuple(studies.PRECISIONS), 10)],
}
METRIC = "test/accuracy"
# Of GCN, GraphSAGE and GAT: the authors' length, rate and optimizer for SGC.
SHORT = {"total_epochs": 100, "steps_per_dispatch": 20, "model.dropout": 0.0}
SHORT |= {"optim.learning_rate": 0.01, "optim.weight_decay": 0.1}
SHORT |= {"optim.schedule": "constant"}


def cases(scale: str, data: str) -> list[studies.Case]:
  """Returns each model on each graph in each precision."""
  found = []
  for models, graphs, precisions, seeds in GRIDS[scale]:
    for model, graph, name in itertools.product(models, graphs, precisions):
      config = f"configs/planetoid_gnn.py:{model}"
      values = {"data.source": f"file:{data}/planetoid/{graph}.npz"}
      if scale == "ci":
        config, values = f"configs/karate_gnn.py:{model}", {"total_epochs": 5}
      elif scale == "cpu" and model != "sgc":
        values |= SHORT
      values |= studies.PRECISIONS[name]
      cell = {"model": model, "data": graph, "precision": name}
      found += [studies.Case(config, cell, i, values) for i in range(seeds)]
  return found


def findings(runs: studies.Runs) -> studies.Findings:
  """Returns what ternary layers cost, by model and graph."""
  how: dict[str, Any] = {"metric": METRIC, "diverged": 1 / 7, "factor": 100}
  how["keys"] = ("model", "data")
  full, *ternary = ({"precision": name} for name in MAIN)
  lost = {
    s["precision"]: comparisons.compare(runs, s, full, **how) for s in ternary
  }
  both = comparisons.compare(runs, *ternary[::-1], **how)
  means = comparisons.averages(runs, ternary, full, by="model", **how)
  judge = functools.partial(comparisons.no_worse, runs, margin=1.0)
  judged, about = [], {"claim": 10, "comparisons": 3}
  for name in [name for name in means if "sgc" in name]:
    text = f"{name} is no worse than float32"
    judged.append(judge({name: means.pop(name)}, statement=text, **about))
  text = "most other ternary models are no worse than float32"
  judged.append(judge(means, statement=text, combine="most", **about))
  text = "the median is no worse than the mean in most models and graphs"
  judged.append(judge(both, claim=11, statement=text, combine="most"))
  table, bars = comparisons.shown(runs, lost, keys=how["keys"], metric=METRIC)
  return studies.Findings(judged, [table], [bars])


STUDY = studies.Study(__file__, cases, findings)

if __name__ == "__main__":
  program.run(STUDY.main)
