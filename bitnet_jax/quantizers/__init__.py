"""Scale measures, quantizers and recipes: pure numerics."""

from bitnet_jax.quantizers.quantizer import Quantizer as Quantizer
from bitnet_jax.quantizers.recipe import RECIPES as RECIPES
from bitnet_jax.quantizers.recipe import Recipe as Recipe

__all__ = ["RECIPES", "Quantizer", "Recipe"]
