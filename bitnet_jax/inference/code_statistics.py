"""Statistics of the codes of a frozen model, by layer."""

from typing import Any

import jax

from bitnet_jax.inference.tensors import check_frozen, flat
from bitnet_jax.ops.statistics import describe_codes
from bitnet_jax.types import QTensor


def code_statistics(
  variables: Any, before: Any = None
) -> dict[str, dict[str, float]]:
  """Returns the statistics of the codes of each frozen layer.

  They are those that a run logs as ``weights/<layer>/...``.

  Args:
    variables: frozen variables of a Linen model, or a frozen NNX model.
    before: the same model, frozen earlier, for ``flip_rate``.

  Returns:
    By path of the layer: ``negative_fraction``, ``zero_fraction`` and
    ``positive_fraction`` of its codes, its ``scale`` (the mean, if there are
    several), and, with ``before``, the ``flip_rate``, the fraction of codes
    that differ.

  Raises:
    ValueError: if nothing is frozen, or if ``before`` is of another model.

  Example:
    >>> import flax.linen as nn
    >>> import jax
    >>> from bitnet_jax import BitDense
    >>> from bitnet_jax.inference import code_statistics, freeze
    >>> net, x = nn.Sequential([BitDense(8)]), jax.numpy.ones((1, 4))
    >>> frozen = freeze(net.init(jax.random.key(0), x), net, x)
    >>> found = code_statistics(frozen)["layers_0"]
    >>> 0 < found["zero_fraction"] < 1
    True
  """
  kernels, earlier = _kernels(variables), {}
  check_frozen(kernels)
  if before is not None:
    earlier = _kernels(before)
    shapes = [{n: q.shape for n, q in k.items()} for k in (kernels, earlier)]
    if shapes[0] != shapes[1]:
      raise ValueError(
        f"before is of another model: its frozen kernels are {shapes[1]}, not"
        f" {shapes[0]}"
      )
  found = {
    name: _describe(q, earlier[name].codes if earlier else None)
    for name, q in kernels.items()
  }
  return {
    name: {key: float(value) for key, value in described.items()}
    for name, described in jax.device_get(found).items()
  }


def _kernels(variables: Any) -> dict[str, QTensor]:
  """Returns frozen kernels by path of the layer."""
  return {
    name.removeprefix("params/").removesuffix("kernel").rstrip("/"): leaf
    for name, leaf in flat(variables).items()
    if isinstance(leaf, QTensor)
  }


_describe = jax.jit(describe_codes)
