"""Everything that is bundled says where it comes from and under which terms."""

import configparser
import re

import pytest

from tests.helpers import ROOT

FOLDERS = (ROOT / "l2l_jax/datasets/bundled", ROOT / "l2l_jax/weights/bundled")
TEXTS = ("NOTICE", "README.md", "LICENSE-fashion-mnist")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parent.name)
def test_every_bundled_file_is_listed(folder):
    notice = (folder / "NOTICE").read_text()
    listed = re.findall(r"^(\S+\.\w+)$", notice, re.M)
    assert sorted(listed) == sorted(p.name for p in folder.iterdir() if p.name not in TEXTS)


def test_every_data_file_has_an_origin_and_a_licence():
    notice = (FOLDERS[0] / "NOTICE").read_text()
    for entry in re.split(r"\n(?=\S+\.\w+\n)", notice)[1:]:
        assert "Origin: " in entry, entry
        assert "Licence: " in entry, entry


def test_the_notices_are_part_of_the_wheel():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    licences = config["metadata"]["license_files"].split()
    for path in licences:
        assert (ROOT / path).is_file(), path
    assert {str((f / "NOTICE").relative_to(ROOT)) for f in FOLDERS} <= set(licences)
    patterns = config["options.package_data"]["l2l_jax"].split()
    assert {"datasets/bundled/*", "weights/bundled/*"} <= set(patterns)
