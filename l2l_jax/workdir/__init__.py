"""The folder of a run: the names of its files, and the functions that read and write them."""
