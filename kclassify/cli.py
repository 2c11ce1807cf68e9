"""The `kclassify` command: a verb parses, makes one library call and prints; no logic here."""

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from kclassify import runtime
from kclassify.atomic import replacing
from kclassify.checks import (
    InputError,
    StorageError,
    VerificationError,
    WorkerLostError,
    check_choice,
    check_number,
    check_output_file,
    check_some_read,
    printable,
)
from kclassify.data.sources import DATASETS
from kclassify.models.registry import MODELS
from kclassify.options import (
    COMPRESSION_OPTIONS,
    SEARCH_OPTIONS,
    analyze_options,
    bench_options,
    calibrate_options,
    check_options,
    compare_options,
    compress_options,
    evaluate_options,
    explain_options,
    export_options,
    find_lr_options,
    fit_options,
    label_errors_options,
    launch_options,
    no_options,
    pack_options,
    predict_options,
    robustness_options,
    run_option,
    tune_options,
    verify_options,
)
from kclassify.parsing import given_fields, parse
from kclassify.presets import PRESETS
from kclassify.spreadsheet import write_csv

FAILED, USER_ERROR = 1, 2
INTERRUPTED, TERMINATED = 130, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    0, 1 (a failed check, a full disk), 2 (a user's mistake), 130 (Ctrl-C) or 143 (SIGTERM).
    """
    if threading.current_thread() is threading.main_thread():
        # Without it SIGTERM would leave temporary files behind.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        options = parse(sys.argv[1:] if arguments is None else list(arguments), VERBS)
        code = options.verb(options)
    except InputError as error:
        _complain(f"error: {error}")
        return USER_ERROR
    except VerificationError as error:
        _complain(f"verification failed: {error}")
        return FAILED
    except (StorageError, WorkerLostError) as error:
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


def _fit(options: argparse.Namespace) -> None:
    from kclassify.training.fit import fit

    run = fit(
        options.data,
        preset=options.preset,
        run_dir=options.run_dir,
        resume=options.resume,
        verbose=not options.quiet,
        cluster=options.cluster,
        worker=options.worker,
        **options.config,
    )
    _show(f"next: kclassify evaluate {run}")


def _launch(options: argparse.Namespace) -> int:
    from kclassify.training.launch import launch

    return launch(options.arguments, workers=options.workers)


def _pack(options: argparse.Namespace) -> None:
    from kclassify.data.pack import pack

    _show(pack(options.data, options.out, verbose=not options.quiet, **given_fields(options)))
    _show(f"next: kclassify fit {options.out}")


def _check(options: argparse.Namespace) -> int:
    from kclassify.data.check import check

    if options.json:
        check_output_file("json", options.json)
    found = check(options.data, **given_fields(options))
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
        abstain_at=options.abstain_at,
        label_sets=options.label_sets,
        batch_size=options.batch_size,
        cluster=options.cluster,
        worker=options.worker,
    )
    _show(found)
    _show(f"next: kclassify report {options.run}")


def _calibrate(options: argparse.Namespace) -> None:
    from kclassify.evaluation.calibration import calibrate

    _show(calibrate(options.run, tta=options.tta, data=options.data))
    _show(f"next: kclassify evaluate {options.run} --tta {options.tta}")


def _compare(options: argparse.Namespace) -> None:
    from kclassify.evaluation.comparison import compare

    check_number("run", options.runs, expected="two run folders or more", ok=len(options.runs) > 1)
    _show(compare(*options.runs, split=options.split))
    _show(f"next: kclassify report {options.runs[-1]}")


def _compress(options: argparse.Namespace) -> None:
    from kclassify.compression.compress import compress

    own = {name: getattr(options, name) for name in COMPRESSION_OPTIONS if hasattr(options, name)}
    found = compress(
        options.run,
        technique=options.technique,
        max_drop=options.max_drop,
        run_dir=options.run_dir,
        data=options.data,
        verbose=not options.quiet,
        **{**options.config, **own},
    )
    _show(found)
    _show(f"next: kclassify export {found.run}")


def _analyze(options: argparse.Namespace) -> None:
    from kclassify.evaluation.analyze import USUAL, analyze

    own = {"slices": {"by": options.by}, "out_of_distribution": {"against": options.against}}
    parts = options.parts.split(",") if options.parts else USUAL
    for found in analyze(options.run, parts=parts, options=own, data=options.data).values():
        _show(f"{found}\n")
    _show(f"next: kclassify report {options.run}")


def _robustness(options: argparse.Namespace) -> None:
    from kclassify.evaluation.robustness import robustness

    _show(
        robustness(
            options.run,
            images=options.images,
            cifar10_c=options.cifar10_c,
            baseline=options.baseline,
            attacks=not options.no_attacks,
            data=options.data,
        )
    )
    _show(f"next: kclassify report {options.run}")


def _label_errors(options: argparse.Namespace) -> None:
    from kclassify.evaluation.label_errors import find_label_errors

    given = {} if options.preset is None else {"preset": options.preset}
    found = find_label_errors(
        options.data,
        folds=options.folds,
        run=options.run,
        directory=options.directory,
        verbose=not options.quiet,
        **{**given, **options.config},
    )
    _show(found)
    if options.run:
        _show(f"next: kclassify report {options.run}")


def _explain(options: argparse.Namespace) -> None:
    from kclassify.evaluation.explanation import explain

    images = options.images or None
    _show(explain(options.run, images=images, method=options.method, data=options.data))
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
    path = export(
        options.run,
        formats=formats,
        tta=options.tta,
        abstain_at=options.abstain_at,
        label_sets=options.label_sets,
        version=options.number,
    )
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


def _tune(options: argparse.Namespace) -> None:
    from kclassify.search.tune import tune

    named = {name: getattr(options, name) for name in SEARCH_OPTIONS if hasattr(options, name)}
    tune(
        options.data,
        preset=options.preset,
        verbose=not options.quiet,
        **{**options.config, **named},
    )


VERBS: dict[str, tuple[Callable, str, Callable]] = {
    "check": (_check, "look for what is wrong with images and labels", check_options),
    "pack": (_pack, "write images as files that are read as a stream", pack_options),
    "fit": (_fit, "train a classifier, or go on with a training", fit_options),
    "launch": (_launch, "run fit in several processes that train together", launch_options),
    "evaluate": (_evaluate, "measure a run on its test split", evaluate_options),
    "calibrate": (_calibrate, "fit the temperature of a run's probabilities", calibrate_options),
    "compare": (_compare, "test whether one run is better than another", compare_options),
    "compress": (_compress, "make a run smaller within a loss you state", compress_options),
    "analyze": (_analyze, "look at an evaluated run from all sides", analyze_options),
    "robustness": (_robustness, "measure a run on worse images", robustness_options),
    "label-errors": (_label_errors, "find labels that are wrong", label_errors_options),
    "explain": (_explain, "show what a run's answers depend on", explain_options),
    "report": (_report, "write an evaluated run's report.html and report.md", run_option),
    "export": (_export, "write a verified SavedModel of a run", export_options),
    "find-lr": (_find_lr, "propose a learning rate by a range test", find_lr_options),
    "bench": (_bench, "measure devices, threads and batch sizes", bench_options),
    "verify-run": (_verify_run, "train a run's first steps again, and compare", verify_options),
    "tune": (_tune, "search for the configuration that does best", tune_options),
    "predict": (_predict, "label images with an exported model", predict_options),
    "datasets": (_datasets, "list the datasets that have a name", no_options),
    "models": (_models, "list the models with their parameters and MACs", no_options),
    "presets": (_presets, "list the presets and what they change", no_options),
    "info": (_info, "print versions, machine, and what was set and why", no_options),
}
