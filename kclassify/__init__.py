"""Image classification on Keras 3: from images to a trained, measured, verified classifier.

The names below are loaded on first use (PEP 562), so that ``import kclassify`` and
``kclassify --help`` import neither TensorFlow nor Keras.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kclassify.checks import (
        DivergedError,
        InputError,
        StorageError,
        VerificationError,
        WorkerLostError,
    )
    from kclassify.compression.compress import Compression, compress
    from kclassify.config import FitConfig
    from kclassify.data.check import DataCheck, check
    from kclassify.data.datasets import Splits, make_datasets
    from kclassify.data.pack import Packed, pack
    from kclassify.evaluation.analyze import analyze
    from kclassify.evaluation.calibration import Calibration, calibrate
    from kclassify.evaluation.comparison import Comparison, compare
    from kclassify.evaluation.evaluate import Evaluation, evaluate
    from kclassify.evaluation.explanation import explain
    from kclassify.evaluation.label_errors import LabelErrors, find_label_errors
    from kclassify.evaluation.robustness import robustness
    from kclassify.models.registry import build_model
    from kclassify.reporting.report import report
    from kclassify.runs import Run
    from kclassify.search.results import Search
    from kclassify.search.tune import tune
    from kclassify.serving.classifier import Classifier, load
    from kclassify.serving.saved_model import export
    from kclassify.training.find_lr import find_lr
    from kclassify.training.fit import fit
    from kclassify.training.verify_run import verify_run

__version__ = "0.1.0"

_HOME = {
    "Calibration": "kclassify.evaluation.calibration",
    "Classifier": "kclassify.serving.classifier",
    "Comparison": "kclassify.evaluation.comparison",
    "Compression": "kclassify.compression.compress",
    "DataCheck": "kclassify.data.check",
    "DivergedError": "kclassify.checks",
    "Evaluation": "kclassify.evaluation.evaluate",
    "FitConfig": "kclassify.config",
    "InputError": "kclassify.checks",
    "LabelErrors": "kclassify.evaluation.label_errors",
    "Packed": "kclassify.data.pack",
    "Run": "kclassify.runs",
    "Search": "kclassify.search.results",
    "Splits": "kclassify.data.datasets",
    "StorageError": "kclassify.checks",
    "VerificationError": "kclassify.checks",
    "WorkerLostError": "kclassify.checks",
    "analyze": "kclassify.evaluation.analyze",
    "build_model": "kclassify.models.registry",
    "calibrate": "kclassify.evaluation.calibration",
    "check": "kclassify.data.check",
    "compare": "kclassify.evaluation.comparison",
    "compress": "kclassify.compression.compress",
    "evaluate": "kclassify.evaluation.evaluate",
    "explain": "kclassify.evaluation.explanation",
    "export": "kclassify.serving.saved_model",
    "find_label_errors": "kclassify.evaluation.label_errors",
    "find_lr": "kclassify.training.find_lr",
    "fit": "kclassify.training.fit",
    "load": "kclassify.serving.classifier",
    "make_datasets": "kclassify.data.datasets",
    "pack": "kclassify.data.pack",
    "report": "kclassify.reporting.report",
    "robustness": "kclassify.evaluation.robustness",
    "tune": "kclassify.search.tune",
    "verify_run": "kclassify.training.verify_run",
}

__all__ = [
    "Calibration",
    "Classifier",
    "Comparison",
    "Compression",
    "DataCheck",
    "DivergedError",
    "Evaluation",
    "FitConfig",
    "InputError",
    "LabelErrors",
    "Packed",
    "Run",
    "Search",
    "Splits",
    "StorageError",
    "VerificationError",
    "WorkerLostError",
    "analyze",
    "build_model",
    "calibrate",
    "check",
    "compare",
    "compress",
    "evaluate",
    "explain",
    "export",
    "find_label_errors",
    "find_lr",
    "fit",
    "load",
    "make_datasets",
    "pack",
    "report",
    "robustness",
    "tune",
    "verify_run",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'kclassify' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
