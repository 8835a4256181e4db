"""Bad values of a config: each is refused before the first step, and the workdir stays free.

    python -m launch.drills.configs [--only TEXT] [--verbose]

Every value goes through the real command line, with the smallest experiment (tests/helpers.py).
What is accepted, and would have begun to train, counts as silent. After each refusal the corrected
config must be accepted in the same workdir.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from launch.drills import ending, forked

SMALL = "tests/configs/small.py"
# (an override of the command line, words of which the message has one)
OVERRIDES = """
seed=-1 | seed
seed=4294967296 | seed
seed=one | seed
split.seed=-3 | split.seed
split.images_per_class=-5 | images_per_class
split.eval_images_per_class=-1 | eval_images_per_class
split.forget.images=-1 | images
split.forget.images=100000 | images
split.forget.random=-1 | random
split.forget.random=99 | random
split.forget.classes=(9,) | 9
split.forget.classes=(-1,) | classes
split.forget.classes=('clas0',) | class0
split.forget.classes=(None,) | classes
split.retain.classes=(0,) | share
split.forget.files=nowhere.txt | choose one
split.duplicates=alow | duplicates
unlearn.steps=0 | steps
unlearn.steps=-1 | steps
unlearn.steps=1000000000000 | steps
unlearn.steps=1.5 | steps
unlearn.batch_size=0 | batch_size
unlearn.batch_size=1000000000 | batch_size
unlearn.accumulate=3 | accumulation
unlearn.accumulate=0 | accumulate
unlearn.optimizer.name=sgdd | sgd
unlearn.optimizer.args.momentum=0.9 | momentum
unlearn.optimizer.lr=-1.0 | lr
unlearn.optimizer.lr=1e9 | lr
unlearn.optimizer.lr=nan | lr
unlearn.optimizer.lr=inf | lr
unlearn.optimizer.b1=1.0 | b1
unlearn.optimizer.b2=1.5 | b2
unlearn.optimizer.eps=-1.0 | eps
unlearn.optimizer.eps=0.0 | eps
unlearn.optimizer.weight_decay=-1.0 | weight_decay
unlearn.optimizer.weight_decay=inf | weight_decay
unlearn.optimizer.warmup=1.0 | warmup
unlearn.optimizer.warmup=nan | warmup
unlearn.optimizer.final=-1.0 | final
unlearn.optimizer.clip=-1.0 | clip
unlearn.optimizer.clip=inf | clip
unlearn.saliency=0.0 | saliency
unlearn.saliency=nan | saliency
unlearn.ema=1.0 | ema
unlearn.ema=nan | ema
unlearn.on=retained | retain
unlearn.on=proxy | proxy
unlearn.tasks=('randm',) | random
unlearn.tasks=() | tasks
unlearn.tasks=(1,) | tasks
unlearn.method=l2ll | l2l
unlearn.method= | method
unlearn.solver=weigted | weighted
unlearn.args.noise=gausian | gaussian
unlearn.args.target=released | released
unlearn.solver_args.alpha=inf | alpha
unlearn.solver_args.alpha=nan | alpha
unlearn.solver_args.alpha=-1.0 | alpha
phases=() | phases
phases=('unlern',) | unlearn
phases=('unlearn','unlearn') | twice
phases=('unlearn',) | weights
phases=(1,) | phases
weights=nowhere.safetensors | nowhere
weights=bundled:nothing | ndled
weights=/ | /
reference=nowhere | nowhere
model.name=maee | mae
model.args.image_size=0 | image_size
model.args.image_size=15 | image_size
model.args.image_size=1000000 | image_size
model.args.width=-8 | width
model.args.width=33 | width
model.args.heads=5 | heads
model.args.depth=-1 | depth
model.args.dtype=float31 | float32
model.args.size=tset | test
model.args.remat=True | remat
data.name=fak | fake
data.args.size=0 | size
data.args.classes=0 | classes
data.args.train=0 | train
data.args.eval=0 | eval
data.crop=(0.0,1.0) | crop
data.crop=(0.5,2.0) | crop
data.crop=(nan,1.0) | crop
data.crop=(0.5,) | crop
data.crop=('a','b') | crop
data.cache=dsik | disk
data.resize=fast | simd
data.broken=ignore | skip
data.token_cache.views=-1 | views
data.token_cache.views=2 | views
data.token_cache.noise=-1 | noise
tasks.random.args.ratio=1.0 | ratio
tasks.random.args.ratio=nan | ratio
tasks.center.args.cells=0 | cells
tasks.center.args.cells=4 | cells
tasks.center.args.finer=0 | finer
tasks.center.task=centre | center
evaluate.tasks=() | tasks
evaluate.batch_size=0 | batch_size
networks.main.args.epochs=0 | epochs
networks.main.args.size=0 | size
networks.main.args.lr=nan | lr
networks.main.args.lr=1e6 | lr
networks.main.args.batch_size=0 | batch_size
networks.main.args.seed=-1 | seed
networks.main.name=clasifier | classifier
evaluators.tsne.points=1 | points
evaluators.tsne.perplexity=nan | perplexity
evaluators.inception_score.splits=0 | splits
evaluators.fid.network=mian | main
runtime.fsdp=0 | fsdp
runtime.fsdp=3 | fsdp
runtime.save_every=0 | save_every
runtime.keep=0 | keep
runtime.threads=0 | threads
runtime.threads=100000 | threads
runtime.workers=-1 | workers
runtime.log_every=-1.0 | log_every
runtime.profile_from=-1 | profile_from
runtime.begin_from=nowhere | nowhere
"""
# (name, lines that change `config` of the smallest experiment, words of the message)
CHANGES = [
    ("no section data", "del config['data']", "data"),
    ("no section optimizer", "del config.unlearn['optimizer']", "optimizer"),
    ("no key steps", "del config.unlearn['steps']", "steps"),
    ("an unknown section", "config.evaluaters = dict()", "evaluators"),
    ("an unknown key", "config.unlearn.stpes = 3", "steps"),
    ("an unknown argument", "config.unlearn.args = dict(noize='x')", "noise"),
    ("a number in place of a section", "config.evaluate = 3", "evaluate"),
    ("a text in place of a number", "config.unlearn.update_('steps', 'many')", "steps"),
    ("a text in place of a tuple", "config.unlearn.update_('tasks', 'random')", "tasks"),
    ("yes in place of a number", "config.unlearn.update_('steps', True)", "steps"),
    ("nothing in place of a number", "config.unlearn.update_('steps', None)", "steps"),
    ("an argument of a wrong type", "config.networks.main.args = dict(epochs='5')", "epochs"),
    ("a broken number", "config.networks.main.args = dict(epochs=1.5)", "epochs"),
    ("a text in place of args", "config.unlearn.update_('args', 'x')", "args"),
    ("two figures under a name", "config.evaluators.x = dict(evaluator='reconstruction')", "x"),
    ("a phase without a solver", "del config.unlearn['solver']", "solver"),
    ("a task without a name", "config.tasks.center = dict(args=dict())", "task"),
    ("a config that returns nothing", "return", "get_config"),
    ("a config with a mistake of Python", "config.nothing.at.all = 3", "nothing"),
    ("the epsilon solver without boundaries", "config.unlearn.solver = 'epsilon'", "epsilon"),
    ("an epsilon that is no number", "config.unlearn.update(dict(solver='epsilon', "
     "solver_args=dict(epsilon=float('nan'))))", "epsilon"),
    ("siss with lam=2", "config.unlearn.update(dict(method='siss', args=dict(lam=2.0)))", "lam"),
    ("max_loss with times=0.5", "config.unlearn.update(dict(method='max_loss', "
     "args=dict(times=0.5)))", "times"),
    ("ascent with lam=inf", "config.unlearn.update(dict(method='ascent', "
     "args=dict(lam=float('inf'))))", "lam"),
    ("an unknown stop", "config.unlearn.stop = 'unsen'", "unseen"),
    ("a stop without images to compare with", "config.unlearn.stop = 'unseen'", "calibration"),
    ("a teacher that is no phase", "config.unlearn.teacher = 'unlern'", "phase"),
    ("perturb with a=2", "config.unlearn.update(dict(method='perturb', args=dict(a=2.0)))", "a"),
    ("perturb of a layer that is not there", "config.unlearn.update(dict(method='perturb', "
     "args=dict(layers=(('enc', 0.5),))))", "encoder"),
    ("distill without a weight", "config.unlearn.update(dict(method='distill', "
     "args=dict(outputs=0.0, latents=0.0)))", "weight"),
    ("distill on all images", "config.unlearn.update(dict(method='distill', on='all'))", "proxy"),
    ("normalized with share=nan", "config.unlearn.update(dict(solver='normalized', "
     "solver_args=dict(share=float('nan'))))", "share"),
]  # fmt: skip
CONFIG = """from tests.helpers import small_config


def get_config(form=""):
    config = small_config()
    type(config).update_ = lambda self, key, value: (
        self._fields.__setitem__(key, value)
    )
    {lines}
    return config
"""
LINES = [  # (name, words after `python -m l2l_jax.main`, words of the message); {0}: a free folder
    ("no arguments", [], "--config"),
    ("no workdir", ["--config", SMALL], "workdir"),
    ("no such config", ["--config", "tests/configs/smal.py", "--workdir", "{0}"], "small.py"),
    ("a config that is a folder", ["--config", "configs", "--workdir", "{0}"], "configs"),
    ("a config that is no Python", ["--config", "README.md", "--workdir", "{0}"], "README.md"),
    ("no such form", ["--config", "configs/fashion_mnist.py:smoek", "--workdir", "{0}"], "smoke"),
    ("an unknown flag", ["--config", SMALL, "--workdir", "{0}", "--confg.seed=1"], "confg"),
    ("an unknown key", ["--config", SMALL, "--workdir", "{0}", "--config.sed=1"], "seed"),
    ("a word too many", ["--config", SMALL, "--workdir", "{0}", "seed=1"], "seed=1"),
    ("a workdir that is a file", ["--config", SMALL, "--workdir", "README.md"], "README.md"),
    ("a workdir below a file", ["--config", SMALL, "--workdir", "README.md/run"], "README.md"),
    ("a workdir in a bucket", ["--config", SMALL, "--workdir", "gs://bucket/run"], "gs:"),
    ("a workdir of another program", ["--config", SMALL, "--workdir", "docs"], "docs"),
    ("a workdir with a long name", ["--config", SMALL, "--workdir", "{0}" + "x" * 300], "xxx"),
    ("a workdir in /proc", ["--config", SMALL, "--workdir", "/proc/run"], "/proc"),
    ("an empty workdir", ["--config", SMALL, "--workdir", ""], "workdir"),
    ("a wrong --distributed", ["--config", SMALL, "--workdir", "{0}", "--distributed=x"], "auto"),
]


def cases(root: Path) -> list[tuple[str, forked.Command, tuple[str, ...], Path]]:
    """(name, command, words of the message, workdir) of every case."""
    found = []

    def add(name: str, words: list[str], expected: str) -> None:
        workdir = root / f"run{len(found)}"
        words = [word.format(workdir) for word in words]
        command = forked.Command(words, forked.stop_at_step_0)
        found.append((name, command, tuple(filter(None, [expected])), workdir))

    for line in OVERRIDES.strip().splitlines():
        override, _, expected = line.rpartition(" | ")
        add(override, ["--config", SMALL, "--workdir", "{0}", f"--config.{override}"], expected)
    for at, (name, lines, expected) in enumerate(CHANGES):
        path = root / "configs" / f"c{at}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(CONFIG.format(lines=lines))
        add(name, ["--config", str(path), "--workdir", "{0}"], expected)
    for name, words, expected in LINES:
        add(name, words, expected)
    return found


def main() -> None:
    """The drill of this file's docstring."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--only", default="", help="cases whose name contains this text")
    parser.add_argument("--verbose", action="store_true", help="print what each command said")
    args = parser.parse_args()
    began, begin = time.time(), forked.stop_at_step_0
    forked.warm_up()
    with tempfile.TemporaryDirectory() as folder:
        chosen = [case for case in cases(Path(folder)) if args.only in case[0]]
        results = forked.run_all([command for _, command, _, _ in chosen])
        endings = [
            ending.ending(result, names=expected)
            for (_, _, expected, _), result in zip(chosen, results, strict=True)
        ]
        refused = [at for at, how in enumerate(endings) if how == "explained"]
        again = [
            forked.Command(["--config", SMALL, "--workdir", str(chosen[at][3])], begin)
            for at in refused
        ]
        corrected = dict(zip(refused, forked.run_all(again), strict=True))
    rows = []
    for at, ((name, *_), result, how) in enumerate(zip(chosen, results, endings, strict=True)):
        after = corrected.get(at)
        if at in corrected and not (after and forked.STEP_0 in after.stderr):
            how = "silent"  # the workdir is not free for the corrected config
            name += " (and the corrected config is refused)"
        if args.verbose and result:
            print(f"--- {name}: {how}, exit code {result.returncode}\n{result.stderr[-1500:]}")
        rows.append((name, how))
    print(ending.table(rows, began))
    sys.exit(ending.failed(rows))


if __name__ == "__main__":
    main()
