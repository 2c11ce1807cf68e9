"""The whole way, as the README shows it, and the real data where it is."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kclassify

TFDS = os.environ.get("TFDS_DATA_DIR", "")
needs_cifar10 = pytest.mark.skipif(
    not Path(TFDS, "cifar10").is_dir(), reason="CIFAR-10 is not under TFDS_DATA_DIR"
)


def test_fit_evaluate_report_export_load_agree(tiny_arrays, tiny_options):
    images, _ = tiny_arrays
    names = ("dark", "grey", "light")
    run = kclassify.fit(
        tiny_arrays, run_dir="r", class_names=names, **{**tiny_options, "epochs": 3}
    )
    found = kclassify.evaluate(run, verbose=False)
    page = kclassify.report(run)
    assert "https://" not in page.read_text().split("<body")[0]
    path = kclassify.export(run)
    served = kclassify.load(path).predict(run.source.splits["test"].images)
    assert served["label"].tolist() == found.predictions["predicted"].tolist()
    np.testing.assert_allclose(served["probability"], found.predictions["probability"], atol=1e-5)
    Image.fromarray(images[0]).save("cat.png")
    for place in (path, run.path, run.model_file):
        row = kclassify.load(place).predict(["cat.png"]).iloc[0]
        assert row["label"] in names
        assert row["probability"] == pytest.approx(
            kclassify.load(path).predict(["cat.png"])["probability"].iloc[0], abs=1e-5
        )


@pytest.mark.slow
def test_digits_reach_the_accuracy_that_the_readme_states():
    run = kclassify.fit("digits", run_dir="r", verbose=False)
    assert kclassify.evaluate(run, verbose=False).metrics["accuracy"] >= 0.985


@pytest.mark.realdata
@needs_cifar10
def test_the_exported_model_serves_exactly_what_was_evaluated_on_all_of_cifar10():
    run = kclassify.fit(
        "cifar10", run_dir="r", verbose=False, epochs=1, filters=(8, 16, 32), batch_size=512
    )
    found = kclassify.evaluate(run, verbose=False)
    classifier = kclassify.load(kclassify.export(run))
    images = run.source.splits["test"].images
    first, second = (classifier.predict(images, verbose=False) for _ in range(2))
    assert len(first) == 10_000
    assert first["label"].tolist() == found.predictions["predicted"].tolist()
    assert first.equals(second)
    np.testing.assert_allclose(first["probability"], found.predictions["probability"], atol=1e-5)


@pytest.mark.realdata
@needs_cifar10
def test_the_tutorial_preset_is_where_the_tutorial_is():
    # A process of its own, since the preset sets the threads, which can be set once.
    fit = ["fit", "cifar10", "--preset", "tutorial", "--run-dir", "r", "--quiet"]
    subprocess.run([sys.executable, "-m", "kclassify", *fit], check=True)
    accuracy = kclassify.evaluate("r", verbose=False).metrics["accuracy"]
    assert 0.50 <= accuracy <= 0.58


@pytest.mark.slow
def test_a_built_wheel_installs_and_runs(tmp_path):
    root = Path(__file__).parent.parent
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(root)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(target)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    code = (
        "import kclassify, pathlib, sys; here = pathlib.Path(kclassify.__file__).parent; "
        "assert str(here).startswith(sys.argv[1]), here; assert (here / 'py.typed').exists(); "
        "assert list((here / 'reporting').glob('*.jinja')); "
        "assert list((here / 'reporting' / 'sections').glob('*.jinja'))"
    )
    env = {**os.environ, "PYTHONPATH": str(target)}
    subprocess.run([sys.executable, "-c", code, str(target)], check=True, env=env, cwd=tmp_path)
