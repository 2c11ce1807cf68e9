import json

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_distances
from sklearn.neighbors import NearestNeighbors

import kclassify
from kclassify.checks import InputError
from kclassify.evaluation import features as room
from kclassify.evaluation.features import class_distances, feature_model, first_filters, learned
from kclassify.evaluation.subject import open_subject
from kclassify.models.registry import build_model
from kclassify.runs import Run


def test_everything_is_found_and_written(run, others):
    found = learned(run, data=others, verbose=False)
    assert found.distances.shape == (3, 3)
    assert found.drawn_by == "t-SNE"
    assert len(found.embedding) == 60
    assert found.filters.dtype == np.uint8
    assert found.filters.shape[1:] == (3, 3, 3)
    facts = json.loads(run.analysis_file("learned").read_text())
    assert facts["weights_sha256"] == run.summary["weights_sha256"]
    assert facts["closest"][0]["distance"] == found.closest["distance"].min()
    for name in ("class_distances", "neighbours", "embedding"):
        assert run.table_file(name).is_file()
    assert found.verdict in str(found)


def test_images_that_are_given_are_not_their_own_neighbours(run, others):
    found = learned(run, data=others, verbose=False)
    assert found.training_images == len(run.source.splits["train"]) < 60
    with pytest.raises(InputError, match="`data` must be given with its train split"):
        learned(Run(run.path), data=others, verbose=False)


def test_each_part_number_and_seed_is_sampled_by_itself_and_once(run, others):
    subject = open_subject(run, data=others, verbose=False)
    asked = [("evaluated", 9, 0), ("train", 9, 0), ("validation", 9, 0), ("evaluated", 9, 1),
             ("evaluated", 6, 0)]  # fmt: skip
    found = [room.sampled(subject, part, most, seed=seed) for part, most, seed in asked]
    assert len({tuple(one.examples.ids) for one in found}) == len(asked)
    for (part, most, seed), one in zip(asked, found, strict=True):
        examples = subject.examples() if part == "evaluated" else run.source.splits[part]
        assert set(one.examples.ids) <= set(examples.ids)
        assert len(one.examples) == len(one.features) == min(most, len(examples))
        assert room.sampled(subject, part, most, seed=seed) is one
        expected = subject.network(one.examples.images, training=False)
        np.testing.assert_allclose(one.logits, expected, atol=1e-5)


def test_the_same_seed_draws_the_same(run, others):
    a, b = (learned(run, data=others, verbose=False, seed=1).embedding for _ in range(2))
    np.testing.assert_array_equal(a[["x", "y"]], b[["x", "y"]])


def test_few_images_are_drawn_by_principal_components(run, others):
    few = (others[0][:6], others[1][:6])
    kclassify.evaluate(run, data=few, verbose=False)
    found = learned(run, data=few, verbose=False)
    assert found.drawn_by == "PCA"
    assert np.isfinite(found.embedding[["x", "y"]]).all(axis=None)


def test_features_are_what_the_last_layer_takes():
    model = build_model("convnet", input_shape=(8, 8, 3), num_classes=2, depth=2)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), "uint8")
    kernel, bias = model.layers[-1].get_weights()
    answers = np.asarray(feature_model(model)(images, training=False)) @ kernel + bias
    np.testing.assert_allclose(answers, model(images, training=False), rtol=1e-4, atol=1e-5)


def test_class_distances_are_scikit_learns():
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(50, 5)), rng.integers(0, 3, 50)
    found = class_distances(vectors, labels, ("a", "b", "c", "absent"))
    means = np.array([vectors[labels == name].mean(axis=0) for name in range(3)])
    np.testing.assert_allclose(found.iloc[:3, :3], cosine_distances(means), atol=1e-9)
    assert found["absent"].isna().all()


def test_neighbours_are_scikit_learns():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(6, 4)), rng.normal(size=(40, 4))
    places, distances = room._nearest(ours[[4, 1]], theirs)
    search = NearestNeighbors(n_neighbors=room.NEIGHBOURS, metric="cosine").fit(theirs)
    expected, where = search.kneighbors(ours[[4, 1]])
    np.testing.assert_array_equal(places, where)
    np.testing.assert_allclose(distances, expected, atol=1e-9)


@pytest.mark.parametrize(("name", "whitening"), [("fastnet", True), ("convnet", False)])
def test_the_first_filters_are_stretched_around_zero(name, whitening):
    model = build_model(name, input_shape=(16, 16, 3), num_classes=2)
    filters, is_whitening = first_filters(model)
    assert is_whitening == whitening
    assert (filters.min(axis=(1, 2, 3)) == 0).any()
    assert ((filters == 0) | (filters == 255)).any(axis=(1, 2, 3)).all()


def test_a_nested_backbone_has_filters_too():
    options = {"backbone": "MobileNetV3Small"}
    model = build_model("application", input_shape=(32, 32, 3), num_classes=2, **options)
    assert first_filters(model)[0].shape == (16, 3, 3, 3)


@pytest.mark.parametrize("options", [{"most": 0}, {"seed": -1}])
def test_a_users_mistake_is_said(run, options):
    with pytest.raises(InputError, match="must be a whole number"):
        learned(run, verbose=False, **options)
