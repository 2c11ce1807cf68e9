import io
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image

from kclassify.checks import InputError
from kclassify.serving import classifier as module
from kclassify.serving import inputs as reader
from kclassify.serving.classifier import load


@pytest.fixture(scope="module")
def served(exported):
    return load(exported)


@pytest.fixture(scope="module")
def labels(expected):
    return [["ant", "bee", "caf\u00e9", "dog"][index] for index in expected.argmax(-1)]


# What a test has changed since its export gets a warning.
UNVERIFIED = pytest.mark.filterwarnings("ignore:the files in")


def encode(array, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path, images):
    """Two images, one of them in a folder below, and a text file."""
    path = tmp_path / "pictures"
    (path / "more").mkdir(parents=True)
    (path / "b.png").write_bytes(encode(images[0]))
    (path / "more" / "a.PNG").write_bytes(encode(images[1]))
    (path / "notes.txt").write_text("not an image")
    return path


def test_every_kind_of_place_answers_alike(exported, run, images, expected):
    places = (exported, str(exported), exported.parent, run, run.path, run.model_file)
    for place in places:
        answer = load(place).predict(images, verbose=False)
        np.testing.assert_allclose(answer["probability"], expected.max(-1), atol=1e-6)


@pytest.mark.parametrize("count", [1, 3, 70])
def test_probabilities_are_the_models(exported, run, images, expected, count):
    for place in (exported, run):
        found = load(place).probabilities(images[:count])
        assert (found.dtype, found.shape) == (np.float32, (count, 4))
        np.testing.assert_allclose(found, expected[:count], atol=1e-6)


@pytest.mark.parametrize(
    ("given", "received"),
    [
        (np.zeros((1, 12, 10, 3), np.float32), "dtype=float32"),
        (np.zeros((1, 12, 10, 1), np.uint8), r"shape=\(1, 12, 10, 1\)"),
        (np.zeros((1, 24, 20, 3), np.uint8), r"shape=\(1, 24, 20, 3\)"),
        (np.zeros((12, 10, 3), np.uint8), r"shape=\(12, 10, 3\)"),
        (np.zeros((0, 12, 10, 3), np.uint8), r"shape=\(0, 12, 10, 3\)"),
        ([[[0]]], "list"),
        (tf.zeros((1, 12, 10, 3), tf.uint8), "EagerTensor"),
    ],
)
def test_what_probabilities_does_not_take(served, given, received):
    with pytest.raises(
        InputError, match=rf"`images` must be.*\(batch_size, 12, 10, 3\).*{received}"
    ):
        served.probabilities(given)


def test_other_formats_answer_as_the_saved_model_does(other_format, served, folder, images):
    large = np.repeat(np.repeat(images[0], 7, axis=0), 5, axis=1)
    inputs = [folder, encode(large, "JPEG"), large, images[:5], b"nonsense", folder / "missing.png"]
    found = load(other_format).predict(inputs, batch_size=4, verbose=False)
    wanted = served.predict(inputs, batch_size=4, verbose=False)
    pd.testing.assert_frame_equal(found, wanted, atol=1e-5)
    assert wanted["error"].isna().sum() == 9


def test_other_formats_take_any_batch_size_in_turn(other_format, images, expected):
    classifier = load(other_format)
    for count in (1, 70, 7, 1):
        found = classifier.probabilities(images[:count])
        np.testing.assert_allclose(found, expected[:count], atol=1e-5)


def answers_in_threads(classifier, images):
    """Ask from several threads at once, for batches of several sizes."""
    batches = [images[first : first + 1 + first % 5] for first in range(70)]
    with ThreadPoolExecutor(4) as pool:
        return zip(batches, pool.map(classifier.probabilities, batches), strict=True)


def test_threads_get_their_own_answers(served, images):
    for batch, found in answers_in_threads(served, images):
        np.testing.assert_allclose(found, served.probabilities(batch), atol=1e-6)


def test_threads_get_their_own_answers_of_other_formats(other_format, images):
    classifier = load(other_format)
    for batch, found in answers_in_threads(classifier, images):
        np.testing.assert_allclose(found, classifier.probabilities(batch), atol=1e-6)


def test_a_file_may_stand_beside_its_metadata(other_format, images, expected, tmp_path):
    shutil.copy(other_format, tmp_path)
    shutil.copy(other_format.parent / module.METADATA, tmp_path)
    found = load(tmp_path / other_format.name)
    assert found.class_names == ("ant", "bee", "caf\u00e9", "dog")
    np.testing.assert_allclose(found.probabilities(images), expected, atol=1e-5)


def test_a_file_without_its_metadata(other_format, tmp_path):
    shutil.copy(other_format, tmp_path)
    with pytest.raises(
        InputError, match=r"`path` must be.*without the assets\.extra/metadata\.json"
    ):
        load(tmp_path / other_format.name)


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": ["a", "b"]},
        {"input": {"image_size": [8, 8], "channels": 3}},
        {"input": {"image_size": [12, 10], "channels": 1}},
    ],
    ids=["classes", "size", "channels"],
)
def test_a_file_beside_the_metadata_of_another(other_format, tmp_path, change):
    shutil.copy(other_format, tmp_path)
    metadata = json.loads((other_format.parent / module.METADATA).read_text())
    (tmp_path / "metadata.json").write_text(json.dumps(metadata | change))
    with pytest.raises(InputError, match=r"2 class names|does not describe"):
        load(tmp_path / other_format.name)


@pytest.mark.parametrize("bytes_left", [0, 100, -100])
@UNVERIFIED
def test_a_damaged_file(other_format, tmp_path, bytes_left):
    shutil.copytree(other_format.parent / "assets.extra", tmp_path / "assets.extra")
    path = tmp_path / other_format.name
    path.write_bytes(other_format.read_bytes()[:bytes_left])
    with pytest.raises(InputError, match=rf"`path` must be.*a damaged \{path.suffix} file"):
        load(path)


@pytest.mark.parametrize(
    ("file", "package", "extra"),
    [("model.onnx", "onnxruntime", "onnx"), ("model.tflite", "ai_edge_litert", "litert")],
)
@UNVERIFIED
def test_a_missing_runtime_names_the_extra(exported, tmp_path, monkeypatch, file, package, extra):
    monkeypatch.setattr("kclassify.checks.find_spec", lambda name: None)
    shutil.copytree(exported / "assets.extra", tmp_path / "assets.extra")
    (tmp_path / file).touch()
    with pytest.raises(InputError, match=rf"`path`.*{package}.*pip install 'kclassify\[{extra}\]'"):
        load(tmp_path / file)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"input": 3, "class_names": ["a"]}'])
def test_damaged_metadata(exported, tmp_path, text):
    copy = shutil.copytree(exported, tmp_path / "copy")
    (copy / module.METADATA).write_text(text)
    with pytest.raises(InputError, match=r"whose metadata\.json is damaged"):
        load(copy)


def test_attributes(served):
    assert served.class_names == ("ant", "bee", "caf\u00e9", "dog")
    assert served.input_shape == (12, 10, 3)
    assert repr(served) == "Classifier(4 classes, input_shape=(12, 10, 3))"


@UNVERIFIED
def test_the_highest_version_is_taken_by_number(exported, tmp_path):
    for version in ("9", "10"):
        shutil.copytree(exported, tmp_path / "export" / version)
    metadata = tmp_path / "export" / "10" / "assets.extra" / "metadata.json"
    content = {**json.loads(metadata.read_text()), "class_names": list("wxyz")}
    metadata.write_text(json.dumps(content))
    assert load(tmp_path / "export").class_names == tuple("wxyz")


def test_a_lone_keras_file_numbers_its_classes(run, tmp_path):
    shutil.copy(run.model_file, tmp_path / "alone.keras")
    assert load(tmp_path / "alone.keras").class_names == ("0", "1", "2", "3")


def test_a_model_built_from_lists_answers_alike(model, images, expected, tmp_path):
    listed = keras.Model(model.inputs, model.outputs)
    listed.save(tmp_path / "listed.keras")
    answer = load(tmp_path / "listed.keras").predict(images, verbose=False)
    np.testing.assert_allclose(answer["probability"], expected.max(-1), atol=1e-6)


def test_a_keras_file_beside_another_runs_config_is_refused(run, tmp_path):
    shutil.copy(run.model_file, tmp_path / "model.keras")
    (tmp_path / "config.json").write_text('{"class_names": ["a", "b"]}')
    with pytest.raises(InputError, match="2 classes"):
        load(tmp_path / "model.keras")


def test_the_columns_and_their_order(served, images, labels):
    answer = served.predict(images[:2], top_k=2)
    assert list(answer.columns) == [
        *("file", "label", "probability", "label_2", "probability_2", "error")
    ]
    assert answer["file"].tolist() == ["array 0", "array 1"]
    assert answer["label"].tolist() == labels[:2]
    assert (answer["probability"] >= answer["probability_2"]).all()
    assert answer["error"].tolist() == [None, None]


def test_top_k_is_at_most_all_classes(served, images):
    answer = served.predict(images[:3], top_k=99)
    assert "label_4" in answer
    assert "label_5" not in answer
    total = answer.filter(like="probability").sum(axis=1)
    np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 200])
def test_the_batch_size_changes_nothing(served, images, expected, batch_size):
    answer = served.predict(images, batch_size=batch_size, verbose=False)
    np.testing.assert_allclose(answer["probability"], expected.max(-1), atol=1e-6)


def test_a_folder_is_searched_and_sorted(served, folder, labels):
    answer = served.predict(folder)
    assert answer["file"].tolist() == [str(folder / "b.png"), str(folder / "more" / "a.PNG")]
    assert answer["label"].tolist() == labels[:2]


def test_all_forms_of_an_image_agree(served, folder, images, expected):
    inputs = [
        folder / "b.png",
        encode(images[0]),
        Image.fromarray(images[0]),
        images[0],
        images[:1],
    ]
    answer = served.predict([str(folder / "b.png"), *inputs])
    assert answer["file"].tolist()[2:] == ["bytes 2", "image 3", "array 4", "array 5"]
    np.testing.assert_allclose(answer["probability"], expected[0].max(), atol=1e-6)


def test_a_path_is_decoded_as_tf_serving_would(served, exported, tmp_path, images):
    big = np.repeat(np.repeat(images[0], 7, axis=0), 5, axis=1)
    (tmp_path / "big.jpg").write_bytes(data := encode(big, "JPEG"))
    serve = tf.saved_model.load(exported).signatures["serve_bytes"]
    wanted = serve(image_bytes=tf.constant([data]))["probabilities"].numpy().max()
    answer = served.predict(tmp_path / "big.jpg")
    assert answer["probability"].iloc[0] == pytest.approx(wanted, abs=1e-6)


def test_arrays_of_any_size_are_resized(served, images):
    flat = np.full((31, 50, 3), 90, np.uint8)
    small = np.full((12, 10, 3), 90, np.uint8)
    answer = served.predict([flat, small])
    assert answer["probability"].iloc[0] == pytest.approx(answer["probability"].iloc[1], abs=1e-6)


def test_pil_images_are_turned_upright_and_brought_to_the_mode(served, images, expected):
    turned = Image.fromarray(np.rot90(images[0]))
    turned.getexif()[0x0112] = 6
    palette = Image.fromarray(images[0]).quantize(256)
    alpha = Image.fromarray(images[0]).convert("RGBA")
    answer = served.predict([turned, palette, alpha, Image.fromarray(images[0]).convert("CMYK")])
    assert answer["error"].tolist() == [None] * 4
    np.testing.assert_allclose(answer["probability"][[0, 2]], expected[0].max(), atol=1e-6)


def test_unreadable_files_are_rows(served, folder, images, labels):
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no image")
    (folder / "cut.png").write_bytes(encode(images[0])[:200])
    answer = served.predict([folder, folder / "missing.png"]).set_index("file")
    bad = [str(folder / name) for name in ("empty.png", "text.png", "cut.png", "missing.png")]
    assert all(isinstance(error, str) and error for error in answer.loc[bad, "error"])
    assert answer.loc[bad, "label"].isna().all()
    assert answer.loc[bad, "probability"].isna().all()
    good = answer.drop(bad)
    assert good["label"].tolist() == labels[:2]
    assert good["error"].tolist() == [None, None]


def test_a_file_that_only_the_decoder_refuses_costs_no_other(served, images, labels, monkeypatch):
    monkeypatch.setattr(reader, "inspect_image", lambda value: None)
    answer = served.predict([b"nonsense", encode(images[1])])
    assert answer["error"].iloc[0]
    assert answer["label"].iloc[1] == labels[1]


def test_a_pil_image_of_a_cut_file_is_a_row(served, images):
    cut = Image.open(io.BytesIO(encode(images[0])[:200]))
    assert "truncated" in served.predict([cut, images[0]])["error"].iloc[0]


def test_bytes_that_are_no_image_are_a_row(served):
    answer = served.predict(b"nonsense")
    assert answer["file"].tolist() == ["bytes 0"]
    assert isinstance(answer["error"].iloc[0], str)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "at least one image"),
        (np.zeros((12, 10), np.uint8), r"colour.*np\.repeat"),
        (np.zeros((12, 10, 1), np.uint8), r"\(height, width, 3\)"),
        (np.zeros((2, 12, 10, 4), np.uint8), r"shape=\(2, 12, 10, 4\)"),
        (np.zeros((0, 12, 10, 3), np.uint8), r"shape=\(0, 12, 10, 3\)"),
        (np.zeros((12, 10, 3), np.float32), "dtype uint8.*float32"),
        ([np.zeros((12, 10, 3), np.uint8), 3], "Received: int"),
        (3, "Received: int"),
    ],
)
def test_inputs_that_cannot_be(served, inputs, message):
    with pytest.raises(InputError, match=message):
        served.predict(inputs)


def test_a_folder_without_images(served, tmp_path):
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match="folder with images"):
        served.predict(tmp_path / "bare")


@pytest.mark.parametrize("argument", ["top_k", "batch_size"])
def test_numbers_below_one(served, images, argument):
    with pytest.raises(InputError, match=f"`{argument}` must be a whole number"):
        served.predict(images, **{argument: 0})


def test_a_grey_model_takes_arrays_without_channels(tmp_path):
    inputs = keras.Input((6, 6, 1), dtype="uint8", name="images")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    keras.Model(inputs, keras.layers.Dense(2)(x)).save(tmp_path / "grey.keras")
    grey = load(tmp_path / "grey.keras")
    pixels = np.arange(36, dtype=np.uint8).reshape(6, 6)
    answer = grey.predict([pixels, pixels[..., None], Image.fromarray(pixels), encode(pixels)])
    assert answer["probability"].nunique() == 1
    with pytest.raises(InputError, match=r"\[\.\.\., None\]"):
        grey.predict(np.zeros((3, 6, 6), np.uint8))


def test_the_bar_waits(served, images, capsys, monkeypatch):
    served.predict(images[:2])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(module, "SECONDS_BEFORE_BAR", 0)
    served.predict(images[:2])
    assert "2/2" in capsys.readouterr().err
    served.predict(images[:2], verbose=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing", "does not exist"),
        ("gs://bucket/model", "download it first"),
        ("https://host/model.keras", "download it first"),
        ("model.h5", "HDF5"),
        ("model.txt", "another kind of file"),
        (".", "neither"),
    ],
)
def test_paths_that_hold_no_classifier(tmp_path, path, message):
    (tmp_path / "model.h5").touch()
    (tmp_path / "model.txt").touch()
    with pytest.raises(InputError, match=f"`path` must be.*{message}"):
        load(path)


@pytest.mark.parametrize(
    "name", ["saved_model.pb", "variables/variables.index", "variables/variables.data-*"]
)
def test_an_incomplete_saved_model_says_what_is_missing(exported, tmp_path, name):
    copy = shutil.copytree(exported, tmp_path / "copy")
    next(copy.glob(name)).unlink()
    with pytest.raises(InputError, match="incomplete SavedModel, without") as caught:
        load(copy)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"],
)
@UNVERIFIED
def test_a_damaged_saved_model(exported, tmp_path, name):
    copy = shutil.copytree(exported, tmp_path / "copy")
    (copy / name).write_bytes((copy / name).read_bytes()[:40])
    with pytest.raises(InputError, match="damaged SavedModel"):
        load(copy)


@UNVERIFIED
def test_a_saved_model_of_somebody_else(exported, tmp_path):
    owner = tf.Module()
    owner.scale = tf.Variable(2.0)
    owner.double = tf.function(lambda x: {"y": owner.scale * x}, [tf.TensorSpec((), name="x")])
    tf.saved_model.save(owner, str(tmp_path / "other"), signatures=owner.double)
    with pytest.raises(InputError, match="kclassify did not write"):
        load(tmp_path / "other")
    shutil.copytree(exported / "assets.extra", tmp_path / "other" / "assets.extra")
    with pytest.raises(InputError, match="kclassify did not write"):
        load(tmp_path / "other")


def test_a_damaged_keras_file(tmp_path):
    (tmp_path / "bad.keras").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"whole \.keras file"):
        load(tmp_path / "bad.keras")


@pytest.mark.parametrize("shape", [(4,), (6, 6, 1)])
def test_a_keras_file_of_another_kind(tmp_path, shape):
    inputs = keras.Input(shape)
    x = keras.layers.Flatten()(inputs)
    keras.Model(inputs, keras.layers.Dense(2)(x)).save(tmp_path / "other.keras")
    with pytest.raises(InputError, match="another kind of model"):
        load(tmp_path / "other.keras")


def test_code_in_a_keras_file_is_not_run(tmp_path):
    inputs = keras.Input((6, 6, 1), dtype="uint8")
    x = keras.layers.Lambda(lambda x: x + 1)(inputs)
    keras.Model(inputs, keras.layers.Flatten()(x)).save(tmp_path / "code.keras")
    with pytest.raises(InputError, match=r"whole \.keras file.*Lambda"):
        load(tmp_path / "code.keras")


def test_a_file_name_that_is_no_text_is_written_so_that_it_can_be_read(served, tmp_path):
    image = Image.fromarray(np.zeros((12, 10, 3), np.uint8))
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(name, "wb") as file:
        image.save(file, "PNG")
    for given in (tmp_path, os.fsdecode(name)):
        found = served.predict(given, verbose=False)
        assert found["file"].iloc[0].endswith("caf\\udce9.png")
        assert found["error"].isna().all()
        found.to_csv(tmp_path / "found.csv")
