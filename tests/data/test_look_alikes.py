import numpy as np
import pytest
from PIL import Image

from kclassify.data.look_alikes import MOST_BITS, look_alikes, perceptual_hashes, thumbnails


@pytest.fixture(scope="module")
def pictures():
    """Forty pictures, smooth as photographs are."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (40, 12, 12, 3), dtype=np.uint8)
    large = [Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC) for image in coarse]
    return np.stack([np.asarray(image) for image in large])


def brighter(image):
    return np.clip(image.astype(int) + 4, 0, 255).astype(np.uint8)


def noisy(image):
    noise = np.random.default_rng(1).integers(-5, 6, image.shape)
    return np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8)


def again(image):
    import io

    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


def pairs_of(images, *, side=32):
    sides = np.full(len(images), side)
    return look_alikes(perceptual_hashes(images), thumbnails(images), sides).tolist()


@pytest.mark.parametrize("change", [brighter, noisy, again, np.copy])
def test_a_changed_copy_is_found(pictures, change):
    images = np.concatenate([pictures, change(pictures[7])[np.newaxis]])
    assert pairs_of(images) == [[7, 40]]


def test_different_pictures_are_not(pictures):
    assert pairs_of(pictures) == []
    mirrored = np.concatenate([pictures, pictures[:, :, ::-1]])
    assert pairs_of(mirrored) == []


def test_images_that_had_few_pixels_must_be_more_alike(pictures):
    lighter = np.clip(pictures[:1].astype(int) + 10, 0, 255).astype(np.uint8)
    images = np.concatenate([pictures, lighter])
    assert pairs_of(images) == [[0, 40]]
    assert pairs_of(images, side=8) == []
    assert pairs_of(np.concatenate([pictures, pictures[:1]]), side=8) == [[0, 40]]


def test_of_many_copies_each_is_in_a_pair(pictures):
    images = np.concatenate([pictures, np.repeat(pictures[3:4], 500, axis=0)])
    pairs = np.array(pairs_of(images))
    assert set(pairs[:, 0]) == {3}
    assert set(pairs[:, 1]) == set(range(40, 540))


def test_every_pair_of_close_hashes_is_found():
    """Compared with looking at each pair."""
    rng = np.random.default_rng(2)
    hashes = np.unique(rng.integers(0, 2**64, 300, dtype=np.uint64))
    for bits in range(1, 13):
        flips = sum(np.uint64(1) << np.uint64(place) for place in rng.choice(64, bits, False))
        hashes = np.append(hashes, hashes[bits] ^ flips)
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None])
    expected = np.argwhere(np.triu(distances <= MOST_BITS, k=1))
    found = look_alikes(
        hashes, np.zeros((len(hashes), 8, 8, 3), np.uint8), np.full(len(hashes), 32)
    )
    assert found.tolist() == expected.tolist()
    assert len(expected) == MOST_BITS


def test_images_of_one_colour_take_no_time_that_grows_with_their_pairs():
    images = np.zeros((30_000, 32, 32, 3), np.uint8)
    assert len(pairs_of(images)) == 29_999
