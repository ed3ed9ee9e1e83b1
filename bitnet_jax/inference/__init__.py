"""Running trained models: no training state here."""

from bitnet_jax.inference.beam import beam_search as beam_search
from bitnet_jax.inference.generate import generate as generate
from bitnet_jax.inference.sampling import Sampling as Sampling
