"""Official file formats, one file a model."""
