"""The report: all studies as one static HTML site, and a view of live runs."""

from bitnet_jax.report.schema import RecordError, check_file
from bitnet_jax.report.site import build

__all__ = ["RecordError", "build", "check_file"]
