"""The figures mean what they say: against fixtures, closed forms and degenerate cases."""

import numpy as np
import pytest

from l2l_jax.evaluators import kid
from l2l_jax.evaluators.cosine import cosines
from l2l_jax.evaluators.fid import frechet
from l2l_jax.evaluators.inception_score import inception_score
from l2l_jax.evaluators.reconstruction import cover, grid
from l2l_jax.types import Completions
from tests.helpers import unpacked

PAIRS = np.load(unpacked("fid_is/distances.npz"))


@pytest.mark.parametrize(("name", "atol"), [("wellposed_d32", 1e-8), ("rankdef_d2048", 1e-5)])
def test_fid_is_that_of_the_reference(name, atol):
    """Against the exact value; the reference's own matrix root is off by 2e-4 when N < D."""
    value = frechet(PAIRS[f"{name}/feats1"], PAIRS[f"{name}/feats2"])
    assert value == pytest.approx(float(PAIRS[f"{name}/fid_exact_by_singular_values"]), abs=atol)
    assert value == pytest.approx(float(PAIRS[f"{name}/fid"]), abs=1e-3)


@pytest.mark.parametrize("shape", [(200, 16), (10, 64)])
def test_fid_of_a_set_with_itself_is_zero(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert frechet(x, x) == pytest.approx(0, abs=1e-10)
    assert frechet(x, x[::-1]) == pytest.approx(0, abs=1e-10)


def test_fid_of_known_gaussians():
    """Diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 3))
    x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T)).T)
    a, b = x * [1, 2, 3], x * [2, 2, 1] + [1, 0, 0]
    assert frechet(a, b) == pytest.approx(1 + 1 + 0 + 4, abs=1e-9)
    assert frechet(a, b) == pytest.approx(frechet(b, a), abs=1e-9)


@pytest.mark.parametrize("splits", [1, 5, 10])
def test_inception_score_is_that_of_the_reference(splits):
    got = inception_score(PAIRS["inception_score/logits"], splits)
    np.testing.assert_allclose(got, PAIRS[f"inception_score/splits{splits}"], rtol=1e-5, atol=1e-6)


def test_inception_score_leaves_a_remainder_out():
    got = inception_score(PAIRS["inception_score/logits"][:47], 10)
    np.testing.assert_allclose(got, PAIRS["inception_score/first47_splits10"], rtol=1e-5)


@pytest.mark.parametrize("name", ["wellposed_d32", "rankdef_d2048"])
def test_kid_is_that_of_the_reference(name):
    a, b = PAIRS[f"{name}/feats1"], PAIRS[f"{name}/feats2"]
    value = kid.distance(a, b, 10, 30, np.random.RandomState(101))
    assert value == pytest.approx(float(PAIRS[f"{name}/kid_10x30"]), abs=1e-6)


def test_kid_does_not_depend_on_the_number_of_images():
    """Of two sets from one distribution its mean is 0, where FID's is not."""
    rng = np.random.default_rng(0)
    draws = [rng.normal(size=(2, 60, 16)) for _ in range(200)]
    values = [kid.distance(a, b, 7, 60, rng) for a, b in draws]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    assert np.mean([frechet(a, b) for a, b in draws[:20]]) > 1


@pytest.mark.slow
@pytest.mark.parametrize("count", [100, 300, 1000])
def test_the_kid_of_perfect_completions_is_zero(count):
    """Whole sets give 0 exactly; subsets, in which an image may be on both sides, 0 on average."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(count, 16)).astype(np.float32)
    whole = kid.distance(images, images, 1, count, rng, paired=True)
    assert whole == pytest.approx(0, abs=1e-9)
    assert kid.distance(images, images, 1, count, rng) < -1e-3, "the fault: with the diagonal"
    size = count // 2
    values = [kid.distance(images, images, 1, size, rng, paired=True) for _ in range(30)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    unpaired = [kid.distance(images, images, 1, size, rng) for _ in range(30)]
    assert np.mean(unpaired) < -3 * np.std(unpaired) / np.sqrt(len(unpaired))


def test_pairs_are_left_out_wherever_they_lie():
    """Against the definition, image by image, for subsets that overlap in part."""
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(2, 9, 4))
    drawn = np.random.default_rng(1)
    rows, columns = (drawn.choice(9, 6, replace=False) for _ in range(2))
    k = lambda x, y: (x @ y / 4 + 1) ** 3  # noqa: E731
    across = [k(real[i], made[j]) for i in columns for j in rows if i != j]
    within = [
        k(s[i], s[j]) for s, of in ((real, columns), (made, rows)) for i in of for j in of if i != j
    ]
    expected = 2 * np.mean(within) - 2 * np.mean(across)
    value = kid.distance(real, made, 1, 6, np.random.default_rng(1), paired=True)
    assert value == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="not pairs"):
        kid.distance(real, made[:5], 1, 3, rng, paired=True)


def test_whole_sets_need_one_subset():
    a, b = np.random.default_rng(0).normal(size=(2, 20, 8))
    one = kid.distance(a, b, 1, 1000, np.random.default_rng(1))
    assert kid.distance(a, b, 50, 1000, np.random.default_rng(2)) == pytest.approx(one, rel=1e-12)


def test_inception_score_has_its_bounds():
    sure = np.eye(10).repeat(5, axis=0) * 1000
    assert inception_score(sure, 1)[0] == pytest.approx(10)
    assert inception_score(np.zeros((50, 10)), 1)[0] == pytest.approx(1)


def test_cosine():
    x = np.random.default_rng(0).normal(size=(20, 8))
    assert cosines(x, 3 * x) == pytest.approx(np.ones(20))
    assert cosines(x, -x) == pytest.approx(-np.ones(20))
    assert (cosines(x, 0 * x) == 0).all()


def completions(made):
    pictures = np.full((3, 32, 32, 3), 90, np.uint8)
    hidden = np.zeros((3, 32, 32), bool)
    hidden[:, 8:24, 8:24] = True
    none = np.zeros((3, 1))
    return Completions(pictures, hidden, np.full_like(pictures, made), *[none] * 6)


def test_grids_show_input_hidden_and_every_variant():
    picture = grid([completions(10), completions(200)])
    assert picture.dtype == np.uint8
    assert picture.shape == (400, 300, 3), "four rows of three pictures, 32 times 3 and a frame"
    tiles = picture.reshape(4, 100, 3, 100, 3)[:, 50, :, 50]
    assert (tiles[0] == 90).all()
    assert ((tiles[1] == (148, 163, 184)) | (tiles[1] == (203, 213, 225))).all()
    assert (tiles[2] == 10).all()
    assert (tiles[3] == 200).all()


def test_only_hidden_pixels_are_covered():
    given = completions(0)
    covered = cover(given.images, given.hidden)
    assert (covered[~given.hidden] == 90).all()
    assert (covered[given.hidden] != 90).any(axis=-1).all()
