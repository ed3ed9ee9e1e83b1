"""The summaries that a run prints at its start and at its end."""

import importlib.util
import io
import math
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import rich.box
import rich.console
import rich.table
import rich.text

from bitnet_jax import backend
from bitnet_jax.layers.introspection import BitLayer
from bitnet_jax.ops.cpu import library
from bitnet_jax.quantizers.recipe import RECIPES, Recipe
from bitnet_jax.train import console
from bitnet_jax.train.config.settings import Settings
from bitnet_jax.train.decisions import decisions
from bitnet_jax.train.experiment import Experiment
from bitnet_jax.train.folder.lock import EVENTS, METRICS_FILE
from bitnet_jax.train.folder.workdir import CONFIG_FILE, RESULT_FILE
from bitnet_jax.train.state import TrainState, count_params
from bitnet_jax.train.tasks.facts import DataFacts

INDENT = 13  # of the values, after their names
_WIDEST = 1000
_MOST_LAYERS = 24  # rows of layers
_MOST_NAMES = 8  # of classes
_UNITS = ("B", "kB", "MB", "GB", "TB")
_WRITING = ("causal_lm", "translation")


def of_start(experiment: Experiment, folder: str, *, step: int = 0) -> str:
  """Returns the summary of a run that begins,.

  It has the data and their classes, the layers with their recipes and bits, the
  devices, the schedule, the checkpoints, and the memory of the state.

  Args:
    experiment: what is run.
    folder: the workdir.
    step: where this start begins.
  """
  settings, facts = experiment.settings, experiment.task.facts
  state = experiment.abstract_state()
  rows = [
    ("run", f"{folder} (id {experiment.run_id}, seed {settings.seed})"),
    ("data", _data(settings, facts)),
    ("model", _model(settings, experiment.layers, state)),
    ("devices", _devices(experiment)),
    ("training", _training(experiment, step)),
    ("evaluation", _evaluation(settings)),
    ("checkpoints", _checkpoints(settings, state)),
    ("memory", _memory(experiment, state)),
  ]
  if decided := "\n".join(decisions.lines(experiment.config)):
    rows.append(("decided", decided))
  layers = _layers(experiment.layers, state.params)
  return "\n".join([_pairs(rows[:3]), _lines(layers), _pairs(rows[3:])])


def of_end(result: Mapping[str, Any], folder: str) -> str:
  """Returns the summary of a finished run.

  Args:
    result: the content of ``result.json``.
    folder: the workdir.
  """
  config, best = result["config"], result["best"]
  columns = {f"step {result['step']}": result["metrics"]}
  if best is not None and best["step"] != result["step"]:
    columns[f"best, step {best['step']}"] = best["metrics"]
  table = _table("metric", *columns, right=len(columns))
  for name in result["metrics"]:
    values = [found.get(name) for found in columns.values()]
    table.add_row(name, *("" if v is None else f"{v:.4f}" for v in values))
  files = (RESULT_FILE, METRICS_FILE, CONFIG_FILE, "checkpoints", EVENTS)
  rows = [
    ("run", f"{folder} (id {result['run_id']})"),
    ("time", f"{result['wall_time_s']:.1f} s on {result['device']}"),
    ("files", ", ".join(files)),
  ]
  checkpoint = [] if best is None else ["--checkpoint=best"]
  here = [f"--workdir={folder}", *checkpoint]
  if config["task"]["name"] in _WRITING:
    use = console.command("generate", *here, "--prompt=TEXT")
  else:
    use = console.command("predict", *here, "INPUT")
  is_float = config["quant"]["recipe"] == "float"
  form = "safetensors" if is_float else "packed"
  output = f"--output={folder.rstrip('/')}-{form}"
  rows += [
    ("next", console.command("evaluate", *here)),
    ("", use),
    ("", console.command("export", *here, f"--format={form}", output)),
    ("", f"tensorboard --logdir={shlex.quote(folder)}{_to_install()}"),
  ]
  return f"{_lines(table)}\n{_pairs(rows)}"


def _to_install() -> str:
  """Returns how TensorBoard is installed, which is in no extra."""
  if importlib.util.find_spec("tensorboard") is not None:
    return ""
  return "  (pip install tensorboard)"


def bits(recipe: Recipe, dtype: str = "float32") -> float:
  """Returns the bits of a weight: log2 of the number of codes, or of floats."""
  if recipe.weights is None:
    return 8.0 * jax.numpy.dtype(dtype).itemsize
  low, high = recipe.weights.range
  is_binary = recipe.weights.rounding == "sign"
  return math.log2(2 if is_binary else high - low + 1)


def size(count: float) -> str:
  """Returns a number of bytes with its unit, such as "1.2 MB"."""
  power = 0
  while count >= 1000 and power < len(_UNITS) - 1:
    count, power = count / 1000, power + 1
  return f"{count:.1f} {_UNITS[power]}" if power else f"{count:.0f} B"


def bytes_of(tree: Any) -> int:
  """Returns the bytes of one device's part of all arrays."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def _data(settings: Settings, facts: DataFacts) -> str:
  splits = ", ".join(f"{s.examples:,} {n}" for n, s in facts.splits.items())
  text = f"{settings.data.source}: {splits}"
  if facts.num_classes is not None and facts.num_classes > 1:
    text += f"; {facts.num_classes} classes"
    names = ", ".join(facts.class_names[:_MOST_NAMES])
    more = ", ..." if len(facts.class_names) > _MOST_NAMES else ""
    text += f" ({names}{more})" if names else ""
  if facts.vocab_size is not None:
    text += f"; {facts.vocab_size:,} tokens in the vocabulary"
  shapes = (
    f"{name} {spec.dtype}{list(spec.shape[1:])}"
    for name, spec in facts.example.items()
  )
  return f"{text}\none example: {', '.join(shapes)}"


def _model(
  settings: Settings, layers: Iterable[BitLayer], state: TrainState
) -> str:
  total = count_params(state.params)
  quantized = sum(
    layer.kernel(state.params).size
    for layer in layers
    if layer.recipe.weights is not None
  )
  text = f"{settings.model.name}: {total:,} parameters"
  if quantized:
    text += f", of which {quantized / total:.1%} are quantized"
  phase_in = settings.quant.phase_in
  if quantized and phase_in.active_from:
    text += f", fully from step {phase_in.active_from} on"
  return text


def _layers(layers: Iterable[BitLayer], params: Any) -> rich.table.Table:
  """Returns a table of the layers; those that only differ in a number share a
  row.
  """
  table = _table("layer", "kernel", "recipe", "parameters", "bits", right=2)
  groups: dict[tuple[str, ...], list[BitLayer]] = {}
  others = count_params(params)
  for layer in layers:
    kernel = layer.kernel(params)
    others -= kernel.size
    shape = " x ".join(map(str, kernel.shape))
    each = f"{bits(layer.recipe, kernel.dtype):.2f}"
    row = (re.sub(r"\d+", "*", layer.path), shape, _name(layer.recipe), each)
    groups.setdefault(row, []).append(layer)
  for (path, *cells, each), alike in [*groups.items()][:_MOST_LAYERS]:
    if len(alike) == 1:
      path = alike[0].path or "(the model)"
    else:
      path += f" ({len(alike)} layers)"
    count = sum(layer.kernel(params).size for layer in alike)
    texts = (path, *cells, f"{count:,}", each)
    table.add_row(*map(rich.text.Text, texts))
  if len(groups) > _MOST_LAYERS:
    table.add_row(f"... {len(groups) - _MOST_LAYERS} rows more", "", "", "", "")
  if others:
    table.add_row("others", "", "float", f"{others:,}", "")
  return table


def _name(recipe: Recipe) -> str:
  return next((n for n, known in RECIPES.items() if known == recipe), "custom")


def _devices(experiment: Experiment) -> str:
  mesh = experiment.mesh
  sizes = ", ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
  kind = mesh.devices.flat[0].device_kind
  text = f"{mesh.size} x {kind}, mesh {sizes}"
  return f"{text}\n{library.describe()}" if backend.is_one_cpu() else text


def _training(experiment: Experiment, step: int) -> str:
  settings, facts = experiment.settings, experiment.task.facts
  optim, batch = settings.optim, settings.data.batch_size
  total = experiment.total_steps
  length = f"{total:,} steps"
  if step:
    length += f", from step {step:,} on,"
  if not experiment.full_graph and facts.batches_per_epoch is None:
    epochs = total * batch / facts.num_examples
    length += f" of {batch} examples ({epochs:.3g} epochs)"
  warm_up = f"{optim.warmup_steps} steps of warm-up, " * bool(
    optim.warmup_steps
  )
  return (
    f"{length}\n{optim.name}, learning rate {optim.learning_rate:g},"
    f" {warm_up}{optim.schedule} schedule"
  )


def _evaluation(settings: Settings) -> str:
  if not settings.eval_every:
    return "after the last step"
  best = f"; best by {settings.checkpoint.metric} ({settings.checkpoint.mode})"
  return f"every {settings.eval_every:,} steps" + best * bool(
    settings.checkpoint.keep_best
  )


def _checkpoints(settings: Settings, state: TrainState) -> str:
  options = settings.checkpoint
  each = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
  most = options.keep_last + options.keep_best
  return (
    f"every {settings.checkpoint_every:,} steps, {size(each)} each; the last"
    f" {options.keep_last} and the best {options.keep_best} are kept: up to"
    f" {size(most * each)}"
  )


def _memory(experiment: Experiment, state: TrainState) -> str:
  batch = experiment.step_arguments()[1]
  parts = {
    "parameters": bytes_of(state.params),
    "gradients": bytes_of(state.params),
    "optimizer": bytes_of([state.opt_state, state.variables]),
    "batch": bytes_of(batch),
  }
  listed = ", ".join(f"{name} {size(n)}" for name, n in parts.items())
  return f"{size(sum(parts.values()))} a device without activations: {listed}"


def _table(*columns: str, right: int) -> rich.table.Table:
  """Returns an empty table whose last columns are numbers."""
  table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
  for i, column in enumerate(columns):
    is_number = i >= len(columns) - right
    table.add_column(column, justify="right" if is_number else "left")
  return table


def _pairs(rows: Iterable[tuple[str, str]]) -> str:
  """Returns names with their values, which may have several lines."""
  lines = []
  for name, value in rows:
    first, *others = value.splitlines()
    lines += [f"{name:{INDENT}}{first}", *(" " * INDENT + o for o in others)]
  return "\n".join(lines)


def _lines(table: rich.table.Table) -> str:
  """Returns a table as plain text, however wide it is."""
  screen = rich.console.Console(
    file=io.StringIO(), width=_WIDEST, color_system=None
  )
  with screen.capture() as found:
    screen.print(table)
  lines = (line.rstrip() for line in found.get().splitlines())
  return "\n".join(line for line in lines if line)
