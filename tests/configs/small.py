"""The experiment of helpers.small_config, as a file for tests that start a process."""

from tests import helpers


def get_config():
    return helpers.small_config()
