"""The input pipeline: images from disk to batches."""
