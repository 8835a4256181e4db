"""The record of a run: what was asked, what was done and found, with digests that can be checked.

Reads workdirs, and imports no JAX.
"""
