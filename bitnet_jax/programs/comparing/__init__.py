"""Compares finished runs by their folders: tables, intervals and figures."""

from bitnet_jax.programs.comparing.figures import draw as draw
from bitnet_jax.programs.comparing.groups import CHECKPOINTS as CHECKPOINTS
from bitnet_jax.programs.comparing.report import Report as Report
from bitnet_jax.programs.comparing.report import compare as compare
from bitnet_jax.programs.comparing.report import write_csv as write_csv
