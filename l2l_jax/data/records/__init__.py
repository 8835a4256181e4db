"""Data sets in ArrayRecord files, in the layout of TensorFlow Datasets (TFDS)."""
