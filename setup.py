"""What setup.cfg cannot say: configs/ becomes l2l_jax/bundled/configs of the installed package."""

from setuptools import find_packages, setup

CONFIGS = "l2l_jax.bundled.configs"

setup(
    packages=[*find_packages(include=["l2l_jax", "l2l_jax.*"]), CONFIGS],
    package_dir={CONFIGS: "configs"},
)
