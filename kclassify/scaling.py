"""A recipe for another number of images than it was made for, or another batch size."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from kclassify.config import FitConfig

# A preset is meant for tens of thousands of images; fewer need smaller batches and more epochs.
STEPS_AN_EPOCH, STEPS_IN_ALL, SMALLEST_BATCH = 25, 500, 8
# Of CIFAR-10, leaving out what is learned gains 0.8 points with 45,000 images, and costs 0.9 with
# 12,000 and 2.5 with 3,000.
FEWEST_TO_SKIP = 30_000
# Whose step grows with the gradient; for the others the rate grows with the root of the batch.
LINEAR = ("sgd", "momentum", "nesterov")


def without_auto(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the user gave, without a ``batch_size="auto"``, which is chosen later."""
    auto = options.get("batch_size") == "auto"
    return {name: options[name] for name in options if not (auto and name == "batch_size")}


def showing_all(config: FitConfig, images: int, *, given: Collection[str]) -> FitConfig:
    """Return `config` without the preset's `skip_learned`, where there are too few images for it.

    The arguments are those of `for_few_images`.
    """
    few = images < FEWEST_TO_SKIP and "skip_learned" not in given
    return config.replace(skip_learned=None) if few else config


def for_few_images(config: FitConfig, images: int, *, given: Collection[str]) -> FitConfig:
    """Return `config` with a smaller batch and more epochs, where `images` are too few for it.

    Nor are any left out that are learned.

    Args:
        config: a preset's, with what the user changed of it.
        images: in the training split.
        given: the names that the user chose a value for; those keep it.
    """
    config = showing_all(config, images, given=given)
    if "batch_size" not in given and images < STEPS_AN_EPOCH * config.batch_size:
        most = max(min(SMALLEST_BATCH, images), images // STEPS_AN_EPOCH)
        config = scaled_to(config, min(config.batch_size, 2 ** int(math.log2(most))), given=given)
    steps = images // config.batch_size
    if {"epochs", "time_budget"} & set(given) or steps * config.epochs >= STEPS_IN_ALL:
        return config
    return config.replace(epochs=math.ceil(STEPS_IN_ALL / steps))


def scaled_to(config: FitConfig, batch_size: int, *, given: Collection[str]) -> FitConfig:
    """Return `config` with another batch size, and its learning rate scaled unless it was given.

    In proportion (Goyal et al. 2017), or with the root for optimizers whose step does not depend
    on the gradient's size (Malladi et al. 2022).
    """
    if "learning_rate" in given:
        return config.replace(batch_size=batch_size)
    power = 1.0 if config.optimizer in LINEAR else 0.5
    rate = config.learning_rate * (batch_size / config.batch_size) ** power
    return config.replace(batch_size=batch_size, learning_rate=rate)
