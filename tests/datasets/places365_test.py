"""Places365 in each of its layouts: the same set, and errors that explain what is wrong."""

import shutil

import numpy as np
import pytest
from PIL import Image

from l2l_jax.datasets import places365
from l2l_jax.lib.errors import ConfigError, DataMissing
from tests.datasets import miniature

NAMES = ("airfield", "apartment_building/outdoor", "desert/sand", "youth_hostel")
OF_THE_PAPER = (
    "badlands",
    "desert/sand",
    "field/wild",
    "forest/broadleaf",
    "lake/natural",
    "wind_farm",
    "airfield",
    "bakery/shop",
    "basketball_court/indoor",
    "kindergarden_classroom",
    "market/indoor",
    "youth_hostel",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "places365"
    shutil.copytree(places365.write_synthetic(8, NAMES), root)
    return root


@pytest.fixture
def standard(made, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(made, tmp_path / "places365")


@pytest.fixture
def easy(made, tmp_path):
    """The same images in the easy directory structure."""
    for part, folder in (("train", "train"), ("eval", "val")):
        tree = places365.files(part, made)
        for path, label in zip(tree.paths, tree.labels, strict=True):
            name = tree.classes[label].replace("/", "-")
            target = tmp_path / "places365_standard" / folder / name / path.rsplit("/", 1)[1]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(made / path, target)
    return tmp_path / "places365_standard"


@pytest.fixture(scope="module")
def as_records(made, tmp_path_factory):
    """The same images as written by the builder of TFDS, but not of 256 x 256 pixels."""
    import tensorflow_datasets as tfds

    root, splits = tmp_path_factory.mktemp("tfds"), {}
    for part, split in places365.SPLITS.items():
        tree = places365.files(part, made)
        splits[split] = [
            dict(
                image=str(made / tree.paths[row]),
                label=places365.classes().index(tree.classes[tree.labels[row]]),
                filename=tree.paths[row],
            )
            for row in np.random.default_rng(0).permutation(len(tree.keys))
        ]
    builder = tfds.builder("places365_small", data_dir=root, file_format="array_record")
    miniature.sequential(builder, splits)
    return root


@pytest.mark.parametrize("part", ["train", "eval"])
def test_archives_easy_structure_and_records_are_the_same_set(made, easy, as_records, part):
    source = places365.load(part, root=str(made))
    assert source.classes == NAMES
    assert len(source.keys) == {"train": 32, "eval": 8}[part]
    assert source.keys[0] == {
        "train": "data_256/a/airfield/00000001.jpg", "eval": "val_256/Places365_val_00000001.jpg"
    }[part]  # fmt: skip
    miniature.assert_same(source, places365.load(part, root=str(easy)))
    miniature.assert_same(source, places365.load(part, root=str(easy.parent)))
    miniature.assert_same(source, places365.load(part, root=str(as_records)))


def test_the_classes_have_the_names_of_the_paper_and_the_official_numbers():
    assert len(places365.classes()) == 365
    assert set(OF_THE_PAPER) <= set(places365.classes())
    assert places365.classes().index("apartment_building/outdoor") == 8
    assert places365.classes()[364] == "zen_garden"


def test_synthetic_images_are_jpeg_files_of_several_modes(made):
    assert miniature.modes(made) == {("RGB", 1), ("L", 1), ("CMYK", 1), ("RGB", 6)}
    source = places365.load("train", synthetic=8, synthetic_classes=NAMES)
    miniature.assert_same(source, places365.load("train", root=str(made)))
    with pytest.raises(ConfigError, match="No class called 'beech'"):
        places365.load("train", synthetic=2, synthetic_classes=("beech",))


def test_red_stays_red(tmp_path):
    red = Image.new("RGB", (256, 256), miniature.RED)
    for name in NAMES[:2]:
        place = tmp_path / "data_256" / "a" / name
        miniature.put(place / "00000001.jpg", red)
        miniature.put(place / "00000002.jpg", red.convert("CMYK"))
    (tmp_path / "val_256").mkdir()
    source = places365.load("train", root=str(tmp_path))
    for at in range(4):
        miniature.assert_red(source.read(at))


@pytest.mark.parametrize("form", ["folder", "records"])
def test_any_number_of_hosts_sees_the_same_batches(made, as_records, form):
    root = {"folder": made, "records": as_records}[form]
    miniature.assert_same_batches_on_any_hosts(places365.load("train", root=str(root)))


def test_without_the_file_list_the_validation_classes_are_unknown(standard):
    (standard / "places365_val.txt").rename(standard / "aside.txt")
    assert len(places365.load("train", root=str(standard)).keys) == 32
    with pytest.raises(
        DataMissing, match=r"places365_val.txt, which lists the.*\n(.|\n)*filelist_"
    ):
        places365.load("eval", root=str(standard))
    folder = standard / "filelist_places365-standard"
    folder.mkdir()
    (standard / "aside.txt").rename(folder / "places365_val.txt")
    assert len(places365.load("eval", root=str(standard)).keys) == 8


def test_a_file_list_that_does_not_fit(standard):
    path = standard / "places365_val.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[1:]))
    with pytest.raises(ConfigError, match=r"does not have the class of 1 .*val_00000001\.jpg"):
        places365.load("eval", root=str(standard))
    path.write_text("Places365_val_00000001.jpg 365")
    with pytest.raises(ConfigError, match="number of a class, 0 to 364"):
        places365.load("eval", root=str(standard))


def test_wrong_validation_folders(made, easy):
    shutil.copy(made / "places365_val.txt", easy)
    assert len(places365.load("eval", root=str(easy)).keys) == 8
    path = next((easy / "val" / "airfield").iterdir())
    path.rename(easy / "val" / "youth_hostel" / path.name)
    with pytest.raises(
        ConfigError, match=r"wrong: 1 .*youth_hostel, but places365_val\.txt lists it as airfield\."
    ):
        places365.load("eval", root=str(easy))
    (easy / "places365_val.txt").unlink()
    for at in range(30):
        miniature.put(easy / "val" / "airfield" / f"{at}.jpg")
    with pytest.raises(ConfigError, match="31 images of airfield, where other classes have 2"):
        places365.load("eval", root=str(easy))


def test_wrong_levels_and_absent_folders(made, tmp_path):
    for deeper in (made / "data_256", made / "data_256" / "a"):
        with pytest.raises(DataMissing, match=f"too deep; the folder to name is probably {made}"):
            places365.load("train", root=str(deeper))
    (tmp_path / "sets" / "here").mkdir(parents=True)
    with pytest.raises(DataMissing) as error:
        places365.load("train", root=str(tmp_path / "sets"))
    for words in ("neither data_256/ and val_256/ nor", "places2.csail.mit.edu", "24 GB"):
        assert words in str(error.value)
    (tmp_path / "sets" / "here" / "places365").symlink_to(made)
    with pytest.raises(DataMissing, match=r"not deep enough.*probably .*here/places365\."):
        places365.load("train", root=str(tmp_path / "sets"))


def test_a_subset_is_read_and_absent_classes_are_logged(standard, easy, caplog):
    caplog.set_level("INFO")
    shutil.rmtree(standard / "data_256" / "d")
    assert places365.load("train", root=str(standard)).classes == (*NAMES[:2], NAMES[3])
    assert "lacks 362 of the 365 classes: airplane_cabin, " in caplog.text
    assert np.bincount(places365.load("eval", root=str(standard)).labels).tolist() == [2, 2, 2]
    shutil.rmtree(easy / "train" / "desert-sand")
    with pytest.raises(ConfigError, match=r"classes that .*train lacks: \['desert/sand'\]"):
        places365.load("eval", root=str(easy))
    (easy / "train" / "airfield").rename(easy / "train" / "airfeld")
    with pytest.raises(ConfigError, match="no classes of this data set: airfeld"):
        places365.load("train", root=str(easy))
    for folder in (easy / "train").iterdir():
        shutil.rmtree(folder)
    with pytest.raises(DataMissing, match="has no images; at least two classes"):
        places365.load("train", root=str(easy))


def test_records_whose_validation_part_has_other_classes(made, tmp_path):
    import tensorflow_datasets as tfds

    image = str(made / "data_256" / "a" / "airfield" / "00000001.jpg")
    train = [dict(image=image, label=at, filename=f"data_256/{at}.jpg") for at in (3, 7)]
    held = [dict(image=image, label=8, filename="val_256/Places365_val_00000009.jpg")]
    builder = tfds.builder("places365_small", data_dir=tmp_path, file_format="array_record")
    miniature.sequential(builder, {"train": train, "validation": held})
    assert places365.load("train", root=str(tmp_path)).labels.tolist() == [0, 1]
    with pytest.raises(ConfigError, match=r"train lacks: \['apartment_building/out"):
        places365.load("eval", root=str(tmp_path))
