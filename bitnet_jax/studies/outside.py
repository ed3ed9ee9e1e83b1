"""Findings about claims that others made of ternary networks."""

import itertools
import math
from typing import Any

from bitnet_jax.analysis import estimates, pairs, verdicts
from bitnet_jax.studies import comparisons, summaries
from bitnet_jax.studies.families import MARGINS, Family, families
from bitnet_jax.studies.findings import Axis, Figure, Findings
from bitnet_jax.studies.runs import Runs

# Of the CNN, in points: what 5,000 images resolve.
_MARGIN = 0.5
_KEYS = ("net", "rate", "decay", "schedule", "ema")
PLAIN: dict[str, Any] = {
  **{"rate": 0.003, "decay": 0.0, "schedule": "cosine", "ema": 0.0}
}


def decoder_cells(scale: str) -> list[dict[str, Any]]:
  """Returns the cells of the decoder, see the plan; "ci" has a few of them."""
  rates = (0.001, 0.003, 0.01, 0.03)
  averaged: dict[str, Any] = {"ema": 0.99}
  kinds = [averaged, {"schedule": "constant"}]
  kinds.append({"schedule": "constant", **averaged})
  if scale == "ci":
    rates, kinds = rates[1:2], kinds[:1]
  cells = [{"net": "zero_one", **PLAIN}]
  for net in ("float", "b158"):
    plain = {"net": net, **PLAIN}
    decays = (0.0, 0.1) if net == "b158" else (0.0,)
    grid = itertools.product(rates, decays)
    cells += [{**plain, "rate": r, "decay": d} for r, d in grid]
    cells += [{**plain, **kind} for kind in kinds]
  return cells


def findings(runs: Runs) -> Findings:
  """Judges the claims outside-1 to outside-8, see the plan of the study."""
  known = families(runs.scale)
  cnn, decoder = (runs.where(family=name) for name in ("cnn", "decoder"))
  found = [
    *_of_cnn(known["cnn"], cnn),
    *_of_decoder(known["decoder"], decoder),
  ]
  found.sort(key=lambda verdict: f"{verdict.claim}")
  nets = [net for net in cnn.choices("net") if net != "float"]
  costs = {
    f"net={net}": known["cnn"].pair(cnn.where(net=net), cnn.where(net="float"))
    for net in nets
  }
  return Findings(
    verdicts=found,
    tables=[
      summaries.table("cnn", "CNN", cnn, ("net",), "test/accuracy"),
      summaries.table("decoder", "Decoder", decoder, _KEYS, "test/loss"),
    ],
    figures=[
      comparisons.figure(
        "cnn",
        "CNN: difference from the float network",
        {"cnn": costs},
        "test accuracy minus float (points)",
      ),
      _rates(decoder),
    ],
  )


def _of_cnn(family: Family, cnn: Runs) -> list[verdicts.Verdict]:
  """Returns the verdicts on claims 1, 2, 3 and 7."""
  nets = {net: cnn.where(net=net) for net in cnn.choices("net")}
  plain = nets["b158"]
  sides = [family.pair(nets[net], plain) for net in ("first", "float")]
  gains = [dict(zip(p.seeds, p.differences, strict=True)) for p in sides]
  closed = estimates.ratio_of_means(pairs.pair(*gains, diverged="exclude"))
  about: dict[str, Any] = {"scale": cnn.scale, "unit": family.unit}
  judged: dict[str, Any] = {"better": family.better, "margin": _MARGIN, **about}
  return [
    verdicts.verdict(
      "in range",
      closed,
      claim="outside-1",
      statement="the first convolution makes 30 to 74 % of the CNN's gap",
      scale=cnn.scale,
      bounds=(0.30, 0.74),
    ),
    verdicts.verdict(
      "in range",
      family.pair(nets["distilled"], plain),
      claim="outside-2",
      statement="distillation costs a ternary CNN 0.9 to 3.1 points",
      bounds=(-3.1, -0.9),
      **about,
    ),
    verdicts.verdict(
      "better",
      family.pair(nets["channel"], plain),
      claim="outside-3",
      statement="scales by channel are better than one a tensor",
      **judged,
    ),
    verdicts.verdict(
      "no worse",
      family.pair(nets["twice"], nets["continued"]),
      claim="outside-7",
      statement="training from scratch is no worse than continuing from float",
      **judged,
    ),
  ]


def _of_decoder(family: Family, runs: Runs) -> list[verdicts.Verdict]:
  """Returns the verdicts on claims 4, 5, 6 and 8."""

  def at(**cell):
    return runs.where(**{"net": "b158", **PLAIN, **cell})

  grid = runs.where(net=("b158", "float"), schedule="cosine", ema=0.0)
  decays = [
    family.at_best(grid.where(net="b158", decay=decay)) for decay in (0.0, 0.1)
  ]
  schedules = runs.where(net="b158", ema=0.99).choices("schedule")
  judged: dict[str, Any] = {
    **{"scale": runs.scale, "unit": family.unit},
    **{"better": family.better, "margin": MARGINS[family.unit]},
  }
  return [
    verdicts.verdict(
      "better",
      pairs.pair(
        *(_best_rates(grid.where(net=n, decay=0.0)) for n in ("b158", "float")),
        diverged="exclude",
      ),
      claim="outside-4",
      statement="the best rate of a ternary decoder is higher than in float",
      scale=runs.scale,
      unit="doublings",
      margin=0.5,
      better="higher",
    ),
    verdicts.verdict(
      "better",
      family.pair(*decays),
      claim="outside-5",
      statement="a ternary decoder without decay is better than with 0.1",
      **judged,
    ),
    verdicts.verdict(
      "better",
      {
        f"schedule={s}": family.pair(at(schedule=s), at(schedule=s, ema=0.99))
        for s in schedules
      },
      claim="outside-6",
      statement="the last ternary weights are better than averaged ones",
      combine="all",
      **judged,
    ),
    verdicts.verdict(
      "better",
      family.pair(at(), at(net="zero_one")),
      claim="outside-8",
      statement="ternary codes are better than the codes 0 and 1",
      **judged,
    ),
  ]


def _best_rates(runs: Runs) -> dict[int, float]:
  """Returns the binary logarithm of the best rate in validation, by seed."""
  losses = {
    rate: runs.where(rate=rate).by_seed("valid/loss", diverged=math.inf)
    for rate in runs.choices("rate")
  }
  seeds = set.intersection(*({*found} for found in losses.values()))
  return {
    seed: math.log2(min(losses, key=lambda rate: losses[rate][seed]))
    for seed in sorted(seeds)
  }


def _rates(runs: Runs) -> Figure:
  """Returns losses by rate, for each net and decay."""
  series = []
  grid = runs.where(net=("b158", "float"), schedule="cosine", ema=0.0)
  for (net, decay), found in grid.group("net", "decay").items():
    cells = summaries.curve(found, "rate", "test/loss")
    series.append(summaries.series(f"net={net}, decay={decay}", cells))
  axes = Axis("rate", log=True), Axis("test loss (nats)")
  return Figure("rates", "Decoder: rate and decay", "lines", *axes, series)
