"""One of two processes that form one run: python -m tests.pair HOST:PORT,2,RANK FOLDER REFERENCE.

First the process of rank 1 gets configs with an error and the other process gets correct ones: both
must refuse to start. Then both run helpers.small_config in FOLDER. REFERENCE is the workdir of a
retrained model, with which the run is compared.
"""

import sys
from pathlib import Path

from l2l_jax import processes
from l2l_jax.engine.run import run
from l2l_jax.lib.errors import ConfigError
from tests.helpers import small_config

BAD_VALUES = (("unlearn", "batch_size", 7), ("runtime", "keep", 0))


def main(spec, folder, reference):
    processes.begin(spec, join_timeout=300, require="cpu")
    for section, key, value in BAD_VALUES:
        config = small_config(reference=reference)
        if spec.endswith(",1"):
            config[section][key] = value
        try:
            run(config, folder)
        except ConfigError as error:
            print(f"{section}.{key} refused: {error}", flush=True)
        assert not Path(folder, "config.json").exists()
    run(small_config(reference=reference), folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
