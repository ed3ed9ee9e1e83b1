"""The console script, as ``python -m bitnet_jax VERB --flag=value``."""

from bitnet_jax import cli

if __name__ == "__main__":
  cli.main()
