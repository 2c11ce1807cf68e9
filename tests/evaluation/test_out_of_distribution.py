import json

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

import kclassify
from kclassify.checks import InputError
from kclassify.evaluation import out_of_distribution as room
from kclassify.evaluation.features import unit
from kclassify.evaluation.out_of_distribution import (
    auroc_interval,
    neighbour_of,
    out_of_distribution,
)


def test_each_set_is_measured_by_each_score_and_written(run, others):
    found = out_of_distribution(run, data=others, images=30, verbose=False)
    sets = ["uniform noise", "gaussian noise", "digits", "photographs"]
    assert found.table["against"].unique().tolist() == sets
    assert found.table["score"].unique().tolist() == ["max_softmax", "energy", "nearest_neighbour"]
    assert (found.table["images"] == 30).all()
    shares = found.table[["auroc", "fpr95", "fpr95_low", "fpr95_high"]]
    assert shares.ge(0).all(axis=None)
    assert shares.le(1).all(axis=None)
    facts = json.loads(run.analysis_file("out_of_distribution").read_text())
    assert facts["weights_sha256"] == run.summary["weights_sha256"]
    assert len(facts["rows"]) == 12
    assert found.verdict in str(found)


def test_the_same_images_are_told_apart_by_chance(run, others):
    data = dict.fromkeys(("train", "validation", "test"), others)
    kclassify.evaluate(run, data=data, verbose=False)
    found = out_of_distribution(run, data=data, against=others, verbose=False)
    assert found.table["auroc"].tolist() == pytest.approx([0.5] * 3, abs=1e-6)
    assert (found.table["fpr95"] >= 0.9).all()


def test_a_folder_of_other_classes_will_do(run, others, tmp_path):
    rng = np.random.default_rng(0)
    for kind in ("stars", "moons"):
        (tmp_path / "others" / kind).mkdir(parents=True)
        for number in range(4):
            image = Image.fromarray(rng.integers(0, 256, (12, 10, 3), "uint8"))
            image.save(tmp_path / "others" / kind / f"{number}.png")
    found = out_of_distribution(run, data=others, against=tmp_path / "others", verbose=False)
    assert found.table["against"].unique().tolist() == ["others"]
    assert (found.table["images"] == 8).all()


def test_crops_are_pieces_of_each_photograph_in_turn(monkeypatch):
    rows = np.broadcast_to(np.arange(0, 200, 2)[:, None, None], (100, 120, 3)).astype("uint8")
    flat = np.broadcast_to(np.array([110, 120, 130], "uint8"), (100, 120, 3))
    photographs = type("Photographs", (), {"images": [rows, flat]})
    monkeypatch.setattr(room, "load_sample_images", lambda: photographs)
    monkeypatch.setattr(room, "CROPS_AT_ONCE", 2)
    found = room._crops((9, 8, 10, 3), np.random.default_rng(0)).astype(int)
    assert (found[1::2] == [110, 120, 130]).all()
    # Shrunk by half, a row is two further down; the smoothing bends the ends.
    assert (np.diff(found[::2], axis=1)[:, 1:-1] == 4).all()
    assert (found[::2] == found[::2, :, :1, :1]).all()
    assert len(np.unique(found[::2, 0, 0, 0])) > 1


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_is_around_scikit_learns_auroc(seed):
    rng = np.random.default_rng(seed)
    known, unknown = rng.integers(2, 12, 60), rng.integers(0, 9, 40)  # with ties
    low, high = auroc_interval(known, unknown)
    scores, truth = np.concatenate([known, unknown]), np.repeat([1, 0], [60, 40])
    assert (low + high) / 2 == pytest.approx(roc_auc_score(truth, scores))


def test_the_interval_holds_the_true_auroc_as_often_as_it_says():
    rng, held = np.random.default_rng(0), 0
    true = 0.7602499389065233  # of two normals one standard deviation apart
    for _ in range(1000):
        low, high = auroc_interval(rng.normal(1, 1, 200), rng.normal(0, 1, 200))
        held += low <= true <= high
    assert 0.93 <= held / 1000 <= 0.97


def test_distances_are_scikit_learns():
    rng = np.random.default_rng(0)
    vectors, bank = unit(rng.normal(size=(20, 5))), unit(rng.normal(size=(70, 5)))
    expected = NearestNeighbors(n_neighbors=4).fit(bank).kneighbors(vectors)[0][:, 3]
    np.testing.assert_allclose(room._distances(vectors, bank, 4, at_once=7), expected, rtol=1e-5)


def test_the_neighbour_is_the_papers_share_of_the_training_images():
    assert [neighbour_of(images) for images in (3, 10_000, 50_000)] == [1, 10, 50]


@pytest.mark.parametrize("options", [{"images": 1}, {"seed": -1}])
def test_a_users_mistake_is_said(run, options):
    with pytest.raises(InputError, match="must be a whole number"):
        out_of_distribution(run, verbose=False, **options)


def test_what_is_no_data_is_refused(run, others):
    with pytest.raises(InputError, match="`data` must be"):
        out_of_distribution(run, data=others, against=5, verbose=False)


def test_noise_is_as_bright_and_as_varied_as_the_images_however_large_they_are():
    # In 32 bits, a sum of so many pixels of 200 stops at 2**32.
    images = np.full((1, 5000, 5000, 1), 200, np.uint8)
    images[:, ::2] = 180
    noise = room._noise_like(images, (40, 50, 50, 1), np.random.default_rng(0))
    assert noise.mean() == pytest.approx(190, abs=0.2)
    assert noise.std() == pytest.approx(10, abs=0.2)
