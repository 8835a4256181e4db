"""Reads workdirs (JSON and PNG files, without JAX) and writes self-contained HTML pages."""
