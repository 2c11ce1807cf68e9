"""`make_datasets`: the pipelines alone, for training loops of one's own."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from kclassify import runtime
from kclassify.checks import check_choice
from kclassify.config import DATA_FIELDS, MIXING, Augmentation, FitConfig
from kclassify.data.sources import load_source, prepare
from kclassify.data.spec import Source

runtime.prepare()

import tensorflow as tf  # noqa: E402

from kclassify.data.pipeline import eval_dataset, train_dataset  # noqa: E402


@dataclass(frozen=True)
class Splits:
    """The three splits as pipelines of uint8 images and labels.

    Attributes:
        train: all the epochs' batches, shuffled and augmented, the last partial one left out.
        validation: once, in order.
        test: once, in order.
        class_names: in the order of the class indices.
        ids: from split names to ``(n,)`` str, where each image came from, in the split's order.
        steps_per_epoch: of train.
        input_shape: ``(height, width, channels)``.
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset
    test: tf.data.Dataset
    class_names: tuple[str, ...]
    ids: dict[str, np.ndarray]
    steps_per_epoch: int
    input_shape: tuple[int, int, int]


def make_datasets(
    data: Any,
    *,
    batch_size: int = 256,
    epochs: int = 1,
    seed: int = 0,
    augmentation: Augmentation = "none",
    **options: Any,
) -> Splits:
    """Return the pipelines that `fit` trains and validates on.

    Labels are int32 class indices ``(batch_size,)``; they are float32 ``(batch_size, num_classes)``
    in every split where the augmentation mixes labels or the data has soft ones.

    Args:
        data: as `fit` takes it.
        batch_size: images at a time.
        epochs: how often train goes through its images.
        seed: of the split, the order and the augmentation.
        augmentation: of train: "none", "crop", "flip_crop", "cutout", "randaugment", "mixup" or
            "cutmix".
        **options: fields of `FitConfig` that concern the data, such as ``image_size=32``:
            those in `DATA_FIELDS`.

    Raises:
        InputError: as `fit` does.

    Example:
        >>> import kclassify
        >>> splits = kclassify.make_datasets("digits", batch_size=64)
        >>> images, labels = next(iter(splits.train))
        >>> tuple(images.shape), tuple(labels.shape)
        ((64, 8, 8, 1), (64,))
    """
    for name in options:
        check_choice("options", name, DATA_FIELDS)
    config = FitConfig(
        batch_size=batch_size, epochs=epochs, seed=seed, augmentation=augmentation, **options
    )
    source = prepare(load_source(data, config), config, verbose=False)
    soft = augmentation in MIXING or any(part.soft for part in source.splits.values())
    num_classes = source.num_classes if soft else None
    train = train_dataset(
        source.splits["train"],
        batch_size=batch_size,
        epochs=epochs,
        seed=seed,
        augmentation=augmentation,
        num_classes=num_classes,
    )
    return Splits(
        train,
        eval_dataset(source.splits["validation"], batch_size=batch_size, num_classes=num_classes),
        eval_dataset(source.splits["test"], batch_size=batch_size, num_classes=num_classes),
        class_names=source.class_names,
        ids={split: examples.ids for split, examples in source.splits.items()},
        steps_per_epoch=_steps(source, batch_size),
        input_shape=source.input_shape,
    )


def _steps(source: Source, batch_size: int) -> int:
    return len(source.splits["train"]) // batch_size
