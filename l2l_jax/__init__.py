"""l2l_jax: make a pretrained image-to-image model forget chosen images, and show that it has."""

__version__ = "0.1.0"
