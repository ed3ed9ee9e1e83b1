"""Recipes: how a layer quantizes its kernel and its input.

The comments in ``RECIPES`` name the source of each recipe.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from bitnet_jax import choices
from bitnet_jax.quantizers.quantizer import TERNARY_RANGE, Quantizer

# The norm of the authors' first layers, over all axes but the batch.
LAYER_NORM_ALL = "layer_norm_all"
NORMS = (None, "layer_norm", "rms_norm", LAYER_NORM_ALL)
STE = ("identity", "clipped")
COMPUTE = ("auto", "int8", "float")
BACKWARD = ("float", "bfloat16", "int8")

TERNARY = Quantizer("absmean", TERNARY_RANGE)
TERNARY_MEDIAN = Quantizer("absmedian", TERNARY_RANGE)
INT8_PER_TOKEN = Quantizer("absmax", (-128, 127), axis=-1)


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a layer quantizes its kernel and its input before the product.

  Attributes:
    weights: quantizer of the kernel; ``None`` leaves it in float. Its axis is
      ``None`` (per tensor) or 0 (per output channel).
    acts: quantizer of the input; ``None`` leaves it in float. Its axis is -1
      (per token; in a convolution, per example) or ``None`` (per tensor).
    norm: parameter-free norm of the input, in float32, over the axes of one
      token: ``None``, "layer_norm" or "rms_norm". "layer_norm_all", for
      comparisons only, runs over all axes but the first, as the authors' layers
      did until December 2024. It mixes the tokens of an example: a causal model
      sees later tokens, whose loss no generated text can reach, and padding
      changes the result.
    ste: straight-through gradient of the rounding: "identity", or "clipped",
      which is zero where the rounded value lay outside the range.
    bias_in_product: whether the bias is added to the integer product before
      scaling, as in the authors' PyTorch layer, instead of after.
    compute: "int8" or "float" products, which give the same bits; "auto" takes
      the faster one for the backend and shape.
    backward: dtype of the products in the backward pass: "float", which is
      exact; "bfloat16", which rounds the cotangent (codes stay exact); or
      "int8", which rounds the cotangent stochastically to 8 bits with one scale
      per row, adds noise and needs a key.

  Raises:
    ValueError: on construction, naming the field, its value and the choices.

  Example:
    >>> import dataclasses
    >>> from bitnet_jax import RECIPES, Quantizer, Recipe
    >>> RECIPES["b158"].weights.range
    (-1, 1)
    >>> own = Recipe(Quantizer("absmax", (-3, 3), axis=0), norm="rms_norm")
    >>> dataclasses.replace(RECIPES["b158"], compute="int8").norm
    'layer_norm'
  """

  weights: Quantizer | None = TERNARY
  acts: Quantizer | None = INT8_PER_TOKEN
  norm: str | None = "layer_norm"
  _: dataclasses.KW_ONLY
  ste: str = "identity"
  bias_in_product: bool = False
  compute: str = "auto"
  backward: str = "float"

  def __post_init__(self):
    choices.check(self.norm, NORMS, key="norm")
    choices.check(self.ste, STE, key="ste")
    choices.check(self.compute, COMPUTE, key="compute")
    choices.check(self.backward, BACKWARD, key="backward")
    if self.weights is not None:
      choices.check(self.weights.axis, (None, 0), key="weights.axis")
    if self.acts is not None:
      choices.check(self.acts.axis, (None, -1), key="acts.axis")
    for field, free in (("compute", "auto"), ("backward", "float")):
      value = getattr(self, field)
      if value != free and not self.is_integer:
        raise ValueError(
          f"{field} is {value!r}, but the recipe leaves an operand in float; it"
          f" requires both weights and acts, or {field}={free!r}"
        )

  @property
  def is_integer(self) -> bool:
    """Whether both operands are quantized."""
    return self.weights is not None and self.acts is not None

  @property
  def is_float(self) -> bool:
    """Whether neither operand is quantized."""
    return self.weights is None and self.acts is None

  @property
  def needs_key(self) -> bool:
    """Whether a product under this recipe draws random numbers."""
    quantizers = [q for q in (self.weights, self.acts) if q is not None]
    rounds_randomly = any(q.needs_key for q in quantizers)
    return rounds_randomly or self.backward == "int8"


RECIPES: dict[str, Recipe] = {
  # Full precision; equals nn.Dense and nn.Conv bit for bit.
  "float": Recipe(None, None, None),
  # BitNet b1.58 Reloaded (2407.09527), mean and median.
  "b158": Recipe(TERNARY),
  "b158_median": Recipe(TERNARY_MEDIAN),
  # The papers' PyTorch layer, bitlinear 2.4.6.
  "bitlinear": Recipe(TERNARY_MEDIAN, bias_in_product=True),
  # BitNet b1.58 2B4T (2504.12285); its norms are modules of the model.
  "bitnet_2b4t": Recipe(
    TERNARY, Quantizer("absmax", (-127, 127), axis=-1), None
  ),
  # Spectra (2407.12327): only the weights are ternary.
  "trilm": Recipe(TERNARY, None, None),
  # Sign times mean magnitude, as in XNOR-Net (1603.05279).
  "binary": Recipe(Quantizer("absmean", TERNARY_RANGE, rounding="sign")),
  # Ternary Weight Networks (1605.04711).
  "twn": Recipe(Quantizer("absmean", TERNARY_RANGE, rounding="threshold")),
  # Plain uniform quantization, symmetric.
  "int8": Recipe(Quantizer("absmax", (-127, 127))),
  "int4": Recipe(Quantizer("absmax", (-7, 7))),
}

RecipeLike: TypeAlias = Recipe | str
Pairs: TypeAlias = Sequence[tuple[str, RecipeLike]]
Rules: TypeAlias = RecipeLike | Pairs | Mapping[str, RecipeLike]


def get_recipe(recipe: RecipeLike) -> Recipe:
  """Returns the recipe, looked up if it is a name.

  Raises:
    ValueError: for an unknown name, listing the names.
  """
  if isinstance(recipe, Recipe):
    return recipe
  return choices.pick(RECIPES, recipe, key="recipe")


def check_causal(rules: Rules) -> None:
  """Raises a ValueError if a recipe lets a token see those after it."""
  for pattern, recipe in as_pairs(rules):
    if get_recipe(recipe).norm == LAYER_NORM_ALL:
      raise ValueError(
        f"the recipe of {pattern!r} has the norm {LAYER_NORM_ALL!r}, which runs"
        " over all tokens of an example: text cannot be generated token by"
        " token, since each token changes the outputs of those before it"
      )


def as_pairs(rules: Any) -> Pairs:
  """Returns rules as (pattern, recipe) pairs.

  Args:
    rules: one recipe for all layers; or pairs, or a mapping of patterns to
      recipes.

  Raises:
    ValueError: for anything else.
  """
  if isinstance(rules, (Recipe, str)):
    return ((".*", rules),)
  pairs: Any = rules.items() if isinstance(rules, Mapping) else rules
  is_sequence = isinstance(pairs, Iterable)
  pairs = tuple(pairs) if is_sequence else ()
  if not is_sequence or not all(map(_is_pair, pairs)):
    raise ValueError(
      f"rules are {rules!r}; they must be a recipe for all layers, or"
      " (pattern, recipe) pairs such as [('out', 'float'), ('.*', 'b158')]"
    )
  return pairs


def _is_pair(rule):
  is_pair = isinstance(rule, (tuple, list)) and len(rule) == 2
  return is_pair and isinstance(rule[0], str)


def recipe_at(rules: Rules, path: str) -> Recipe:
  """Returns the recipe of the layer at ``path``.

  Args:
    rules: one recipe for all layers, or (pattern, recipe) pairs; the first
      pattern that matches the whole path (``re.fullmatch``) wins.
    path: slash-joined module names from the top of the model: "blocks/query".

  Raises:
    ValueError: if no rule matches, naming path and patterns.
  """
  if isinstance(rules, (Recipe, str)):
    return get_recipe(rules)
  pairs = as_pairs(rules)
  for pattern, recipe in pairs:
    if re.fullmatch(pattern, path):
      return get_recipe(recipe)
  patterns = [pattern for pattern, _ in pairs]
  raise ValueError(
    f"no recipe rule matches the layer {path!r}; the patterns are {patterns}"
    " (end the rules with ('.*', recipe) for all other layers)"
  )


def check_used(rules: Rules, paths: Sequence[str]) -> None:
  """Raises a ValueError for a rule that applies to none of ``paths``."""
  unused = unused_patterns(rules, paths)
  if unused:
    raise ValueError(
      f"the rule {unused[0]!r} applies to no layer; the layers are:"
      f" {', '.join(paths)} (the first rule that matches wins)"
    )


def unused_patterns(rules: Rules, paths: Sequence[str]) -> list[str]:
  """Returns the patterns that apply to none of ``paths``."""
  if isinstance(rules, (Recipe, str)):
    return []
  patterns = [pattern for pattern, _ in as_pairs(rules)]
  used = {
    next((p for p in patterns if re.fullmatch(p, path)), None) for path in paths
  }
  return [p for p in patterns if p not in used]
