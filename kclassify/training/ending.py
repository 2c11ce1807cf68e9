"""How a training ends: with the best model saved, or with a sentence that says why not."""

import shutil

from kclassify import runtime
from kclassify.atomic import replacing
from kclassify.checks import DivergedError
from kclassify.runs import Run

runtime.prepare()

from kclassify.models.cost import count_parameters  # noqa: E402
from kclassify.models.weights import weights_hash  # noqa: E402
from kclassify.training.callbacks import BestWeights, StopOnNaN  # noqa: E402
from kclassify.training.session import Session  # noqa: E402


def finish(run: Run, session: Session, best: BestWeights, nan: StopOnNaN) -> None:
    """Save the best model, or say that there is none."""
    if best.best_epoch is not None:
        _save(run, session, best, stopped="nan" if nan.step is not None else best.stopped)
        # What is finished is not gone on with.
        shutil.rmtree(run.checkpoints_dir)
    if nan.step is not None:
        kept = f"The weights of epoch {best.best_epoch} are kept in {str(run)!r}. "
        raise DivergedError(
            f"`learning_rate` must keep the loss finite. Received: {session.config.learning_rate}, "
            f"and the loss was NaN or infinite by step {nan.step}. "
            f"{kept if best.best_epoch else 'No epoch had ended, so there is no model. '}"
            "Try a tenth of the learning rate, or gradient_clip=1.0."
        )


def _save(run: Run, session: Session, best: BestWeights, *, stopped: str | None) -> None:
    model = session.network
    model.set_weights(best.weights)
    with replacing(run.model_file) as beside:
        model.save(beside)
    rows = run.history
    summary = {
        "best_epoch": best.best_epoch,
        "val_accuracy": best.accuracy,
        "weights_sha256": weights_hash(model),
        "parameters": count_parameters(model),
        "macs": session.macs,
        "training_seconds": round(float(rows["seconds"].sum()), 1),
        "epochs_trained": len(rows),
        "stopped": stopped,
    }
    run.write(run.summary_file, summary)
