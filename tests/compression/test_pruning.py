import numpy as np
import pytest

from kclassify.checks import InputError
from kclassify.compression import pruning
from kclassify.compression.pruning import (
    CRITERIA,
    REACHED,
    SCOPES,
    UPDATES,
    GradualPruning,
    apply_masks,
    check_pruning,
    hold,
    kernels,
    masks_of,
    scorer,
    sparsity_of,
)
from kclassify.data.spec import Examples
from kclassify.models.registry import build_model
from kclassify.training.schedules import WarmUpThenShape

import keras  # isort: skip
import itertools


@pytest.fixture
def model():
    return build_model("convnet", input_shape=(8, 8, 3), num_classes=3, filters=4, depth=2)


@pytest.fixture
def train(tiny_arrays):
    images, labels = tiny_arrays
    return Examples(images, labels.astype("int32"), np.arange(len(images)).astype(str))


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("scope", SCOPES)
def test_as_many_weights_become_zero_as_was_asked_for(model, train, criterion, scope):
    scores = scorer(criterion, seed=0, train=train)(model)
    assert [score.shape for score in scores] == [tuple(k.shape) for k in kernels(model)]
    apply_masks(model, masks_of(scores, sparsity=0.75, scope=scope))
    assert sparsity_of(model) == pytest.approx(0.75, abs=0.01)
    if scope == "layer":
        for kernel in kernels(model):
            assert np.mean(kernel.numpy() == 0) == pytest.approx(0.75, abs=0.02)


def test_magnitude_keeps_the_largest_and_its_control_the_smallest(model, train):
    values = np.concatenate([np.abs(kernel.numpy()).ravel() for kernel in kernels(model)])
    for criterion, better in (("magnitude", np.greater_equal), ("largest", np.less_equal)):
        masks = masks_of(
            scorer(criterion, seed=0, train=train)(model), sparsity=0.5, scope="global"
        )
        kept = np.concatenate([mask.ravel() for mask in masks])
        edge = values[kept].min() if criterion == "magnitude" else values[kept].max()
        assert better(edge, values[~kept]).all()


def test_gradient_keeps_what_the_loss_depends_on(train):
    """A weight that sees nothing but zeros may go, however large it is."""
    images = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(images))
    x = keras.layers.Concatenate()([x, keras.layers.Rescaling(0.0)(x)])
    model = keras.Model(images, keras.layers.Dense(3)(x))
    (kernel,) = kernels(model)
    kernel.assign(np.concatenate([np.full((3, 3), 0.1) * np.eye(3), np.full((3, 3), 9.0)]))
    (scores,) = scorer("gradient", seed=0, train=train)(model)
    assert (scores[3:] == 0).all()
    assert (scores[np.eye(3, dtype=bool).nonzero()] > 0).all()


def test_gradients_are_of_images_of_all_classes(model, train, monkeypatch):
    seen = []
    plain = pruning.eval_dataset

    def batches(examples, **options):
        seen.extend(examples.class_ids.tolist())
        return plain(examples, **options)

    monkeypatch.setattr(pruning, "GRADIENT_IMAGES", 12)
    monkeypatch.setattr(pruning, "eval_dataset", batches)
    by_class = train.take(np.argsort(train.labels, kind="stable"))
    pruning.gradient_scores(model, by_class)
    assert len(seen) == 12
    assert set(seen) == {0, 1, 2}


def test_random_scores_are_the_seeds(model, train):
    first, same, other = (scorer("random", seed=seed, train=train)(model) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_equal_scores_do_not_go_all_at_once():
    (mask,) = masks_of([np.zeros((10, 10))], sparsity=0.3, scope="global")
    assert mask.sum() == 70


def test_masks_hold_while_a_network_is_trained(model, train):
    masks = masks_of(scorer("magnitude", seed=0, train=train)(model), sparsity=0.8, scope="global")
    apply_masks(model, masks)
    hold(model, masks)
    before = [kernel.numpy() for kernel in kernels(model)]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.01), loss)
    model.fit(train.images, train.labels, batch_size=20, epochs=2, verbose=0)
    for kernel, mask, old in zip(kernels(model), masks, before, strict=True):
        assert (kernel.numpy()[~mask] == 0).all()
        assert not np.array_equal(kernel.numpy()[mask], old[mask])


def test_a_mask_keeps_the_constraint_that_was_there(model):
    kernel = kernels(model)[0]
    kernel.constraint = keras.constraints.MaxNorm(0.0)
    hold(model, [np.ones(k.shape, bool) for k in kernels(model)])
    assert np.abs(np.asarray(kernel.constraint(kernel.value))).max() == pytest.approx(0, abs=1e-6)


def gradual(model, train, *, sparsity=0.9, steps=30):
    held = hold(model, [np.ones(k.shape, bool) for k in kernels(model)])
    score = scorer("magnitude", seed=0, train=train)
    schedule = WarmUpThenShape(0.05, "constant", steps, 0.0)
    return GradualPruning(model, held, score=score, sparsity=sparsity, scope="global",
                          schedule=schedule)  # fmt: skip


def test_the_sparsity_rises_by_the_cubic_schedule_and_what_has_gone_stays_away(model, train):
    seen = []

    class Spy(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            zeros = np.concatenate([k.numpy().ravel() == 0 for k in kernels(model)])
            seen.append(zeros)

    callback = gradual(model, train)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss)
    model.fit(train.images, train.labels, batch_size=6, epochs=3, verbose=0,
              callbacks=[callback, Spy()])  # fmt: skip
    shares = [zeros.mean() for zeros in seen]
    expected = []
    for step in range(1, len(seen) + 1):
        done = min(UPDATES, int(step / (REACHED * 30) * UPDATES)) / UPDATES
        expected.append(0.9 * (1 - (1 - done) ** 3))
    np.testing.assert_allclose(shares, expected, atol=0.01)
    for before, after in itertools.pairwise(seen):
        assert after[before].all()


def test_gradual_pruning_can_be_gone_on_with(model, train):
    callback = gradual(model, train)
    callback._prune(0.5)
    callback.updates = 7
    state = callback.state
    other = build_model("convnet", input_shape=(8, 8, 3), num_classes=3, filters=4, depth=2)
    again = gradual(other, train)
    again.state = state
    assert again.updates == 7
    for mask, kernel in zip(again.held, kernels(model), strict=True):
        assert np.array_equal(mask.mask.numpy() == 0, kernel.numpy() == 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sparsity": 1.0}, "`sparsity` must be a share of at least 0 and below 1"),
        ({"sparsity": -0.1}, "`sparsity`"),
        ({"sparsity": True}, "`sparsity`"),
        ({"sparsity": "most"}, "`sparsity`"),
        ({"criterion": "magnitud"}, "Did you mean 'magnitude'"),
        ({"scope": "model"}, "`scope` must be one of"),
        ({"ramp": "linear"}, "`ramp` must be one of"),
    ],
)
def test_bad_input_is_named(change, words):
    options = {"sparsity": 0.5, "criterion": "magnitude", "scope": "global", "ramp": "cubic"}
    with pytest.raises(InputError, match=words):
        check_pruning(**{**options, **change})
