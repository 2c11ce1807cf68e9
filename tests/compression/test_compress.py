"""The whole way of each technique: a run that comes of a run, measured, compared, reported."""

import os
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import kclassify
from kclassify.checks import DivergedError, InputError
from kclassify.cli import VERBS, main
from kclassify.compression import quantize, techniques
from kclassify.compression.measuring import least_drop
from kclassify.compression.parent import open_parent
from kclassify.compression.pruning import sparsity_of
from kclassify.compression.quantization import SCHEMES, UnwritableError, write_quantized
from kclassify.compression.retraining import produce, retraining
from kclassify.compression.techniques import TECHNIQUES
from kclassify.models.weights import weights_hash
from kclassify.options import COMPRESSION_OPTIONS
from kclassify.parsing import parse
from kclassify.reporting.settings import commands
from kclassify.reporting.tables import read_tables
from kclassify.runs import Run
from kclassify.training.cluster import Cluster

import keras  # isort: skip

pytestmark = pytest.mark.usefixtures("no_measuring")

# What each technique needs to be quick, and whether it can be had without an optional package.
QUICK = {
    "prune": {"sparsity": 0.5, "epochs": 1},
    "prune_filters": {"macs": 0.7, "epochs": 1},
    "low_rank": {"energy": 0.5, "epochs": 1},
    "distill": {"filters": 2, "epochs": 1},
    "clip": {"shares": [0.9]},
    "quantize": {"scheme": "litert_dynamic"},
}
NEEDS = {"quantize": "ai_edge_litert"}


@pytest.fixture(scope="module")
def parent(tmp_path_factory, tiny_arrays, tiny_options):
    """A run with a dense layer, so that every technique has something to work on."""
    path = tmp_path_factory.mktemp("runs") / "parent"
    options = {**tiny_options, "epochs": 3, "dense_units": 8, "filters": 8, "depth": 2}
    run = kclassify.fit(tiny_arrays, run_dir=path, **options)
    kclassify.evaluate(run, verbose=False)
    return run


def taking(parent, seconds):
    """Return a copy of a run whose training took so long."""
    copy = replace(parent, path=Path(shutil.copytree(parent.path, "copy")))
    copy.write(copy.summary_file, {**copy.summary, "training_seconds": seconds})
    return copy


def made(parent, technique, **change):
    if technique in NEEDS:
        pytest.importorskip(NEEDS[technique])
    options = {"run_dir": "small", **QUICK[technique], **change}
    return kclassify.compress(parent, technique=technique, verbose=False, **options)


@pytest.fixture(scope="module", params=TECHNIQUES)
def finished(request, tmp_path_factory, parent, no_measuring):
    """What each technique makes, once; do not write into it."""
    place = tmp_path_factory.mktemp(request.param)
    return request.param, made(parent, request.param, run_dir=place / "small")


def copied(finished):
    shutil.copytree(finished.run.path, "small")


def test_every_technique_makes_a_run_as_any_other(parent, finished):
    technique, found = finished
    run = Run(found.run.path)
    assert run.config["compression"]["technique"] == technique
    assert run.config["compression"]["parent"]["run"] == str(parent)
    assert run.config["compression"]["parent"]["weights_sha256"] == parent.summary["weights_sha256"]
    assert found.table["run"].tolist() == ["parent", "small"]
    assert found.comparison.pairs["a"].tolist() == ["parent"]
    html = run.report_file.read_text()
    assert "The trade-off" in html
    assert "kclassify compress" in html
    assert (kclassify.load(run).probabilities(np.zeros((2, 8, 8, 3), np.uint8)).sum(axis=1)
            == pytest.approx(1, abs=1e-3))  # fmt: skip


def test_nothing_of_the_parents_is_changed(parent):
    before = {path.name: path.stat().st_mtime_ns for path in parent.path.iterdir()}
    made(parent, "prune")
    assert before == {path.name: path.stat().st_mtime_ns for path in parent.path.iterdir()}


def test_several_workers_are_refused_before_anything_is_trained(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", Cluster(("a:1", "b:1"), 0).config)
    with pytest.raises(InputError, match="`TF_CONFIG` must be unset for compress"):
        kclassify.compress("no such run")


def test_the_same_call_again_finds_it_finished(parent, finished, capsys):
    technique, first = finished
    copied(first)
    again = kclassify.compress(parent, technique=technique, run_dir="small", **QUICK[technique])
    assert "finished before" in capsys.readouterr().out
    assert first.run.summary == again.run.summary
    with pytest.raises(InputError, match="`run_dir` must hold a run of the same configuration"):
        made(parent, technique, **({"shares": [0.8]} if technique == "clip" else {"epochs": 2}))


@pytest.mark.parametrize(
    "finished", [name for name in TECHNIQUES if name not in NEEDS], indirect=True
)
def test_what_is_saved_is_of_keras_own_layers_and_exported_like_any_other(finished):
    technique, found = finished
    copied(found)
    run = Run(Path("small"))
    model = keras.saving.load_model(run.model_file, compile=False, safe_mode=True)
    assert weights_hash(model) == run.summary["weights_sha256"]
    # A fresh process each time: one will do, and the one whose network is the oddest.
    if technique == "prune_filters":
        assert kclassify.export(run).name == "1"


def test_pruned_weights_are_zero_in_what_is_saved(parent):
    for place, options in enumerate(({"ramp": "cubic"}, {"ramp": "one_shot"}, {"epochs": 0})):
        found = kclassify.compress(
            parent, technique="prune", sparsity=0.75, run_dir=f"s{place}", verbose=False,
            **{"epochs": 2, **options},
        )  # fmt: skip
        model = keras.saving.load_model(found.run.model_file, compile=False)
        assert sparsity_of(model) == pytest.approx(0.75, abs=0.01)
        assert found.run.summary["epochs_trained"] == (0 if options.get("epochs") == 0 else 2)


def test_an_epoch_that_was_not_sparse_enough_is_not_the_best(parent):
    run = made(parent, "prune", sparsity=0.9, epochs=4).run
    assert run.history["sparsity"].iloc[-1] == pytest.approx(0.9, abs=0.01)
    assert run.history["sparsity"].iloc[0] < 0.9
    assert run.history["sparsity"][run.summary["best_epoch"] - 1] == run.history["sparsity"].max()


def test_pruned_filters_are_fewer_parameters_and_fewer_operations(parent):
    summary = made(parent, "prune_filters", macs=0.5).run.summary
    assert summary["macs"] <= 0.5 * parent.summary["macs"]
    assert summary["parameters"] < parent.summary["parameters"]


def test_the_learning_rate_goes_on_where_the_parent_had_it(parent):
    run = made(parent, "prune", epochs=1).run
    # One epoch of three, whose first steps were the rise.
    rise = parent.config["config"]["warmup"]
    expected = (2 / 3 - rise) / (1 - rise)
    assert run.config["compression"]["begin"] == pytest.approx(expected, abs=1e-5)
    highest = parent.config["config"]["learning_rate"]
    assert 0 <= run.history["learning_rate"].iloc[-1] < 0.5 * highest


def test_what_comes_of_a_child_begins_where_the_child_was(parent):
    child = open_parent(made(parent, "prune", epochs=2).run, data=None, verbose=False)
    begin = child.run.config["compression"]["begin"]
    # A third of two epochs is one: half of what was left.
    how = retraining(child, {})
    assert (how.config.epochs, how.begin) == (1, pytest.approx(begin + (1 - begin) / 2))
    assert how.begin > begin > 0


def test_what_was_not_trained_has_the_training_of_its_parent(parent):
    own = open_parent(parent, data=None, verbose=False)
    for name, options in (("clip", {}), ("prune", {"epochs": 0})):
        run = made(parent, name, run_dir=name, **options).run
        child = open_parent(run, data=None, verbose=False)
        assert child.training == own.training
        assert retraining(child, {}).begin == retraining(own, {}).begin > 0


def test_another_kind_of_optimizer_has_its_own_rate(parent):
    own = open_parent(parent, data=None, verbose=False)
    assert retraining(own, {"optimizer": "adam"}).config.learning_rate == 1e-3
    given = {"optimizer": "adam", "learning_rate": 0.2}
    assert retraining(own, given).config.learning_rate == 0.2


def test_averaged_weights_stay_pruned(parent):
    run = made(parent, "prune", sparsity=0.5, ema=0.9, ramp="one_shot").run
    model = keras.saving.load_model(run.model_file, compile=False)
    assert sparsity_of(model) == pytest.approx(0.5, abs=0.02)


def test_a_teacher_is_asked_of_images_that_grow(tiny_arrays, tiny_options):
    options = {**tiny_options, "model": "fastnet", "filters": (2, 4)}
    del options["depth"]
    run = kclassify.fit(tiny_arrays, run_dir="parent", **options)
    found = kclassify.compress(
        run, technique="distill", progressive=(0.5, 1.0), epochs=2, verbose=False
    )
    assert np.isfinite(found.run.history["loss"]).all()


def test_a_training_that_was_stopped_ends_with_the_same_weights(parent):
    whole = kclassify.compress(
        parent, technique="prune", sparsity=0.8, epochs=3, run_dir="whole", verbose=False
    ).run
    stop = _StopAfter(7)
    with pytest.raises(KeyboardInterrupt):
        _prune_with(parent, stop)
    cut = Run(Path("cut"))
    assert cut.checkpoints_dir.is_dir()
    assert not cut.complete
    run = kclassify.compress(
        parent, technique="prune", sparsity=0.8, epochs=3, run_dir="cut", verbose=False
    ).run
    assert run.summary["weights_sha256"] == whole.summary["weights_sha256"]


class _StopAfter(keras.callbacks.Callback):
    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) >= self.steps:
            self.steps = 10**9
            os.kill(os.getpid(), signal.SIGINT)


def _prune_with(parent, callback):
    """Make the same call, which Ctrl-C reaches in its seventh step."""
    from kclassify.training import place

    train = place.train

    def stopped(*arguments, callbacks, **options):
        return train(*arguments, callbacks=[*callbacks, callback], **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, "train", stopped)
        kclassify.compress(
            parent, technique="prune", sparsity=0.8, epochs=3, run_dir="cut", verbose=False
        )


def test_a_search_keeps_the_smallest_that_passes(parent, monkeypatch):
    monkeypatch.setattr("kclassify.compression.compress.FILES", ())
    monkeypatch.setattr("kclassify.compression.compress.WIDTHS", (0.7, 0.5))
    found = kclassify.compress(
        taking(parent, 1e6), max_drop=0.9, run_dir="all", epochs=1, verbose=False
    )
    assert {path.name for path in found.run.path.parent.iterdir()} >= {
        "filters-70-parameters", "filters-50-parameters",
    }  # fmt: skip
    assert found.run.path.name == found.table.set_index("run")["megabytes"].idxmin()
    assert found.table["passes"].all()
    # Only the one that was taken has seen the test images.
    others = [Run(path) for path in found.run.path.parent.iterdir() if path != found.run.path]
    assert found.run.predictions_file("test").is_file()
    assert not [run for run in others if run.predictions_file("test").is_file()]


@pytest.mark.parametrize(("training_seconds", "tried"), [(0.0, 1), (1e6, 2)])
def test_a_search_takes_no_longer_than_the_parents_training(
    parent, monkeypatch, capsys, training_seconds, tried
):
    monkeypatch.setattr("kclassify.compression.compress.FILES", ())
    monkeypatch.setattr("kclassify.compression.compress.WIDTHS", (0.7, 0.5))
    parent = taking(parent, training_seconds)
    found = kclassify.compress(parent, max_drop=0.9, run_dir="all", epochs=1)
    assert len(found.table) == 1 + tried
    said = "50% of the parameters would take it past the time of the parent's training"
    assert (said in capsys.readouterr().out) == (tried == 1)


def test_what_the_parts_of_a_search_took_counts_when_it_is_called_again(tmp_path):
    from kclassify.compression.compress import _Spent

    first = _Spent(tmp_path / "all" / "seconds.json")
    assert first.on("60%", lambda: time.sleep(0.02) or True)[0]
    again = _Spent(tmp_path / "all" / "seconds.json")
    assert again.on("60%", lambda: True) == (True, first.seconds)
    assert again.seconds == first.seconds > 0.02


def test_what_diverges_is_left_out(parent, monkeypatch, capsys):
    def diverges(*_, **__):
        raise DivergedError("the loss is NaN")

    monkeypatch.setattr("kclassify.compression.compress.FILES", ())
    monkeypatch.setattr("kclassify.compression.compress.WIDTHS", (0.7,))
    monkeypatch.setattr("kclassify.compression.compress.produce", diverges)
    with pytest.raises(InputError, match="all was left out"):
        kclassify.compress(parent, max_drop=0.9, run_dir="all", epochs=1)
    assert "left out  the loss is NaN" in capsys.readouterr().out


def test_a_network_within_a_network_keeps_the_file_that_was_not_trained(
    parent, monkeypatch, capsys
):
    def write(parent, network, file, scheme, images):
        file.write_bytes(b"file")
        return np.zeros(len(parent.right), bool)

    monkeypatch.setattr(quantize, "nested_model", lambda _: "inner")
    monkeypatch.setattr(quantize, "_written", write)
    monkeypatch.setattr(techniques, "check_scheme", lambda _: None)
    own = open_parent(parent, data=None, verbose=False)
    recipe = TECHNIQUES["quantize"](own, scheme="litert_int8")
    run = produce(own, recipe, run_dir="small", verbose=True)
    assert run.complete
    assert "training with rounding does not reach into the model 'inner'" in capsys.readouterr().out


def test_a_converter_that_fails_is_named(parent, monkeypatch):
    def fail(*_):
        raise RuntimeError("no such operation\nat a line")

    scheme = replace(SCHEMES["litert_int8"], write=fail)
    monkeypatch.setitem(SCHEMES, "litert_int8", scheme)
    monkeypatch.setattr("kclassify.compression.quantization.check_scheme", lambda _: None)
    own = open_parent(parent, data=None, verbose=False)
    with pytest.raises(UnwritableError, match=r"whose converter says: no such operation\. Choose"):
        write_quantized(own.network, Path("file"), scheme="litert_int8", images=np.zeros(0))


def test_a_budget_that_nothing_meets_names_the_nearest(parent, monkeypatch):
    monkeypatch.setattr("kclassify.compression.compress.FILES", ())
    monkeypatch.setattr("kclassify.compression.compress.WIDTHS", (0.2,))
    images = len(open_parent(parent, data=None, verbose=False).source.splits["validation"])
    budget = least_drop(images) + 1e-6
    monkeypatch.setattr("kclassify.compression.measuring.Judged.passes", False)
    with pytest.raises(InputError, match=r"(?s)Nearest:\nfilters-20-parameters: .* points"):
        kclassify.compress(parent, max_drop=budget, run_dir="all", epochs=1, verbose=False)
    assert Run(Path("all/filters-20-parameters")).complete


def test_a_budget_below_what_so_few_images_can_show_is_refused_before_any_work(parent):
    with pytest.raises(InputError, match=r"`max_drop` must be at least 0\.\d+ for \d+ validation"):
        kclassify.compress(parent, max_drop=0.001, run_dir="all", verbose=False)
    assert not os.path.exists("all")


@pytest.mark.parametrize(
    ("technique", "options", "words"),
    [
        ("prun", {}, "`technique` must be one of .* Did you mean 'prune'"),
        ("prune", {"sparsity": 1.0}, "`sparsity` must be"),
        ("prune", {"sparsety": 0.5}, "`sparsety` must be an option of the technique.*'sparsity'"),
        ("prune", {"image_size": 16}, "`image_size` must be an option of the technique"),
        ("prune", {"seed": 1}, "`seed` must be an option of the technique"),
        ("prune", {"model": "resnet"}, "`model` must be an option of the technique"),
        ("prune", {"teacher": 5}, "`teacher` must be a run, a .keras file, or a list"),
        ("prune", {"epochs": 0, "ramp": "cubic"}, "`ramp` must be 'one_shot' without epochs"),
        ("prune", {"epochs": -1}, "`epochs` must be a whole number of at least 0"),
        ("prune", {"teacher": "nobody"}, "`run` must be a run folder"),
        ("prune_filters", {"macs": 0}, "`macs` must be"),
        ("prune_filters", {"criterion": "l3"}, "`criterion` must be one of"),
        ("low_rank", {"energy": 2.0}, "`energy` must be"),
        ("distill", {"model": "resnt"}, "Did you mean 'resnet'"),
        ("distill", {"depth": 2, "weight": 2}, "`weight` must be"),
        ("distill", {"model_args": 5}, "`model_args` must be a mapping"),
        ("clip", {"epochs": 1}, "`epochs` must be left out with 'clip'"),
        ("clip", {"shares": [2]}, "`shares` must be numbers between 0 and 1"),
        ("quantize", {"scheme": "int8"}, "`scheme` must be one of"),
        ("quantize", {"scheme": "litert_int8", "images": 0}, "`images` must be"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_before_any_work(parent, technique, options, words):
    if options.get("scheme", "").startswith("litert"):
        pytest.importorskip("ai_edge_litert")
    with pytest.raises(InputError, match=words):
        kclassify.compress(parent, technique=technique, run_dir="small", verbose=False, **options)
    assert not os.path.exists("small")


@pytest.mark.parametrize("max_drop", [0, 1.0, -0.1, "much"])
def test_a_drop_that_is_none_is_named(parent, max_drop):
    with pytest.raises(InputError, match="`max_drop` must be a share between 0 and 1"):
        kclassify.compress(parent, max_drop=max_drop, verbose=False)


@pytest.mark.parametrize("technique", [None, "prune", "quantize"])
def test_a_folder_that_is_not_ours_is_left_alone(parent, technique):
    if technique == "quantize":
        pytest.importorskip("ai_edge_litert")
    name = "filters-70-parameters" if technique is None else "mine"
    path = Path("all", name) if technique is None else Path(name)
    path.mkdir(parents=True)
    (path / "precious.txt").write_text("mine")
    (path / "samples.npz").write_text("mine too")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kclassify.compression.compress.FILES", ())
        patch.setattr("kclassify.compression.compress.WIDTHS", (0.7,))
        with pytest.raises(InputError, match="a folder that kclassify did not make"):
            kclassify.compress(
                parent, technique=technique, max_drop=0.9, epochs=1, verbose=False,
                run_dir="all" if technique is None else name,
            )  # fmt: skip
    assert sorted(one.name for one in path.iterdir()) == ["precious.txt", "samples.npz"]
    assert (path / "samples.npz").read_text() == "mine too"


def test_a_search_refuses_what_it_cannot_train_with_before_any_work(parent):
    with pytest.raises(InputError, match=r"`epochz` must be .* Did you mean 'epochs'"):
        kclassify.compress(parent, max_drop=0.9, run_dir="all", epochz=1, verbose=False)
    assert not os.path.exists("all")


def test_a_search_leaves_out_what_the_model_cannot_take(parent, monkeypatch, capsys):
    monkeypatch.setattr("kclassify.compression.compress.FILES", ())
    monkeypatch.setattr("kclassify.compression.compress.WIDTHS", (0.0001,))
    with pytest.raises(InputError, match=r"all was left out.*kclassify\[litert\]"):
        kclassify.compress(parent, max_drop=0.9, run_dir="all", epochs=1)
    said = capsys.readouterr().out
    assert "left out  `parameters` must be a share that pruning can leave" in said
    assert "left out  `technique` must be one that the model can take. Received: 'low_rank'" in said


@pytest.mark.parametrize(
    ("technique", "options", "words"),
    [
        ("prune", {"epochs": 0}, "--technique prune --sparsity 0.5 .*--epochs 0$"),
        ("prune", {"learning_rate": 0.01}, "--epochs 1 --learning-rate 0.01$"),
        ("prune", {"teacher": None}, "--teacher none --epochs 1$"),
        ("distill", {"teacher": "parent"}, "--model convnet .*--filters 2 "),
        ("clip", {}, "--shares 0.9 "),
    ],
)
def test_the_report_has_the_command_that_makes_the_run_again(parent, technique, options, words):
    run = made(parent, technique, **options).run
    command = commands(read_tables(run))
    assert re.search(words, command), command
    again = parse(command.split()[1:], VERBS)
    given = {name: getattr(again, name) for name in COMPRESSION_OPTIONS if hasattr(again, name)}
    asked = {**again.config, **given}
    small = kclassify.compress(
        parent, technique=again.technique, run_dir="again", verbose=False, **asked
    )
    assert small.run.summary["weights_sha256"] == run.summary["weights_sha256"]


def test_the_folder_of_a_teacher_may_be_called_by_a_number():
    again = parse(["compress", "run", "--teacher", "2024", "--shares", "0.9"], VERBS)
    assert (again.teacher, again.shares) == ("2024", [0.9])
    several = parse(["compress", "run", "--teacher", "parent,5", "--shares", "0.9,0.5"], VERBS)
    assert (several.teacher, several.shares) == (["parent", "5"], [0.9, 0.5])


def test_a_parent_evaluated_on_views_is_refused(parent, tiny_arrays):
    shutil.copytree(parent.path, "views")
    images, labels = tiny_arrays
    kclassify.evaluate("views", tta="flip", data=tiny_arrays, verbose=False)
    with pytest.raises(InputError, match="evaluated with test-time augmentation flip"):
        kclassify.compress("views", technique="prune", data=tiny_arrays, verbose=False)
    kclassify.evaluate("views", data=(images ^ 1, labels), verbose=False)
    with pytest.raises(InputError, match="evaluated with other images"):
        kclassify.compress("views", technique="prune", data=tiny_arrays, verbose=False)


def test_a_run_that_was_made_in_another_process_needs_its_data(parent, tiny_arrays):
    with pytest.raises(InputError, match="`data` must be given"):
        kclassify.compress(str(parent), technique="prune", verbose=False)
    images, labels = tiny_arrays
    with pytest.raises(InputError, match="`data` must be what"):
        kclassify.compress(
            str(parent), technique="prune", data=(images[::-1], labels), verbose=False
        )


def test_verify_run_says_that_it_came_of_another(parent):
    run = made(parent, "prune").run
    with pytest.raises(InputError, match="which came of another"):
        kclassify.verify_run(run)


def test_the_command_prints_the_trade_off_and_what_is_next(parent, capsys, monkeypatch):
    monkeypatch.setattr("kclassify.compression.compress.open_parent", lambda *_, **__: opened)
    opened = open_parent(parent, data=None, verbose=False)
    command = ["compress", str(parent), "--technique", "prune", "--epochs", "0", "--run-dir", "c"]
    assert main([*command, "--sparsity", "0.5", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "images_per_second" in printed
    assert "next: kclassify export c" in printed
    assert main([*command, "--sparsity", "1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("kclassify: error: `sparsity` must be")
    assert said.count("\n") == 1


def test_tuples_among_the_options_are_no_other_configuration(parent, capsys):
    options = {"technique": "clip", "shares": (0.9,), "run_dir": "small"}
    kclassify.compress(parent, **options, verbose=False)
    kclassify.compress(parent, **options)
    assert "finished before" in capsys.readouterr().out


def test_a_data_service_of_the_parent_is_not_asked_for(parent):
    opened = open_parent(parent, data=None, verbose=False)
    opened = replace(opened, config=opened.config.replace(data_service="grpc://gone:1"))
    assert retraining(opened, {"teacher": None}).config.data_service is None
