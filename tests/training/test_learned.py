import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import kclassify
from kclassify.checks import InputError
from kclassify.config import FitConfig
from kclassify.data import pipeline
from kclassify.data.pipeline import eval_dataset
from kclassify.data.sources import load_source, prepare
from kclassify.training import learned, time_budget
from kclassify.training.learned import SeenLosses, skipping_where_it_can
from kclassify.training.replicas import Replicas
from kclassify.training.session import build_session, train_batches

SKIP = {"skip_learned": 0.4, "batch_size": 9, "epochs": 4}


@pytest.fixture
def source(tiny_arrays, tiny_options):
    config = configured(tiny_options)
    return prepare(load_source(tiny_arrays, config), config, verbose=False)


def configured(tiny_options, **changes):
    names = FitConfig.__dataclass_fields__
    own = {name: value for name, value in tiny_options.items() if name in names}
    model_args = {"filters": 4, "depth": 1}
    return FitConfig(**{**own, **SKIP, **changes, "model_args": model_args})


class Ids:
    """The training images by their pixels."""

    def __init__(self, source):
        images = source.splits["train"].images
        self.of = {image.tobytes(): place for place, image in enumerate(images)}

    def shown(self, batches, steps):
        return [
            [self.of[image.tobytes()] for image in images.numpy()]
            for images, _ in batches.take(steps)
        ]


def test_the_losses_that_are_noted_are_those_of_the_images(source, tiny_options):
    """With a rate of nothing, each image has the loss that the network began with."""
    config = configured(tiny_options, epochs=1, learning_rate=1e-30, weight_decay=0.0)
    session = build_session(source, config)
    skipping = learned.SkipLearned(config, images=len(source.splits["train"]), seen=session.seen)
    session.model.fit(
        train_batches(session, source, epochs=1), steps_per_epoch=4, callbacks=[skipping],
        shuffle=False, verbose=0,
    )  # fmt: skip
    images, labels = next(iter(eval_dataset(source.splits["train"], batch_size=60)))
    # As it is trained: normalized by the batch, so by this very order's.
    assert np.isfinite(skipping.last).sum() == 36
    order = learned.epoch_order(len(images), batch_size=9, seed=0, epoch=0)
    for batch in order.reshape(4, 9):
        logits = session.model(images.numpy()[batch], training=True)
        expected = session.model.loss.call(labels.numpy()[batch], logits)
        assert np.allclose(skipping.last[batch], expected, atol=1e-5)


def test_validation_notes_nothing(source, tiny_options):
    session = build_session(source, configured(tiny_options))
    session.model.evaluate(eval_dataset(source.splits["validation"], batch_size=4), verbose=0)
    step, losses = session.seen.read()
    assert (step, losses.any()) == (0, False)


def test_a_step_is_gone_on_with_from_what_was_noted():
    seen = SeenLosses(Replicas(("CPU:0",)), steps=3, batch_size=2)
    seen.begin(step=1, losses=np.array([5, 6, 0, 0, 0, 0], np.float32))
    seen.note(np.array([7, 8], np.float32))
    step, losses = seen.read()
    assert step == 2
    assert losses.tolist() == [5, 6, 7, 8, 0, 0]
    seen.begin()
    assert (seen.read()[0], seen.read()[1].any()) == (0, False)


def test_a_fit_leaves_out_the_images_with_the_smallest_losses(
    tiny_arrays, tiny_options, monkeypatch
):
    epochs, chosen = [], learned.select
    monkeypatch.setattr(
        learned, "select",
        lambda losses, **how: epochs.append((losses, chosen(losses, **how))) or epochs[-1][1],
    )  # fmt: skip
    run = kclassify.fit(tiny_arrays, run_dir="r", **{**tiny_options, **SKIP})
    # It is asked for before and after each epoch but the full ones.
    (losses, first), _, (_, second), _ = epochs
    # As many steps of a whole batch as there are show most of them.
    assert np.isfinite(losses).sum() >= 36
    shown = len(losses) - int(0.4 * len(losses))
    assert set(first.indices) == set(np.argsort(-losses, kind="stable")[:shown])
    assert first.indices.tolist() != second.indices.tolist()
    assert run.history["left_out"].tolist() == [0, 0, 0.4, 0.4]


def test_the_batches_of_a_selection_are_its_images(source, tiny_options):
    session = build_session(source, configured(tiny_options))
    losses = np.arange(len(source.splits["train"]), dtype=np.float32)
    found = learned.select(losses, share=0.5, positions=36, seed=0, epoch=2)
    batches = train_batches(session, source, epochs=3, start=8, selection=found)
    assert int(batches.cardinality()) == 4
    assert np.ravel(Ids(source).shown(batches, 4)).tolist() == found.indices.tolist()


@pytest.mark.parametrize("epoch", [0, 1])
def test_the_order_of_full_epochs_is_the_usual_one(source, tiny_options, epoch):
    session = build_session(source, configured(tiny_options, skip_learned=None))
    batches = train_batches(session, source, epochs=epoch + 1, start=4 * epoch)
    count = len(source.splits["train"])
    order = learned.epoch_order(count, batch_size=9, seed=0, epoch=epoch)
    assert np.ravel(Ids(source).shown(batches, 4)).tolist() == order.tolist()


def test_without_it_nothing_is_noted(source, tiny_options):
    session = build_session(source, configured(tiny_options, skip_learned=None))
    assert session.seen is None
    assert session.model is session.trained


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"augmentation": "mixup"}, "mixes images"),
        ({"data_service": "grpc://localhost:1"}, "order of their own"),
    ],
)
def test_where_it_cannot_be_it_is_refused_before_the_data_is_loaded(
    tiny_arrays, tiny_options, changes, reason, monkeypatch
):
    monkeypatch.setattr("kclassify.training.fit.load_source", lambda *_: pytest.fail("loaded"))
    with pytest.raises(InputError, match=f"`skip_learned` must be None.*{reason}"):
        kclassify.fit(tiny_arrays, run_dir="r", **{**tiny_options, **SKIP, **changes})
    assert not Path("r").exists()


def test_packed_images_that_stay_on_the_disk_are_all_shown(tiny_arrays, tiny_options):
    kclassify.pack(tiny_arrays, "packed", verbose=False)
    small = {**tiny_options, **SKIP, "memory_budget": "1KB"}
    del small["validation_fraction"], small["test_fraction"]
    with pytest.raises(InputError, match=r"`skip_learned` must be None.*order of their files"):
        kclassify.fit("packed", run_dir="r", **small)


def test_a_presets_own_is_left_where_it_cannot_be(source, tiny_options):
    for changes, left in (({}, 0.4), ({"augmentation": "mixup"}, None)):
        config = configured(tiny_options, **changes)
        assert skipping_where_it_can(config, source, given={}).skip_learned == left
    assert build_session(source, config).seen is None


def test_each_fit_makes_no_copy_of_the_images(tiny_arrays, tiny_options, monkeypatch):
    copied, on_host = [], pipeline._on_host
    monkeypatch.setattr(pipeline, "_on_host", lambda it: copied.append(it) or on_host(it))
    kclassify.fit(tiny_arrays, run_dir="r", **{**tiny_options, **SKIP})
    arrays = [it for it in copied if isinstance(it, np.ndarray) and it.ndim == 4]
    # Training and validation images.
    assert len(arrays) == 2


def test_what_a_users_callback_saves_can_be_loaded(tiny_arrays, tiny_options):
    saving = keras.callbacks.ModelCheckpoint("mine.keras")
    kclassify.fit(tiny_arrays, run_dir="r", callbacks=[saving], **{**tiny_options, **SKIP})
    model = keras.saving.load_model("mine.keras", compile=False)
    assert model(tiny_arrays[0][:2]).shape == (2, 3)


def test_with_a_time_budget(tiny_arrays, tiny_options, monkeypatch):
    # Some 26 steps of 20 s, whatever this machine is busy with.
    monkeypatch.setattr(time_budget, "measure_pace", lambda *_, **__: (20.0, 20.0))
    monkeypatch.setattr(time_budget.Deadline, "_plan", lambda *_, **__: None)
    options = {**tiny_options, **SKIP, "time_budget": "10m", "progressive": (0.5, 1.0)}
    del options["epochs"]
    run = kclassify.fit(tiny_arrays, run_dir="r", **options)
    assert len(run.history) > 2
    assert (run.history["left_out"].iloc[2:] == 0.4).all()


def test_files_are_left_out_as_arrays_are(tiny_arrays, tiny_options, tmp_path):
    for place, (image, label) in enumerate(zip(*tiny_arrays, strict=True)):
        folder = tmp_path / "data" / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{place}.png")
    options = {**tiny_options, **SKIP, "image_size": 8}
    runs = [
        kclassify.fit(tmp_path / "data", run_dir=budget, memory_budget=budget, **options)
        for budget in ("1KB", "1GB")
    ]
    first, second = (run.summary["weights_sha256"] for run in runs)
    assert first == second


def test_a_child_of_compression_takes_it_too(tiny_run, tiny_arrays):
    # The parent is evaluated, to be compared with.
    parent = shutil.copytree(tiny_run.path, "parent")
    made = kclassify.compress(
        parent, technique="prune", data=tiny_arrays, run_dir="small", epochs=3,
        skip_learned=0.4, verbose=False,
    )  # fmt: skip
    assert made.run.history["left_out"].tolist() == [0, 0, 0.4]
    with pytest.raises(InputError, match=r"`skip_learned` must be None.*mixes images"):
        kclassify.compress(
            parent, technique="prune", data=tiny_arrays, run_dir="other",
            skip_learned=0.4, augmentation="mixup", verbose=False,
        )  # fmt: skip
