"""NNX models with quantized layers, by replacement of the layers."""

from typing import Any

from flax import nnx

from bitnet_jax.convert.report import Pairs, Report, judge
from bitnet_jax.nnx import BitConv, BitLinear, BitLinearGeneral
from bitnet_jax.nnx.layers import set_recipe

TWINS: dict[type[Any], type[Any]] = {
  nnx.Linear: BitLinear,
  nnx.LinearGeneral: BitLinearGeneral,
  nnx.Conv: BitConv,
}
# Other modules with a kernel, listed as staying in float, and twins, which keep
# their recipes.
_OTHERS = (nnx.ConvTranspose, nnx.Einsum, nnx.Embed, nnx.bridge.ToNNX)
_BRIDGED = "it is a module of Linen; convert that before it is bridged"
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
    known = isinstance(module, (*TWINS, *_OTHERS))
    if not known or isinstance(module, _QUANTIZED):
      continue
    bridged = isinstance(module, nnx.bridge.ToNNX)
    name = "/".join(map(str, path))
    layer = judge(module, name, rules, TWINS, _BRIDGED if bridged else "")
    report.layers[name] = layer
    if layer.recipe is not None:
      # In place, so that everything that holds the layer holds its twin.
      module.__class__ = TWINS[type(module)]
      set_recipe(module, layer.recipe, rngs)
  report.layers = dict(sorted(report.layers.items()))
  report.check_used(rules)
  return model, report
