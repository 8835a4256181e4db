"""The experiment of helpers.small_config, for processes of their own."""

from tests import helpers


def get_config():
    return helpers.small_config()
