import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kclassify
from kclassify import cli
from kclassify.checks import InputError


def picture(seed, *, size=(24, 24)):
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def folder():
    """Splits of two classes, each of different pictures; nothing is wrong with them."""
    for number, split in enumerate(("train", "validation", "test")):
        for other, label in enumerate(("cat", "dog")):
            place = Path("images", split, label)
            place.mkdir(parents=True)
            for image in range(4):
                picture(100 * number + 10 * other + image).save(place / f"{image}.png")
    return Path("images")


def findings(folder):
    found = kclassify.check(folder, verbose=False)
    return {finding.kind: finding for finding in found.findings}


def test_nothing_is_found_where_nothing_is_wrong(folder):
    found = kclassify.check(folder, verbose=False)
    assert found.ok
    assert found.findings == ()
    assert "nothing was found" in str(found)
    assert found.counts.to_numpy().tolist() == [[4, 4, 4], [4, 4, 4]]


def copy_to_test(folder):
    picture(0).save(folder / "test" / "dog" / "0.png")


def two_labels(folder):
    picture(0).save(folder / "train" / "dog" / "0.png")


def twice(folder):
    picture(0).save(folder / "train" / "cat" / "copy.png")


def look_alike(folder):
    picture(0).save(folder / "test" / "cat" / "copy.jpg", quality=95, subsampling=0)


def wrong_ending(folder):
    picture(900).save(folder / "train" / "cat" / "a.jpg", "PNG")


def turned(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(900).save(folder / "train" / "cat" / "a.jpg", exif=exif)


def cut_off(folder):
    file = io.BytesIO()
    picture(900).save(file, "PNG")
    (folder / "train" / "cat" / "a.png").write_bytes(file.getvalue()[:100])


def blank(folder):
    Image.new("RGB", (24, 24), "white").save(folder / "train" / "cat" / "a.png")


def other_size(folder):
    picture(900, size=(30, 20)).save(folder / "train" / "cat" / "a.png")


def grey(folder):
    picture(900).convert("L").save(folder / "train" / "cat" / "a.png")


def rare(folder):
    for number in range(40):
        picture(500 + number).save(folder / "train" / "cat" / f"more{number}.png")


def missing(folder):
    for path in (folder / "test" / "dog").iterdir():
        path.unlink()


PLANTED = [
    (copy_to_test, "leakage", "error", 1),
    (two_labels, "labels", "error", 1),
    (twice, "duplicates", "warning", 1),
    (look_alike, "look-alikes", "warning", 1),
    (wrong_ending, "file name", "warning", 1),
    (turned, "rotation", "note", 1),
    (cut_off, "unreadable", "error", 1),
    (blank, "blank", "warning", 1),
    (other_size, "sizes", "note", 2),
    (grey, "channels", "note", 1),
    (rare, "imbalance", "warning", 11),
    (missing, "no images", "warning", 1),
]


@pytest.mark.parametrize(
    ("plant", "kind", "severity", "count"),
    PLANTED,
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_planted_is_found_and_nothing_else(folder, plant, kind, severity, count):
    plant(folder)
    found = findings(folder)
    also = {two_labels: {"duplicates"}, copy_to_test: {"labels"}, turned: set()}
    assert set(found) == {kind} | also.get(plant, set())
    assert (found[kind].severity, found[kind].count) == (severity, count)


def test_images_in_memory_are_checked_too(tiny_arrays):
    images, labels = tiny_arrays
    images = images.copy()
    images[1] = images[0]
    found = kclassify.check((images, labels), verbose=False)
    kinds = {finding.kind for finding in found.findings}
    assert "labels" in kinds
    assert kinds & {"leakage", "duplicates"}
    assert not found.ok


def test_the_command_line_has_an_exit_code_for_ci(folder, capsys):
    assert cli.main(["check", str(folder), "--json", "found.json"]) == 0
    assert json.loads(Path("found.json").read_text())["ok"] is True
    twice(folder)
    assert cli.main(["check", str(folder)]) == 0
    assert cli.main(["check", str(folder), "--strict"]) == 1
    copy_to_test(folder)
    assert cli.main(["check", str(folder)]) == 1
    assert "error    leakage      in two splits: 1 image (" in capsys.readouterr().out
    assert cli.main(["check", "no-such-thing"]) == 2


def test_a_run_keeps_its_check_and_its_report_shows_it(folder):
    run = kclassify.fit(
        folder, run_dir="r", model="convnet", filters=4, depth=1, epochs=1, verbose=False
    )
    kclassify.evaluate(run, verbose=False)
    assert "were not checked" in kclassify.report(run).read_text()
    copy_to_test(folder)
    kclassify.check("r", verbose=False)
    page = kclassify.report(run).read_text()
    assert "in two splits" in page
    assert "in two splits" in run.report_file.with_suffix(".md").read_text()


def test_data_in_memory_of_a_run_is_not_there_any_more(tiny_run):
    with pytest.raises(InputError, match="in memory"):
        kclassify.check(tiny_run.path)
