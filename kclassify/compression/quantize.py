"""A quantized run: the file that is served, and the network that it was made of."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from kclassify import runtime
from kclassify.compression.parent import Parent, keep_untrained, open_parent
from kclassify.compression.retraining import Recipe, Retraining, produce
from kclassify.training.place import Place, train_in

runtime.prepare()

import keras  # noqa: E402

from kclassify.compression.quantization import (  # noqa: E402
    SCHEMES,
    layer_errors,
    write_quantized,
)
from kclassify.compression.quantized_training import (  # noqa: E402
    nested_model,
    quantized_form,
)
from kclassify.data.pipeline import first_images  # noqa: E402
from kclassify.models.folding import fold_batch_norm  # noqa: E402
from kclassify.models.quantized import file_model  # noqa: E402

# Schemes whose loss training can make smaller: the others round too little to lose anything.
TRAINABLE = ("litert_int8", "onnx_int8")


def write_run(
    parent: Parent, how: Retraining, own: dict[str, Any], place: Place, facts: dict[str, Any]
) -> None:
    """Quantize a network, and train it for that where it loses more than the budget.

    Args:
        parent: the run.
        how: the training, if there is one.
        own: the technique's options.
        place: the run's folder.
        facts: its manifest.
    """
    images = _representative(parent, own["images"])
    network = fold_batch_norm(parent.network)
    with tempfile.TemporaryDirectory(prefix="kclassify-") as scratch:
        file = Path(scratch, f"quantized{SCHEMES[own['scheme']].ending}")
        right = _written(parent, network, file, own["scheme"], images)
        drop = float(parent.right.mean() - right.mean())
        nested = nested_model(network)
        lost = own["scheme"] in TRAINABLE and drop > own["max_drop"]
        if lost and nested:
            place.tell(f"note      {100 * drop:.2f} points are lost; a training with rounding does "
                       f"not reach into the model {nested!r} within it")  # fmt: skip
        elif lost:
            place.tell(f"note      {100 * drop:.2f} points are lost: training with rounding")
            network = _trained_for_it(parent, how, images, place)
            right = _written(parent, network, file, own["scheme"], images)
        keep_untrained(place, parent, network, facts, accuracy=float(right.mean()), file=file)
    place.run.write(place.run.table_file("layer_errors"), _errors(network, images))


def _representative(parent: Parent, count: int) -> np.ndarray:
    """Return training images, from all over the split."""
    some = parent.source.splits["train"].some(count, seed=parent.config.seed)
    return first_images(some, count)


def _written(
    parent: Parent, network: keras.Model, file: Path, scheme: str, images: np.ndarray
) -> np.ndarray:
    write_quantized(network, file, scheme=scheme, images=images)
    return parent.right_on_validation(
        file_model(file, parent.source.input_shape, parent.source.num_classes)
    )


def _trained_for_it(
    parent: Parent, how: Retraining, images: np.ndarray, place: Place
) -> keras.Model:
    """Return the network after a training that computes as the integers will; a run of its own."""

    def make(inner: Place, facts: dict[str, Any]) -> None:
        network = fold_batch_norm(parent.network)
        session = how.session(
            parent, network, form=lambda model: quantized_form(model, images=images)
        )
        train_in(inner, parent.source, session, facts=facts)

    facts = {"technique": "quantized_training", "images": len(images), **how.facts()}
    recipe = Recipe("aware", how.config, facts, make)
    path = place.run.path.with_name(f"{place.run.path.name}-aware")
    aware = produce(parent, recipe, run_dir=path, verbose=place.verbose)
    return open_parent(aware, data=None, verbose=place.verbose).network


def _errors(network: keras.Model, images: np.ndarray) -> Any:
    # From all over: what is sorted by class stays so.
    few = images[:: max(1, len(images) // 64)][:64]
    return layer_errors(network, images=few).set_index("layer")
