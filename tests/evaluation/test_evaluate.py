import json
import shutil

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import kclassify
from kclassify.checks import InputError
from kclassify.data import listed
from kclassify.evaluation.predictions import predict
from kclassify.models.test_time import with_test_time
from kclassify.reporting.tables import read_analysis
from kclassify.runs import Run
from kclassify.training.cluster import Cluster
from kclassify.training.replicas import Replicas


@pytest.fixture
def run(tiny_run, tmp_path):
    """A copy of the tiny run that may be written into, without the data in memory."""
    shutil.copytree(tiny_run.path, tmp_path / "run")
    return Run(tmp_path / "run")


def test_every_figure_comes_from_the_same_predictions(run, tiny_run):
    found = kclassify.evaluate(Run(run.path, tiny_run.source), verbose=False)
    with np.load(run.predictions_file("test")) as stored:
        predicted = stored["probabilities"].argmax(axis=1)
        accuracy = np.mean(predicted == stored["labels"])
        assert stored["ids"].tolist() == found.predictions["id"].tolist()
    assert accuracy == found.metrics["accuracy"] == found.predictions["correct"].mean()
    assert np.trace(found.confusion) / found.confusion.to_numpy().sum() == accuracy
    assert found.per_class["support"].sum() == len(found.predictions) == 12
    stored = json.loads(run.metrics_file.read_text())
    assert stored["metrics"] == found.metrics
    assert stored["weights_sha256"] == run.summary["weights_sha256"]
    table = pd.read_csv(run.table_file("metrics"), index_col="metric")
    assert table.loc["accuracy", "value"] == pytest.approx(accuracy)


def test_the_probabilities_are_the_models(run, tiny_run):
    kclassify.evaluate(Run(run.path, tiny_run.source), verbose=False)
    model = keras.saving.load_model(run.model_file, compile=False)
    logits = model(tiny_run.source.splits["test"].images, training=False)
    with np.load(run.predictions_file("test")) as stored:
        np.testing.assert_allclose(stored["probabilities"], keras.ops.softmax(logits), atol=1e-6)


@pytest.mark.parametrize("tta", ["none", "flip", "flip_shift"])
def test_test_time_augmentation_is_evaluated_and_recorded(run, tiny_run, tta):
    found = kclassify.evaluate(Run(run.path, tiny_run.source), tta=tta, verbose=False)
    model = with_test_time(keras.saving.load_model(run.model_file, compile=False), tta)
    logits = model(tiny_run.source.splits["test"].images, training=False)
    with np.load(run.predictions_file("test")) as stored:
        np.testing.assert_allclose(stored["probabilities"], keras.ops.softmax(logits), atol=1e-6)
    assert json.loads(run.metrics_file.read_text())["tta"] == found.tta == tta
    assert (f"test-time augmentation {tta}" in str(found)) == (tta != "none")


def test_an_unknown_test_time_augmentation_names_the_nearest(run):
    with pytest.raises(InputError, match=r"`tta` must be.*Did you mean 'flip'"):
        kclassify.evaluate(run, tta="flp", verbose=False)


def test_data_in_memory_must_be_given_again_in_another_process(run):
    with pytest.raises(InputError, match=r"Pass data=\(images, labels\)"):
        kclassify.evaluate(run, verbose=False)


@pytest.mark.parametrize("form", ["integer", "text", "one_hot"])
def test_given_data_is_read_in_the_runs_class_order(run, tiny_arrays, form):
    images, labels = tiny_arrays
    names = np.array(["dark", "grey", "light"])
    some = labels > 0
    given = {"integer": labels, "text": names[labels], "one_hot": np.eye(3)[labels]}[form]
    found = kclassify.evaluate(run, data=(images[some], given[some]), verbose=False)
    assert found.per_class["support"].tolist() == [0, 20, 20]
    assert set(found.predictions["given"]) == {"grey", "light"}


def test_given_data_with_a_class_that_the_run_does_not_know_is_refused(run, tiny_arrays):
    images, labels = tiny_arrays
    strange = np.array(["dark", "grey", "lihgt"])[labels]
    with pytest.raises(InputError, match="lihgt"):
        kclassify.evaluate(run, data=(images, strange), verbose=False)


def test_given_images_of_another_size_are_resized(run, tiny_arrays):
    images, labels = tiny_arrays
    large = images.repeat(2, axis=1).repeat(2, axis=2)
    found = kclassify.evaluate(run, data=(large, labels), verbose=False)
    assert len(found.predictions) == 60


def test_the_split_is_one_of_three(run):
    with pytest.raises(InputError, match="Did you mean 'validation'"):
        kclassify.evaluate(run, split="validaton")


def test_another_model_in_the_folder_is_noticed(run, tiny_run):
    model = keras.saving.load_model(run.model_file, compile=False)
    model.set_weights([weight + 1 for weight in model.get_weights()])
    model.save(run.model_file)
    with pytest.raises(InputError, match=r"weights in model\.keras are others"):
        kclassify.evaluate(Run(run.path, tiny_run.source), verbose=False)


def test_a_truncated_model_is_one_sentence(run, tiny_run):
    whole = run.model_file.read_bytes()
    run.model_file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cut off or of another kind"):
        kclassify.evaluate(Run(run.path, tiny_run.source), verbose=False)


def test_the_worst_errors_are_the_surest_first(run, tiny_run, tiny_arrays):
    images, labels = tiny_arrays
    kclassify.evaluate(run, data=(images, (labels + 1) % 3), verbose=False)
    with np.load(run.errors_file) as errors:
        assert len(errors["ids"]) > 0
        assert np.all(np.diff(errors["probability"]) <= 0)
        assert np.all(errors["given"] != errors["predicted"])
        assert errors["images"].shape[1:] == (8, 8, 3)


def test_it_shows_itself_as_a_table(run, tiny_run):
    shown = str(kclassify.evaluate(Run(run.path, tiny_run.source), verbose=False))
    assert "accuracy" in shown
    assert "grey" in shown


class OneOfTwo(Replicas):
    """A worker that tells its rows, and hears those of both once both have told."""

    def gather_rows(self, values):
        TOLD[self.worker] = values
        return list(TOLD.values()) if len(TOLD) == 2 else [values]


TOLD: dict = {}


@pytest.mark.parametrize("batch_size", [5, 64])
def test_the_shares_of_workers_are_put_together_in_the_order_of_the_images(
    tiny_run, monkeypatch, batch_size
):
    TOLD.clear()
    model = keras.saving.load_model(tiny_run.model_file, compile=False)
    examples = tiny_run.source.splits["train"].take(np.arange(37))
    common = {"class_names": ("a", "b", "c"), "batch_size": batch_size, "verbose": False}
    whole = predict(model, examples, **common)
    monkeypatch.setattr("kclassify.evaluation.predictions._put_together", lambda *a, **k: None)
    for index in range(2):
        worker = OneOfTwo(("CPU:0",), cluster=Cluster(("a:1", "b:1"), index))
        predict(model, examples, **common, replicas=worker)
    monkeypatch.undo()
    found = predict(model, examples, **common, replicas=worker)
    assert sorted(map(len, TOLD.values())) == [18, 19]
    np.testing.assert_allclose(found.probabilities, whole.probabilities, atol=1e-6)


def test_the_runs_own_data_given_again_is_split_as_it_was(run, tiny_run, tiny_arrays):
    found = kclassify.evaluate(run, data=tiny_arrays, verbose=False)
    own = tiny_run.source.splits["test"].ids.tolist()
    assert found.predictions["id"].tolist() == own
    assert found.data is None
    found = kclassify.analyze(run, parts="slices", data=tiny_arrays, verbose=False)
    assert found["slices"].images == len(own)


def test_other_data_is_named_wherever_its_numbers_are(run, others):
    found = kclassify.evaluate(run, data=others, verbose=False)
    assert (found.data, len(found.predictions)) == ("arrays", 60)
    assert str(found).startswith("other data (arrays), 60 images")
    html = kclassify.report(run).read_text()
    assert "measured on other data (arrays)</h1>" in html
    for page in (html, (run.path / "report.md").read_text(), run.card_file.read_text()):
        assert "Measured on the 60 images of other data (arrays)" in page.replace("\\", "")
        assert "test split" not in page
    assert "kclassify.evaluate" not in html.split('id="reproduce"')[1]


def test_the_files_of_other_data_are_looked_at_once(run, others, tmp_path, monkeypatch):
    for name, label in (("dark", 0), ("grey", 1), ("light", 2)):
        folder = tmp_path / "other" / name
        folder.mkdir(parents=True)
        image = others[0][np.flatnonzero(others[1] == label)[0]]
        Image.fromarray(image).save(folder / "one.png")
    looked = []
    plain = listed.inspect_files
    monkeypatch.setattr(listed, "inspect_files", lambda paths: looked.append(1) or plain(paths))
    found = kclassify.evaluate(run, data=tmp_path / "other", verbose=False)
    assert (len(found.predictions), len(looked)) == (3, 1)


def test_a_split_that_the_data_has_not_is_not_another(run, others):
    with pytest.raises(InputError, match=r"`split` must be one that `data` has, \['train', 'val"):
        kclassify.evaluate(run, data={"train": others, "validation": others}, verbose=False)


def test_an_evaluation_that_was_cut_is_none(run, others, monkeypatch):
    kclassify.evaluate(run, data=others, verbose=False)
    write = Run.write

    def cut(self, file, content):
        if file.name == "confusion.csv":
            raise MemoryError
        write(self, file, content)

    monkeypatch.setattr(Run, "write", cut)
    with pytest.raises(MemoryError):
        kclassify.evaluate(run, data=(others[0][:30], others[1][:30]), verbose=False)
    assert not run.metrics_file.exists()
    with pytest.raises(InputError, match="must be an evaluated run"):
        kclassify.report(run)


def test_an_analysis_of_another_evaluation_is_not_shown(run, others):
    kclassify.evaluate(run, data=others, verbose=False)
    kclassify.analyze(run, parts="slices", data=others, verbose=False)
    assert read_analysis(run, "slices") is not None
    kclassify.evaluate(run, data=others, tta="flip", verbose=False)
    assert read_analysis(run, "slices") is None
    kclassify.evaluate(run, data=others, verbose=False)
    assert read_analysis(run, "slices") is not None


def test_an_analysis_of_what_an_older_version_evaluated_is_shown(run, others):
    kclassify.evaluate(run, data=others, verbose=False)
    old = json.loads(run.metrics_file.read_text())
    del old["evaluated"]
    run.write(run.metrics_file, old)
    kclassify.analyze(run, parts="slices", data=others, verbose=False)
    assert read_analysis(run, "slices") is not None


def test_as_many_other_images_are_another_evaluation(run, others):
    other = (others[0][::-1], others[1])
    kclassify.evaluate(run, data=others, verbose=False)
    kclassify.analyze(run, parts="slices", data=others, verbose=False)
    kclassify.evaluate(run, data=other, verbose=False)
    assert read_analysis(run, "slices") is None
    with pytest.raises(InputError, match=r"`data` must be what .* was evaluated on"):
        kclassify.analyze(run, parts="slices", data=others, verbose=False)
    kclassify.analyze(run, parts="slices", data=other, verbose=False)
    assert read_analysis(run, "slices") is not None


def test_predictions_of_an_older_version_are_of_the_images_by_name(run, others):
    kclassify.evaluate(run, data=others, verbose=False)
    with np.load(run.predictions_file("test")) as stored:
        kept = {name: stored[name] for name in stored.files if name != "pixels"}
    run.write(run.predictions_file("test"), kept)
    kclassify.analyze(run, parts="slices", data=others, verbose=False)
    assert run.analysis_file("slices").is_file()


def test_numbers_that_are_names_are_found_by_name(tmp_path, tiny_options):
    rng = np.random.default_rng(0)
    rows = []
    for number in range(36):
        label = (1, 2, 10)[number % 3]
        image = rng.integers(0, 60, (8, 8, 3)) + 60 * (number % 3)
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / f"{number}.png")
        rows.append((f"{number}.png", label))
    table = pd.DataFrame(rows, columns=["path", "label"])
    table.to_csv("all.csv", index=False)
    run = kclassify.fit("all.csv", run_dir="r", **tiny_options)
    assert run.config["class_names"] == ["1", "2", "10"]
    table[table["label"] != 10].iloc[:9].to_csv("some.csv", index=False)
    found = kclassify.evaluate(run, data="some.csv", verbose=False)
    assert set(found.predictions["given"]) == {"1", "2"}
    names = dict(rows)
    given = found.predictions.set_index("id")["given"]
    assert all(names[name] == int(label) for name, label in given.items())
