"""`export`: from a run to a numbered SavedModel that is known to serve what was evaluated."""

import errno
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kclassify import __version__, runtime
from kclassify.atomic import appearing
from kclassify.checks import InputError, check_choice, check_number
from kclassify.evaluation.abstention import check_abstention
from kclassify.evaluation.deciding import deciding_of
from kclassify.models.deciding import Deciding
from kclassify.runs import Run

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.evaluation.calibration import needed_calibration  # noqa: E402
from kclassify.models.folding import fold_batch_norm  # noqa: E402
from kclassify.models.saved import load_run_model  # noqa: E402
from kclassify.models.temperature import as_evaluated, kept_calibration  # noqa: E402
from kclassify.models.test_time import VIEWS  # noqa: E402
from kclassify.models.weights import weights_hash  # noqa: E402
from kclassify.serving.formats import FORMATS, check_formats, format_of, probability_model  # noqa: E402
from kclassify.serving.manifest import MANIFEST, METADATA, file_hashes  # noqa: E402
from kclassify.serving.signatures import serving_functions  # noqa: E402
from kclassify.serving.verify import verify  # noqa: E402


def export(
    run: Run | str | os.PathLike[str],
    *,
    formats: str | Sequence[str] = ("saved_model",),
    tta: str = "none",
    abstain_at: Mapping[str, float] | None = None,
    label_sets: float | None = None,
    version: int | None = None,
) -> Path:
    """Write the run's model as ``export/<version>/`` in TF Serving's layout, and verify it.

    The SavedModel takes uint8 images of any height and width (`serving_default`), encoded images
    (`serve_bytes`), or uint8 images of the model's size for their probabilities alone
    (`probabilities`), and needs neither kclassify nor Keras. Its batch normalizations are folded
    into the layers before them, and its probabilities are calibrated as those of `evaluate` are,
    where the run's validation images can be had. It is written beside its place, loaded by a
    fresh process, and compared with the Keras model that was evaluated on up to 256 of the run's
    images; only then does it get its number, which is when TF Serving sees it.

    Args:
        run: a run or its folder.
        formats: ``"onnx"`` and ``"litert"`` are added in the same folder, as ``model.onnx`` and
            ``model.tflite``; they take uint8 images of the model's own size and return
            probabilities. ``"saved_model"`` is always written, but for a quantized run: of it the
            file is exported that was evaluated, which returns logits; `load` divides them by the
            temperature that the metadata have.
        tta: test-time augmentation, the mean of the network's logits over several views of an
            image, inside what is exported: ``"none"``, ``"flip"`` or ``"flip_shift"``, as in
            `evaluate`. It costs as many times as much as there are views: 2 or 6.
        abstain_at: such as ``{"accuracy": 0.99}``, as in `evaluate`: `label` is ``"unknown"`` and
            `class_id` is -1 where the highest probability is below the threshold.
        label_sets: such as 0.9, as in `evaluate`: adds the output `label_set`, bool
            `(batch_size, num_classes)`.
        version: the number of the new folder; by default the highest one so far, plus 1.

    Returns:
        The folder.

    Raises:
        InputError: something about the arguments or the run; nothing was written.
        VerificationError: what was written does not serve what was evaluated; it was removed.

    Example:
        >>> import kclassify
        >>> run = kclassify.fit("digits", epochs=1, run_dir="my-run", verbose=False)
        >>> kclassify.export(run).name
        '1'
    """
    check_choice("tta", tta, VIEWS)
    asked = check_abstention(abstain_at, label_sets)
    run = Run.open(run)
    if run.quantized_file is not None:
        _check_file_alone(run, run.quantized_file, formats, tta, label_sets)
        return _export_file(run, run.quantized_file, version, *asked)
    extra = check_formats(formats)
    target = run.export_dir / str(_next_version(run, version))
    samples = _samples(run)
    model, class_names = load_run_model(run), tuple(run.config["class_names"])
    needed_calibration(run, tta, verbose=False)
    deciding = deciding_of(run, tta, *asked)
    served = as_evaluated(run, fold_batch_norm(model), tta=tta)
    with _version_folder(target) as folder:
        signatures = _write_saved_model(folder, served, class_names, deciding)
        _write_json(folder / METADATA, {
            **_metadata(model, class_names, signatures=signatures, tta=tta),
            "temperature": (kept_calibration(run, tta) or {"temperature": 1.0})["temperature"],
            "deciding": deciding.to_json(),
        })  # fmt: skip
        for name in extra:
            FORMATS[name].write(probability_model(served), folder / FORMATS[name].file)
        record = verify(
            folder, as_evaluated(run, model, tta=tta), class_names,
            samples=samples, formats=["saved_model", *extra], deciding=deciding,
        )  # fmt: skip
        _write_json(folder / "verification.json", record)
        _write_json(folder / MANIFEST, file_hashes(folder))
    return target


def _check_file_alone(
    run: Run, file: Path, formats: Any, tta: str, label_sets: float | None
) -> None:
    """Raise `InputError` for what a file that is served as it is cannot have."""
    name = format_of(file)
    given = [formats] if isinstance(formats, str) else list(formats)
    asked = {
        "formats": given not in (["saved_model"], [name]) and given,
        "tta": tta != "none" and tta,
        "label_sets": label_sets,
    }
    for argument, value in asked.items():
        if value:
            raise InputError(
                f"`{argument}` must be left out for a quantized run, which is exported as the "
                f"file that was evaluated. Received: {argument}={value!r} with {str(run)!r}. "
                f"Export {run.parent!r}, of which it came."
            )


def _export_file(run: Run, file: Path, version: int | None, *asked: Any) -> Path:
    """Export the file of a quantized run: as it is, verified in a fresh process."""
    target = run.export_dir / str(_next_version(run, version))
    model, class_names = load_run_model(run), tuple(run.config["class_names"])
    needed_calibration(run, "none", verbose=False)
    deciding = deciding_of(run, "none", *asked)
    temperature = (kept_calibration(run, "none") or {"temperature": 1.0})["temperature"]
    name = format_of(file)
    with _version_folder(target) as folder:
        shutil.copyfile(file, folder / FORMATS[name].file)
        _write_json(folder / METADATA, {
            **_metadata(model, class_names, signatures={}, tta="none"),
            "weights_sha256": run.summary["weights_sha256"],
            "outputs": "logits",
            "temperature": temperature,
            "deciding": deciding.to_json(),
        })  # fmt: skip
        record = verify(
            folder, as_evaluated(run, model, tta="none"), class_names, samples=_samples(run),
            formats=[name], deciding=deciding, temperature=temperature,
        )  # fmt: skip
        _write_json(folder / "verification.json", record)
        _write_json(folder / MANIFEST, file_hashes(folder))
    return target


def versions(folder: Path) -> list[int]:
    """Return the numbers of the versions in an export folder, lowest first."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def _next_version(run: Run, version: int | None) -> int:
    taken = versions(run.export_dir)
    if version is None:
        return max(taken, default=0) + 1
    whole = isinstance(version, int) and not isinstance(version, bool)
    check_number("version", version, expected="a whole number above 0", ok=whole and version > 0)
    if version in taken:
        raise InputError(
            f"`version` must be a number that is not taken. Received: version={version}, which "
            f"{str(run.export_dir)!r} holds. Leave it out for {taken[-1] + 1}."
        )
    return version


def _samples(run: Run) -> np.ndarray:
    try:
        with np.load(run.samples_file) as samples:
            return samples["images"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            "`run` must hold samples.npz, the images that an export is verified with. "
            f"Received: {str(run)!r}, where it is missing or damaged. Train again."
        ) from error


@contextmanager
def _version_folder(target: Path) -> Iterator[Path]:
    """Yield the folder that becomes `target`; leave no empty parent where it does not."""
    new_parent = not target.parent.exists()
    try:
        with appearing(target) as beside:
            yield beside
    except PermissionError as error:
        raise InputError(
            f"`run` must be a folder that you may write to. Received: {str(target.parent)!r}, "
            "which is not writable. Copy the run to another place."
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise InputError(
            f"`version` must be one that is not there yet. Received: {target.name}, which another "
            f"export has taken in the meantime. Run it again."
        ) from error
    finally:
        if new_parent and target.parent.exists() and not any(target.parent.iterdir()):
            target.parent.rmdir()


def _write_saved_model(
    folder: Path, model: keras.Model, class_names: Sequence[str], deciding: Deciding
) -> dict[str, Any]:
    endpoints = serving_functions(model, class_names, deciding=deciding)
    # Keras's own export would call the model without training=False; see `serving_functions`.
    archive = keras.export.ExportArchive()
    archive.track(model)
    signatures = {}
    for name, function in endpoints.items():
        signatures[name] = _describe(function.get_concrete_function())
        archive.add_endpoint(name, function)
    archive.write_out(folder, verbose=False)
    return signatures


def _describe(function: Any) -> dict[str, Any]:
    inputs, outputs = function.structured_input_signature[0], function.structured_outputs
    return {
        "inputs": {spec.name: _spec(spec) for spec in inputs},
        "outputs": {name: _spec(spec) for name, spec in outputs.items()},
    }


def _spec(spec: Any) -> dict[str, Any]:
    return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}


def _metadata(
    model: keras.Model, class_names: Sequence[str], *, signatures: dict[str, Any], tta: str
) -> dict[str, Any]:
    height, width, channels = model.input_shape[1:]
    return {
        "class_names": list(class_names),
        "input": {"dtype": "uint8", "image_size": [height, width], "channels": channels},
        "signatures": signatures,
        "tta": tta,
        "versions": {
            "kclassify": __version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
        "weights_sha256": weights_hash(model),
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
