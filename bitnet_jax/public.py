"""The public names of ``bitnet_jax``, which imports them on first use."""

from bitnet_jax.layers import BitConv as BitConv
from bitnet_jax.layers import BitDense as BitDense
from bitnet_jax.layers import BitDenseGeneral as BitDenseGeneral
from bitnet_jax.quantizers import RECIPES as RECIPES
from bitnet_jax.quantizers import Quantizer as Quantizer
from bitnet_jax.quantizers import Recipe as Recipe
from bitnet_jax.types import Packed as Packed
from bitnet_jax.types import QTensor as QTensor
