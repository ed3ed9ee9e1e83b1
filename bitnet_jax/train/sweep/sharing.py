"""Which configs can be trained by one program, and how many at a time."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from bitnet_jax.files import local_path
from bitnet_jax.train.folder import bucket, warm_start, workdir

# Keys whose values are arguments of a program, beside the seed.
RATES = ("learning_rate", "second_learning_rate")
DECAYS = ("weight_decay", "second_weight_decay")
# Most members at a time, by the width of hidden layers. On a core, a step of a
# member of `xor_mlp` takes 19 us alone and 12 us among 16; of `digits_mlp`, 185
# alone, 174 among 8, 226 among 32; experiments/benchmark.py --suite=sweep.
_MOST, _WIDEST = 32, 64
_WIDER, _MOST_WIDER = 256, 8


def key_of(config: Mapping[str, Any]) -> str | None:
  """Returns what a config has in common with all that share its program.

  Args:
    config: nested dict with every key, and none left open.

  Returns:
    Equal texts for configs that differ in the seed, in numbers of the
    optimizer, in the rate of the dropout, and in the parameters that they start
    from or learn from only; ``None`` for a config that no program is shared
    for.
  """
  if not _is_plain(config):
    return None
  rest = json.loads(json.dumps(config))
  del rest["seed"]
  optim, model = rest["optim"], rest["model"]
  for name in RATES:
    optim[name] = optim[name] is not None
  decays = traced_decays(config)
  optim["decays"] = bool(decays)
  for name in decays:
    del optim[name]
  # Without any, no random numbers are drawn.
  model["dropout"] = model["dropout"] > 0
  rest["init_from"] = _needed_of(config["init_from"], ())
  teacher = config["distill"]["teacher"]
  rest["distill"]["teacher"] = _needed_of(teacher, ("task", "model", "quant"))
  return json.dumps(rest, sort_keys=True)


def _needed_of(address: str | None, groups: Sequence[str]) -> Any:
  """Returns what data and programs depend on of a run that another one uses.

  Args:
    address: its folder.
    groups: of its config, those that a program depends on.

  Returns:
    These, and its vocabulary; the address itself if it is in a bucket, or no
    run.
  """
  if address is None or bucket.is_in_bucket(address):
    return address
  try:
    config, fingerprint = workdir.read_config(local_path(address))
    vocabulary = warm_start.vocabulary_of(fingerprint)
    return [vocabulary, *(config[name] for name in groups)]
  except (KeyError, OSError, ValueError):
    return address


def _is_plain(config: Mapping[str, Any]) -> bool:
  """Whether a run is nothing but training on one device."""
  data, fsdp, tensor = (config["mesh"][n] for n in ("data", "fsdp", "tensor"))
  devices = jax.device_count()
  sizes = [devices if size == -1 else size for size in (data, fsdp, tensor)]
  return (
    sizes == [1, 1, 1]
    and jax.process_count() == 1
    and config.get("budget") is None
    and config["early_stopping"]["patience"] is None
    and config["profile"]["start"] is None
    and config["checkpoint"]["keep_best"] <= 1
  )


def traced_decays(config: Mapping[str, Any]) -> tuple[str, ...]:
  """Returns the keys of decays that are arguments of the program.

  None, if they are all zero: other updates are then possible, see
  ``SparseAdam``. None either in bfloat16, in which an argument and a constant
  round differently.
  """
  optim = config["optim"]
  of_stages = optim["schedule"] == "two_stage"
  used = DECAYS if of_stages else DECAYS[:1]
  is_plain = optim["name"] == "adam" or not any(optim[name] for name in used)
  if is_plain or config["model"]["param_dtype"] != "float32":
    return ()
  return DECAYS


def most_at_a_time(config: Mapping[str, Any]) -> int:
  """Returns how many members a program trains at a time, by measurements.

  On CPU, small layers are faster several at a time. Large ones, convolutions
  and attention are not, so their members train one after another.
  """
  model = config["model"]
  if model["name"] != "mlp":
    return 1
  if model["width"] <= _WIDEST:
    return _MOST
  return _MOST_WIDER if model["width"] <= _WIDER else 1


def split(indices: Sequence[int], most: int, workers: int) -> list[list[int]]:
  """Splits a group into parts of nearly one size, which workers share evenly.

  Args:
    indices: the members.
    most: largest size of a part.
    workers: number of processes.
  """
  count = -(-len(indices) // most)
  if len(indices) >= workers:
    count = -(-count // workers) * workers
  size = -(-len(indices) // count)
  return [list(indices[i : i + size]) for i in range(0, len(indices), size)]
