"""``bitlinearize``, for models of Linen and of NNX."""

from typing import Any

import flax.linen as nn

from bitnet_jax.convert import linen
from bitnet_jax.convert.report import Report, check_rules
from bitnet_jax.layers import bit_layers
from bitnet_jax.quantizers.recipe import Rules


def bitlinearize(
  model: Any,
  rules: Rules,
  *example: Any,
  rngs: Any = None,
  **more: Any,
) -> tuple[Any, Report]:
  """Quantizes the layers of an existing model, without a change to its source.

  ``nn.Dense``, ``nn.DenseGeneral`` and ``nn.Conv`` of a Linen model are run by
  ``BitDense``, ``BitDenseGeneral`` and ``BitConv``. The parameters stay, so
  training can start from a full-precision checkpoint. In a copy of an NNX
  model, ``nnx.Linear``, ``nnx.LinearGeneral`` and ``nnx.Conv`` become their
  twins, with their parameters. A layer that no rule matches stays unchanged.

  Args:
    model: an ``nn.Module`` or an ``nnx.Module``.
    rules: (pattern, recipe) pairs on slash-joined paths, or a mapping, of which
      the first that matches the whole path wins; or one recipe for all layers.
    *example: of a Linen model, arguments of a call, arrays or
      ``jax.ShapeDtypeStruct``, to trace it with. Without them rules are
      checked, and the report filled, when the model is initialized.
    rngs: of an NNX model, random keys for recipes that round by them.
    **more: keyword arguments of the call.

  Returns:
    The model, to be used in place of the one given, and the report: which
    layers are quantized, which are not, and why.

  Raises:
    TypeError: for a model that is no module.
    ValueError: for an unknown recipe, a rule that applies to no layer, or a
      recipe that needs random keys where there are none.

  Example:
    >>> import flax.linen as nn
    >>> import jax
    >>> from bitnet_jax.convert import bitlinearize
    >>> net = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(2)])
    >>> x = jax.numpy.ones((1, 4))
    >>> rules = [("layers_2", "float"), (".*", "b158")]
    >>> ternary, report = bitlinearize(net, rules, x)
    >>> print(report)
    layers_0  Dense          quantized: rule '.*'
    layers_2  Dense          float: rule 'layers_2'
    >>> ternary.apply(net.init(jax.random.key(0), x), x).shape
    (1, 2)
  """
  pairs = check_rules(rules)
  if not isinstance(model, nn.Module):
    # Imported here: it loads optax, which Linen models do not need.
    from flax import nnx

    from bitnet_jax.convert.nnx import convert

    if not isinstance(model, nnx.Module):
      raise TypeError(
        f"model is a {type(model).__name__}, neither a Linen nor an NNX module"
      )
    if example or more:
      raise TypeError(
        "an NNX model needs no example, since its layers exist already"
      )
    return convert(model, pairs, rngs)
  report = Report()
  found = linen.wrap(model, pairs, report)
  if example or more:
    bit_layers(found, *example, **more)  # Traces it, which fills the report.
  return found, report
