"""Files from strangers: each is made here, and each is refused without running or writing."""

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import kclassify
from kclassify.checks import InputError
from kclassify.data.files import inspect_image

OPTIONS = {"epochs": 1, "verbose": False, "run_dir": "r"}
# What refusing one file may take on top of what the process has; Keras's first model is 150 MiB.
MOST_MIB = 300
STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident(what):
    """Return how many MiB this process has (VmRSS), or had at most (VmHWM)."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) // 1024


@pytest.fixture(autouse=True)
def frugal(tiny_run):
    """None of the files may get the memory that it claims; looked at where the system tells."""
    if not FORGET.exists():
        yield
        return
    FORGET.write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    yield
    assert resident("VmHWM") - before < MOST_MIB


@pytest.fixture(autouse=True)
def outside(tmp_path_factory, monkeypatch):
    """A folder beside the test's own, and the file that none of them may make in it."""
    place = tmp_path_factory.mktemp("outside")
    monkeypatch.setenv("CANARY", str(place / "canary"))
    yield place
    assert list(place.iterdir()) == []


class Runs:
    """Unpickled, it makes the canary."""

    def __reduce__(self):
        return os.system, ('touch "$CANARY"',)


class Evaluates:
    def __reduce__(self):
        return eval, ("open(__import__('os').environ['CANARY'], 'w')",)


class Opens:
    def __reduce__(self):
        return open, (os.environ["CANARY"], "w")


# ---- images: headers that claim more than anybody has memory for


def png(width, height, *, pixels=b""):
    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def saved(kind, **options):
    file = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(file, kind, **options)
    return file.getvalue()


def jpeg(width, height):
    content = bytearray(saved("JPEG"))
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def gif(width, height):
    content = bytearray(saved("GIF"))
    content[6:10] = struct.pack("<HH", width, height)
    place = content.index(b"\x2c") + 5
    content[place : place + 4] = struct.pack("<HH", width, height)
    return bytes(content)


def bmp(width, height):
    content = bytearray(saved("BMP"))
    content[18:26] = struct.pack("<ii", width, height)
    return bytes(content)


def webp(width, height):
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + sides
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_lossless(width, height):
    content = bytearray(saved("WEBP", lossless=True))
    place = content.index(b"VP8L") + 9
    content[place : place + 4] = struct.pack("<I", (width - 1) | (height - 1) << 14)
    return bytes(content)


IMAGES = {
    "png of 10 gigapixels": png(100_000, 100_000),
    "png that is one row": png(2**31 - 1, 1),
    "png that unpacks without end": png(9000, 9000, pixels=bytes(10**7)),
    "jpeg of 4 gigapixels": jpeg(65_000, 65_000),
    "gif of 4 gigapixels": gif(65_535, 65_535),
    "bmp of 4 gigapixels": bmp(65_000, 65_000),
    "bmp upside down": bmp(65_000, -65_000),
    "webp of 281 terapixels": webp(2**24, 2**24),
    "webp, lossless": webp_lossless(16_384, 16_384),
    "half a png": saved("PNG")[:45],
    "half a jpeg": saved("JPEG")[:300],
    "a program": b"\x7fELF" + bytes(200),
    "a page": b"<svg onload='alert(1)'></svg>",
    "nothing": b"",
}
CLAIMS = [name for name in IMAGES if "of" in name or "lossless" in name or "upside" in name]


@pytest.fixture(scope="module")
def classifier(tiny_run):
    return kclassify.load(tiny_run)


@pytest.mark.parametrize("name", IMAGES)
def test_a_hostile_image_is_refused_by_fit_and_by_predict(name, classifier):
    place = Path("images")
    for label in ("a", "b"):
        (place / label).mkdir(parents=True)
        for number in range(6):
            (place / label / f"{number}.png").write_bytes(saved("PNG"))
    (place / "a" / "evil.png").write_bytes(IMAGES[name])
    assert inspect_image(IMAGES[name]) is not None
    with pytest.raises(InputError, match=r"1 of 13 that cannot[\s\S]*evil\.png"):
        kclassify.fit(place, **OPTIONS)
    assert not Path("r").exists()
    answer = classifier.predict(place / "a" / "evil.png")
    assert answer["error"].notna().all()


@pytest.mark.parametrize("name", CLAIMS)
def test_a_served_model_takes_no_memory_for_a_header(name, served):
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError, match="more than 64 million"):
        served.signatures["serve_bytes"](image_bytes=tf.constant([IMAGES[name]]))


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tiny_run):
    import shutil

    path = shutil.copytree(tiny_run.path, tmp_path_factory.mktemp("hostile") / "run")
    return kclassify.export(path)


@pytest.fixture(scope="module")
def served(exported):
    import tensorflow as tf

    return tf.saved_model.load(str(exported))


# ---- models


def keras_file(path, *, config=None, members=()):
    model = keras.Sequential([keras.Input((8, 8, 3), dtype="uint8"), keras.layers.Flatten(),
                              keras.layers.Dense(3)])  # fmt: skip
    model.save("good.keras")
    with zipfile.ZipFile("good.keras") as good, zipfile.ZipFile(path, "w") as evil:
        for name in good.namelist():
            replaced = name == "config.json" and config is not None
            evil.writestr(name, json.dumps(config) if replaced else good.read(name))
        for name, content in members:
            evil.writestr(name, content)


def layer(module, name, **config):
    return {"module": module, "class_name": name, "config": config, "registered_name": None}


MODELS = {
    "lambda.keras": lambda path: lambda_file(path),
    "system.keras": lambda path: keras_file(path, config=layer("os", "system", command="touch x")),
    "eval.keras": lambda path: keras_file(path, config=layer("builtins", "eval", source="1")),
    "popen.keras": lambda path: keras_file(path, config=layer("subprocess", "Popen", args="id")),
    "function.keras": lambda path: keras_file(
        path, config={"class_name": "function", "config": "print", "module": "builtins"}
    ),
    "list.keras": lambda path: keras_file(path, config=[1, 2]),
    "deep.keras": lambda path: keras_zip(path, b"[" * 100_000),
    "h5inside.keras": lambda path: Path(path).write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)),
    "pickle.keras": lambda path: Path(path).write_bytes(pickle.dumps(Runs())),
    "nothing.keras": lambda path: Path(path).write_bytes(b""),
    "model.h5": lambda path: Path(path).write_bytes(b"\x89HDF\r\n\x1a\n"),
    "model.HDF5": lambda path: Path(path).write_bytes(b"\x89HDF\r\n\x1a\n"),
    "model.pkl": lambda path: Path(path).write_bytes(pickle.dumps(Runs())),
    "model.onnx": lambda path: Path(path).write_bytes(b"\x08\x07" + bytes(50)),
    "model.tflite": lambda path: Path(path).write_bytes(b"\x1c\0\0\0TFL3" + bytes(50)),
}


def keras_zip(path, config):
    with zipfile.ZipFile(path, "w") as evil:
        evil.writestr("config.json", config)
        evil.writestr("metadata.json", "{}")
        evil.writestr("model.weights.h5", b"")


def lambda_file(path):
    def evil(x):
        if "ARMED" in os.environ:
            Path(os.environ["CANARY"]).touch()
        return x

    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Lambda(evil)(keras.layers.Flatten()(inputs))
    keras.Model(inputs, keras.layers.Dense(3)(x)).save(path)


@pytest.mark.parametrize("name", MODELS)
def test_a_hostile_model_is_refused(name, monkeypatch):
    MODELS[name](name)
    monkeypatch.setenv("ARMED", "1")
    with pytest.raises(InputError, match="`path` must be"):
        kclassify.load(name)


@pytest.mark.parametrize("path", ["https://evil.example/m.keras", "gs://bucket/m", "hf://a/b"])
def test_what_is_not_on_this_machine_is_refused(path):
    with pytest.raises(InputError, match="not on this machine"):
        kclassify.load(path)


def test_members_of_a_model_cannot_leave_their_folder(outside):
    keras_file("m.keras", members=[("../evil", "1"), (str(outside / "evil"), "1")])
    with suppress(InputError):
        kclassify.load("m.keras")
    assert not Path("..", "evil").exists()


# ---- archives


def batch(**values):
    images, labels = np.zeros((4, 3072), np.uint8), [0, 1, 2, 3]
    return {b"data": images, b"labels": labels, **{k.encode(): v for k, v in values.items()}}


def archive(members):
    with tarfile.open("cifar.tar.gz", "w:gz") as file:
        for info, content in members:
            info = tarfile.TarInfo(info) if isinstance(info, str) else info
            if content is not None:
                info.size = len(content)
            file.addfile(info, io.BytesIO(content or b""))
    return "cifar.tar.gz"


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def batches(evil):
    good = pickle.dumps(batch())
    names = [f"data_batch_{part}" for part in range(2, 6)] + ["test_batch"]
    return archive([("data_batch_1", evil), *((name, good) for name in names)])


def claiming(size):
    """An archive whose first member claims a size that the file does not have."""
    info = tarfile.TarInfo("data_batch_1")
    info.size = size
    with gzip.open("cifar.tar.gz", "wb") as file:
        file.write(info.tobuf() + bytes(2048))
    return "cifar.tar.gz"


ARCHIVES = {
    "runs a command": lambda: batches(pickle.dumps(Runs())),
    "evaluates": lambda: batches(pickle.dumps(Evaluates())),
    "opens a file": lambda: batches(pickle.dumps(Opens())),
    "hides it in a value": lambda: batches(pickle.dumps(batch(x=Runs()))),
    "imports": lambda: batches(b"cos\nsystem\n(S'true'\ntR."),
    "array of objects": lambda: batches(pickle.dumps(batch(data=np.array([Runs()], object)))),
    "array without end": lambda: batches(
        b"cnumpy\nndarray\n((I99999\nI99999\nI99999\ntcnumpy\ndtype\n(S'f8'\ntRtR."
    ),
    "a member of 100 GB": lambda: claiming(10**11),
    "a thousand members": lambda: archive([(f"x{n}", b"") for n in range(1000)]),
    "a link to a file": lambda: archive([(link("data_batch_1", "/etc/passwd"), None)]),
    "a hard link": lambda: archive([(link("data_batch_1", "/etc/passwd", tarfile.LNKTYPE), None)]),
    "a device": lambda: archive([(link("data_batch_1", "", tarfile.CHRTYPE), None)]),
    "cut off": lambda: (
        Path(batches(pickle.dumps(batch()))).write_bytes(gzip.compress(bytes(1024))[:30])
        and "cifar.tar.gz"
    ),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_hostile_archive_is_refused(name):
    path = ARCHIVES[name]()
    with pytest.raises(InputError, match="`data` must be"):
        kclassify.fit(path, **OPTIONS)
    assert not Path("r").exists()


def test_members_of_an_archive_cannot_leave_their_folder(outside):
    good = pickle.dumps(batch())
    names = [f"data_batch_{part}" for part in range(1, 6)] + ["test_batch"]
    up = "../" * 30 + str(outside)[1:]
    archive([(f"{up}/{name}", good) for name in names])
    from kclassify import FitConfig
    from kclassify.data.cifar10 import load

    assert len(load("cifar.tar.gz", FitConfig()).splits["train"]) == 20


# ---- tables, names, and the files of a run


@pytest.mark.parametrize(
    "table",
    [
        "path,label\n../../../../../../etc/passwd,a\n",
        "path,label\nhttps://evil.example/x.png,a\n",
        "path,label\n/dev/zero,a\n",
        "path,label\n\0,a\n",
        'path,label\n"' + "x" * 10_000_000 + '",a\n',
        "path,label\n" + "," * 100_000 + "\n",
    ],
    ids=["up", "remote", "device", "null", "long", "wide"],
)
def test_a_hostile_table_is_refused(table):
    Path("t.csv").write_text(table)
    with pytest.raises(InputError, match="`data` must"):
        kclassify.fit("t.csv", **OPTIONS)


FORMULAS = ("=cmd|'/c calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "\t=1")


def test_no_cell_that_is_written_is_run_by_a_spreadsheet(tiny_arrays, tiny_options):
    images, labels = tiny_arrays
    names = FORMULAS[:3]
    run = kclassify.fit((images, labels), run_dir="r", class_names=names, **tiny_options)
    kclassify.evaluate(run, verbose=False)
    cells = [cell for path in Path("r").glob("*.csv")
             for line in path.read_text().splitlines() for cell in line.split(",")]  # fmt: skip
    starts = {cell.strip('"')[0] for cell in cells if cell and not is_number(cell)}
    assert not starts & set("=+-@\t")
    assert kclassify.Run.open("r").config["class_names"] == list(names)


def is_number(text):
    try:
        return bool(text) and np.isfinite(float(text))
    except ValueError:
        return False


def test_the_command_line_writes_no_formula_and_obeys_no_name(tiny_run, capsys):
    from kclassify import cli

    for name in ("=1+1.png", "esc\x1b[2J\x1b]0;x\x07.png"):
        Path(name).write_bytes(saved("PNG"))
    assert cli.main(["predict", str(tiny_run), "=1+1.png", "--csv", "out.csv"]) == 0
    assert "'=1+1.png" in Path("out.csv").read_text()
    assert cli.main(["predict", str(tiny_run), "esc\x1b[2J\x1b]0;x\x07.png"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "esc\\x1b[2J" in shown


def test_a_class_is_never_a_tag(tiny_arrays, tiny_options):
    names = ("<script>alert(1)</script>", "a\x1b[31m", '"><img src=x onerror=alert(1)>')
    run = kclassify.fit(tiny_arrays, run_dir="r", class_names=names, **tiny_options)
    kclassify.evaluate(run, verbose=False)
    page = kclassify.report(run).read_text()
    assert "<script" not in page
    assert "<img src=x" not in page


@pytest.mark.parametrize("name", ["tfds:../../x", "tfds:..", "tfds:/etc/passwd"])
def test_the_name_of_a_run_cannot_leave_the_root(name):
    from kclassify.data.sources import source_name
    from kclassify.runs import run_path

    path = run_path(None, name=f"{source_name(name)}-lenet")
    assert path.resolve().parent == Path("saved_models").resolve()


@pytest.mark.parametrize(
    "content",
    [b"{", b"[" * 100_000, b"\xff\xfe", b'"text"', b"null", b'{"config": []}', b""],
    ids=["cut", "deep", "bytes", "text", "null", "list", "empty"],
)
def test_a_hostile_configuration_is_refused(content, tiny_arrays, tiny_options):
    Path("r").mkdir()
    Path("r", "config.json").write_bytes(content)
    with pytest.raises(InputError, match="`run"):
        kclassify.fit(tiny_arrays, run_dir="r", **tiny_options)
    for ask in (kclassify.evaluate, kclassify.report, kclassify.export, kclassify.load):
        with pytest.raises(InputError, match="`run"):
            ask("r")


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b"{}", b"[1]", b'{"class_names": 3, "input": {}}', b"\xff"],
    ids=["deep", "empty", "list", "numbers", "bytes"],
)
def test_hostile_metadata_is_refused(content, exported, tmp_path):
    import shutil

    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    (copy / "assets.extra" / "metadata.json").write_bytes(content)
    with pytest.raises(InputError, match=r"metadata\.json is damaged"):
        kclassify.load(copy)


@pytest.mark.parametrize("change", ["other", "missing", "damaged", "added"])
def test_a_saved_model_that_is_not_as_it_was_verified_gets_a_warning(change, exported, tmp_path):
    import shutil

    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    manifest = copy / "assets.extra" / "manifest.json"
    {
        "other": lambda: (copy / "fingerprint.pb").write_bytes(b""),
        "missing": manifest.unlink,
        "damaged": lambda: manifest.write_text("["),
        "added": lambda: (copy / "assets" / "evil.so").write_bytes(b"1"),
    }[change]()
    with pytest.warns(UserWarning, match="A SavedModel is a program"):
        kclassify.load(copy)


def test_pickled_arrays_in_a_run_are_refused(tiny_run, tmp_path):
    import shutil

    copy = Path(shutil.copytree(tiny_run.path, tmp_path / "copy"))
    np.savez(copy / "samples.npz", images=np.array([Runs()], object), allow_pickle=True)
    with pytest.raises(InputError, match=r"samples\.npz"):
        kclassify.export(copy)
