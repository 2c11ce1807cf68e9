"""`load` and `Classifier`: predictions from what `fit` and `export` wrote."""

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from kclassify import runtime
from kclassify.checks import InputError, check_number, is_whole
from kclassify.models.deciding import UNKNOWN
from kclassify.runs import Run, read_json
from kclassify.serving.inputs import collect
from kclassify.serving.manifest import METADATA, deviation

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.models.engines import ENGINES, Engine, of_logits, tensorflow_engine  # noqa: E402
from kclassify.models.folding import fold_batch_norm  # noqa: E402
from kclassify.models.saved import load_keras_file  # noqa: E402
from kclassify.models.temperature import as_evaluated, kept_calibration  # noqa: E402
from kclassify.serving.reading import Pixels, first_line, read_batches  # noqa: E402
from kclassify.serving.signatures import SIGNATURES, probability_function  # noqa: E402

SAVED_MODEL_FILES = ("saved_model.pb", "variables/variables.index", METADATA.as_posix())
# Quick predictions show no bar.
SECONDS_BEFORE_BAR = 1.5


class Classifier:
    """A trained classifier, ready to predict; `kclassify.load` makes one.

    It may be used by several threads.

    Attributes:
        class_names: the names of the classes, in the order of the model's outputs.
        input_shape: `(height, width, channels)` that the model sees; images of any size are
            resized to it.
        abstain_below: `predict` says "unknown" where no probability is as high; 0 withholds
            nothing.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        class_names: Sequence[str],
        input_shape: Sequence[int],
        abstain_below: float = 0.0,
    ) -> None:
        self.class_names = tuple(class_names)
        self.input_shape = tuple(input_shape)
        self.abstain_below = abstain_below
        self._engine = engine

    def __repr__(self) -> str:
        return f"Classifier({len(self.class_names)} classes, input_shape={self.input_shape})"

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return the probabilities of images of the model's size: the quickest way to ask.

        For serving in a process of one's own. Nothing is decoded, resized or put in a table.

        Args:
            images: uint8 `(batch_size, height, width, channels)`, of `input_shape`. The first
                call at another batch size takes a little longer.

        Returns:
            float32 `(batch_size, num_classes)`.

        Raises:
            InputError: an array of another kind.

        Example:
            >>> import kclassify, numpy as np
            >>> run = kclassify.fit("digits", epochs=1, run_dir="my-run", verbose=False)
            >>> classifier = kclassify.load(run)
            >>> classifier.probabilities(np.zeros((5, 8, 8, 1), np.uint8)).shape
            (5, 10)
        """
        is_array = isinstance(images, np.ndarray) and images.dtype == np.uint8
        if not is_array or images.shape[1:] != self.input_shape or not len(images):
            raise self._unfit(images)
        return self._engine(images)

    def _unfit(self, images: Any) -> InputError:
        shape = ", ".join(map(str, self.input_shape))
        dtype, found = (getattr(images, name, None) for name in ("dtype", "shape"))
        return InputError(
            f"`images` must be a NumPy array (batch_size, {shape}) of dtype uint8. Received: "
            f"{type(images).__name__}, shape={found}, dtype={dtype}. `predict` takes other sizes."
        )

    def predict(
        self, inputs: Any, *, top_k: int = 3, batch_size: int = 64, verbose: bool = True
    ) -> pd.DataFrame:
        """Return a row for every image: its most probable classes, or why it cannot be read.

        Files are read and decoded by as many threads as there are cores, by the functions that
        are inside an exported SavedModel: the answers are those of TensorFlow Serving.

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
            `top_k`, and `error`, which is None for an image that was read. Where answers may be
            withheld, `label` is "unknown" then, and `best_label` is what it would have been.

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
        batches = read_batches(items, input_shape=self.input_shape, batch_size=batch_size)
        answers: list[np.ndarray | str] = []
        with tqdm(
            total=len(items), unit="image", delay=SECONDS_BEFORE_BAR, disable=not verbose
        ) as bar:
            for batch in batches:
                answers += self._ask(batch)
                bar.update(len(batch))
        most = min(top_k, len(self.class_names))
        rows = [
            self._row(item.name, answer, most) for item, answer in zip(items, answers, strict=True)
        ]
        # As objects, or pandas makes NaN of None wherever there is one error.
        errors = pd.Series([row["error"] for row in rows], dtype=object)
        return pd.DataFrame(rows).assign(error=errors)

    def _ask(self, batch: Sequence[Pixels]) -> list[np.ndarray | str]:
        """Return the probabilities of what could be read, and the errors of the rest, in order."""
        images = [pixels for pixels in batch if not isinstance(pixels, str)]
        found = iter(self._engine(np.stack(images)) if images else ())
        return [pixels if isinstance(pixels, str) else next(found) for pixels in batch]

    def _row(self, name: str, answer: np.ndarray | str, top_k: int) -> dict[str, Any]:
        row: dict[str, Any] = {"file": name}
        for rank, (label, probability) in enumerate(self._best(answer, top_k), start=1):
            ending = f"_{rank}" if rank > 1 else ""
            row |= {f"label{ending}": label, f"probability{ending}": probability}
        if self.abstain_below:
            row["best_label"] = row["label"]
            if row["probability"] < self.abstain_below:
                row["label"] = UNKNOWN
        return {**row, "error": answer if isinstance(answer, str) else None}

    def _best(self, answer: np.ndarray | str, top_k: int) -> list[tuple[str | None, float]]:
        if isinstance(answer, str):
            return [(None, np.nan)] * top_k
        # Stable, so that of equals the first wins, as in `class_id`.
        best = np.argsort(-answer, kind="stable")[:top_k]
        return [(self.class_names[index], float(answer[index])) for index in best]


def load(path: str | os.PathLike[str]) -> Classifier:
    """Return the classifier that `path` holds, warmed up.

    A SavedModel is a program: load only those that come from where you trust.

    Args:
        path: a SavedModel that `kclassify.export` wrote, or the folder of its versions, of which
            the highest is taken; its ``model.onnx`` or ``model.tflite``, which ONNX Runtime and
            LiteRT run, with the ``metadata.json`` of the export in ``assets.extra`` or beside it;
            a run or its folder, whose probabilities are calibrated where `evaluate` has done so; or
            a ``.keras`` file, with the class names of the ``config.json`` beside it, as it is.

    Returns:
        A `Classifier`.

    Raises:
        InputError: there is nothing of the kind, it is incomplete or damaged, or what runs it is
            not installed.

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
    if place.suffix == ".keras":
        return _load_keras(place)
    if place.suffix in ENGINES:
        return _load_file(place)
    raise _not_loadable(text, "another kind of file")


def _refuse_unsafe(path: str) -> None:
    if "://" in path:
        raise _not_loadable(path, "which is not on this machine; download it first")
    if path.lower().endswith((".h5", ".hdf5")):
        raise _not_loadable(path, "an HDF5 file, which Keras cannot load safely")


def _not_loadable(path: str, reason: str) -> InputError:
    return InputError(
        "`path` must be a SavedModel folder, a run folder or a .keras, .onnx or .tflite file. "
        f"Received: {path!r}, {reason}. Pass what `kclassify fit` or `kclassify export` wrote."
    )


class _Stated(NamedTuple):
    """What an export's metadata says that a classifier needs."""

    class_names: Sequence[str]
    input_shape: Sequence[int]
    abstain_below: float = 0.0
    # What to divide a file's answers by, where they are logits.
    temperature: float | None = None


def _warmed(engine: Engine, stated: _Stated, *, path: Path) -> Classifier:
    """Return the classifier after a first answer, which is slow and shows whether it works."""
    if stated.temperature is not None:
        engine = of_logits(engine, stated.temperature)
    answer = engine(np.zeros((1, *stated.input_shape), np.uint8))
    if answer.shape != (1, len(stated.class_names)):
        names = len(stated.class_names)
        reason = f"with {answer.shape[-1]} outputs for the {names} class names beside it"
        raise _not_loadable(str(path), reason)
    return Classifier(
        engine,
        class_names=stated.class_names,
        input_shape=stated.input_shape,
        abstain_below=stated.abstain_below,
    )


def _load_folder(folder: Path) -> Classifier:
    if (folder / "config.json").is_file():
        return _load_run(Run.open(folder))
    alone = [
        folder / f"model{ending}" for ending in ENGINES if (folder / f"model{ending}").exists()
    ]
    if alone and not (folder / SAVED_MODEL_FILES[0]).exists():
        return _load_file(alone[0])
    if any((folder / name.partition("/")[0]).exists() for name in SAVED_MODEL_FILES):
        return _load_saved_model(folder)
    numbered = [path for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()]
    if not numbered:
        raise _not_loadable(str(folder), "a folder with neither of them")
    return _load_folder(max(numbered, key=lambda path: int(path.name)))


def _load_run(run: Run) -> Classifier:
    if run.quantized_file is not None:
        return _load_quantized(run, run.quantized_file)
    model = as_evaluated(run, fold_batch_norm(load_keras_file(run.model_file)), tta="none")
    return _of_keras_model(model, path=run.model_file)


def _load_quantized(run: Run, file: Path) -> Classifier:
    kept = kept_calibration(run, "none")
    temperature = kept["temperature"] if kept else 1.0
    names, shape = run.config["class_names"], run.config["input_shape"]
    return _warmed(
        ENGINES[file.suffix](file), _Stated(names, shape, temperature=temperature), path=file
    )


def _load_keras(path: Path) -> Classifier:
    return _of_keras_model(load_keras_file(path), path=path)


def _of_keras_model(model: keras.Model, *, path: Path) -> Classifier:
    class_names = _class_names(path.with_name("config.json"), count=model.output_shape[-1])
    engine = tensorflow_engine(probability_function(model).get_concrete_function())
    return _warmed(engine, _Stated(class_names, model.input_shape[1:]), path=path)


def _class_names(config_file: Path, *, count: int) -> Sequence[str]:
    if config_file.is_file():
        names = read_json(config_file, {"class_names": list})["class_names"]
    else:
        names = [str(index) for index in range(count)]
    if len(names) != count:
        raise InputError(
            f"`path` must be a model of the {len(names)} classes in the config.json beside it. "
            f"Received: {count} outputs. Keep each model beside its own config.json."
        )
    return names


def _load_saved_model(folder: Path) -> Classifier:
    missing = [name for name in SAVED_MODEL_FILES if not (folder / name).is_file()]
    if missing == [METADATA.as_posix()]:
        raise _not_loadable(str(folder), "a SavedModel that kclassify did not write")
    if missing or not any(folder.glob("variables/variables.data-*")):
        names = ", ".join(missing) or "variables/variables.data-*"
        raise _not_loadable(str(folder), f"an incomplete SavedModel, without {names}")
    stated = _read_metadata(folder / METADATA, path=folder)
    _warn_of_deviation(folder)
    model = _open_saved_model(folder)
    engine = tensorflow_engine(model.signatures["probabilities"])
    return _warmed(engine, stated, path=folder)


def _warn_of_deviation(folder: Path, *, only: str | None = None) -> None:
    found = deviation(folder, only=only)
    if found:
        warnings.warn(
            f"the files in {str(folder)!r} are not known to be those that `kclassify export` "
            f"verified ({found}). A SavedModel is a program: export again, or make sure where it "
            "comes from.",
            stacklevel=4,
        )


def _open_saved_model(folder: Path) -> Any:
    try:
        model = tf.saved_model.load(str(folder))
    except Exception as error:  # TensorFlow raises many kinds, by which part is damaged
        reason = f"a damaged SavedModel ({first_line(error)})"
        raise _not_loadable(str(folder), reason) from error
    if set(model.signatures) != set(SIGNATURES):
        reason = "a SavedModel that this version of kclassify did not write"
        raise _not_loadable(str(folder), reason)
    return model


def _load_file(path: Path) -> Classifier:
    places = [path.parent / name for name in (METADATA, METADATA.name)]
    metadata = next((place for place in places if place.is_file()), None)
    if metadata is None:
        raise _not_loadable(str(path), f"without the {METADATA} of its export")
    stated = _read_metadata(metadata, path=path)
    if metadata == places[0]:
        _warn_of_deviation(path.parent, only=path.name)
    try:
        return _warmed(ENGINES[path.suffix](path), stated, path=path)
    except InputError:
        raise
    except Exception as error:  # each runtime raises kinds of its own
        reason = f"a damaged {path.suffix} file, or one that {metadata.name} does not describe"
        raise _not_loadable(str(path), f"{reason} ({first_line(error)})") from error


def _read_metadata(file: Path, *, path: Path) -> _Stated:
    """Return the class names, the input shape and the threshold that an export states."""
    try:
        metadata = json.loads(file.read_text("utf-8"))
        size, channels = metadata["input"]["image_size"], metadata["input"]["channels"]
        # Exports of earlier versions withhold nothing.
        threshold = (metadata.get("deciding") or {}).get("threshold") or {"probability": 0.0}
        logits = metadata.get("outputs") == "logits"
        stated = _Stated(
            list(metadata["class_names"]), (*size, channels), threshold["probability"],
            float(metadata["temperature"]) if logits else None,
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _not_loadable(str(path), f"whose {file.name} is damaged") from error
    if not _makes_sense(stated):
        raise _not_loadable(str(path), f"whose {file.name} is damaged")
    return stated


def _makes_sense(stated: _Stated) -> bool:
    below = stated.abstain_below
    return (
        all(isinstance(name, str) for name in stated.class_names)
        and len(stated.input_shape) == 3
        and all(is_whole(side, least=1) for side in stated.input_shape)
        and isinstance(below, int | float)
        and 0 <= below <= 1
        and (stated.temperature is None or 0 < stated.temperature < float("inf"))
    )
