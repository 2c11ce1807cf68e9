import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from kclassify.checks import InputError, VerificationError
from kclassify.models.test_time import with_test_time
from kclassify.models.weights import weights_hash
from kclassify.runs import Run
from kclassify.serving import saved_model, verify
from kclassify.serving.saved_model import export, versions


@pytest.fixture
def own_run(make_run, tmp_path):
    return make_run(tmp_path / "own")


def left_in(run):
    return sorted(path.name for path in run.export_dir.iterdir()) if run.export_dir.exists() else []


def test_the_folder_has_the_layout_of_tf_serving(exported, run):
    assert exported == run.export_dir / "1"
    assert left_in(run) == ["1"]
    for name in ("saved_model.pb", "variables/variables.index", "assets.extra/metadata.json"):
        assert (exported / name).is_file()


def test_the_signatures_serve_what_keras_predicts(exported, images, expected):
    signature = tf.saved_model.load(exported).signatures["serving_default"]
    first, second = (signature(images=tf.constant(images)) for _ in range(2))
    np.testing.assert_allclose(first["probabilities"], expected, atol=1e-6)
    np.testing.assert_array_equal(first["probabilities"], second["probabilities"])
    assert first["class_id"].dtype == tf.int64
    names = [name.decode() for name in first["label"].numpy()]
    class_names = json.loads((exported / "assets.extra/metadata.json").read_text())["class_names"]
    assert names == [class_names[index] for index in expected.argmax(-1)]
    assert len(set(names)) > 1


def test_keras_own_export_would_have_been_random(model, images, tmp_path):
    model.export(tmp_path / "plain", verbose=False)
    plain = tf.saved_model.load(tmp_path / "plain")
    assert not np.allclose(plain.serve(images), model(images, training=False), atol=1e-2)


def test_metadata_states_the_input_contract(exported, model):
    metadata = json.loads((exported / "assets.extra/metadata.json").read_text("utf-8"))
    assert metadata["class_names"] == ["ant", "bee", "caf\u00e9", "dog"]
    assert metadata["input"] == {"dtype": "uint8", "image_size": [12, 10], "channels": 3}
    assert metadata["weights_sha256"] == weights_hash(model)
    serve = metadata["signatures"]["serving_default"]
    assert serve["inputs"] == {"images": {"dtype": "uint8", "shape": [None, None, None, 3]}}
    assert serve["outputs"]["label"] == {"dtype": "string", "shape": [None]}
    assert list(metadata["signatures"]["serve_bytes"]["inputs"]) == ["image_bytes"]
    lean = metadata["signatures"]["probabilities"]
    assert lean["inputs"] == {"images": {"dtype": "uint8", "shape": [None, 12, 10, 3]}}
    assert lean["outputs"] == {"probabilities": {"dtype": "float32", "shape": [None, 4]}}
    assert metadata["tta"] == "none"


def test_the_verification_is_kept(exported, images):
    record = json.loads((exported / "verification.json").read_text())
    checks = record["formats"]["saved_model"]
    assert set(checks) == {
        "serving_default",
        "serving_default at another size",
        "serve_bytes",
        "probabilities",
    }
    assert checks["serving_default"]["images"] == record["images"] == len(images)
    assert checks["serve_bytes"]["images"] > len(images)
    for check in checks.values():
        assert check["max_difference"] <= 1e-5
        assert check["class_ids_equal"]
        assert check["repeatable"]


def test_a_failed_verification_leaves_nothing(own_run, monkeypatch):
    seen = []

    def wrong(name, folder, inputs):
        seen.extend(path.name for path in folder.iterdir())
        answer = np.full((len(inputs["images"]), 4), 0.25, np.float32)
        return {"images/probabilities": answer, "images/repeatable": np.array(True)}

    monkeypatch.setattr(verify, "_ask", wrong)
    with pytest.raises(VerificationError, match="does not serve what was evaluated"):
        export(own_run)
    assert "saved_model.pb" in seen
    assert not own_run.export_dir.exists()


def test_a_process_that_fails_leaves_nothing_and_says_why(own_run, monkeypatch, tmp_path):
    (tmp_path / "child.py").write_text("raise SystemExit('no such op')")
    monkeypatch.setattr(verify, "CHILD", tmp_path / "child.py")
    (own_run.export_dir / "4").mkdir(parents=True)
    with pytest.raises(VerificationError, match=r"fresh process:\nno such op"):
        export(own_run)
    assert left_in(own_run) == ["4"]


def test_versions_count_up_past_gaps_and_other_folders(own_run, unverified):
    (own_run.export_dir / "7").mkdir(parents=True)
    (own_run.export_dir / "notes").mkdir()
    assert export(own_run).name == "8"
    assert export(own_run, version=3).name == "3"
    assert versions(own_run.export_dir) == [3, 7, 8]


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (7, "leave it out for 8"),
        (0, "whole number above 0"),
        ("2", "whole number"),
        (True, "whole"),
    ],
)
def test_a_version_that_cannot_be(own_run, unverified, version, message):
    (own_run.export_dir / "7").mkdir(parents=True)
    with pytest.raises(InputError, match=f"(?i)`version` must be.*{message}"):
        export(own_run, version=version)
    assert left_in(own_run) == ["7"]


def small_network(width=4):
    """Return a network with a batch normalization that can be folded, and one that cannot."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 10, 3), dtype="uint8", name="images")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(width, 3)(x))
    x = keras.layers.BatchNormalization()(keras.layers.Activation("relu")(x))
    outputs = keras.layers.Dense(4)(keras.layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    for weight in model.weights:
        noise = np.random.default_rng(0).normal(0, 0.3, weight.shape)
        weight.assign(weight.numpy() + noise * ("variance" not in weight.path))
    return model


@pytest.fixture
def foldable_run(own_run):
    model = small_network()
    model.save(own_run.model_file)
    own_run.write(own_run.summary_file, {"weights_sha256": weights_hash(model)})
    return own_run


@pytest.mark.parametrize("tta", ["none", "flip_shift"])
def test_batch_normalization_is_folded_and_the_answers_stay(foldable_run, images, tta, unverified):
    model = with_test_time(keras.saving.load_model(foldable_run.model_file, compile=False), tta)
    folder = export(foldable_run, tta=tta)
    served = tf.saved_model.load(folder)
    # Kernel and bias of the convolution and of the dense layer, and the normalization that stays.
    assert len(served.signatures["probabilities"].variables) == 4 + 4
    assert json.loads((folder / "assets.extra/metadata.json").read_text())["tta"] == tta
    expected = keras.ops.softmax(model(images))
    for name in ("serving_default", "probabilities"):
        found = served.signatures[name](images=tf.constant(images))["probabilities"]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_unknown_test_time_augmentation_is_refused_before_any_work(tmp_path):
    with pytest.raises(InputError, match=r"`tta` must be one of.*Did you mean 'flip_shift'"):
        export(tmp_path / "no-run", tta="flipshift")


def test_another_test_time_augmentation_than_the_evaluated_one_fails(foldable_run, monkeypatch):
    monkeypatch.setattr(saved_model, "fold_batch_norm", lambda model: with_test_time(model, "flip"))
    with pytest.raises(VerificationError, match="does not serve what was evaluated"):
        export(foldable_run)


def test_an_unknown_format_names_the_nearest(run):
    with pytest.raises(InputError, match="Did you mean 'onnx'"):
        export(run, formats=("saved_model", "onx"))


@pytest.mark.parametrize(("name", "package"), [("onnx", "tf2onnx"), ("litert", "ai_edge_litert")])
def test_a_missing_package_names_the_extra(run, monkeypatch, name, package):
    monkeypatch.setattr("kclassify.checks.find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"{package}.*pip install 'kclassify\[{name}\]'"):
        export(run, formats=name)


def test_other_weights_than_the_evaluated_ones_are_refused(own_run, model):
    other = keras.models.clone_model(model)
    other.trainable_weights[0].assign_add(other.trainable_weights[0] * 1e-3)
    other.save(own_run.model_file)
    with pytest.raises(InputError, match="weights in model"):
        export(own_run)
    assert not own_run.export_dir.exists()


def test_a_run_without_samples_is_refused(own_run):
    own_run.samples_file.unlink()
    with pytest.raises(InputError, match=r"samples\.npz"):
        export(own_run)


def test_a_damaged_model_is_refused(own_run):
    own_run.model_file.write_bytes(own_run.model_file.read_bytes()[:500])
    with pytest.raises(InputError, match=r"whole \.keras file"):
        export(own_run)


def test_no_permission_to_write_is_one_sentence(own_run, monkeypatch):
    def refuse(self, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(saved_model.Path, "mkdir", refuse)
    with pytest.raises(InputError, match="not writable"):
        export(own_run)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(InputError, match="`run` must be"):
        export(Run(tmp_path / "nothing").path)


def test_other_formats_agree_in_their_own_runtime(other_format):
    record = json.loads(other_format.with_name("verification.json").read_text())
    (checks,) = record["formats"].values()
    check = checks["images"]
    assert check["images"] == 70
    assert check["max_difference"] <= 1e-5
    assert check["class_ids_equal"]


def test_the_weights_hash_follows_the_weights(model):
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    assert weights_hash(twin) == weights_hash(model)
    kernel = twin.trainable_weights[0]
    kernel.assign(kernel.numpy() + 1e-6)
    assert weights_hash(twin) != weights_hash(model)


def test_a_version_that_another_export_takes_meanwhile_is_named(own_run, monkeypatch):
    def taken(folder, *_, **__):
        other = own_run.export_dir / "1"
        other.mkdir()
        (other / "model").write_text("of another process")
        return {"images": 0}

    monkeypatch.setattr(saved_model, "verify", taken)
    with pytest.raises(InputError, match="another export has taken in the meantime"):
        export(own_run)
    assert left_in(own_run) == ["1"]
    assert (own_run.export_dir / "1" / "model").read_text() == "of another process"
