"""docs/explore.ipynb: it runs without an error, its figures are sane, and it reads unexecuted."""

import re

import pytest

from tests.helpers import ROOT

NOTEBOOK, SCRIPT = ROOT / "docs" / "explore.ipynb", ROOT / "docs" / "explore.py"
MAX_CPU_SECONDS = 960  # of the committed run: eight minutes of two cores


def text_of(cell):
    """All printed and plain outputs of a cell."""
    found = []
    for output in cell.get("outputs", []):
        found.append(output.get("text", ""))
        found += [str(value) for value in output.get("data", {}).values()]
    return "".join(found)


@pytest.fixture(scope="module")
def read():
    nbformat = pytest.importorskip("nbformat")
    return lambda path: nbformat.read(path, as_version=4)


def test_script_and_notebook_have_the_same_cells(read):
    jupytext = pytest.importorskip("jupytext")
    cells = [(c.cell_type, c.source) for c in jupytext.read(SCRIPT).cells]
    assert [(c.cell_type, c.source) for c in read(NOTEBOOK).cells] == cells


def test_the_committed_notebook_has_the_outputs_of_a_full_run(read):
    notebook = read(NOTEBOOK)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    everything = "".join(map(text_of, code))
    assert not any(o.output_type == "error" for cell in code for o in cell.outputs)
    assert "SMALL" not in everything
    for path in ("/tmp/", "/root/", "/home/"):
        assert path not in everything, "a path of the machine that ran it"
    assert everything.count("<img alt=") >= 50
    assert everything.count("image/png") or everything.count("<Figure") >= 4
    (seconds,) = re.findall(r"and (\d+) s of CPU time", everything)
    assert int(seconds) < MAX_CPU_SECONDS
    figures = re.findall(r"'forget': ([\d.]+)", everything)
    original, unlearned = map(float, figures[:2])
    assert original - unlearned > 3, "it has forgotten"
    kept = [float(x) for x in re.findall(r"'retain': ([\d.]+)", everything)[:2]]
    assert abs(kept[0] - kept[1]) < 1, "it has kept the rest"


def test_the_address_of_the_project_is_the_same_everywhere():
    (address,) = set(re.findall(r'^REPOSITORY = "(\S+)"', SCRIPT.read_text(), flags=re.MULTILINE))
    badge = address.replace("https://github.com/", "https://colab.research.google.com/github/")
    for path in (SCRIPT, ROOT / "README.md"):
        assert f"{badge}/blob/main/docs/explore.ipynb" in path.read_text(), path


@pytest.mark.slow
def test_the_notebook_runs_at_small_settings(read, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    for name, value in (("L2L_NOTEBOOK", "small"), ("L2L_NOTEBOOK_RUNS", str(tmp_path)),
                        ("JAX_PLATFORMS", "cpu"), ("PYTHONPATH", str(ROOT)),
                        ("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")):  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel chooses its own
    notebook = read(NOTEBOOK)
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    )
    client.execute()
    everything = "".join(map(text_of, notebook.cells))
    figures = [float(x) for x in re.findall(r"'(?:retain|forget)': ([\d.]+)", everything)]
    assert len(figures) == 6, "of three models"
    assert all(3 < each < 40 for each in figures), "decibels"
    assert everything.count("<figure") >= 4, "the painter's completions"
    assert len(re.findall(r"after 4 steps [+-][\d.]+ dB", everything)) == 3
    assert (tmp_path / "own" / "report.html").is_file()
    for name in ("mae", "undo", "alpha_0.05", "alpha_0.25"):
        assert (tmp_path / name / "results.json").is_file()
