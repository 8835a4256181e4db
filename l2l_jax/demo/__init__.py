"""A page to paint on: `python -m l2l_jax.demo RUN`."""
