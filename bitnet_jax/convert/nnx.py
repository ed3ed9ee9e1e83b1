"""NNX models with quantized layers, by replacement of the layers."""

from typing import Any

from flax import nnx

from bitnet_jax.convert.report import Layer, Pairs, Report, decide
from bitnet_jax.layers.arguments import changed_options
from bitnet_jax.nnx import BitConv, BitLinear, BitLinearGeneral
from bitnet_jax.nnx.layers import namesake_of, set_recipe

TWINS: dict[type[Any], type[Any]] = {
  nnx.Linear: BitLinear,
  nnx.LinearGeneral: BitLinearGeneral,
  nnx.Conv: BitConv,
}
# Other modules with a kernel, listed as staying in float, and twins, which keep
# their recipes.
_OTHERS = (nnx.ConvTranspose, nnx.Einsum, nnx.Embed, nnx.bridge.ToNNX)
_QUANTIZED = tuple(TWINS.values())


def convert(
  model: nnx.Module, rules: Pairs, rngs: nnx.Rngs | None
) -> tuple[nnx.Module, Report]:
  """Returns a copy of a model with twins for its layers, and a report.

  The twins hold the parameters of the layers. A layer that stands in several
  places stays one.
  """
  model, report = nnx.clone(model), Report()
  for path, module in list(nnx.iter_modules(model)):
    kind = type(module)
    known = isinstance(module, (*TWINS, *_OTHERS))
    if not known or isinstance(module, _QUANTIZED):
      continue
    name = "/".join(map(str, path))
    recipe, reason = decide(rules, name)
    if recipe is not None and (obstacle := _obstacle(module)):
      recipe, reason = None, obstacle
    report.layers[name] = Layer(kind.__name__, recipe, reason)
    if recipe is not None:
      # In place, so that everything that holds the layer holds its twin.
      module.__class__ = TWINS[kind]
      set_recipe(module, recipe, rngs)
  report.layers = dict(sorted(report.layers.items()))
  report.check_used(rules)
  return model, report


def _obstacle(module: Any) -> str:
  """Says why a layer has no twin, or ""."""
  kind = type(module)
  if isinstance(module, nnx.bridge.ToNNX):
    return "it is a module of Linen; convert that before it is bridged"
  if kind not in TWINS and isinstance(module, tuple(TWINS)):
    return f"{kind.__name__} has code of its own, which a twin would replace"
  if kind not in TWINS:
    twins = ", ".join(twin.__name__ for twin in TWINS)
    return f"{kind.__name__} has no twin; {twins} have"
  own = changed_options(module, namesake_of(module))
  return f"it has {own[0]}, which its twin does not take" if own else ""
