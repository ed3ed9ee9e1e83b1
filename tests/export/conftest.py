"""The small experiment of the training tests."""

from tests.train.conftest import make_config as make_config
