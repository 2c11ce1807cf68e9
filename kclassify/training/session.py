"""What a training is made of: the network, its form for training, compiled, and the batches."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.config import MIXING, FitConfig
from kclassify.data.selection import Selection
from kclassify.data.spec import Examples, PackedImages, Share, Source
from kclassify.models.registry import build_model

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.data.pipeline import eval_dataset, first_images, train_dataset  # noqa: E402
from kclassify.data.progressive import at_stage, growing  # noqa: E402
from kclassify.data.service import check_service  # noqa: E402
from kclassify.models.cost import count_macs  # noqa: E402
from kclassify.models.training_form import training_form  # noqa: E402
from kclassify.models.whitening import has_whitening, set_whitening  # noqa: E402
from kclassify.training.dials import Dials, build_dials  # noqa: E402
from kclassify.training.learned import SeenLosses, watch, why_not  # noqa: E402
from kclassify.training.losses import build_loss  # noqa: E402
from kclassify.training.optimizers import (  # noqa: E402
    build_optimizer,
    clip_kernels,
    clip_sums,
    leave_out_all_reduce,
)
from kclassify.training.replicas import Replicas, of_this_process  # noqa: E402
from kclassify.training.schedules import WarmUpThenShape, build_schedule  # noqa: E402

WHITENING_IMAGES, WHITENING_PIXELS = 5000, 5000 * 32 * 32
# Below this many images a call into TensorFlow, the call costs more than the arithmetic.
IMAGES_PER_EXECUTION = 128
VALIDATION_BATCH = 256


@dataclass(frozen=True)
class Start:
    """What a training begins with that is no new network of its configuration.

    Attributes:
        network: a network with weights; None builds a new one.
        form: from the network to the model that has its weights in training, where that is not
            `training_form`.
        around: from that model to the one that is compiled, where more is trained than it.
        begin: how far along its shape the learning rate begins, in [0, 1).
    """

    network: keras.Model | None = None
    form: Callable[[keras.Model], keras.Model] | None = None
    around: Callable[[keras.Model], keras.Model] | None = None
    begin: float = 0.0


NEW = Start()


@dataclass(frozen=True)
class Session:
    """A training that is ready to start.

    Attributes:
        network: what is saved at the end: Keras's own layers in float32.
        trained: the same weights, in the form in which they are trained.
        model: what is compiled: `trained`, or what it is a part of.
        schedule: the learning rate over time, whose length can still be set.
        config: the resolved configuration.
        replicas: what makes the steps.
        policy: the dtype policy of `model`.
        steps: steps of one pass over the training images.
        soft: whether labels are `(batch_size, num_classes)`.
        dials: the numbers that can be changed without compiling again.
        seen: the losses of an epoch's images, where they are noted.
        beside: callbacks that change the network as it is trained, called before it is judged.
    """

    network: keras.Model
    trained: keras.Model
    model: keras.Model
    schedule: WarmUpThenShape
    config: FitConfig
    replicas: Replicas
    policy: str
    steps: int
    soft: bool
    dials: Dials = field(default_factory=dict)
    seen: SeenLosses | None = None
    beside: tuple[keras.callbacks.Callback, ...] = ()

    @property
    def device(self) -> str:
        """TensorFlow's name of the device; of several, the first of this process."""
        return self.replicas.devices[0]

    @property
    def steps_per_execution(self) -> int:
        """Steps a call into TensorFlow; it divides the epoch, since Keras runs over its end."""
        if self.replicas.count > 1:
            # Keras's loop over several finds the end of the batches of one replica alone.
            return 1
        most = math.ceil(IMAGES_PER_EXECUTION / self.config.batch_size)
        return max(count for count in range(1, most + 1) if self.steps % count == 0)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image's way forward."""
        return count_macs(self.network)


def build_session(
    source: Source,
    config: FitConfig,
    *,
    schedule: keras.optimizers.schedules.LearningRateSchedule | None = None,
    start: Start = NEW,
    replicas: Replicas | None = None,
) -> Session:
    """Build and compile; whatever is wrong with the configuration shows here.

    Args:
        source: the data, prepared.
        config: the resolved configuration.
        schedule: the learning rate over time, where it is not the configuration's.
        start: what to begin with.
        replicas: what makes the steps, where it is not what the configuration says.

    Raises:
        InputError: the device does not exist, or the network does not take its arguments.
    """
    replicas = replicas or of_this_process(config)
    _check_shares(config, source, replicas)
    if config.data_service is not None:
        check_service(config.data_service, source)
    policy = runtime.mixed_precision_policy(replicas.devices[0], config.mixed_precision)
    runtime.seed_everything(config.seed, deterministic=config.deterministic)
    steps = len(source.splits["train"]) // config.batch_size
    with replicas.scope():
        network = start.network or _new_network(source, config)
        form = start.form or partial(
            training_form, policy=policy, any_size=config.progressive is not None
        )
        trained = form(network)
        seen = _seen_losses(source, config, replicas)
        model = start.around(trained) if start.around else trained
        if seen is not None:
            watch(model, seen)
        planned = build_schedule(config, total_steps=steps * config.epochs, begin=start.begin)
    soft = config.augmentation in MIXING or source.splits["train"].soft
    session = Session(
        network, trained, model, planned, config, replicas, policy, steps, soft, seen=seen
    )
    with replicas.scope():
        _compile(session, source, schedule=schedule or planned)
        _make_variables(session, source)
    return session


def _seen_losses(source: Source, config: FitConfig, replicas: Replicas) -> SeenLosses | None:
    if config.skip_learned is None or why_not(config, source):
        return None
    size = config.batch_size
    return SeenLosses(replicas, steps=len(source.splits["train"]) // size, batch_size=size)


def _check_shares(config: FitConfig, source: Source, replicas: Replicas) -> None:
    count, held_out = replicas.count, len(source.splits["validation"])
    if config.batch_size % count:
        below = config.batch_size // count * count
        near = [size for size in (below, below + count) if size]
        raise InputError(
            f"`batch_size` must be a multiple of the {count} devices that share it. "
            f"Received: batch_size={config.batch_size}. Take {' or '.join(map(str, near))}."
        )
    if held_out < count:
        raise InputError(
            f"`data` must have a validation image for each of {count} devices. "
            f"Received: {held_out}. Use fewer devices, or raise `validation_fraction`."
        )


def _new_network(source: Source, config: FitConfig) -> keras.Model:
    shape, classes = source.input_shape, source.num_classes
    network = build_model(config.model, input_shape=shape, num_classes=classes, **config.model_args)
    if has_whitening(network):
        # As many patches, however large the images: all of them are in memory, some times over.
        most = max(1, WHITENING_PIXELS // (shape[0] * shape[1]))
        some = source.splits["train"].some(min(most, WHITENING_IMAGES), seed=config.seed)
        set_whitening(network, first_images(some, len(some)))
    return network


def session_of(source: Source, config: FitConfig, model: keras.Model) -> Session:
    """Return the session of a model that somebody else has compiled; what it does is its own.

    Raises:
        InputError: it is not compiled, takes other images or gives other answers.
    """
    shape, classes = (None, *source.input_shape), source.num_classes
    ok = (
        getattr(model, "optimizer", None) is not None
        and tuple(model.input_shape) == shape
        and tuple(model.output_shape) == (None, classes)
    )
    if not ok:
        raise InputError(
            f"`hypermodel` must build compiled models from images {shape} to {classes} classes. "
            f"Received: one from {model.input_shape} to {model.output_shape}"
            f"{'' if getattr(model, 'optimizer', None) else ', not compiled'}."
        )
    steps = len(source.splits["train"]) // config.batch_size
    schedule = build_schedule(config, total_steps=steps * config.epochs)
    soft = config.augmentation in MIXING or source.splits["train"].soft
    replicas = Replicas((runtime.resolve_device(config.device),))
    policy = model.dtype_policy.name
    session = Session(model, model, model, schedule, config, replicas, policy, steps, soft)
    with replicas.scope():
        _make_variables(session, source)
    return session


def _compile(
    session: Session,
    source: Source,
    *,
    schedule: keras.optimizers.schedules.LearningRateSchedule,
) -> None:
    config, model = session.config, session.model
    if config.weight_clip:
        clip_kernels(session.trained, config.weight_clip)
    optimizer = build_optimizer(config, schedule, policy=session.policy)
    loss = build_loss(config, source.splits["train"], source.class_names)
    session.dials.update(
        build_dials(config, schedule=session.schedule, optimizer=optimizer, loss=loss)
    )
    model.compile(
        optimizer=optimizer,
        loss=loss,
        metrics=[_accuracy(soft=session.soft)],
        steps_per_execution=session.steps_per_execution,
        # XLA compiles for minutes on a CPU and is not faster there.
        jit_compile="auto" if session.device.startswith("GPU") else False,
    )


def _make_variables(session: Session, source: Source) -> None:
    """Make what Keras would make in the first step: a checkpoint is read into all of them."""
    model, classes = session.model, source.num_classes
    if session.replicas.count == 1:
        leave_out_all_reduce(model.optimizer)
    elif session.config.gradient_clip:
        clip_sums(model.optimizer)
    model.optimizer.build(model.trainable_variables)
    labels = tf.zeros((1, classes)) if session.soft else tf.zeros((1,), tf.int32)
    session.replicas.run(lambda: model.compute_metrics(None, labels, tf.zeros((1, classes))))
    model.reset_metrics()


def _accuracy(*, soft: bool) -> keras.metrics.Metric:
    kind = keras.metrics.CategoricalAccuracy if soft else keras.metrics.SparseCategoricalAccuracy
    return kind(name="accuracy")


def training_examples(session: Session, source: Source) -> Examples:
    """Return the training images as each device's pipeline reads them.

    Of the memory that reading packed images may take, each of this process's has its share.
    """
    train = source.splits["train"]
    if not isinstance(train.images, PackedImages):
        return train
    memory = train.images.memory // len(session.replicas.devices)
    return replace(train, images=replace(train.images, memory=memory))


def train_batches(
    session: Session,
    source: Source,
    *,
    epochs: int,
    steps: int = 1,
    start: int = 0,
    scales: tuple[float, ...] | None = None,
    selection: Selection | None = None,
) -> tf.data.Dataset:
    """Return the batches of `epochs` passes, on the session's device.

    Args:
        session: it says how batches are made.
        source: the data.
        epochs: how many passes.
        steps: of the whole training, of which each size of growing images has an equal part.
        start: how many steps have been made; their batches are left out.
        scales: the sizes, where they are not the configuration's.
        selection: the images of an epoch, where it has not all.
    """
    config, examples = session.config, training_examples(session, source)

    def make(share: Share) -> tf.data.Dataset:
        dataset = train_dataset(
            examples,
            batch_size=config.batch_size,
            epochs=epochs,
            start=start,
            seed=config.seed,
            augmentation=config.augmentation,
            num_classes=source.num_classes if session.soft else None,
            share=share,
            service=config.data_service,
            selection=selection,
        )
        if config.progressive is None:
            return dataset
        return growing(dataset, scales or config.progressive, steps=steps, start=start)

    return session.replicas.spread(make)


def validation_batches(
    session: Session, source: Source, *, stage: tf.Variable | None = None
) -> tf.data.Dataset:
    """Return the validation images once, on the session's device.

    Args:
        session: it says how batches are made.
        source: the data.
        stage: where images grow, which of the sizes these have.
    """

    def make(share: Share) -> tf.data.Dataset:
        dataset = eval_dataset(
            source.splits["validation"],
            batch_size=VALIDATION_BATCH * share.count,
            num_classes=source.num_classes if session.soft else None,
            share=share,
        )
        if stage is None:
            return dataset
        return at_stage(dataset, session.config.progressive or (1.0,), stage)

    return session.replicas.spread(make)
