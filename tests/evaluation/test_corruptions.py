"""Every corruption keeps what is promised of all, and does what a loop over the images does."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import chi2

from kclassify.checks import InputError
from kclassify.evaluation import corruptions as room
from kclassify.evaluation.corruption import planes
from kclassify.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt, part_size

BENCH = Path(__file__).parents[2] / "scripts" / "bench"
SHAPES = ((8, 8, 3), (17, 9, 3), (8, 8, 1), (32, 32, 3), (1, 1, 3), (64, 64, 1))
# What uses no random numbers is the same, to rounding, as one image at a time.
CERTAIN = (
    "defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression",
)  # fmt: skip
RANDOM = tuple(name for name in CORRUPTIONS if name not in CERTAIN)

# The paper's parameters do not grow in all respects: see the tests of each.
UNEVEN = ("glass_blur", "elastic_transform", "frost")

each = pytest.mark.parametrize("name", CORRUPTIONS)


def pictures(count, shape, seed=0):
    """Smooth images with edges, so that blur, noise and shifts all show."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(count, *shape))
    side = min(shape[:2])
    smooth = gaussian_filter(noise, (0, side / 8, side / 8, 0), mode="wrap")
    spread = smooth.std(axis=(1, 2, 3), keepdims=True)
    images = 128 + 60 * smooth / np.where(spread > 0, spread, 1)
    images[:, side // 4 : side // 2, side // 3 : 2 * side // 3] += 40
    return np.clip(images, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def reference():
    sys.path.insert(0, str(BENCH))
    import reference_corruptions

    sys.path.remove(str(BENCH))
    return reference_corruptions.CORRUPTIONS


@each
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shape_and_type_stay_and_the_input_is_left_alone(name, shape):
    images = pictures(3, shape)
    before = images.copy()
    for severity in SEVERITIES:
        found = corrupt(images, name, severity)
        assert found.shape == images.shape
        assert found.dtype == np.uint8
        assert not np.shares_memory(found, images)
    np.testing.assert_array_equal(images, before)


@each
def test_the_seed_decides(name):
    images = pictures(6, (32, 32, 3))
    first = corrupt(images, name, 3, seed=1)
    np.testing.assert_array_equal(first, corrupt(images, name, 3, seed=1))
    same = np.array_equal(first, corrupt(images, name, 3, seed=2))
    assert same == (name in CERTAIN)
    images[1:] = images[0]
    alike = corrupt(images, name, 3)
    assert (alike[1:] == alike[0]).all() == (name in CERTAIN)


@each
@pytest.mark.parametrize("shape", [(8, 8, 3), (17, 9, 1)], ids=str)
def test_no_image_depends_on_those_around_it(name, shape):
    images = pictures(40, shape)
    alone = corrupt(images, name, 4)
    others = images.copy()
    others[1::2] = 255 - others[1::2]
    np.testing.assert_array_equal(corrupt(others, name, 4)[::2], alone[::2])
    np.testing.assert_array_equal(corrupt(images[:7], name, 4), alone[:7])


@pytest.mark.parametrize("name", RANDOM)
def test_the_parts_that_are_worked_on_are_not_alike(name, monkeypatch):
    monkeypatch.setattr(room, "VALUES_A_PART", 4 * 32 * 32 * 3)
    images = np.repeat(pictures(1, (32, 32, 3)), 10, axis=0)
    found = corrupt(images, name, 5)
    assert part_size((32, 32, 3)) == 4
    assert not np.array_equal(found[:4], found[4:8])
    np.testing.assert_array_equal(found[:5], corrupt(images[:5], name, 5))


def distances(name):
    images = pictures(64, (32, 32, 3))
    return [np.abs(corrupt(images, name, severity).astype(int) - images).mean()
            for severity in SEVERITIES]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in UNEVEN])
def test_the_more_severe_the_further_away(name):
    moved = distances(name)
    assert moved[0] > 0
    assert (np.diff(moved) > 0).all(), moved


def test_glass_blurs_more_where_pixels_move_twice():
    once, twice = np.split(np.array(distances("glass_blur")), [3])
    assert once.min() > 0
    assert twice.min() > 1.3 * once.max()


def test_elastic_waves_roughen_the_more_the_shorter_they_are():
    images = pictures(64, (32, 32, 3))
    rough = [np.abs(np.diff(found.astype(int), 2, axis=2)).mean()
             for found in (images, *(corrupt(images, "elastic_transform", severity)
                                     for severity in (3, 4, 5)))]  # fmt: skip
    assert rough[0] < rough[2]
    assert rough[1] < rough[2] < rough[3], rough


def test_frost_hides_ever_more():
    images = pictures(64, (32, 32, 3))
    kept = [np.corrcoef(corrupt(images, "frost", severity).ravel(), images.ravel())[0, 1]
            for severity in SEVERITIES]  # fmt: skip
    assert (np.diff(kept) < 0).all(), kept


@pytest.mark.parametrize("name", CERTAIN)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_what_is_certain_is_what_a_loop_makes(reference, name, severity):
    images = pictures(8, (32, 32, 3))
    expected = np.stack([reference[name](image, severity, None) for image in images])
    found = corrupt(images, name, severity)
    difference = np.abs(found.astype(int) - expected)
    # Halves are rounded up here and to even numbers there; Pillow also rounds after each axis.
    assert difference.max() <= 1
    assert difference.mean() < (0.25 if name in ("pixelate", "brightness") else 0.005)


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_what_is_random_is_as_far_away_as_in_a_loop(reference, name, severity):
    images, rng = pictures(150, (32, 32, 3)), np.random.default_rng(1)
    expected = np.stack([reference[name](image, severity, rng) for image in images])
    found = corrupt(images, name, severity)
    for measure in (lambda made: made - images, lambda made: np.abs(made - images)):
        ours, theirs = (measure(made.astype(float)).mean(axis=(1, 2, 3))
                        for made in (found, expected))  # fmt: skip
        # Of two means of 150 images each, five standard errors.
        error = np.sqrt((ours.var() + theirs.var()) / len(images))
        assert abs(ours.mean() - theirs.mean()) < 5 * error + 0.05


def test_gaussian_noise_has_the_papers_deviation():
    grey = np.full((30, 32, 32, 3), 128, np.uint8)
    for severity, deviation in enumerate((0.04, 0.06, 0.08, 0.09, 0.10), start=1):
        noise = corrupt(grey, "gaussian_noise", severity).astype(float) - 128
        assert noise.std() == pytest.approx(255 * deviation, rel=0.02)
        assert abs(noise.mean()) < 0.3


def test_impulses_are_as_many_as_the_paper_says_half_of_them_white():
    grey = np.full((60, 32, 32, 3), 128, np.uint8)
    found = corrupt(grey, "impulse_noise", 5)
    for value in (0, 255):
        assert (found == value).mean() == pytest.approx(0.035, rel=0.05)
    assert set(np.unique(found)) == {0, 128, 255}


def test_shot_noise_counts_photons():
    photons = 50
    found = corrupt(np.full((40, 32, 32, 3), 102, np.uint8), "shot_noise", 5).astype(float)
    counts = found * photons / 255
    mean, size = 102 / 255 * photons, counts.size
    assert counts.mean() == pytest.approx(mean, rel=0.01)
    # A Poisson count's variance is its mean.
    low, high = chi2.ppf([1e-6, 1 - 1e-6], size) * mean / size
    assert low * 0.98 < counts.var() < high * 1.02


def test_black_images_can_be_corrupted():
    black = np.zeros((2, 8, 8, 3), np.uint8)
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            assert corrupt(black, name, severity).shape == black.shape


def test_no_images_are_no_work():
    for name in CORRUPTIONS:
        assert corrupt(np.zeros((0, 8, 8, 3), np.uint8), name, 1).shape == (0, 8, 8, 3)


def test_grey_images_are_as_colour_images_of_three_like_channels():
    grey = pictures(5, (16, 16, 1))
    for name in ("defocus_blur", "zoom_blur", "contrast", "brightness", "pixelate"):
        colour = corrupt(grey.repeat(3, axis=3), name, 4)
        difference = colour.astype(int) - corrupt(grey, name, 4)
        assert np.abs(difference).max() <= 1, name


def test_a_kernel_of_any_rank_is_a_correlation():
    from scipy.ndimage import correlate

    rng = np.random.default_rng(0)
    images, kernel = rng.uniform(0, 255, (2, 3, 9, 17)).astype(np.float32), rng.normal(size=(5, 5))
    expected = [[correlate(plane, kernel, mode="mirror") for plane in image] for image in images]
    np.testing.assert_allclose(planes.filtered(images, kernel), expected, rtol=1e-4, atol=0.05)


@pytest.mark.parametrize(
    ("images", "name", "severity", "said"),
    [
        (np.zeros((2, 8, 8, 3), np.uint8), "gausian_noise", 1, "Did you mean 'gaussian_noise'"),
        (np.zeros((2, 8, 8, 3), np.uint8), "fog", 0, "`severity` must be a whole number from 1"),
        (np.zeros((2, 8, 8, 3), np.uint8), "fog", 6, "`severity` must be a whole number from 1"),
        (np.zeros((2, 8, 8, 3)), "fog", 1, "`images` must be uint8 images"),
        (np.zeros((8, 8, 3), np.uint8), "fog", 1, "`images` must be uint8 images"),
        (np.zeros((2, 8, 8, 4), np.uint8), "fog", 1, "`images` must be uint8 images"),
        ("cat.png", "fog", 1, "`images` must be uint8 images"),
    ],
)
def test_a_users_mistake_is_said(images, name, severity, said):
    with pytest.raises(InputError, match=said):
        corrupt(images, name, severity)
