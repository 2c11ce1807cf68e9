"""The 15 common corruptions of CIFAR-10-C, one image at a time, in NumPy, SciPy and Pillow.

The same operations as in make_cifar_c.py of Hendrycks and Dietterich 2019, with its parameters, on
uint8 images ``(32, 32, 3)``. What it takes from OpenCV, scikit-image and ImageMagick is done with
SciPy and NumPy; values are rounded, and not cut off; frost is cut out of what kclassify draws,
where the paper has photographs.
"""

import io

import numpy as np
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image
from scipy.ndimage import affine_transform, correlate, gaussian_filter, map_coordinates, zoom

SIZE = 32


def as_uint8(x):
    return np.clip(np.rint(255 * x), 0, 255).astype(np.uint8)


def gaussian_noise(image, severity, rng):
    c = [0.04, 0.06, 0.08, 0.09, 0.10][severity - 1]
    x = image / 255.0
    return as_uint8(x + rng.normal(size=x.shape, scale=c))


def shot_noise(image, severity, rng):
    c = [500, 250, 100, 75, 50][severity - 1]
    return as_uint8(rng.poisson(image / 255.0 * c) / c)


def impulse_noise(image, severity, rng):
    c = [0.01, 0.02, 0.03, 0.05, 0.07][severity - 1]
    x = image / 255.0
    flipped = rng.random(x.shape) <= c
    salted = rng.random(x.shape) <= 0.5
    x[flipped & salted] = 1
    x[flipped & ~salted] = 0
    return as_uint8(x)


def defocus_blur(image, severity, rng):
    radius, alias = [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)][severity - 1]
    across, down = np.meshgrid(np.arange(-8, 9), np.arange(-8, 9))
    disk = (across**2 + down**2 <= radius**2).astype(float)
    kernel = gaussian_filter(disk / disk.sum(), alias, radius=1)
    x = image / 255.0
    channels = [correlate(x[..., channel], kernel, mode="mirror") for channel in range(3)]
    return as_uint8(np.stack(channels, axis=2))


def glass_blur(image, severity, rng):
    sigma, delta, times = [
        (0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2),
    ][severity - 1]  # fmt: skip
    x = as_uint8(gaussian_filter(image / 255.0, (sigma, sigma, 0), mode="nearest"))
    for _ in range(times):
        for h in range(SIZE - delta, delta, -1):
            for w in range(SIZE - delta, delta, -1):
                dx, dy = rng.integers(-delta, delta, size=2)
                # Rows of an array are views, so that this copies, and does not swap.
                x[h, w], x[h + dy, w + dx] = x[h + dy, w + dx], x[h, w]
    return as_uint8(gaussian_filter(x / 255.0, (sigma, sigma, 0), mode="nearest"))


def motion_blur(image, severity, rng):
    radius, sigma = [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)][severity - 1]
    return as_uint8(smear(image / 255.0, radius, sigma, rng.uniform(-45, 45)))


def smear(x, radius, sigma, angle):
    """Blur as ImageMagick's MotionBlurImage does."""
    width = 2 * int(np.ceil(radius)) + 1
    kernel = np.exp(-(np.arange(width) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    across, down = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    padded = np.pad(x, ((width, width), (width, width), (0, 0)), mode="edge")
    total = np.zeros_like(x)
    for step, weight in enumerate(kernel):
        top = width + int(np.ceil(step * down - 0.5))
        left = width + int(np.ceil(step * across - 0.5))
        total += weight * padded[top : top + SIZE, left : left + SIZE]
    return total


def zoom_blur(image, severity, rng):
    factors = [
        np.arange(1, 1.06, 0.01), np.arange(1, 1.11, 0.01), np.arange(1, 1.16, 0.01),
        np.arange(1, 1.21, 0.01), np.arange(1, 1.26, 0.01),
    ][severity - 1]  # fmt: skip
    x = (image / 255.0).astype(np.float32)
    out = np.zeros_like(x)
    for factor in factors:
        out += clipped_zoom(x, factor)
    return as_uint8((x + out) / (len(factors) + 1))


def clipped_zoom(x, factor):
    middle = int(np.ceil(SIZE / factor))
    top = (SIZE - middle) // 2
    larger = zoom(x[top : top + middle, top : top + middle], (factor, factor, 1), order=1)
    trim = (larger.shape[0] - SIZE) // 2
    return larger[trim : trim + SIZE, trim : trim + SIZE]


def snow(image, severity, rng):
    mean, scale, size, least, radius, sigma, kept = [
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9), (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ][severity - 1]  # fmt: skip
    x = (image / 255.0).astype(np.float32)
    layer = clipped_zoom(rng.normal(size=(SIZE, SIZE, 1), loc=mean, scale=scale), size)
    layer[layer < least] = 0
    layer = smear(as_uint8(layer) / 255.0, radius, sigma, rng.uniform(-135, -45))
    grey = x @ np.array([0.299, 0.587, 0.114], np.float32)
    x = kept * x + (1 - kept) * np.maximum(x, grey[..., None] * 1.5 + 0.5)
    return as_uint8(x + layer + np.rot90(layer, k=2))


def frost(image, severity, rng):
    kept, share = [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)][severity - 1]
    photograph = photographs()[rng.integers(5)]
    top, left = rng.integers(0, photograph.shape[0] - SIZE + 1, size=2)
    cut = photograph[top : top + SIZE, left : left + SIZE]
    return np.clip(np.rint(kept * image + share * cut), 0, 255).astype(np.uint8)


def photographs():
    from kclassify.evaluation.corruption.weather import frosts

    return frosts(4 * SIZE).transpose(0, 2, 3, 1)


def fog(image, severity, rng):
    amount, decay = [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)][severity - 1]
    x = image / 255.0
    largest = x.max()
    x += amount * plasma_fractal(decay, rng)[..., None]
    return as_uint8(x * largest / (largest + amount))


def plasma_fractal(decay, rng):
    """Return clouds by the diamond-square algorithm."""
    array = np.zeros((SIZE, SIZE))
    step, wibble = SIZE, 100.0

    def mean(total):
        return total / 4 + wibble * rng.uniform(-wibble, wibble, total.shape)

    while step >= 2:
        half = step // 2
        corners = array[::step, ::step]
        squares = corners + np.roll(corners, -1, axis=0)
        squares = squares + np.roll(squares, -1, axis=1)
        array[half::step, half::step] = mean(squares)
        middles, corners = array[half::step, half::step], array[::step, ::step]
        sides = middles + np.roll(middles, 1, axis=0) + corners + np.roll(corners, -1, axis=1)
        array[::step, half::step] = mean(sides)
        sides = middles + np.roll(middles, 1, axis=1) + corners + np.roll(corners, -1, axis=0)
        array[half::step, ::step] = mean(sides)
        step //= 2
        wibble /= decay
    array -= array.min()
    return array / array.max()


def brightness(image, severity, rng):
    c = [0.05, 0.1, 0.15, 0.2, 0.3][severity - 1]
    x = rgb_to_hsv(image / 255.0)
    x[..., 2] = np.clip(x[..., 2] + c, 0, 1)
    return as_uint8(hsv_to_rgb(x))


def contrast(image, severity, rng):
    c = [0.75, 0.5, 0.4, 0.3, 0.15][severity - 1]
    x = image / 255.0
    means = x.mean(axis=(0, 1), keepdims=True)
    return as_uint8((x - means) * c + means)


def elastic_transform(image, severity, rng):
    alpha, sigma, reach = [
        (0, 0, 0.08 * SIZE), (0.05 * SIZE, 0.2 * SIZE, 0.07 * SIZE),
        (0.08 * SIZE, 0.06 * SIZE, 0.06 * SIZE), (0.1 * SIZE, 0.04 * SIZE, 0.05 * SIZE),
        (0.1 * SIZE, 0.03 * SIZE, 0.03 * SIZE),
    ][severity - 1]  # fmt: skip
    x = (image / 255.0).astype(np.float32)
    centre, side = SIZE // 2, SIZE // 3
    points = np.array([(centre + side, centre + side), (centre + side, centre - side),
                       (centre - side, centre - side)])  # fmt: skip
    targets = points + rng.uniform(-reach, reach, size=points.shape)
    back = np.linalg.solve(np.c_[targets, np.ones(3)], points)
    channels = [
        affine_transform(x[..., channel], back[:2].T, back[2], order=1, mode="mirror")
        for channel in range(3)
    ]
    noise = [rng.uniform(-1, 1, size=(SIZE, SIZE)) for _ in range(2)]
    down, across = (
        alpha * gaussian_filter(part, sigma, mode="reflect", truncate=3) if sigma else alpha * part
        for part in noise
    )
    rows, columns = np.mgrid[:SIZE, :SIZE]
    places = np.stack([rows + down, columns + across])
    wobbled = [map_coordinates(part, places, order=1, mode="reflect") for part in channels]
    return as_uint8(np.stack(wobbled, axis=2))


def pixelate(image, severity, rng):
    c = [0.95, 0.9, 0.85, 0.75, 0.65][severity - 1]
    picture, fewer = Image.fromarray(image), int(SIZE * c)
    small = picture.resize((fewer, fewer), Image.Resampling.BOX)
    return np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BOX))


def jpeg_compression(image, severity, rng):
    quality = [80, 65, 58, 50, 40][severity - 1]
    output = io.BytesIO()
    Image.fromarray(image).save(output, "JPEG", quality=quality)
    return np.asarray(Image.open(output))


CORRUPTIONS = {
    function.__name__: function
    for function in (
        gaussian_noise, shot_noise, impulse_noise, defocus_blur, glass_blur, motion_blur, zoom_blur,
        snow, frost, fog, brightness, contrast, elastic_transform, pixelate, jpeg_compression,
    )
}  # fmt: skip
