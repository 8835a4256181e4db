"""Compiled programs are kept in the cache folder, and a folder that the user chose stays."""

import os

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from l2l_jax.lib import programs


@pytest.fixture
def no_folder():
    """No folder of compiled programs is chosen; the one of the tests comes back."""
    before = jax.config.values["jax_compilation_cache_dir"]
    seconds = jax.config.values["jax_persistent_cache_min_compile_time_secs"]
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)
    compilation_cache.reset_cache()


def test_programs_go_into_the_cache_folder(no_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("L2L_CACHE", str(tmp_path))
    monkeypatch.setattr(programs, "MIN_SECONDS", 0.0)
    programs.keep()
    jax.jit(lambda x: jnp.sin(x) * 3.5)(jnp.ones(3)).block_until_ready()
    assert list((tmp_path / "programs").glob("*-cache"))


def test_the_folder_does_not_grow_without_limit(no_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("L2L_CACHE", str(tmp_path))
    monkeypatch.setattr(programs, "MAX_BYTES", 250)
    (tmp_path / "programs").mkdir()
    for age, name in enumerate("abcd"):
        path = tmp_path / "programs" / f"{name}-cache"
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 - age, 1e9))
    programs.keep()
    assert sorted(path.name for path in (tmp_path / "programs").iterdir()) == ["a-cache", "b-cache"]


def test_a_folder_of_the_user_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("L2L_CACHE", str(tmp_path))
    before = jax.config.values["jax_compilation_cache_dir"]
    assert before
    programs.keep()
    assert jax.config.values["jax_compilation_cache_dir"] == before
    assert not (tmp_path / "programs").exists()


def test_a_folder_that_cannot_be_made_is_only_a_warning(no_folder, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("L2L_CACHE", str(tmp_path / "file"))
    programs.keep()
    assert jax.config.values["jax_compilation_cache_dir"] is None
    assert "compiled programs are not kept for the next run" in caplog.text
