import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kclassify import cli
from kclassify.checks import StorageError, VerificationError


def run_cli(*arguments):
    return cli.main([str(argument) for argument in arguments])


def exit_code(*arguments):
    try:
        return run_cli(*arguments)
    except SystemExit as stop:
        return stop.code


@pytest.fixture
def folder(tmp_path):
    """Class folders of twelve images each, and their path."""
    rng = np.random.default_rng(0)
    for label in ("dark", "light"):
        place = tmp_path / "images" / label
        place.mkdir(parents=True)
        for n in range(12):
            pixels = rng.integers(0, 100, (8, 8, 3)) + (120 if label == "light" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(place / f"{n}.png")
    return tmp_path / "images"


SMALL = (
    "--model",
    "convnet",
    "--filters",
    4,
    "--depth",
    1,
    "--epochs",
    1,
    "--batch-size",
    4,
    "--run-dir",
    "r",
)


def test_the_whole_way_from_a_folder(folder, capsys):
    assert run_cli("fit", folder, *SMALL, "--learning-rate", "0.01") == 0
    assert "next: kclassify evaluate r" in capsys.readouterr().out
    assert run_cli("evaluate", "r") == 0
    assert "accuracy" in capsys.readouterr().out
    assert run_cli("report", "r") == 0
    assert "report.html" in capsys.readouterr().out
    assert run_cli("export", "r") == 0
    assert run_cli("predict", "r/export/1", folder / "dark", "--csv", "out.csv") == 0
    table = pd.read_csv("out.csv")
    assert len(table) == 12
    assert set(table["label"]) <= {"dark", "light"}


@pytest.mark.slow
def test_what_can_be_asked_of_a_run(folder, capsys):
    for name in ("r", "other"):
        small = [name if word == "r" else word for word in SMALL]
        assert run_cli("fit", folder, *small) == 0
        assert run_cli("evaluate", name) == 0
    for words, shown in (
        (("compare", "r", "other"), "cannot be told apart"),
        (("analyze", "r", "--parts", "slices"), "left out"),
        (("robustness", "r", "--images", "2", "--no-attacks"), "gaussian_noise"),
        (("explain", "r"), "grad_cam"),
        (("label-errors", folder, "--run", "r", "--folds", "2", "--quiet"), "suggested"),
    ):
        capsys.readouterr()
        assert run_cli(*words) == 0, capsys.readouterr().err
        assert shown in capsys.readouterr().out
    assert run_cli("report", "r") == 0
    page = Path("r/report.html").read_text()
    for title in ("Slices", "Explanation", "Robustness", "Label errors"):
        assert f"<h2>{title}</h2>" in page
    # There are too few validation images for a temperature.
    capsys.readouterr()
    assert run_cli("calibrate", "r") == 2
    assert "at least 50" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evalute", "r"), "Did you mean 'evaluate'"),
        (("fit", "digts"), "Did you mean 'digits'"),
        (("fit", "digits", "--epoch", "3"), "Did you mean '--epochs'"),
        (("fit", "digits", "--epochs", "0"), "`epochs`"),
        (("fit", "digits", "--epochs", "many"), "`epochs`"),
        (("fit", "digits", "--learning-rate", "-1"), "`learning_rate`"),
        (("fit", "digits", "--preset", "tutrial"), "Did you mean 'tutorial'"),
        (("fit", "digits", "--model", "resnt"), "Did you mean 'resnet'"),
        (("fit", "digits", "--dept", "3"), "Did you mean '--depth'"),
        (("fit", "digits", "--width", "3"), "an argument of wide_resnet"),
        (("fit", "digits", "--batch-size", "5000"), "`batch_size`"),
        (("fit", "no/such/folder"), "no/such/folder"),
        (("fit",), "data"),
        (("evaluate", "nothing-here"), "no folder"),
        (("evaluate", "nothing-here", "--splt", "test"), "Did you mean '--split'"),
        (("report", "nothing-here"), "no folder"),
        (("export", "nothing-here"), "no folder"),
        (("predict", "nothing-here", "x.png"), "nothing-here"),
        (("info", "--all"), "options that it has"),
        (("fit", "digits", "--time-budget", "soon"), "`time_budget`"),
        (("fit", "digits", "--time-budget", "0.01s"), "`time_budget` must be at least"),
        (("fit", "digits", "--preset", "auto"), "Give a time too"),
        (("fit", "digits", "--device", "tpu"), "`device`"),
        (("find-lr", "digits", "--steps", "2"), "`steps`"),
        (("find-lr", "digits", "--epoch", "2"), "Did you mean '--epochs'"),
        (("find-lr", "digits", "--out", "curve.csv"), "`out`"),
        (("bench", "networks"), "`what` must be one of"),
        (("bench", "devices", "--device", "gpu:5"), "`device`"),
    ],
    ids=str,
)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments, message, capsys, tmp_path):
    assert run_cli(*arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("kclassify: error: ")
    assert message in shown
    assert "Traceback" not in shown
    assert list(tmp_path.iterdir()) == []


def test_find_lr_draws_and_proposes(capsys, tmp_path):
    small = ("--filters", "4", "--batch-size", "16", "--quiet")
    assert run_cli("find-lr", "digits", "--steps", "30", *small) == 0
    shown = capsys.readouterr()
    assert "recommended" in shown.out
    assert "with the same options and --batch-size 16 --learning-rate" in shown.out
    assert shown.err == ""
    assert {path.name for path in tmp_path.iterdir()} == {"find-lr.png", "find-lr.csv"}


def test_bench_devices_hands_on_what_it_is_told(monkeypatch, capsys):
    seen = []

    def bench(**given):
        seen.append(given)
        return "the table"

    monkeypatch.setattr("kclassify.training.devices.bench_devices", bench)
    options = ("--device", "cpu", "--image-size", "64", "--batch-sizes", "8", "16", "--quick")
    assert run_cli("bench", "devices", *options) == 0
    assert "the table" in capsys.readouterr().out
    assert seen == [
        {"device": "cpu", "preset": "fast", "image_size": 64, "batch_sizes": [8, 16], "quick": True}
    ]


def test_info_says_by_whom_and_why(monkeypatch, capsys):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    assert run_cli("info") == 0
    shown = capsys.readouterr().out
    assert "threads                    3 (by your environment): TF_NUM_INTRAOP_THREADS" in shown
    assert "precision on this CPU" in shown


def test_mixed_precision_alone_says_true(monkeypatch):
    seen = []
    monkeypatch.setattr("kclassify.training.fit.fit", lambda *_, **given: seen.append(given))
    run_cli("fit", "digits", "--mixed-precision")
    run_cli("fit", "digits", "--mixed-precision", "False", "--progressive", "0.5,1")
    assert seen[0]["mixed_precision"] is True
    assert seen[1]["mixed_precision"] is False
    assert seen[1]["progressive"] == (0.5, 1)


def test_a_failed_verification_is_exit_code_1(monkeypatch, capsys):
    def fail(*_, **__):
        raise VerificationError("class ids differ")

    monkeypatch.setattr("kclassify.serving.saved_model.export", fail)
    assert run_cli("export", "r") == 1
    assert "class ids differ" in capsys.readouterr().err


def test_ctrl_c_is_exit_code_130(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("kclassify.runtime.environment", interrupt)
    assert run_cli("info") == 130


@pytest.mark.parametrize("verb", ["datasets", "models", "presets", "info"])
def test_the_lists_print(verb, capsys):
    assert run_cli(verb) == 0
    shown = capsys.readouterr().out
    expected = {"datasets": "cifar10", "models": "62,006", "presets": "tutorial", "info": "keras"}
    assert expected[verb] in shown


@pytest.mark.parametrize("verb", ["", *cli.VERBS])
def test_help_is_there_for_every_verb(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        run_cli(*([verb] if verb else []), "--help")
    assert stop.value.code == 0
    assert "usage: kclassify" in capsys.readouterr().out


@pytest.mark.parametrize(
    "code",
    [
        "import kclassify; dir(kclassify)",
        "from kclassify.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from kclassify.cli import main\ntry: main(['fit', '--help'])\nexcept SystemExit: pass",
    ],
)
def test_neither_import_nor_help_loads_tensorflow(code):
    heavy = "{'tensorflow', 'keras', 'pandas', 'sklearn', 'matplotlib'} & set(sys.modules)"
    code = f"import sys\n{code}\nassert not {heavy}, {heavy}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_python_dash_m_works():
    done = subprocess.run(
        [sys.executable, "-m", "kclassify", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("kclassify 0.")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_fit_that_is_asked_to_stop_says_how_to_go_on(folder, monkeypatch, capsys, number, code):
    from kclassify.training.resume import ResumableCallbacks

    begin = ResumableCallbacks.on_epoch_begin
    with monkeypatch.context() as patch:
        patch.setattr(
            ResumableCallbacks, "on_epoch_begin",
            lambda *given: (begin(*given), os.kill(os.getpid(), number)),
        )  # fmt: skip
        patch.setattr("kclassify.training.session.IMAGES_PER_EXECUTION", 1)
        assert exit_code("fit", folder, *SMALL) == code
    assert "r is saved; the same with --run-dir r goes on from there" in capsys.readouterr().err
    assert run_cli("fit", folder, *SMALL) == 0
    assert "resuming  after step" in capsys.readouterr().out


def test_a_full_disk_is_exit_code_1(monkeypatch, capsys):
    def full(*_, **__):
        raise StorageError("no space is left on the disk for 'r'.")

    monkeypatch.setattr("kclassify.training.fit.fit", full)
    assert run_cli("fit", "digits") == 1
    assert capsys.readouterr().err == "kclassify: error: no space is left on the disk for 'r'.\n"


def test_predict_refuses_a_csv_that_cannot_be_written_before_it_works(capsys):
    assert run_cli("predict", "no-model-is-read", "x.png", "--csv", "nowhere/out.csv") == 2
    assert "`csv` must be a file in a folder that exists" in capsys.readouterr().err


def test_predict_counts_what_it_cannot_read(tiny_run, folder, capsys):
    assert run_cli("predict", tiny_run, folder / "dark" / "0.png", "missing.png") == 0
    shown = capsys.readouterr()
    assert "1 of 2 images could not be read" in shown.err
    assert "there is no such file" in shown.out
    assert run_cli("predict", tiny_run, "missing.png") == 2


def test_what_is_left_out_and_too_few_steps_are_said(folder, capsys):
    (folder / "dark" / "0.png").write_bytes(b"")
    assert run_cli("fit", folder, *SMALL, "--on-error", "skip") == 0
    shown = capsys.readouterr().out
    assert "1 images left out: " in shown
    assert "0.png" in shown
    assert "steps in all, too few" in shown


@pytest.mark.parametrize("verb", ["evaluate", "export"])
def test_an_unknown_test_time_augmentation_is_refused(tiny_run, capsys, verb):
    assert run_cli(verb, tiny_run, "--tta", "flp") == 2
    assert "`tta` must be one of ['flip', 'flip_shift', 'none']" in capsys.readouterr().err
