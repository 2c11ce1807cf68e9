"""How a training ends: with the best model saved, or with a sentence that says why not."""

import shutil
from typing import Any

from kclassify import runtime
from kclassify.atomic import replacing
from kclassify.checks import DivergedError
from kclassify.runs import Run

runtime.prepare()

import keras  # noqa: E402

from kclassify.models.cost import count_macs, count_parameters  # noqa: E402
from kclassify.models.weights import weights_hash  # noqa: E402
from kclassify.training.callbacks import BestWeights, StopOnNaN  # noqa: E402
from kclassify.training.session import Session  # noqa: E402


def finish(run: Run, session: Session, best: BestWeights, nan: StopOnNaN) -> None:
    """Save the best model, or say that there is none."""
    if best.best_epoch is not None:
        _save(run, session, best, stopped="nan" if nan.step is not None else best.stopped)
        # What is finished is not gone on with; of several workers the chief alone has any.
        shutil.rmtree(run.checkpoints_dir, ignore_errors=not session.replicas.chief)
    if nan.step is not None:
        raise DivergedError(
            f"`learning_rate` must keep the loss finite. Received: {session.config.learning_rate}, "
            f"and the loss was NaN or infinite by step {nan.step}. "
            f"{_kept(run, best) if session.replicas.chief else ''}"
            "Try a tenth of the learning rate, or gradient_clip=1.0."
        )


def _kept(run: Run, best: BestWeights) -> str:
    if best.best_epoch is None:
        return "No epoch had ended, so there is no model. "
    return f"The weights of epoch {best.best_epoch} are kept in {str(run)!r}. "


def _save(run: Run, session: Session, best: BestWeights, *, stopped: str | None) -> None:
    session.network.set_weights(best.weights)
    rows = run.history
    save_network(run, session.network, {
        "best_epoch": best.best_epoch,
        "val_accuracy": best.accuracy,
        "training_seconds": round(float(rows["seconds"].sum()), 1),
        "epochs_trained": len(rows),
        "stopped": stopped,
    })  # fmt: skip


def save_network(run: Run, network: keras.Model, found: dict[str, Any]) -> None:
    """Write the model of a run, and last its summary, with which the run is finished.

    Args:
        run: where to.
        network: of Keras's own layers.
        found: what the summary has besides the model's size and the hash of its weights.
    """
    with replacing(run.model_file) as beside:
        network.save(beside)
    size = {"parameters": count_parameters(network), "macs": count_macs(network)}
    run.write(run.summary_file, {"weights_sha256": weights_hash(network), **size, **found})
