"""Linen models with quantized layers, by interception of their calls."""

import contextvars
import dataclasses
import types
from typing import Any

import flax.linen as nn

from bitnet_jax.convert.report import Pairs, Report, judge
from bitnet_jax.layers import BitConv, BitDense, BitDenseGeneral
from bitnet_jax.layers.dense import QuantizedLayer
from bitnet_jax.layers.interception import Interception
from bitnet_jax.quantizers.recipe import Recipe

TWINS: dict[type[nn.Module], type[nn.Module]] = {
  nn.Dense: BitDense,
  nn.DenseGeneral: BitDenseGeneral,
  nn.Conv: BitConv,
}
# The innermost converted model that runs; outer ones leave its layers alone.
_running: contextvars.ContextVar[Any] = contextvars.ContextVar(
  "_running", default=None
)
# Other layers of Flax with a kernel, listed as staying in float.
_OTHERS = (nn.ConvTranspose, nn.ConvLocal, nn.Einsum, nn.Embed)


@dataclasses.dataclass(frozen=True)
class _Source:
  """Holds a model that Flax should not take for a submodule."""

  model: nn.Module


class BitLinearized(nn.Module):
  """A model whose layers are run by their quantized twins.

  The model runs in the scope of this module: parameters, initial values and
  paths are those that it has by itself. Methods of the model are methods of
  this, and run the twins too.

  Attributes:
    source: holds the model, unchanged.
    rules: (pattern, recipe) pairs on the paths of its layers.
    report: is filled when the model is traced.
  """

  source: _Source
  rules: Pairs
  report: Any = dataclasses.field(default_factory=Report, hash=False)

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    """Calls the model."""
    return _run(self, "__call__", args, kwargs)

  def _call_method(self, name, args, kwargs):
    return _run(self, name, args, kwargs)

  def __getattr__(self, name: str) -> Any:
    """Returns a method of the model, run like its call, or an attribute."""
    source = self.__dict__.get("source")
    if name.startswith("_") or source is None:
      return super().__getattr__(name)
    found = getattr(source.model, name)
    if not callable(found) or isinstance(found, nn.Module):
      return found

    def method(wrapper, *args, **kwargs):
      return wrapper._call_method(name, args, kwargs)

    # A method, of which ``apply(..., method=name)`` takes the function.
    return types.MethodType(method, self)


# No methods of the module: Flax would intercept these too.


def wrap(model: nn.Module, rules: Pairs, report: Report) -> BitLinearized:
  """Returns a model that runs the quantized twins of its layers.

  Raises:
    ValueError: for a model that does already.
  """
  if isinstance(model, BitLinearized):
    raise ValueError(
      "the model is what bitlinearize returned, whose layers have their recipes"
      " already; give the original model, and all rules in one call"
    )
  return BitLinearized(_Source(model), rules, report)


def _run(wrapper: BitLinearized, method: str, args, kwargs):
  """Calls a method of the model, with twins."""
  depth = len(wrapper.path)

  def intercept(next_fun, args, kwargs, context):
    module = context.module
    known = isinstance(module, (*TWINS, *_OTHERS))
    known = known and not isinstance(module, QuantizedLayer)
    inner = _running.get() is not wrapper
    if context.method_name != "__call__" or not known or inner:
      return next_fun(*args, **kwargs)
    path = "/".join(module.path[depth:])
    layer = judge(module, path, wrapper.rules, TWINS)
    wrapper.report.layers[path] = layer
    if layer.recipe is None:
      return next_fun(*args, **kwargs)
    return _twin(module, layer.recipe)(*args, **kwargs)

  token = _running.set(wrapper)
  model, interception = _bound(wrapper)
  try:
    with interception.calls(intercept):
      y = getattr(model, method)(*args, **kwargs)
  finally:
    _running.reset(token)
  if wrapper.is_initializing():
    wrapper.report.check_used(wrapper.rules)
  return y


def _bound(wrapper: BitLinearized) -> tuple[nn.Module, Interception]:
  """Returns the model in the scope of the wrapper, one for all its calls."""
  scope, bound = wrapper.__dict__.get("_bound", (None, None))
  if bound is None or scope is not wrapper.scope:
    scope = wrapper.scope
    assert scope is not None  # Without one there is no path either.
    # A key for each report: a second conversion is traced again.
    interception = Interception(scope, wrapper.report.key)
    bound = wrapper.source.model.clone(parent=scope), interception
    object.__setattr__(wrapper, "_bound", (scope, bound))
  return bound


def _twin(module: nn.Module, recipe: Recipe) -> nn.Module:
  """Returns the twin of a layer, in the place of the layer."""
  twin: Any = TWINS[type(module)]
  given = {
    field.name: getattr(module, field.name)
    for field in dataclasses.fields(twin)
    if field.init and field.name not in ("parent", "name", "recipe")
  }
  return twin(**given, recipe=recipe, parent=module.scope)
