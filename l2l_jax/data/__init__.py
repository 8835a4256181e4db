"""The input pipeline: data sets, splits and batches."""
