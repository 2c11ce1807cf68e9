"""The options of the `kclassify` command: read from the fields of the configuration."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from typing import Any

from kclassify.config import DATA_FIELDS, FitConfig
from kclassify.parsing import Parser, literal
from kclassify.presets import PRESETS

# The arguments of `compress` that are its techniques' or its teacher's.
COMPRESSION_OPTIONS = {
    "sparsity": "prune: share of the weights that become zero (0.8)",
    "criterion": "prune: magnitude (the default), gradient, random, largest; prune_filters: l1 "
    "(the default), l2, batch_norm, gradient (the default with parameters), random",
    "scope": "prune: the share is of all weights, global (the default), or of each layer",
    "ramp": "prune: cubic (the share rises while training, the default) or one_shot",
    "macs": "prune_filters: share of the multiply-accumulates that is left (0.5)",
    "parameters": "prune_filters: share of the parameters that is left, instead of macs",
    "energy": "low_rank: share of a kernel's squared singular values that is kept (0.95)",
    "scheme": "quantize: litert_int8 (the default), litert_dynamic, litert_float16, onnx_int8",
    "images": "quantize: training images whose activations say the ranges (500)",
    "shares": "clip: of a kernel's values within the limit, to try, such as 0.999,0.99",
    "teacher": "parent (the default), a run, a .keras file, several with commas between, or none",
    "temperature": "of the teacher: what logits are divided by (2)",
    "weight": "of the teacher: its share of the loss (0.5)",
    "match": "of the teacher: logits (the default) or features",
}
# The arguments of `tune` that are its own.
SEARCH_OPTIONS = {
    "tuner": "hyperband (the default), bayesian, random or grid",
    "max_trials": "how many at most (14)",
    "space": "a YAML or JSON file that says what may differ (by default what matters most)",
    "objective": "val_accuracy (the default), val_loss, accuracy or loss",
    "executions_per_trial": "trainings of each, with seeds of their own (1)",
    "time_budget": "such as 30m: how long all of it may take",
    "trial_time": "such as 90s: how long the whole training of a trial is (its epochs say)",
    "train_fraction": "train the trials on so much of the training images (1)",
    "directory": "where searches are kept (saved_models)",
    "project_name": "the name of this one's folder: the same command goes on with it",
    "workers": "run each trial in a process of its own, so many at once",
    "chief": "host:port, for a search on several machines that share the directory",
    "tuner_id": "who this is, with --chief: chief, or a name of its own",
}


def check_options(parser: Parser) -> None:
    """Add what `check` takes."""
    parser.add_argument(
        "data", help="a dataset's name, tfds:<name>, a folder, a CSV file or a run folder"
    )
    parser.add_argument("--seed", type=int, default=argparse.SUPPRESS, help="of the splits (0)")
    parser.add_argument("--data-dir", default=argparse.SUPPRESS, help="where TFDS keeps its data")
    parser.add_argument("--json", help="write all that was found to this file")
    parser.add_argument("--strict", action="store_true", help="fail on warnings too")


def pack_options(parser: Parser) -> None:
    """Add what `pack` takes."""
    parser.add_argument("data", help="a dataset's name, tfds:<name>, a folder, a CSV file or a URL")
    parser.add_argument(
        "out", help="a new folder, or one where the same command was begun; or s3://bucket/name"
    )
    parser.add_argument("--quiet", action="store_true", help="show nothing while it works")
    for item in fields(FitConfig):
        if item.name in ("seed", *DATA_FIELDS):
            _add_field(parser, item)


def fit_options(parser: Parser) -> None:
    """Add what `fit` takes."""
    _training_options(parser)
    parser.add_argument(
        "--run-dir", help="where to write, and where to go on: the same command resumes a run"
    )
    parser.add_argument(
        "--resume",
        default="auto",
        help="auto goes on with a run in --run-dir or begins one; never refuses a folder with a "
        "run, must one without",
    )
    _cluster_options(parser)


def _cluster_options(parser: Parser) -> None:
    parser.add_argument(
        "--cluster",
        help="host:port,host:port,... of several processes that do it together, or slurm; the "
        "first is the chief (what TF_CONFIG says)",
    )
    parser.add_argument("--worker", type=int, help="which of --cluster this process is, from 0")


def launch_options(parser: Parser) -> None:
    """Add what `launch` takes: a number, and the words of `fit` or `evaluate`."""
    parser.add_argument("--workers", type=int, default=2, help="how many processes (2)")
    parser.add_argument(
        "arguments", nargs="...", metavar="fit ...",
        help="the command that each of them runs: fit or evaluate",
    )  # fmt: skip


def _training_options(parser: Parser, *, but: Sequence[str] = ()) -> None:
    parser.add_argument("data", help="a dataset's name, tfds:<name>, a folder, a CSV file or a URL")
    parser.add_argument(
        "--preset",
        help=f"one of {', '.join(PRESETS)}; auto, with --time-budget, chooses (fast; for digits, "
        "digits)",
    )
    parser.add_argument("--quiet", action="store_true", help="show nothing while it trains")
    parser.epilog = (
        "An argument of the model is an option too, such as --depth 20: `kclassify models`."
    )
    group = parser.add_argument_group("configuration")
    for item in fields(FitConfig):
        if item.name not in ("model_args", *but):
            _add_field(group, item)


def _add_field(group: argparse._ActionsContainer, item: Field) -> None:
    name = "--" + item.name.replace("_", "-")
    help = f"{item.metadata['help']} ({_default(item)})"
    if item.type is bool:
        group.add_argument(
            name, action="store_true", default=argparse.SUPPRESS, help=item.metadata["help"]
        )
        return
    # Alone it says True; with a value, what the value says.
    lone: dict[str, Any] = {"nargs": "?", "const": True} if item.type == bool | None else {}
    choices = item.metadata["choices"]
    metavar = "{" + ",".join(choices) + "}" if choices else item.name.upper()
    group.add_argument(
        name, type=_reader(item), default=argparse.SUPPRESS, metavar=metavar, help=help, **lone
    )


def _default(item: Field) -> str:
    """Return the default of a field, and what the default preset makes of it."""
    changed = PRESETS["fast"].get(item.name)
    return f"{item.default}; preset fast: {changed}" if changed is not None else f"{item.default}"


def _reader(item: Field) -> Callable[[str], Any]:
    """Return the function that turns the text of an option into its field's value."""
    if item.name == "class_names":
        return lambda text: tuple(text.split(","))
    if item.name in ("data_dir", "data_service", "device", "memory_budget", "time_budget"):
        return str
    return literal


def run_option(parser: Parser) -> None:
    """Add a run folder."""
    parser.add_argument("run", help="a run folder, as `kclassify fit` writes it")


def _tta_option(parser: Parser) -> None:
    help = "test-time augmentation, the mean over views of an image: none, flip or flip_shift"
    parser.add_argument("--tta", default="none", help=help)


def evaluate_options(parser: Parser) -> None:
    """Add what `evaluate` takes."""
    run_option(parser)
    parser.add_argument("--split", default="test", help="train, validation or test (the default)")
    parser.add_argument("--data", help="other images to evaluate on: a folder or a CSV file")
    _tta_option(parser)
    _deciding_options(parser)
    parser.add_argument("--batch-size", type=int, default=256, help="images at a time")
    _cluster_options(parser)


def _deciding_options(parser: Parser) -> None:
    parser.add_argument(
        "--abstain-at", type=_assignment, metavar="accuracy=0.99",
        help="withhold the answers that are not sure enough for that, as validation guarantees",
    )  # fmt: skip
    parser.add_argument(
        "--label-sets", type=literal, metavar="0.9",
        help="also make sets of labels, which hold the right one in such a share of the images",
    )  # fmt: skip


def _assignment(text: str) -> dict[str, Any]:
    """Return the mapping that ``name=value`` says."""
    name, _, value = text.partition("=")
    return {name: literal(value)}


def calibrate_options(parser: Parser) -> None:
    """Add what `calibrate` takes."""
    run_option(parser)
    _tta_option(parser)
    parser.add_argument("--data", help="the data, where the run's own cannot be loaded again")


def compare_options(parser: Parser) -> None:
    """Add what `compare` takes."""
    parser.add_argument("runs", nargs="+", metavar="run", help="two run folders or more")
    parser.add_argument("--split", default="test", help="train, validation or test (the default)")


def analyze_options(parser: Parser) -> None:
    """Add what `analyze` takes."""
    run_option(parser)
    parser.add_argument(
        "--parts",
        help="comma-separated: explanation, learned, slices, out_of_distribution, cost (these), "
        "robustness",
    )
    parser.add_argument("--data", help="the data, where the run's own cannot be loaded again")
    parser.add_argument("--by", help="a column of the table in --data to make slices by")
    parser.add_argument("--against", help="images of another kind, to be told apart from these")


def robustness_options(parser: Parser) -> None:
    """Add what `robustness` takes."""
    run_option(parser)
    parser.add_argument("--data", help="the data, where the run's own cannot be loaded again")
    parser.add_argument("--images", type=int, help="how many at most (all)")
    parser.add_argument("--cifar10-c", help="the folder of CIFAR-10-C, instead of images made here")
    parser.add_argument("--baseline", help="a run whose errors count as 1, as in the paper")
    parser.add_argument("--no-attacks", action="store_true", help="leave out FGSM and PGD")


def label_errors_options(parser: Parser) -> None:
    """Add what `label-errors` takes: all that `fit` does, for each of its trainings."""
    _training_options(parser)
    parser.add_argument("--folds", type=int, default=5, help="trainings, each without a part (5)")
    parser.add_argument("--run", help="a run on the same data, whose report shows what is found")
    parser.add_argument("--directory", help="where the trainings are kept; the same goes on")


def explain_options(parser: Parser) -> None:
    """Add what `explain` takes."""
    run_option(parser)
    parser.add_argument("images", nargs="*", help="image files or folders (the worst errors)")
    parser.add_argument("--method", default="grad_cam", help="how (grad_cam)")
    parser.add_argument("--data", help="the data, where the run's own cannot be loaded again")


def verify_options(parser: Parser) -> None:
    """Add what `verify-run` takes."""
    run_option(parser)
    parser.add_argument("--data", help="the data, where it has been moved")


def export_options(parser: Parser) -> None:
    """Add what `export` takes."""
    run_option(parser)
    parser.add_argument(
        "--formats", default="saved_model", help="comma-separated: saved_model, onnx, litert"
    )
    _tta_option(parser)
    _deciding_options(parser)
    parser.add_argument("--version", type=int, dest="number", help="default: the next one")


def predict_options(parser: Parser) -> None:
    """Add what `predict` takes."""
    parser.add_argument(
        "model", help="a SavedModel, a run folder or a .keras, .onnx or .tflite file"
    )
    parser.add_argument("images", nargs="+", help="image files or folders")
    parser.add_argument("--top-k", type=int, default=3, help="how many classes to name")
    parser.add_argument("--csv", help="write the table to this file instead of printing it")


def no_options(parser: Parser) -> None:
    """Add nothing: the verb takes no arguments."""


def compress_options(parser: Parser) -> None:
    """Add what `compress` takes: what its techniques do, and the fields of a training."""
    run_option(parser)
    parser.add_argument(
        "--technique",
        help="one alone: prune, prune_filters, low_rank, distill, clip or quantize; without it "
        "narrower networks and files of 8-bit numbers are tried until one loses too much",
    )
    parser.add_argument(
        "--max-drop", type=float, default=0.005, help="the most accuracy that may be lost (0.005)"
    )
    parser.add_argument("--run-dir", help="where to write (beside the run); the same goes on")
    parser.add_argument("--data", help="the data, where the run's own cannot be loaded again")
    parser.add_argument("--quiet", action="store_true", help="show nothing while it works")
    group = parser.add_argument_group("techniques")
    for name, help in COMPRESSION_OPTIONS.items():
        reader = {"teacher": _names, "shares": _values}.get(name, literal)
        group.add_argument(f"--{name}", type=reader, default=argparse.SUPPRESS, help=help)
    training = parser.add_argument_group("training")
    for item in fields(FitConfig):
        if item.name not in ("model_args", "ema", *DATA_FIELDS):
            _add_field(training, item)


def _names(text: str) -> str | list[str]:
    """Return what stands between commas, or the only one of them: a folder may be called 2024."""
    names = text.split(",")
    return names if len(names) > 1 else text


def _values(text: str) -> list[Any]:
    """Return what stands between commas."""
    return [literal(part) for part in text.split(",")]


def tune_options(parser: Parser) -> None:
    """Add what `tune` takes; its time budget is the search's, not a trial's."""
    _training_options(parser, but=("time_budget",))
    group = parser.add_argument_group("search")
    for name, help in SEARCH_OPTIONS.items():
        kind = int if name in ("max_trials", "executions_per_trial", "workers") else str
        option = "--" + name.replace("_", "-")
        group.add_argument(option, type=kind, default=argparse.SUPPRESS, help=help)


def find_lr_options(parser: Parser) -> None:
    """Add what `find-lr` takes."""
    _training_options(parser)
    parser.add_argument("--steps", type=int, help="how many at most (two passes, 100 to 300 steps)")
    parser.add_argument("--out", default="find-lr.png", help="the curve; its table goes beside it")


def bench_options(parser: Parser) -> None:
    """Add what `bench` takes."""
    parser.add_argument("what", help="devices: measure each, and recommend one")
    parser.add_argument("--device", help="this one alone, such as cpu or gpu:1")
    parser.add_argument("--preset", default="fast", help="whose network (fast)")
    parser.add_argument("--image-size", type=int, default=32, help="pixels (32)")
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=(32, 128, 512), help="to try (32 128 512)"
    )
    parser.add_argument("--quick", action="store_true", help="measure for a shorter time")
