"""Calls of loaders with the fields of cuts beside their other options."""

import dataclasses

from bitnet_jax.data.splits import Cuts

FIELDS = tuple(field.name for field in dataclasses.fields(Cuts))


def load(loader, source, **options):
  """Returns what a loader reads; fields of ``Cuts`` among options are cuts."""
  cuts = {key: options.pop(key) for key in FIELDS if key in options}
  return loader(source, Cuts(**cuts), **options)
