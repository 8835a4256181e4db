"""ArrayRecord files in the layout of TensorFlow Datasets."""
