"""Images that look alike: perceptual hashes, and pairs whose hashes are close.

Whole batches at a time: libraries that hash one image after another take twenty times as long.
"""

import itertools
from collections.abc import Iterator

import numpy as np
from scipy import fft

# Height and width of what a hash is made of, and how many frequencies each way it keeps.
SMALL, FREQUENCIES = 32, 8
# Of 64 bits, those that may differ; any two hashes that close share one of the bands of bits.
MOST_BITS = 8
BANDS = np.linspace(0, 64, MOST_BITS + 2, dtype=np.uint64)
# Mean difference of two thumbnails, in levels of 0 to 255. Of the pairs of CIFAR-10 that pass, all
# but a few are the same photograph to the eye; past it, ships and horses of one posture begin.
# Smaller images show less: those of half the side are alike within half of it.
MOST_LEVELS = 15.0
LUMA = (0.299, 0.587, 0.114)


def perceptual_hashes(images: np.ndarray) -> np.ndarray:
    """Return 64 bits an image: which of its low frequencies are above their median.

    The DCT hash of Zauner (2010), "Implementation and benchmarking of perceptual image hash
    functions".

    Args:
        images: uint8 ``(n, 32, 32, 3)``.

    Returns:
        uint64 ``(n,)``.

    Example:
        >>> import numpy as np
        >>> noise = np.random.default_rng(0).integers(0, 200, (2, 32, 32, 3), dtype=np.uint8)
        >>> first, second = perceptual_hashes(noise)
        >>> int(np.bitwise_count(first ^ second)) > 20
        True
        >>> bool(perceptual_hashes(noise + 9)[0] == first)  # as bright everywhere
        True
    """
    grey = images.astype(np.float32) @ np.array(LUMA, np.float32)
    low = fft.dctn(grey, axes=(1, 2))[:, :FREQUENCIES, :FREQUENCIES].reshape(len(images), -1)
    # The first is the brightness, which two copies may differ in.
    low[:, 0] = -np.inf
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Return uint8 ``(n, 8, 8, 3)`` of uint8 ``(n, 32, 32, 3)``: the means of squares."""
    side = SMALL // FREQUENCIES
    squares = images.reshape(len(images), FREQUENCIES, side, FREQUENCIES, side, 3)
    return np.round(squares.mean(axis=(2, 4))).astype(np.uint8)


def look_alikes(hashes: np.ndarray, small: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Return the pairs of images that look alike, each image that does in at least one of them.

    Args:
        hashes: `perceptual_hashes`.
        small: `thumbnails`, by which a pair of close hashes is confirmed.
        sides: ``(n,)``: pixels of the shorter side that the images had.

    Returns:
        int64 ``(pairs, 2)``: indices, the smaller first.
    """
    # Those with one hash are compared with the first of them, and the firsts among themselves.
    values, firsts, places = np.unique(hashes, return_index=True, return_inverse=True)
    same = np.stack([firsts[places], np.arange(len(hashes))], axis=1)
    pairs = [same[same[:, 0] != same[:, 1]]]
    pairs += [firsts[found] for found in _close(values)]
    candidates = np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)
    first, second = (small[candidates[:, place]].astype(np.int16) for place in (0, 1))
    limits = MOST_LEVELS * np.minimum(sides[candidates].min(axis=1), SMALL) / SMALL
    return candidates[np.abs(first - second).mean(axis=(1, 2, 3)) <= limits]


def _close(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the places ``(pairs, 2)`` of different hashes that few bits tell apart."""
    for low, high in itertools.pairwise(BANDS):
        keys = (values >> low) & ((np.uint64(1) << (high - low)) - np.uint64(1))
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        for apart in range(1, len(keys)):
            alike = np.flatnonzero(keys[apart:] == keys[:-apart])
            if not len(alike):
                break
            pairs = np.stack([order[alike], order[alike + apart]], axis=1)
            differing = np.bitwise_count(values[pairs[:, 0]] ^ values[pairs[:, 1]])
            yield pairs[differing <= MOST_BITS]
