"""Audits of a run: every model, what is kept and made again, what is refused, and why."""

import dataclasses
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from l2l_jax.audits import relearn
from l2l_jax.engine import audit_sets, auditing, evaluation
from l2l_jax.engine.plan import choose_audits, resolve
from l2l_jax.engine.preflight import preflight
from l2l_jax.engine.run import audit_again, opened, run
from l2l_jax.engine.subject import Examination, Laboratory
from l2l_jax.lib import cli, files
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.preemption import StopSignal
from l2l_jax.registry import find, names
from l2l_jax.types import IMAGE_SETS
from l2l_jax.workdir.layout import Workdir
from tests.helpers import ROOT, once, open_with_data, small_config, trained

CHEAP = {  # arguments that make an audit quick
    "benign": dict(steps=(0, 2)),
}


def audited_config(*chosen, **changes):
    config = small_config(**changes)
    config.evaluators = dict(reconstruction=dict())
    config.data.other = dict(name="digits", args=dict())
    config.audits = chosen
    config.audit.images = 16
    config.audit.args = {name: CHEAP[name] for name in chosen if name in CHEAP}
    return config


@pytest.fixture(scope="module")
def folder():
    """The workdir of an audited run, made once; read-only."""
    return once("audited", lambda path: run(audited_config("neighbors", "benign"), path))


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "run")


def count_examinations(monkeypatch):
    """The (audit, variant) of each examination from now on."""
    made = []
    examine = auditing._Run.examine

    def counting(self, planned, variant):
        made.append((planned.audit.name, variant))
        return examine(self, planned, variant)

    monkeypatch.setattr(auditing._Run, "examine", counting)
    return made


@pytest.mark.slow
def test_results_hold_what_the_audits_found(folder):
    audits = files.read_json(folder / "results.json")["audits"]
    assert list(audits) == ["neighbors", "benign"]
    for name, found in audits.items():
        assert found["title"] == find("audit", name).TITLE
        assert set(found["seconds"]) == {"original", "unlearned"}
        assert found["sentence"].endswith(".")
        for row in found["rows"]:
            assert set(row["values"]) == {"original", "unlearned"}
            assert all(np.isfinite(x["value"]) for x in row["values"].values())
            assert row["place"] is None, "there is no retrained model"
    classes = {r["at"]["class"] for r in audits["neighbors"]["rows"] if r["figure"] == "loss"}
    assert len(classes) == 2, "every class that stays has its row"
    assert all(row["values"]["original"]["value"] == 0 for row in audits["neighbors"]["rows"])


@pytest.mark.slow
def test_what_is_known_is_not_measured_again(copy, monkeypatch):
    made = count_examinations(monkeypatch)
    before = files.read_json(copy / "results.json")["audits"]
    audit_again(copy)
    assert made == []
    assert files.read_json(copy / "results.json")["audits"] == before
    path = Workdir(copy).audit("benign", "unlearned")
    path.write_bytes(path.read_bytes().replace(b'"value": ', b'"value":  ', 1))
    audit_again(copy)
    assert made == [("benign", "unlearned")], "a damaged record is made again"
    again = files.read_json(copy / "results.json")["audits"]["benign"]
    assert again["rows"] == before["benign"]["rows"]


@pytest.mark.slow
def test_the_key_of_a_record_depends_on_all_that_decides_it(folder):
    """Among that the batch size of the evaluation: masks are drawn batch by batch."""
    with opened(folder) as (experiment, outcome):
        variants = evaluation.variants(experiment, outcome)
        sets = audit_sets.load(experiment, {"retain_eval", "retain_train", "forget_eval"})
        planned = experiment.plan.audits["benign"]

        def key(planned=planned, variant="original", **evaluate):
            config = experiment.config | {"evaluate": experiment.config["evaluate"] | evaluate}
            changed = dataclasses.replace(experiment, plan=resolve(config))
            return auditing._Run(changed, variants, sets).key(planned, variant)

        args = dataclasses.replace(planned, args=dict(planned.args) | {"lr": 0.5})
        keys = [key(), key(batch_size=7), key(variant="unlearned"), key(args)]
        assert len(set(keys)) == len(keys)
        assert key() == keys[0]


@pytest.mark.slow
def test_a_killed_audit_continues(copy, monkeypatch):
    for path in (copy / "audits").glob("benign_*"):
        path.unlink()
    made, examine = [], auditing._Run.examine

    def killed(self, planned, variant):
        if made:
            raise KeyboardInterrupt
        made.append(variant)
        return examine(self, planned, variant)

    monkeypatch.setattr(auditing._Run, "examine", killed)
    monkeypatch.setattr(auditing.files, "cache_dir", lambda: copy / "no cache")
    with pytest.raises(KeyboardInterrupt):
        audit_again(copy)
    monkeypatch.setattr(auditing._Run, "examine", examine)
    made = count_examinations(monkeypatch)
    audit_again(copy)
    assert made == [("benign", "unlearned")]


@pytest.mark.slow
def test_other_audits_are_added_to_those_that_there_are(copy):
    audit_again(copy, ("precision",))
    assert list(files.read_json(copy / "results.json")["audits"]) == [
        "neighbors", "benign", "precision"
    ]  # fmt: skip
    assert "int4" in (copy / "report.html").read_text()
    with pytest.raises(ConfigError, match=r"No audit called .relern.*relearn"):
        audit_again(copy, ("relern",))


def examination(experiment, params, variant="unlearned", **sets):
    loaded = audit_sets.load(experiment, {"forget_train", "forget_eval", "retain_eval"})
    return Examination(Laboratory(experiment), variant, params, {}, loaded | sets)


@pytest.mark.slow
def test_an_attack_is_the_same_for_equal_models_and_trains_all_groups(folder):
    experiment = open_with_data(folder)
    params = experiment.initial_params()
    subject = examination(experiment, params)
    images = subject.sets["forget_train"]
    first, second = (list(subject.attack(images, (0, 3), lr=1e-3)) for _ in range(2))
    assert [step for step, _ in first] == [0, 3]
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert np.array_equal(a, b)
    for group in ("encoder", "decoder"):
        moved = jax.tree.map(
            lambda x, y: bool((x != y).any()), first[0][1][group], first[1][1][group]
        )
        assert any(jax.tree.leaves(moved)), group
    assert all(
        np.array_equal(x, y)
        for x, y in zip(jax.tree.leaves(first[0][1]), jax.tree.leaves(params), strict=True)
    ), "an attack leaves the model as it is"


def test_groups_of_audits_stand_for_their_members():
    quick = choose_audits(("quick",), {})
    assert {"relearn", "benign", "probe", "membership", "memorization", "precision",
            "neighbors"} == set(quick)  # fmt: skip
    assert quick["relearn"].args["images_per_class"] == (4,)
    whole = choose_audits(("all",), {})
    assert whole["relearn"].args["images_per_class"] != (4,)
    assert set(quick) <= set(whole)
    changed = choose_audits(("quick",), {"relearn": {"steps": (0, 1)}})["relearn"].args
    assert (changed["steps"], changed["images_per_class"]) == ((0, 1), (4,))
    assert choose_audits((), {}) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(audits=("relern",)), "No audit called .relern."),
        (dict(audits=("relearn",), args=dict(relearn=dict(stepz=3))), "audit.args.relearn.*stepz"),
        (dict(audits=(), args=dict(relern=dict())), "No audit called .relern.*audit.args"),
        (dict(audits=("relearn",), args=dict(relearn=dict(lrs=(-1.0,)))), "audit.args.relearn.lrs"),
    ],
)
def test_wrong_audits_are_refused_before_anything_runs(changes, message):
    config = small_config()
    config.audits = changes["audits"]
    config.audit.args = changes.get("args", {})
    with pytest.raises(ConfigError, match=message):
        resolve(config)


def test_audits_may_be_one_text():
    config = small_config().to_dict() | {"audits": "quick,precision"}
    assert set(resolve(config).audits) == set(choose_audits(("quick", "precision"), {}))


@pytest.mark.slow
def test_too_few_images_are_a_reason_and_no_error(folder):
    experiment = open_with_data(folder)
    sets = audit_sets.load(experiment, {"forgotten"})
    few = {"forgotten": sets["forgotten"].take(range(3))}
    run_ = auditing._Run(experiment, {}, few)
    planned = choose_audits(("precision",), {})["precision"]
    assert run_.obstacle(planned) == "forget_eval has 3 images, an interval needs 8"
    memorization = choose_audits(("memorization",), {})["memorization"]
    assert "there are no images forget_train" in run_.obstacle(memorization)


@pytest.mark.slow
def test_a_list_of_images_has_unseen_images_of_its_classes(tmp_path):
    config = audited_config("neighbors")
    experiment = open_with_data(once("audited", lambda path: run(config, path)))
    keys = experiment.sources["train"].keys[:6]
    (tmp_path / "list.txt").write_text("\n".join(keys))
    config.split.forget.classes = ()
    config.split.forget.files = str(tmp_path / "list.txt")
    outcome = trained(config, tmp_path / "run")
    experiment = open_with_data(tmp_path / "run")
    assert evaluation.variants(experiment, outcome).keys() == {"original", "unlearned"}
    rows = audit_sets.available(experiment)
    assert len(rows["forget_train"][1]) == 6
    assert not set(rows["forget_eval"][1]) & set(rows["retain_eval"][1])
    source, unseen = rows["forget_eval"]
    listed = set(experiment.splits["forget"].classes)
    assert {source.classes[source.labels[row]] for row in unseen} <= listed
    assert len(unseen)
    sets = audit_sets.load(experiment, {"forgotten"})
    assert list(sets) == ["forgotten"]
    assert (sets["forgotten"].name, len(sets["forgotten"])) == ("forget_train", 6)
    attacked = []

    def attack(images, steps, **how):
        attacked.append(images)
        return iter([(step, None) for step in steps])

    both = {"forget_train": sets["forgotten"], "forgotten": sets["forgotten"]}
    measured = lambda function, images, params: np.zeros(len(images))  # noqa: E731
    estimate = lambda figure, of, values, at: (figure, len(values), at)  # noqa: E731
    subject = SimpleNamespace(sets=both, attack=attack, measure=measured, estimate=estimate)
    found = list(relearn.audit(subject, images_per_class=(4,), steps=(0, 5), lrs=(1e-3,)))
    assert found[0] == ("psnr", 3, {"images_per_class": 4, "images": len(attacked[0]), "steps": 0})
    half = {image.tobytes() for image in sets["forgotten"].images[0::2]}
    assert {image.tobytes() for image in attacked[0].images} <= half


def test_every_declared_set_and_group_exists():
    for name in names("audit"):
        audit = find("audit", name)
        assert set(audit.SETS) | set(audit.OPTIONAL) <= set(IMAGE_SETS)
        assert set(audit.COMPARES) <= {"original", "unlearned", "retrained"}
        assert audit.COST
        assert audit.TITLE.endswith("?")
        assert len({figure.name for figure in audit.FIGURES}) == len(audit.FIGURES)
        assert dataclasses.is_dataclass(audit)


@pytest.mark.slow
def test_the_demo_attacks_only_the_unlearned_model(tmp_path):
    """What audits find of the bundled original and of the bundled retrained model is part of the
    package, under the key of today.

    If this fails, run the demo and then launch/ship_audits.py.
    """
    config = cli.load_config(f"{ROOT}/configs/fashion_mnist.py")
    experiment = preflight(resolve(config), tmp_path / "run", StopSignal())
    chosen = experiment.plan.audits
    assert chosen
    params = experiment.initial_params()
    (reference,) = experiment.references
    retrained = experiment.place(reference.params)
    variants = {"original": params, "unlearned": params, "retrained": retrained}
    sets = audit_sets.load(experiment, auditing._wanted(chosen))
    run_ = auditing._Run(experiment, variants, sets)
    for name, planned in chosen.items():
        for variant in ("original", "retrained"):
            record = auditing.shipped().get(run_.key(planned, variant))
            assert record, f"{name} is not shipped for the {variant} model"
            assert record["findings"]
