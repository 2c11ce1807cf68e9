"""From labels as users have them to class indices or soft labels."""

import math
from collections.abc import Sequence

import numpy as np

from kclassify.checks import InputError

Parts = dict[str, np.ndarray]
# How far the shares of a soft label may be from a sum of 1.
TOLERANCE = 1e-3


def encode_labels(parts: Parts, class_names: Sequence[str] | None) -> tuple[Parts, tuple[str, ...]]:
    """Encode integer, string, one-hot or soft labels, each split's alike.

    Args:
        parts: from split names to labels ``(n,)``, ``(n, 1)`` or ``(n, num_classes)``.
        class_names: the names of integer, one-hot or soft labels, in order; by default the
            numbers that occur.

    Returns:
        The labels, int32 ``(n,)`` or float32 ``(n, num_classes)``, and the class names.

    Raises:
        InputError: the labels of a split are none of these, or are out of range.

    Example:
        >>> import numpy as np
        >>> from kclassify.data.labels import encode_labels
        >>> encode_labels({"train": np.array(["cat", "dog", "cat"])}, None)
        ({'train': array([0, 1, 0], dtype=int32)}, ('cat', 'dog'))
    """
    parts = {split: _column(np.asarray(labels)) for split, labels in parts.items()}
    if any(labels.ndim == 2 for labels in parts.values()):
        return _encode_shares(parts, class_names)
    if any(labels.dtype.kind in "OUST" for labels in parts.values()):
        return encode_names({split: _as_text(labels) for split, labels in parts.items()})
    return encode_indices(parts, class_names)


def encode_names(parts: Parts) -> tuple[Parts, tuple[str, ...]]:
    """Encode labels by their place in the sorted union over the splits."""
    names = np.unique(np.concatenate(list(parts.values())))
    texts = [str(name) for name in names]
    alike = [text for text in texts if text != text.strip() and text.strip() in texts]
    if alike:
        raise _label_error("alike where they are meant to be", f"{alike[0]!r} and without blanks")
    encoded = {
        split: np.searchsorted(names, labels).astype(np.int32) for split, labels in parts.items()
    }
    return encoded, tuple(str(name) for name in names)


def encode_indices(
    parts: Parts, class_names: Sequence[str] | None
) -> tuple[Parts, tuple[str, ...]]:
    """Encode integer labels: places in the class names, or else by the numbers that occur."""
    for labels in parts.values():
        odd = np.flatnonzero(~np.isfinite(labels) | (labels != np.floor(labels)))
        if len(odd):
            raise _label_error(
                "whole numbers", f"{labels[odd[0]]} at place {odd[0]}, one of {len(odd)} such"
            )
    numbers = np.unique(np.concatenate(list(parts.values())))
    wrong = numbers[(numbers < 0) | (numbers >= (len(class_names) if class_names else math.inf))]
    if len(wrong):
        count = f"from 0 to {len(class_names) - 1}, places in class_names" if class_names else ""
        raise _label_error(count or "of at least 0", f"{int(wrong[0])}")
    if class_names:
        return {split: part.astype(np.int32) for split, part in parts.items()}, tuple(class_names)
    encoded = {split: np.searchsorted(numbers, part) for split, part in parts.items()}
    names = tuple(str(int(number)) for number in numbers)
    return {split: part.astype(np.int32) for split, part in encoded.items()}, names


def _column(labels: np.ndarray) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        return labels[:, 0]
    if labels.ndim not in (1, 2):
        raise _label_error("of the shape (n,) or (n, num_classes)", f"the shape {labels.shape}")
    return labels.astype(np.int64) if labels.dtype.kind == "b" else labels


def _as_text(labels: np.ndarray) -> np.ndarray:
    if labels.ndim != 1 or not all(isinstance(label, str | bytes | int) for label in labels.flat):
        raise _label_error("strings, or numbers, and none missing", f"{labels[:3].tolist()}...")
    texts = [label.decode() if isinstance(label, bytes) else str(label) for label in labels.flat]
    return np.array(texts, dtype=np.str_)


def _encode_shares(
    parts: Parts, class_names: Sequence[str] | None
) -> tuple[Parts, tuple[str, ...]]:
    widths = {labels.shape[1] if labels.ndim == 2 else 1 for labels in parts.values()}
    if len(widths) != 1 or (class_names and len(class_names) not in widths):
        wanted = f"one column for each of {len(class_names)} class names" if class_names else (
            "columns for the same classes in every split"
        )  # fmt: skip
        raise _label_error(wanted, f"{sorted(widths)} columns")
    for labels in parts.values():
        _check_shares(labels)
    names = tuple(class_names or (str(index) for index in range(widths.pop())))
    if all(np.isin(labels, (0, 1)).all() for labels in parts.values()):
        return {name: part.argmax(axis=1).astype(np.int32) for name, part in parts.items()}, names
    return {split: labels.astype(np.float32) for split, labels in parts.items()}, names


def _check_shares(labels: np.ndarray) -> None:
    usable = labels.dtype.kind in "iuf" and bool(np.all(labels >= 0))
    if not usable or np.any(np.abs(labels.sum(axis=1) - 1) > TOLERANCE):
        raise _label_error(
            "one-hot, or shares of at least 0 that sum to 1 in each row",
            f"a row such as {_worst_row(labels)}",
        )


def _worst_row(labels: np.ndarray) -> list:
    if labels.dtype.kind not in "iuf":
        return labels[0].tolist()
    sound = np.all(labels >= 0, axis=1) & (np.abs(labels.sum(axis=1) - 1) <= TOLERANCE)
    return labels[int(np.argmin(sound))].tolist()


def _label_error(expected: str, received: str) -> InputError:
    return InputError(
        f"`data` must have labels that are {expected}. Received: {received}. Mend the labels."
    )
