"""A network whose logits are divided by a temperature: probabilities that can be believed."""

from typing import Any

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.runs import Run, read_json

runtime.prepare()

import keras  # noqa: E402

from kclassify.models.test_time import with_test_time  # noqa: E402

LOWEST, HIGHEST = 0.05, 20.0


def with_temperature(model: keras.Model, temperature: float) -> keras.Model:
    """Return a model whose logits are those of `model` divided by `temperature`.

    No prediction changes, only how sure each is (Guo et al. 2017, "On Calibration of Modern
    Neural Networks").

    Args:
        model: maps uint8 images to logits; the weights stay its own.
        temperature: above 0; 1 returns `model` itself.

    Returns:
        A functional model of Keras's own layers around `model`, with its input and output.

    Example:
        >>> from kclassify.models.registry import build_model
        >>> from kclassify.models.temperature import with_temperature
        >>> model = build_model("convnet", input_shape=(8, 8, 3), num_classes=2, depth=2)
        >>> with_temperature(model, 1.5).output_shape
        (None, 2)
    """
    if temperature == 1.0:
        return model
    images = keras.Input(model.input_shape[1:], dtype="uint8", name="images")
    scaled = keras.layers.Rescaling(1.0 / temperature, dtype="float32", name="temperature")
    return keras.Model(images, scaled(model(images)), name=f"{model.name}_calibrated")


def as_evaluated(run: Run, network: keras.Model, *, tta: str) -> keras.Model:
    """Return `network` with test-time views, and with the temperature that the run has for them."""
    kept = kept_calibration(run, tta)
    return with_temperature(with_test_time(network, tta), kept["temperature"] if kept else 1.0)


def kept_calibration(run: Run, tta: str) -> dict[str, Any] | None:
    """Return what a run's `calibration.json` says of `tta`; None where it says nothing.

    Raises:
        InputError: the file is damaged.
    """
    kept = calibrations(run).get(tta)
    if kept is None:
        return None
    temperature = kept.get("temperature") if isinstance(kept, dict) else None
    if not isinstance(temperature, float) or not LOWEST <= temperature <= HIGHEST:
        raise InputError(
            f"`run` must hold whole files. Received: {str(run.calibration_file)!r}, which has "
            f"temperature={temperature!r}, a number from {LOWEST} to {HIGHEST} being expected. "
            "Delete the file; `kclassify evaluate` writes it again."
        )
    return kept


def calibrations(run: Run) -> dict[str, Any]:
    """Return what `calibration.json` has for the run's weights, by test-time augmentation."""
    if not run.calibration_file.is_file():
        return {}
    kept = read_json(run.calibration_file, {"by_tta": dict, "weights_sha256": str})
    same = kept["weights_sha256"] == run.summary["weights_sha256"]
    return kept["by_tta"] if same else {}
