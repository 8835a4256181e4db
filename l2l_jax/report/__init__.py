"""Reads run folders (JSON and PNG only, no JAX) and writes self-contained HTML pages."""
