"""Official file formats, one module for each model."""
