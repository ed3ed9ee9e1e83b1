"""Writes the table of all verdicts into the README of this repository."""

import pathlib

from bitnet_jax.studies import ledger

FOLDER = pathlib.Path(__file__).resolve().parent

if __name__ == "__main__":
  ledger.write(FOLDER, FOLDER.parent / "README.md")
