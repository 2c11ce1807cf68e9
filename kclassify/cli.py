"""The `kclassify` command: a verb parses, makes one library call and prints; no logic here."""

import argparse
import ast
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, NoReturn

from kclassify import __version__, runtime
from kclassify.atomic import replacing
from kclassify.checks import (
    InputError,
    StorageError,
    VerificationError,
    check_choice,
    check_output_file,
    check_some_read,
    nearest,
    printable,
)
from kclassify.config import FitConfig
from kclassify.data.sources import DATASETS
from kclassify.models.registry import MODELS
from kclassify.presets import PRESETS
from kclassify.spreadsheet import write_csv

FAILED, USER_ERROR = 1, 2
INTERRUPTED, TERMINATED = 130, 143
# Their options are the fields of `FitConfig` and the model's own arguments.
TRAINING_VERBS = ("fit", "find-lr")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    0, 1 (a failed check, a full disk), 2 (a user's mistake), 130 (Ctrl-C) or 143 (SIGTERM).
    """
    if threading.current_thread() is threading.main_thread():
        # Without it SIGTERM would leave temporary files behind.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        options = _parse(sys.argv[1:] if arguments is None else list(arguments))
        code = options.verb(options)
    except InputError as error:
        _complain(f"error: {error}")
        return USER_ERROR
    except VerificationError as error:
        _complain(f"verification failed: {error}")
        return FAILED
    except StorageError as error:
        _complain(f"error: {error}")
        return FAILED
    except KeyboardInterrupt as stop:
        _complain(f"interrupted{stop}")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has closed; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code or 0


def _show(value: object) -> None:
    print(printable(str(value)))


def _complain(text: str) -> None:
    print(printable(f"kclassify: {text}"), file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are `InputError`s that name the nearest option."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}. Run `{self.prog} --help`.")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser, verbs = _parser()
    options, rest = parser.parse_known_args(arguments)
    verb = verbs[options.verb_name]
    if options.verb_name in TRAINING_VERBS:
        options.config = _given_fields(options) | _model_options(verb, rest)
    elif rest:
        _refuse(verb, rest[0])
    return options


def _parser() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(
        prog="kclassify", allow_abbrev=False, description="Image classification on Keras 3."
    )
    parser.add_argument("--version", action="version", version=f"kclassify {__version__}")
    subparsers = parser.add_subparsers(dest="verb_name", metavar="VERB", required=True)
    verbs = {}
    for name, (verb, help, add_options) in VERBS.items():
        verbs[name] = subparsers.add_parser(name, help=help, description=help, allow_abbrev=False)
        verbs[name].set_defaults(verb=verb)
        add_options(verbs[name])
    return parser, verbs


def _refuse(verb: _Parser, word: str) -> NoReturn:
    known = [name for action in verb._actions for name in action.option_strings]
    if verb.prog.removeprefix("kclassify ") in TRAINING_VERBS:
        known += [f"--{name.replace('_', '-')}" for name in _model_arguments()]
    option = word.split("=")[0]
    raise InputError(
        f"`{verb.prog}` must get options that it has. Received: {option!r}."
        f"{nearest(option, known)} Run `{verb.prog} --help`."
    )


def _model_options(verb: _Parser, rest: list[str]) -> dict[str, Any]:
    """Return the model's own arguments: what is left of the form ``--name value``."""
    words = [part for word in rest for part in (word.split("=", 1) if "--" in word else [word])]
    known = _model_arguments()
    found = {}
    while words:
        name = words.pop(0).removeprefix("--").replace("-", "_")
        if name not in known or not words:
            _refuse(verb, f"--{name.replace('_', '-')}")
        found[name] = _literal(words.pop(0))
    return found


def _model_arguments() -> set[str]:
    return {name for model in MODELS.values() for name in model.arguments}


def _literal(text: str) -> Any:
    """Return a number, True, None or a tuple that is written as in Python; otherwise the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _given_fields(options: argparse.Namespace) -> dict[str, Any]:
    names = [item.name for item in fields(FitConfig)]
    return {name: getattr(options, name) for name in names if hasattr(options, name)}


def _check_options(parser: _Parser) -> None:
    parser.add_argument(
        "data", help="a dataset's name, tfds:<name>, a folder, a CSV file or a run folder"
    )
    parser.add_argument("--seed", type=int, default=argparse.SUPPRESS, help="of the splits (0)")
    parser.add_argument("--data-dir", default=argparse.SUPPRESS, help="where TFDS keeps its data")
    parser.add_argument("--json", help="write all that was found to this file")
    parser.add_argument("--strict", action="store_true", help="fail on warnings too")


def _fit_options(parser: _Parser) -> None:
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


def _training_options(parser: _Parser) -> None:
    parser.add_argument("data", help="a dataset's name, tfds:<name>, a folder or a CSV file")
    parser.add_argument(
        "--preset", help=f"one of {', '.join(PRESETS)}; auto, with --time-budget, chooses"
    )
    parser.add_argument("--quiet", action="store_true", help="show nothing while it trains")
    parser.epilog = (
        "An argument of the model is an option too, such as --depth 20: `kclassify models`."
    )
    group = parser.add_argument_group("configuration")
    for item in fields(FitConfig):
        if item.name != "model_args":
            _add_field(group, item)


def _add_field(group: argparse._ArgumentGroup, item: Field) -> None:
    name = "--" + item.name.replace("_", "-")
    help = f"{item.metadata['help']} ({item.default} unless the preset says otherwise)"
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


def _reader(item: Field) -> Callable[[str], Any]:
    """Return the function that turns the text of an option into its field's value."""
    if item.name == "class_names":
        return lambda text: tuple(text.split(","))
    if item.name in ("data_dir", "device", "memory_budget", "time_budget"):
        return str
    return _literal


def _run_option(parser: _Parser) -> None:
    parser.add_argument("run", help="a run folder, as `kclassify fit` writes it")


def _tta_option(parser: _Parser) -> None:
    help = "test-time augmentation, the mean over views of an image: none, flip or flip_shift"
    parser.add_argument("--tta", default="none", help=help)


def _evaluate_options(parser: _Parser) -> None:
    _run_option(parser)
    parser.add_argument("--split", default="test", help="train, validation or test (the default)")
    parser.add_argument("--data", help="other images to evaluate on: a folder or a CSV file")
    _tta_option(parser)
    parser.add_argument("--batch-size", type=int, default=256, help="images at a time")


def _verify_options(parser: _Parser) -> None:
    _run_option(parser)
    parser.add_argument("--data", help="the data, where it has been moved")


def _export_options(parser: _Parser) -> None:
    _run_option(parser)
    parser.add_argument(
        "--formats", default="saved_model", help="comma-separated: saved_model, onnx, litert"
    )
    _tta_option(parser)
    parser.add_argument("--version", type=int, dest="number", help="default: the next one")


def _predict_options(parser: _Parser) -> None:
    parser.add_argument(
        "model", help="a SavedModel, a run folder or a .keras, .onnx or .tflite file"
    )
    parser.add_argument("images", nargs="+", help="image files or folders")
    parser.add_argument("--top-k", type=int, default=3, help="how many classes to name")
    parser.add_argument("--csv", help="write the table to this file instead of printing it")


def _no_options(parser: _Parser) -> None:
    """Add nothing: the verb takes no arguments."""


def _fit(options: argparse.Namespace) -> None:
    from kclassify.training.fit import fit

    run = fit(
        options.data,
        preset=options.preset,
        run_dir=options.run_dir,
        resume=options.resume,
        verbose=not options.quiet,
        **options.config,
    )
    _show(f"next: kclassify evaluate {run}")


def _check(options: argparse.Namespace) -> int:
    from kclassify.data.check import check

    if options.json:
        check_output_file("json", options.json)
    found = check(options.data, **_given_fields(options))
    if options.json:
        with replacing(Path(options.json)) as beside:
            beside.write_text(json.dumps(found.to_json(), indent=2) + "\n", "utf-8")
    _show(found)
    wrong = ("error", "warning") if options.strict else ("error",)
    return FAILED if any(finding.severity in wrong for finding in found.findings) else 0


def _evaluate(options: argparse.Namespace) -> None:
    from kclassify.evaluation.evaluate import evaluate

    found = evaluate(
        options.run,
        split=options.split,
        data=options.data,
        tta=options.tta,
        batch_size=options.batch_size,
    )
    _show(found)
    _show(f"next: kclassify report {options.run}")


def _verify_run(options: argparse.Namespace) -> None:
    from kclassify.training.verify_run import verify_run

    _show(verify_run(options.run, data=options.data))


def _report(options: argparse.Namespace) -> None:
    from kclassify.reporting.report import report

    _show(report(options.run))


def _export(options: argparse.Namespace) -> None:
    from kclassify.serving.saved_model import export

    formats = tuple(options.formats.split(","))
    path = export(options.run, formats=formats, tta=options.tta, version=options.number)
    _show(path)
    _show(f"next: kclassify predict {path} IMAGE ...")


def _predict(options: argparse.Namespace) -> None:
    from kclassify.serving.classifier import load

    if options.csv:
        check_output_file("csv", options.csv)
    table = load(options.model).predict(options.images, top_k=options.top_k)
    if options.csv:
        write_csv(table, options.csv, index=False)
        _show(options.csv)
    else:
        _show(table.to_string(index=False, na_rep=""))
    check_some_read(table["error"])


def _find_lr(options: argparse.Namespace) -> None:
    from kclassify.training.find_lr import find_lr

    found = find_lr(
        options.data,
        preset=options.preset,
        steps=options.steps,
        out=options.out,
        verbose=not options.quiet,
        **options.config,
    )
    _show(found)
    _show(f"curve in {options.out}")
    _show(
        f"next: kclassify fit {options.data}, with the same options and "
        f"--batch-size {found.batch_size} --learning-rate {found.learning_rate:.2g}"
    )


def _bench(options: argparse.Namespace) -> None:
    from kclassify.training.devices import bench_devices

    check_choice("what", options.what, ["devices"])
    found = bench_devices(
        device=options.device,
        preset=options.preset,
        image_size=options.image_size,
        batch_sizes=options.batch_sizes,
        quick=options.quick,
    )
    _show(found)


def _datasets(_: argparse.Namespace) -> None:
    for name, dataset in DATASETS.items():
        _show(f"{name:10} {dataset.description} (preset {dataset.preset})")
    _show("or tfds:<name>, a folder of class folders, a CSV file with the columns path and label")


def _models(_: argparse.Namespace) -> None:
    from kclassify.models.cost import count_macs, count_parameters
    from kclassify.models.registry import build_model

    _show(f"{'model':14}{'parameters':>12}{'MACs':>16}  at 32x32x3, 10 classes")
    for name, entry in MODELS.items():
        model = build_model(name, input_shape=(32, 32, 3), num_classes=10)
        _show(f"{name:14}{count_parameters(model):12,}{count_macs(model):16,}  {entry.description}")
        _show(f"{'':44}arguments: {', '.join(entry.arguments)}")


def _presets(_: argparse.Namespace) -> None:
    for name, values in PRESETS.items():
        differences = ", ".join(f"{key}={value!r}" for key, value in values.items())
        _show(f"{name:10} {differences or 'the defaults'}")


def _info(_: argparse.Namespace) -> None:
    facts = runtime.environment()
    for name in ("python", "platform", "processor", "cpu_count"):
        _show(f"{name:26} {facts[name]}")
    for package, version in facts["packages"].items():
        _show(f"{package:26} {version or 'not installed'}")
    for setting in runtime.settings():
        _show(f"{setting.name:26} {setting.value} (by {setting.by}): {setting.reason}")


def _find_lr_options(parser: _Parser) -> None:
    _training_options(parser)
    parser.add_argument("--steps", type=int, help="how many at most (two passes, 100 to 300 steps)")
    parser.add_argument("--out", default="find-lr.png", help="the curve; its table goes beside it")


def _bench_options(parser: _Parser) -> None:
    parser.add_argument("what", help="devices: measure each, and recommend one")
    parser.add_argument("--device", help="this one alone, such as cpu or gpu:1")
    parser.add_argument("--preset", default="fast", help="whose network (fast)")
    parser.add_argument("--image-size", type=int, default=32, help="pixels (32)")
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=(32, 128, 512), help="to try (32 128 512)"
    )
    parser.add_argument("--quick", action="store_true", help="measure for a shorter time")


VERBS: dict[str, tuple[Callable, str, Callable]] = {
    "check": (_check, "look for what is wrong with images and labels", _check_options),
    "fit": (_fit, "train a classifier, or go on with a training", _fit_options),
    "evaluate": (_evaluate, "measure a run on its test split", _evaluate_options),
    "report": (_report, "write an evaluated run's report.html and report.md", _run_option),
    "export": (_export, "write a verified SavedModel of a run", _export_options),
    "find-lr": (_find_lr, "propose a learning rate by a range test", _find_lr_options),
    "bench": (_bench, "measure devices, threads and batch sizes", _bench_options),
    "verify-run": (_verify_run, "train a run's first steps again, and compare", _verify_options),
    "predict": (_predict, "label images with an exported model", _predict_options),
    "datasets": (_datasets, "list the datasets that have a name", _no_options),
    "models": (_models, "list the models with their parameters and MACs", _no_options),
    "presets": (_presets, "list the presets and what they change", _no_options),
    "info": (_info, "print versions, machine, and what was set and why", _no_options),
}
