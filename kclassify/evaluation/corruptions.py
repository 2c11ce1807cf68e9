"""The 15 common corruptions, at five severities, of whole batches of images of any size.

They are those of Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", with the parameters of CIFAR-10-C. What is a length in pixels there,
of images of 32, is as large a share of other images. Departures: values are rounded, where the
paper's code cuts them off; frost is drawn, where the paper cuts it out of photographs; the lines of
motion blur and snow follow ImageMagick, which is not needed here.

A corruption is a function of uint8 images ``(n, height, width, channels)`` with 1 or 3 channels, a
severity and a random generator that returns new images.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from kclassify.checks import check_choice, check_number, is_whole
from kclassify.evaluation.corruption import blur, digital, noise, weather
from kclassify.runtime import physical_cores

Corruption = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]
# Returns some images, with the corruption and the severity that it is given.
Worse = Callable[[str, int], np.ndarray]

CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": weather.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}
SEVERITIES = (1, 2, 3, 4, 5)
# Values that are worked on at once: 256 colour images of 32x32, which the processor's caches hold.
VALUES_A_PART = 256 * 32 * 32 * 3


@dataclass(frozen=True)
class WorseImages:
    """Images of which as many are made worse at once as memory holds.

    Attributes:
        labels: ``(n,)`` class indices.
        batches: in the order of the labels; each returns its images as they are asked for.
    """

    labels: np.ndarray
    batches: Iterator[Worse]


def corrupt(
    images: np.ndarray, name: str, severity: int, *, seed: int | Sequence[int] = 0
) -> np.ndarray:
    """Return images with one of the 15 common corruptions.

    What happens to an image depends on the seed and on its place in the batch; nothing else of the
    batch matters. The work is done in parts, on as many threads as there are cores.

    Args:
        images: uint8 ``(n, height, width, channels)``, 1 or 3 channels.
        name: one of `CORRUPTIONS`.
        severity: 1 to 5.
        seed: a whole number of at least 0, or several.

    Returns:
        New images of the same shape and type.

    Raises:
        InputError: an unknown corruption or severity, or images of another shape or type.

    Example:
        >>> import numpy as np
        >>> from kclassify.evaluation.corruptions import corrupt
        >>> images = np.full((4, 8, 8, 3), 200, np.uint8)
        >>> corrupt(images, "brightness", 1)[0, 0, 0].tolist()
        [213, 213, 213]
    """
    check_choice("name", name, CORRUPTIONS)
    check_severity("severity", severity)
    check_number(
        "images", getattr(images, "shape", images),
        expected="uint8 images (n, height, width, channels) with 1 or 3 channels",
        ok=_are_images(images),
    )  # fmt: skip
    size = part_size(images.shape[1:])
    seeds = (zlib.crc32(name.encode()), severity, *np.atleast_1d(seed))
    corrupted = np.empty_like(images)

    def work(part: int) -> None:
        place = slice(part * size, (part + 1) * size)
        rng = np.random.Generator(np.random.SFC64([*seeds, part]))
        corrupted[place] = CORRUPTIONS[name](images[place], severity, rng)

    with ThreadPoolExecutor(physical_cores()) as pool:
        list(pool.map(work, range(-(-len(images) // size))))
    return corrupted


def part_size(shape: Sequence[int]) -> int:
    """Return how many images ``(height, width, channels)`` are worked on at once."""
    return max(1, VALUES_A_PART // int(np.prod(shape)))


def check_severity(argument: str, severity: object) -> None:
    """Raise `InputError` unless `severity` is one of the five."""
    ok = is_whole(severity, least=1) and severity in SEVERITIES
    check_number(argument, severity, expected="a whole number from 1 to 5", ok=ok)


def _are_images(images: object) -> bool:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
        return False
    return min(images.shape[1:]) > 0 and images.shape[3] in (1, 3)
