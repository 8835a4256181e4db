"""What the notebook installs in Colab: what is missing, and never another numpy or jax."""

from pathlib import Path

from launch import colab


def test_only_what_is_missing_or_too_old_is_installed():
    requirements = ["numpy >= 2.0", "jax >= 0.10, < 0.13", "flax >= 0.12", "clu >= 0.0.12",
                    "Ml_Collections >= 1.0", 'torch; extra == "dev"',
                    'anywidget >= 0.9; extra == "notebook"',
                    'tensorflow; sys_platform == "nowhere"']  # fmt: skip
    have = {"numpy": "1.26.4", "jax": "0.10.1", "flax": "0.10.0", "ml-collections": "1.1.0"}
    wanted, unfit = colab.missing(requirements, have)
    assert wanted == ["flax>=0.12", "clu>=0.0.12", "anywidget>=0.9"]
    assert unfit == ["numpy>=2.0"], "it is said, and not changed"


def test_numpy_and_jax_are_pinned(monkeypatch, capsys):
    said = []
    monkeypatch.setattr(colab, "installed", lambda: {"numpy": "2.1.0", "jax": "0.10.5"})
    monkeypatch.setattr(colab.importlib.metadata, "requires", lambda name: ["flax >= 0.12"])

    def pip(*words):
        said.append([Path(w).read_text() if w.endswith(".txt") else w for w in words])

    monkeypatch.setattr(colab, "pip", pip)
    colab.main()
    assert said[0][:2] == ["--no-deps", "--editable"]
    assert said[1] == ["--constraint", "numpy==2.1.0\njax==0.10.5", "flax>=0.12"]
    assert "kept: numpy==2.1.0, jax==0.10.5" in capsys.readouterr().out
