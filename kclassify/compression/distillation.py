"""A network that learns from what others say of its images, as well as from their labels.

The losses are Keras's own. Its `Distiller` is not used: to match features it runs the network
twice a step, which also moves batch normalization's statistics twice, and its validation loss is
not that of the labels.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kclassify import runtime
from kclassify.checks import InputError, check_choice, check_number
from kclassify.data.spec import Examples, Source
from kclassify.models.blocks import LOGITS
from kclassify.models.folding import fold_batch_norm
from kclassify.models.saved import check_layers, load_keras_file, load_run_model
from kclassify.models.training_form import training_form
from kclassify.runs import Run

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import ops  # noqa: E402

from kclassify.data.pipeline import eval_dataset  # noqa: E402

# From images to a list of what is said of them.
Ask = Callable[[tf.Tensor], list[tf.Tensor]]

MATCH = ("logits", "features")
PROJECTION = "projection"
ASKED_AT_ONCE = 256


@dataclass(frozen=True)
class Lesson:
    """How a network learns from a teacher.

    Attributes:
        temperature: what both networks' logits are divided by; the higher, the more the wrong
            classes count (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network").
        weight: the teacher's share of the loss; the labels have the rest.
        match: ``"logits"``; or ``"features"``, which also brings the inputs of the last layer near
            to the teacher's, by a linear map that is trained too and then left out (after Romero
            et al. 2015, "FitNets").
    """

    temperature: float = 2.0
    weight: float = 0.5
    match: str = "logits"

    def __post_init__(self) -> None:
        check_choice("match", self.match, MATCH)
        for name, most in (("temperature", 1000), ("weight", 1)):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            expected = f"a number above 0 and at most {most}"
            check_number(name, value, expected=expected, ok=number and 0 < value <= most)


def load_teacher(
    teachers: Sequence[Any], source: Source, *, policy: str = "float32", any_size: bool = False
) -> keras.Model:
    """Return one model that says what a teacher, or several together, say.

    Args:
        teachers: runs or their folders, or ``.keras`` files; of several, the log probabilities
            are averaged.
        source: the data that the student is trained on.
        policy: the dtype policy, as of a network that is trained: asked in 32 bits, a teacher
            can take longer than the student's own step in 16.
        any_size: whether it is asked of images of any height and width.

    Returns:
        A frozen model from uint8 images to logits, with batch normalization folded away.

    Raises:
        InputError: there is no such model, or it is one of other images or classes.
    """
    models = [
        training_form(fold_batch_norm(_load(one, source)), policy=policy, any_size=any_size)
        for one in teachers
    ]
    model = models[0] if len(models) == 1 else _ensemble(models)
    model.trainable = False
    return model


def _load(teacher: Any, source: Source) -> keras.Model:
    if not isinstance(teacher, str | os.PathLike):
        raise InputError(
            f"`teacher` must be a run, a .keras file, or a list of these. Received: {teacher!r}."
        )
    path = Path(teacher)
    if path.suffix == ".keras":
        if not path.is_file():
            raise InputError(
                f"`teacher` must be a run or a .keras file that exists. Received: {str(path)!r}."
            )
        model, names = load_keras_file(path), None
    else:
        run = Run.open(teacher)
        check_layers(run, purpose="a teacher")
        model, names = load_run_model(run), tuple(run.config["class_names"])
    _check_same(teacher, model, names, source)
    return model


def _check_same(
    teacher: Any, model: keras.Model, names: tuple[str, ...] | None, source: Source
) -> None:
    shape, classes = model.input_shape[1:], model.output_shape[-1]
    differs = None
    if shape != source.input_shape:
        differs = f"takes images {shape} rather than {source.input_shape}"
    elif classes != source.num_classes:
        differs = f"has {classes} classes rather than {source.num_classes}"
    elif names is not None and names != source.class_names:
        differs = f"has the classes {list(names)} rather than {list(source.class_names)}"
    if differs:
        raise InputError(
            f"`teacher` must be of the same images and classes as the run. Received: "
            f"{str(teacher)!r}, which {differs}. Train one on the same data."
        )


def _ensemble(models: Sequence[keras.Model]) -> keras.Model:
    """Return the model whose probabilities are the geometric mean of those of several."""
    images = keras.Input(models[0].input_shape[1:], dtype="uint8", name="images")
    # Two networks of one kind have one name, and Keras takes no two of it.
    named = [
        keras.Model(model.input, model.output, name=f"teacher_{place}")
        for place, model in enumerate(models)
    ]
    logs = [keras.layers.Activation("log_softmax")(model(images)) for model in named]
    return keras.Model(images, keras.layers.Average()(logs), name="ensemble")


class Distilling(keras.layers.Layer):
    """Pass a student's logits on, and while it learns add the loss of not being like the teacher.

    Args:
        ask: from images to what the student is to be like, in the order of `losses`. A function,
            since a teacher's weights are not the student's, nor are they ever trained.
        losses: Keras's distillation losses.
        weight: of their sum.
    """

    def __init__(self, ask: Ask, losses: Sequence[Any], *, weight: float):
        super().__init__(name="distilling", dtype="float32")
        self.ask = ask
        self.losses_of = tuple(losses)
        self.weight = weight

    def call(self, inputs, training=None):
        images, logits, *others = inputs
        if training:
            pairs = zip(self.losses_of, self.ask(images), [logits, *others], strict=True)
            found = [
                loss.compute_loss(ops.cast(theirs, "float32"), ops.cast(ours, "float32"))
                for loss, theirs, ours in pairs
            ]
            self.add_loss(self.weight * sum(found))
            # The same value, of which the labels' loss sees a gradient of its own share.
            share = 1.0 - self.weight
            logits = share * logits + ops.stop_gradient((1.0 - share) * logits)
        return logits

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor(inputs[1].shape, "float32")


def around_student(
    student: keras.Model, *, teacher: keras.Model, lesson: Lesson, seen: Examples | None = None
) -> keras.Model:
    """Return the model to train: `student` with the teacher's part of the loss added.

    Its answers are the student's, and so are its weights, but for those of a projection where
    features are matched.

    Args:
        student: in the form in which it is trained.
        teacher: see `load_teacher`.
        lesson: what is learned.
        seen: all the images that are learned from, where they are never changed: then the teacher
            is asked only once for each.
    """
    images = student.input
    # By its default, the name of the loss, Keras 3.15 takes the divergence of logits that were not
    # made probabilities.
    divergence = keras.losses.KLDivergence()
    losses = [keras.distillation.LogitsDistillation(lesson.temperature, divergence)]
    asked, ours = [teacher.output], [student.output]
    if lesson.match == "features":
        losses.append(keras.distillation.FeatureDistillation(loss="mse"))
        features = _features(teacher)
        asked.append(features)
        project = keras.layers.Dense(features.shape[-1], name=PROJECTION, dtype="float32")
        ours.append(project(_features(student)))
    answers = keras.Model(teacher.input, asked)
    # A model of one output gives it without a list.
    ask: Ask = lambda batch: keras.tree.flatten(answers(batch, training=False))  # noqa: E731
    ask = ask if seen is None else remembered(ask, seen)
    distilling = Distilling(ask, losses, weight=lesson.weight)
    return keras.Model(images, distilling([images, *ours]), name=student.name)


def remembered(ask: Ask, seen: Examples) -> Ask:
    """Return what knows the answers for some images, by fingerprints of their pixels."""
    keys, parts = [], []
    for images, _ in eval_dataset(seen, batch_size=ASKED_AT_ONCE):
        keys.append(_fingerprints(images))
        parts.append(ask(images))
    known, first = np.unique(np.concatenate(keys), return_index=True)
    answers = [tf.gather(tf.concat(part, axis=0), first) for part in zip(*parts, strict=True)]
    places = tf.lookup.KeyValueTensorInitializer(known, np.arange(len(known)))
    table = tf.lookup.StaticHashTable(places, default_value=-1)
    return lambda images: [tf.gather(part, table.lookup(_fingerprints(images))) for part in answers]


def _fingerprints(images: tf.Tensor) -> tf.Tensor:
    """Return int64 ``(batch_size,)``, which differ where images do."""
    return tf.bitcast(tf.fingerprint(images), tf.int64)


def _features(model: keras.Model) -> keras.KerasTensor:
    """Return what the last layer sees."""
    last = next((layer for layer in model.layers if layer.name == LOGITS), None)
    if not isinstance(last, keras.layers.Dense):
        raise InputError(
            "`match` must be 'logits' where a network does not end with one dense layer named "
            f"{LOGITS!r}. Received: match='features' with {model.name!r}."
        )
    return last.input
