"""One function for the models of Linen and of NNX."""

from typing import Any

import flax.linen as nn
import jax

from bitnet_jax.convert.linen import BitLinearized
from bitnet_jax.convert.report import Pairs, Report, check_rules
from bitnet_jax.quantizers.recipe import RecipeLike


def bitlinearize(
  model: Any, rules: RecipeLike | Pairs, *example: Any, **more: Any
) -> tuple[Any, Report]:
  """Quantizes the layers of a model that knows nothing of it.

  ``nn.Dense``, ``nn.DenseGeneral`` and ``nn.Conv`` of a Linen model are run by
  ``BitDense``, ``BitDenseGeneral`` and ``BitConv``, with the parameters that
  they have: the tree stays, and a full-precision checkpoint is the start of
  ternary training. A layer that no rule matches stays as it was.

  Args:
    model: an ``nn.Module``.
    rules: (pattern, recipe) pairs on slash-joined paths, of which the first
      that matches the whole path wins; or one recipe for all layers.
    *example: arguments of a call, arrays or ``jax.ShapeDtypeStruct``, to trace
      the model with. Without them rules are checked, and the report filled,
      when the model is initialized.
    **more: keyword arguments, likewise.

  Returns:
    The model, to be used in place of the one given, and the report: which
    layers are quantized, which are not, and why.

  Raises:
    TypeError: for what is no Linen module.
    ValueError: for an unknown recipe, or a rule that decides for no layer.
  """
  if not isinstance(model, nn.Module):
    raise TypeError(f"model is a {type(model).__name__}, not a Linen module")
  report = Report()
  found = BitLinearized(model, check_rules(rules), report)
  if example or more:
    keys = {
      name: jax.random.key(0) for name in ("params", "dropout", "quantize")
    }
    arrays = {n: value for n, value in more.items() if hasattr(value, "shape")}
    rest = {n: value for n, value in more.items() if n not in arrays}
    jax.eval_shape(
      lambda args, kwargs: found.init(keys, *args, **kwargs, **rest),
      example,
      arrays,
    )
  return found, report
