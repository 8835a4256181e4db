"""Weights files: published, bundled and our own; reading, checking and writing them."""
