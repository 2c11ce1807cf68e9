"""Whatever is read from a file is read, or refused in a sentence: nothing crashes, nothing hangs.

`FUZZ_EXAMPLES=25000 pytest tests/test_fuzz.py` is the long form.
"""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from kclassify.checks import InputError
from kclassify.config import FitConfig
from kclassify.data.files import inspect_image
from kclassify.data.sources import load_source
from kclassify.runs import Run
from kclassify.serving.classifier import _read_metadata

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
fuzz = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES <= 100, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda part: (
        st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=8), part, max_size=4)
    ),
    max_leaves=12,
)
FIELDS = sorted(FitConfig().to_json())
METADATA = {"class_names": ["a", "b"], "input": {"image_size": [8, 8], "channels": 3}}
MANIFEST = {
    "data": "digits", "preset": "digits", "class_names": ["a"], "input_shape": [8, 8, 1],
    "sizes": {"train": 1}, "config": FitConfig().to_json(), "reference": None,
}  # fmt: skip


def encoded(kind, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


SEEDS = [
    encoded("PNG"), encoded("JPEG"), encoded("GIF"), encoded("BMP"), encoded("WEBP"),
    encoded("WEBP", lossless=True), encoded("JPEG", progressive=True),
    encoded("PNG", optimize=True),
]  # fmt: skip


@st.composite
def spoiled(draw, seeds):
    """Return one of `seeds` with some bytes changed, cut off or put in."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        if content:
            place = draw(st.integers(0, len(content) - 1))
            content[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


@pytest.fixture(scope="module")
def decode():
    import tensorflow as tf

    from kclassify.data.images import decode_image

    signature = [tf.TensorSpec((), tf.string)]
    return tf.function(lambda data: decode_image(data, channels=3), input_signature=signature)


@fuzz
@given(content=spoiled(SEEDS) | st.binary(max_size=64))
def test_bytes_of_an_image(decode, content):
    import tensorflow as tf

    reason = inspect_image(content)
    assert reason is None or isinstance(reason, str)
    try:
        image = decode(tf.constant(content))
    except tf.errors.InvalidArgumentError:
        return
    assert image.shape[-1] == 3


@fuzz
@given(content=spoiled([b"path,label\na.png,cat\nb.png,dog\n"]) | st.binary(max_size=64))
def test_bytes_of_a_table(content):
    Path("t.csv").write_bytes(content)
    with pytest.raises(InputError):
        load_source("t.csv", FitConfig())


@fuzz
@given(values=st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=6), JSON, max_size=4))
def test_a_configuration(values):
    try:
        config = FitConfig.from_json(values)
    except InputError:
        return
    assert FitConfig.from_json(config.to_json()) == config


@fuzz
@given(
    content=spoiled([json.dumps(MANIFEST).encode()]) | JSON.map(lambda v: json.dumps(v).encode())
)
def test_the_manifest_of_a_run(content):
    run = Run(Path("r"))
    run.path.mkdir(exist_ok=True)
    run.config_file.write_bytes(content)
    try:
        assert isinstance(run.config["config"], dict)
        FitConfig.from_json(run.config["config"])
    except InputError:
        pass


@fuzz
@given(
    content=spoiled([json.dumps(METADATA).encode()]) | JSON.map(lambda v: json.dumps(v).encode())
)
def test_the_metadata_of_an_export(content):
    file = Path("metadata.json")
    file.write_bytes(content)
    try:
        stated = _read_metadata(file, path=Path("export"))
    except InputError:
        return
    assert all(isinstance(name, str) for name in stated.class_names)
    assert all(isinstance(side, int) and side > 0 for side in stated.input_shape)
    assert 0.0 <= stated.abstain_below <= 1.0
