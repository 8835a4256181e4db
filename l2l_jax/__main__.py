"""python -m l2l_jax COMMAND: the same as the console script l2l-jax."""

from l2l_jax.commands import main

if __name__ == "__main__":
    main()
