import shutil

import numpy as np
import pytest

import kclassify
from kclassify.checks import InputError
from kclassify.compression.distillation import PROJECTION, Lesson, around_student, load_teacher
from kclassify.data.spec import Examples, Source
from kclassify.models.registry import build_model
from kclassify.models.training_form import training_form
from kclassify.training.losses import ClassifierLoss

import keras  # isort: skip

NAMES = ("dark", "grey", "light")


def network(filters=4, classes=3, size=8):
    return build_model(
        "convnet", input_shape=(size, size, 3), num_classes=classes, filters=filters, depth=1
    )


@pytest.fixture
def source(tiny_arrays):
    images, labels = tiny_arrays
    examples = Examples(images, labels.astype("int32"), np.arange(len(images)).astype(str))
    return Source("tiny", {"train": examples}, NAMES)


def compiled(student, teacher, lesson):
    model = around_student(student, teacher=teacher, lesson=lesson)
    model.compile(keras.optimizers.Adam(0.01), ClassifierLoss(), metrics=["accuracy"])
    return model


def kl(teacher, student, temperature):
    logs = [keras.ops.log_softmax(x / temperature) for x in (teacher, student)]
    p = keras.ops.exp(logs[0])
    return float(np.mean(keras.ops.sum(p * (logs[0] - logs[1]), axis=-1))) * temperature**2


def test_the_loss_is_the_labels_and_the_teachers(source):
    images, labels = source.splits["train"].images[:12], source.splits["train"].labels[:12]
    student, teacher = network(), network(filters=8)
    teacher.set_weights([5 * w for w in teacher.get_weights()])
    model = compiled(student, teacher, Lesson(temperature=2.0, weight=0.6))
    logits = student(images, training=True)
    loss = model.compute_loss(images, labels, model(images, training=True), training=True)
    expected = ClassifierLoss()(labels, logits) + 0.6 * kl(teacher(images), logits, 2.0)
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)


def test_the_labels_gradient_has_the_share_that_is_left(source):
    import tensorflow as tf

    images, labels = source.splits["train"].images[:12], source.splits["train"].labels[:12]
    student = network()
    kernel = student.trainable_variables[0]

    def gradient(model, loss):
        with tf.GradientTape() as tape:
            value = loss(model(images, training=True))
        return tape.gradient(value, kernel.value).numpy()

    own = gradient(student, lambda logits: ClassifierLoss()(labels, logits))
    # Its teacher is itself, so that the teacher's part is nothing at first.
    twin = network()
    twin.set_weights(student.get_weights())
    model = compiled(student, twin, Lesson(weight=0.75))
    taught = gradient(model, lambda logits: ClassifierLoss()(labels, logits))
    np.testing.assert_allclose(taught, 0.25 * own, rtol=1e-4, atol=1e-7)


def test_validation_is_on_the_labels_alone(source):
    images, labels = source.splits["train"].images, source.splits["train"].labels
    student = network()
    model = compiled(student, network(filters=8), Lesson())
    found = model.evaluate(images, labels, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(
        float(ClassifierLoss()(labels, student(images))), rel=1e-5
    )


@pytest.mark.parametrize("match", ["logits", "features"])
def test_a_student_becomes_like_its_teacher_and_the_teacher_stays_as_it_was(source, match):
    images, labels = source.splits["train"].images, source.splits["train"].labels
    teacher, student = network(filters=8), network()
    teacher.get_layer("logits").kernel.assign(10 * teacher.get_layer("logits").kernel.numpy())
    before = [w.copy() for w in teacher.get_weights()]
    form = training_form(student)
    model = compiled(
        form, load_teacher_of(teacher), Lesson(temperature=1.0, weight=1.0, match=match)
    )
    first = kl(teacher(images), form(images), 1.0)
    model.fit(images, labels, epochs=25, batch_size=20, verbose=0)
    assert kl(teacher(images), form(images), 1.0) < 0.5 * first
    assert all(np.array_equal(a, b) for a, b in zip(before, teacher.get_weights(), strict=True))
    assert [w.shape for w in form.get_weights()] == [w.shape for w in student.get_weights()]
    projected = [w for w in model.trainable_variables if PROJECTION in w.path]
    assert len(projected) == (2 if match == "features" else 0)


def load_teacher_of(model):
    model.trainable = False
    return model


@pytest.mark.parametrize("match", ["logits", "features"])
def test_a_teacher_of_unchanged_images_is_asked_once(source, match):
    images, labels = source.splits["train"].images, source.splits["train"].labels
    lesson, teacher = Lesson(match=match), network(filters=8)
    losses = []
    for seen in (None, source.splits["train"]):
        keras.utils.set_random_seed(0)
        model = around_student(network(), teacher=teacher, lesson=lesson, seen=seen)
        if seen is not None:
            # Whoever is asked now has nothing to say.
            teacher.set_weights([0 * w for w in teacher.get_weights()])
        model.compile(keras.optimizers.Adam(0.01), ClassifierLoss())
        losses.append(model.fit(images, labels, batch_size=20, verbose=0, shuffle=False))
    np.testing.assert_allclose(*(one.history["loss"] for one in losses), rtol=1e-5)


def test_several_teachers_speak_with_one_voice(source, tmp_path):
    models = [network(), network(filters=8)]
    for place, model in enumerate(models):
        model.save(tmp_path / f"{place}.keras")
    both = load_teacher([tmp_path / "0.keras", tmp_path / "1.keras"], source)
    images = source.splits["train"].images[:4]
    logs = [keras.ops.log_softmax(model(images)) for model in models]
    np.testing.assert_allclose(both(images), (logs[0] + logs[1]) / 2, atol=1e-4)
    assert not both.trainable_variables


def test_a_run_is_a_teacher(tiny_run, source):
    teacher = load_teacher([tiny_run], source)
    assert teacher.output_shape == (None, 3)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"classes": 4}, "which has 4 classes rather than 3"),
        ({"size": 16}, r"which takes images \(16, 16, 3\) rather than \(8, 8, 3\)"),
    ],
)
def test_a_teacher_of_something_else_is_refused(source, tmp_path, made, words):
    network(**made).save(tmp_path / "other.keras")
    with pytest.raises(InputError, match=f"`teacher` must be of the same images.*{words}"):
        load_teacher([tmp_path / "other.keras"], source)


def test_a_teacher_with_other_names_or_that_is_not_there_is_refused(tiny_run, source):
    other = Source("tiny", source.splits, ("a", "b", "c"))
    with pytest.raises(InputError, match="has the classes"):
        load_teacher([tiny_run], other)
    with pytest.raises(InputError, match=r"`teacher` must be a run or a \.keras file that exists"):
        load_teacher(["none.keras"], source)
    with pytest.raises(InputError, match="`run` must be a run folder"):
        load_teacher(["none"], source)


def test_a_quantized_run_is_no_teacher(tiny_run, source, monkeypatch):
    file = tiny_run.path / "quantized.tflite"
    monkeypatch.setattr(type(tiny_run), "quantized_file", file)
    with pytest.raises(InputError, match="`run` must have a Keras model for a teacher"):
        load_teacher([tiny_run], source)


@pytest.mark.parametrize(
    "change", [{"temperature": 0}, {"weight": 0}, {"weight": 1.5}, {"match": "both"},
               {"temperature": "hot"}]
)  # fmt: skip
def test_a_lesson_checks_itself(change):
    with pytest.raises(InputError, match=f"`{next(iter(change))}` must be"):
        Lesson(**change)


def test_features_need_one_last_layer(source, tmp_path):
    for place in range(2):
        network().save(tmp_path / f"{place}.keras")
    both = load_teacher([tmp_path / "0.keras", tmp_path / "1.keras"], source)
    with pytest.raises(InputError, match="`match` must be 'logits'"):
        around_student(training_form(network()), teacher=both, lesson=Lesson(match="features"))


def test_compress_distills_into_another_network(tiny_arrays, tiny_run, no_measuring):
    parent = shutil.copytree(tiny_run.path, "parent")
    found = kclassify.compress(
        parent, technique="distill", filters=2, epochs=1, data=tiny_arrays, run_dir="small",
        verbose=False,
    )  # fmt: skip
    assert found.run.summary["parameters"] < tiny_run.summary["parameters"]
    assert found.run.config["compression"]["teacher"] == [str(parent)]
