"""The folder of a run: the names of its files, and who reads and writes them."""
