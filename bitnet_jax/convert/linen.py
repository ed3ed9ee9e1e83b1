"""Linen models with quantized layers, by interception of their calls."""

import dataclasses
import types
from collections.abc import Callable
from typing import Any

import flax.linen as nn
from flax.linen import linear

from bitnet_jax.convert.report import Layer, Pairs, Report, decide
from bitnet_jax.layers import BitConv, BitDense, BitDenseGeneral
from bitnet_jax.quantizers.recipe import Recipe

TWINS: dict[type[nn.Module], type[nn.Module]] = {
  nn.Dense: BitDense,
  nn.DenseGeneral: BitDenseGeneral,
  nn.Conv: BitConv,
}
# What keeps a layer as it is: a product of its own, or a mask.
_OWN = (
  "dot_general",
  "dot_general_cls",
  "conv_general_dilated",
  "conv_general_dilated_cls",
  "mask",
)
# Other layers of Flax with a kernel, listed as staying in float.
_OTHERS = (nn.ConvTranspose, nn.ConvLocal, nn.Einsum, nn.Embed)


class BitLinearized(nn.Module):
  """A model whose layers are run by their quantized twins.

  Its parameters are those of the model, in the same tree. Methods of the model
  are methods of this, and run the twins too.

  Attributes:
    model: the model, unchanged.
    rules: (pattern, recipe) pairs on the paths of its layers.
    report: is filled when the model is traced.
  """

  model: nn.Module
  rules: Pairs
  report: Any = dataclasses.field(default_factory=Report, hash=False)

  def setup(self):  # noqa: D102
    nn.share_scope(self, self.model)

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    """Calls the model."""
    return _run(self, self.model, args, kwargs)

  def _call_method(self, name, args, kwargs):
    return _run(self, getattr(self.model, name), args, kwargs)

  def __getattr__(self, name: str) -> Any:
    """Returns a method of the model, run like its call, or an attribute."""
    model = self.__dict__.get("model")
    if name.startswith("_") or not isinstance(model, nn.Module):
      return super().__getattr__(name)
    found = getattr(model, name)
    if not callable(found) or isinstance(found, nn.Module):
      return found

    def method(wrapper, *args, **kwargs):
      return wrapper._call_method(name, args, kwargs)

    # A method, of which ``apply(..., method=name)`` takes the function.
    return types.MethodType(method, self)


# No methods of the module: Flax would intercept these too.


def _run(wrapper: BitLinearized, function: Callable[..., Any], args, kwargs):
  """Calls a function of the model, with twins."""
  depth = len(wrapper.path)

  def intercept(next_fun, args, kwargs, context):
    module = context.module
    known = isinstance(module, (*TWINS, *_OTHERS))
    if context.method_name != "__call__" or not known:
      return next_fun(*args, **kwargs)
    path = "/".join(module.path[depth:])
    recipe, reason = decide(wrapper.rules, path)
    if recipe is not None and (obstacle := _obstacle(module)):
      recipe, reason = None, obstacle
    layer = Layer(type(module).__name__, recipe, reason)
    wrapper.report.layers[path] = layer
    if recipe is None:
      return next_fun(*args, **kwargs)
    return _twin(module, recipe)(*args, **kwargs)

  with nn.intercept_methods(intercept):
    y = function(*args, **kwargs)
  if wrapper.is_initializing():
    wrapper.report.check_used(wrapper.rules)
  return y


def _obstacle(module: nn.Module) -> str:
  """Says why a layer has no twin, or ""."""
  kind = type(module)
  if kind not in TWINS:
    twins = ", ".join(twin.__name__ for twin in TWINS)
    return f"{kind.__name__} has no twin; {twins} have"
  for name in _OWN:
    if getattr(module, name, None) is not None:
      return f"it has {name}, which its twin does not take"
  if module.promote_dtype is not linear.promote_dtype:
    return "it has a promote_dtype of its own"
  return ""


def _twin(module: nn.Module, recipe: Recipe) -> nn.Module:
  """Returns the twin of a layer, in the place of the layer."""
  twin: Any = TWINS[type(module)]
  given = {
    field.name: getattr(module, field.name)
    for field in dataclasses.fields(twin)
    if field.init and field.name not in ("parent", "name", "recipe", "mask")
  }
  return twin(**given, recipe=recipe, parent=module.scope)
