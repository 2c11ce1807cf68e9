"""`load` and `Classifier`: predictions from what `fit` and `export` wrote."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from kclassify import runtime
from kclassify.checks import InputError, check_number
from kclassify.runs import Run, read_json
from kclassify.serving.inputs import Item, collect

runtime.prepare()

import tensorflow as tf  # noqa: E402

from kclassify.models.saved import load_keras_file  # noqa: E402
from kclassify.serving.signatures import OUTPUTS, serving_functions  # noqa: E402

METADATA = "assets.extra/metadata.json"
SAVED_MODEL_FILES = ("saved_model.pb", "variables/variables.index", METADATA)
# Quick predictions show no bar.
SECONDS_BEFORE_BAR = 1.5


class Classifier:
    """A trained classifier, ready to predict; `kclassify.load` makes one.

    Attributes:
        class_names: the names of the classes, in the order of the model's outputs.
        input_shape: `(height, width, channels)` that the model sees; images of any size are
            resized to it.
    """

    def __init__(
        self,
        functions: Mapping[str, Callable[..., Mapping[str, tf.Tensor]]],
        *,
        class_names: Sequence[str],
        input_shape: Sequence[int],
        owner: object,
    ) -> None:
        self.class_names = tuple(class_names)
        self.input_shape = tuple(input_shape)
        self._functions = functions
        # Signatures do not keep alive the variables that they read.
        self._owner = owner

    def __repr__(self) -> str:
        return f"Classifier({len(self.class_names)} classes, input_shape={self.input_shape})"

    def predict(
        self, inputs: Any, *, top_k: int = 3, batch_size: int = 64, verbose: bool = True
    ) -> pd.DataFrame:
        """Return a row for every image: its most probable classes, or why it cannot be read.

        Files and bytes are decoded inside the model, exactly as TensorFlow Serving would.

        Args:
            inputs: a path, a folder (all images below it, sorted), bytes of an encoded image, a
                PIL image, a uint8 array `(height, width)`, `(height, width, channels)` or
                `(batch_size, height, width, channels)` of any height and width; or a list of
                these.
            top_k: how many classes, at most all of them.
            batch_size: images a step.
            verbose: show a progress bar when it takes longer than a second or two.

        Returns:
            The columns `file`, `label`, `probability`, `label_2`, `probability_2` and so on up to
            `top_k`, and `error`, which is None for an image that was read.

        Raises:
            InputError: there is no image, or an array has another dtype or number of channels.

        Example:
            >>> import kclassify, numpy as np
            >>> run = kclassify.fit("digits", epochs=1, run_dir="my-run", verbose=False)
            >>> answer = kclassify.load(run).predict(np.zeros((8, 8, 1), np.uint8), top_k=2)
            >>> list(answer.columns)
            ['file', 'label', 'probability', 'label_2', 'probability_2', 'error']
        """
        for name, value in (("top_k", top_k), ("batch_size", batch_size)):
            check_number(name, value, expected="a whole number above 0", ok=value >= 1)
        items = collect(inputs, channels=self.input_shape[-1])
        rows: list[dict[str, Any]] = []
        with tqdm(
            total=len(items), unit="image", delay=SECONDS_BEFORE_BAR, disable=not verbose
        ) as bar:
            for start in range(0, len(items), batch_size):
                batch = [item.read() for item in items[start : start + batch_size]]
                rows += self._rows(batch, top_k=min(top_k, len(self.class_names)))
                bar.update(len(batch))
        # As objects, or pandas makes NaN of None wherever there is one error.
        errors = pd.Series([row["error"] for row in rows], dtype=object)
        return pd.DataFrame(rows).assign(error=errors)

    def _rows(self, batch: Sequence[Item], *, top_k: int) -> list[dict[str, Any]]:
        """Ask the model once for each form of input in the batch, and keep the order."""
        answers: dict[int, np.ndarray | str] = {}
        for form in dict.fromkeys(_form(item) for item in batch):
            places = [place for place, item in enumerate(batch) if _form(item) == form]
            answers |= zip(places, self._ask([batch[place] for place in places]), strict=True)
        return [self._row(item.name, answers[place], top_k) for place, item in enumerate(batch)]

    def _ask(self, items: Sequence[Item]) -> list[np.ndarray | str]:
        """Return the probabilities, or the error, of items of one form."""
        values: list[Any] = [item.value for item in items]
        if values[0] is None:
            return [str(item.error) for item in items]
        if isinstance(values[0], np.ndarray):
            return self._call("serving_default", images=tf.constant(np.stack(values)))
        try:
            return self._call("serve_bytes", image_bytes=tf.constant(values, tf.string))
        except tf.errors.InvalidArgumentError as error:
            if len(items) == 1:
                return [_first_line(error)]
            # One file that looks whole but does not decode must not cost the others.
            return [answer for item in items for answer in self._ask([item])]

    def _call(self, signature: str, **inputs: tf.Tensor) -> list[np.ndarray | str]:
        return list(self._functions[signature](**inputs)["probabilities"].numpy())

    def _row(self, name: str, answer: np.ndarray | str, top_k: int) -> dict[str, Any]:
        row: dict[str, Any] = {"file": name}
        for rank, (label, probability) in enumerate(self._best(answer, top_k), start=1):
            ending = f"_{rank}" if rank > 1 else ""
            row |= {f"label{ending}": label, f"probability{ending}": probability}
        return {**row, "error": answer if isinstance(answer, str) else None}

    def _best(self, answer: np.ndarray | str, top_k: int) -> list[tuple[str | None, float]]:
        if isinstance(answer, str):
            return [(None, np.nan)] * top_k
        # Stable, so that of equals the first wins, as in `class_id`.
        best = np.argsort(-answer, kind="stable")[:top_k]
        return [(self.class_names[index], float(answer[index])) for index in best]


def load(path: str | os.PathLike[str]) -> Classifier:
    """Return the classifier that `path` holds.

    A SavedModel is a program: load only those that come from where you trust.

    Args:
        path: a SavedModel that `kclassify.export` wrote, or the folder of its versions, of which
            the highest is taken; a run or its folder; or a ``.keras`` file, with the class names
            of the ``config.json`` beside it.

    Returns:
        A `Classifier`.

    Raises:
        InputError: there is nothing of the kind, or it is incomplete or damaged.

    Example:
        >>> import kclassify
        >>> run = kclassify.fit("digits", epochs=1, run_dir="my-run", verbose=False)
        >>> kclassify.load(run)
        Classifier(10 classes, input_shape=(8, 8, 1))
    """
    text = os.fspath(path)
    place = Path(text)
    _refuse_unsafe(text)
    if not place.exists():
        raise _not_loadable(text, "which does not exist")
    if place.is_dir():
        return _load_folder(place)
    if place.suffix != ".keras":
        raise _not_loadable(text, "another kind of file")
    return _load_keras(place)


def _refuse_unsafe(path: str) -> None:
    if "://" in path:
        raise _not_loadable(path, "which is not on this machine; download it first")
    if path.lower().endswith((".h5", ".hdf5")):
        raise _not_loadable(path, "an HDF5 file, which Keras cannot load safely")


def _not_loadable(path: str, reason: str) -> InputError:
    return InputError(
        "`path` must be a SavedModel folder, a run folder or a .keras file. "
        f"Received: {path!r}, {reason}. Pass what `kclassify fit` or `kclassify export` wrote."
    )


def _load_folder(folder: Path) -> Classifier:
    if (folder / "config.json").is_file():
        return _load_keras(Run.open(folder).model_file)
    if any((folder / name.partition("/")[0]).exists() for name in SAVED_MODEL_FILES):
        return _load_saved_model(folder)
    numbered = [path for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()]
    if not numbered:
        raise _not_loadable(str(folder), "a folder with neither of them")
    return _load_saved_model(max(numbered, key=lambda path: int(path.name)))


def _load_keras(path: Path) -> Classifier:
    model = load_keras_file(path)
    class_names = _class_names(path.with_name("config.json"), count=model.output_shape[-1])
    serve_images, serve_bytes = serving_functions(model, class_names)
    return Classifier(
        {
            "serving_default": serve_images.get_concrete_function(),
            "serve_bytes": serve_bytes.get_concrete_function(),
        },
        class_names=class_names,
        input_shape=model.input_shape[1:],
        owner=model,
    )


def _class_names(config_file: Path, *, count: int) -> Sequence[str]:
    config = read_json(config_file) if config_file.is_file() else {}
    names = config.get("class_names", [str(index) for index in range(count)])
    if len(names) != count:
        raise InputError(
            f"`path` must be a model of the {len(names)} classes in the config.json beside it. "
            f"Received: {count} outputs. Keep each model beside its own config.json."
        )
    return names


def _load_saved_model(folder: Path) -> Classifier:
    missing = [name for name in SAVED_MODEL_FILES if not (folder / name).is_file()]
    if missing == [METADATA]:
        raise _not_loadable(str(folder), "a SavedModel that kclassify did not write")
    if missing or not any(folder.glob("variables/variables.data-*")):
        names = ", ".join(missing) or "variables/variables.data-*"
        raise _not_loadable(str(folder), f"an incomplete SavedModel, without {names}")
    owner = _open_saved_model(folder)
    metadata = json.loads((folder / METADATA).read_text("utf-8"))
    shape = metadata["input"]
    return Classifier(
        owner.signatures,
        class_names=metadata["class_names"],
        input_shape=(*shape["image_size"], shape["channels"]),
        owner=owner,
    )


def _open_saved_model(folder: Path) -> Any:
    try:
        model = tf.saved_model.load(str(folder))
    except Exception as error:  # TensorFlow raises many kinds, by which part is damaged
        reason = f"a damaged SavedModel ({_first_line(error)})"
        raise _not_loadable(str(folder), reason) from error
    answers = getattr(model.signatures.get("serving_default"), "structured_outputs", {})
    if set(answers) != set(OUTPUTS) or "serve_bytes" not in model.signatures:
        raise _not_loadable(str(folder), "a SavedModel that kclassify did not write")
    return model


def _form(item: Item) -> object:
    """Return what items must share to go through the model together."""
    return item.value.shape if isinstance(item.value, np.ndarray) else type(item.value)


def _first_line(error: Exception) -> str:
    return str(getattr(error, "message", error)).strip().partition("\n")[0]
