"""Packed sets at URLs; most of them in fsspec's memory, those of several processes in folders."""

import io
import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import kclassify
from kclassify.checks import InputError, StorageError
from kclassify.cli import main
from kclassify.config import FitConfig
from kclassify.data import remote, shards
from kclassify.data.packed import BEGUN, MANIFEST, files_of, read_manifest
from kclassify.data.remote import copied, copy_folder, is_remote, plain_url, url_name
from kclassify.data.sources import load_source, reference, source_name
from kclassify.data.store import Store
from kclassify.runs import Run

URL = "memory://bucket/pets"


def pack(data, out=URL, **options):
    return kclassify.pack(data, out, verbose=False, **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


@pytest.fixture(autouse=True)
def own_places(monkeypatch, tmp_path):
    """An empty memory, and a cache of the test's own."""
    memory = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(memory, "store", {})
    monkeypatch.setattr(memory, "pseudo_dirs", [""])


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Files of sixteen images of 8x8x3."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 16 * (192 + shards.OVERHEAD))


@pytest.fixture
def objects():
    """The contents of all the objects by their names."""
    from fsspec.implementations.memory import MemoryFileSystem

    return lambda: {
        name.rsplit("/", 1)[-1]: file.getvalue() for name, file in MemoryFileSystem.store.items()
    }


@pytest.fixture
def put():
    """Return a function that makes an object."""
    import fsspec

    return fsspec.filesystem("memory").pipe_file


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """Return a function after which the cache is an empty one, as on another machine."""
    return lambda: monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))


@contextmanager
def moving(how, *, at_most=99):
    """Yield the names that a store fetches or sends, one after another; then it breaks off."""
    moved, real = [], getattr(Store, how)

    def counted(self, path, *, name):
        if len(moved) == at_most:
            raise ConnectionResetError("the peer has gone")
        moved.append(name)
        real(self, path, name=name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "AT_ONCE", 1)
        patch.setattr(Store, how, counted)
        yield moved


@pytest.fixture
def folder_url(tiny_arrays, tmp_path):
    """A set in a folder, by a URL that processes share."""
    pack(tiny_arrays, tmp_path / "shared")
    return f"file://{tmp_path}/shared"


def test_what_is_fetched_is_what_was_packed(tiny_arrays, elsewhere, objects):
    packed, local = pack(tiny_arrays), pack(tiny_arrays, "pets")
    assert replace(packed, path=local.path) == local
    assert objects() == contents("pets")
    elsewhere()
    copy = contents(copied(URL, FitConfig()))
    assert copy == {name: objects()[name] for name in copy}
    assert set(copy) == {MANIFEST, *files_of(read_manifest(Path("pets")))}


def test_fit_evaluate_and_check_take_it(tiny_arrays, tiny_options, elsewhere):
    packed = pack(tiny_arrays)
    elsewhere()
    options = {**tiny_options, "validation_fraction": 0.1, "test_fraction": 0.1}
    run = kclassify.fit(packed, run_dir="run", **options)
    assert run.config["reference"] == URL
    assert run.config["data"] == "pets"
    # Opened again, it knows its data by the reference alone.
    assert len(kclassify.evaluate(Run.open("run")).predictions) == packed.images["test"]
    assert kclassify.check(URL, verbose=False).counts.sum().sum() == 60


def test_a_url_is_its_own_reference(tiny_arrays):
    pack(tiny_arrays, f"{URL}/")
    assert reference(f"{URL}/") == URL
    assert source_name(URL) == load_source(URL, FitConfig()).name == "pets"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("s3://bucket/a/Pets 2", "Pets_2"),
        ("s3://bucket", "bucket"),
        ("https://host/pets?key=secret", "pets"),
        ("s3://bucket/..", "packed"),
        ("s3://bucket/" + "x" * 300, "x" * 64),
    ],
)
def test_its_name_is_fit_for_a_file(url, name):
    assert is_remote(url)
    assert url_name(url) == name
    assert copy_folder(url, FitConfig()).parent.name == "packed"


def test_paths_and_names_are_no_urls():
    assert not any(map(is_remote, ("digits", "tfds:mnist", "/data/pets", "a:b", "pets://"[4:])))


@pytest.mark.parametrize("url", ["s3://", "s3:///"])
def test_a_protocol_alone_is_refused(url):
    with pytest.raises(InputError, match=r"`data` must be a URL with a place in it"):
        plain_url("data", url)


def test_the_copy_goes_where_data_dir_says(tiny_arrays, tmp_path):
    pack(tiny_arrays, data_dir=str(tmp_path / "mine"))
    folder = copied(URL, FitConfig(data_dir=str(tmp_path / "mine")))
    assert folder.parent == tmp_path / "mine"
    assert not (tmp_path / "cache").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="`data_dir` must be in a folder that you may write to"):
        copied(URL, FitConfig(data_dir=str(tmp_path / "file")))


def test_a_fetch_that_broke_off_goes_on(tiny_arrays, elsewhere):
    pack(tiny_arrays, "pets")
    pack(tiny_arrays)
    elsewhere()
    said = r"`data` .*Received: 'memory://.*has gone.*what was fetched is kept"
    with moving("fetch", at_most=3) as first, pytest.raises(InputError, match=said):
        copied(URL, FitConfig())
    assert sorted(contents(copy_folder(URL, FitConfig()))) == sorted(first)
    with moving("fetch") as then:
        copied(URL, FitConfig())
    assert sorted(first + then) == sorted(files_of(read_manifest(Path("pets"))))


@pytest.mark.parametrize("how", ["absent", "changed"])
def test_what_is_wrong_in_a_copy_is_fetched_again(tiny_arrays, elsewhere, how):
    pack(tiny_arrays)
    elsewhere()
    folder = copied(URL, FitConfig())
    before, path = contents(folder), folder / "labels-test.npy"
    path.unlink() if how == "absent" else path.write_bytes(b"?")
    with moving("fetch") as fetched:
        copied(URL, FitConfig())
    assert fetched == ["labels-test.npy"]
    assert contents(folder) == before


def test_a_wrong_checksum_is_refused_and_named(tiny_arrays, elsewhere, put):
    pack(tiny_arrays)
    put("bucket/pets/ids-train.npy", b"something else")
    elsewhere()
    with pytest.raises(InputError, match=rf"`data` .*{URL}/ids-train\.npy', whose checksum"):
        load_source(URL, FitConfig())
    copy = contents(copy_folder(URL, FitConfig()))
    assert "ids-train.npy" not in copy
    assert MANIFEST not in copy


def test_a_file_that_is_gone_is_named(tiny_arrays, elsewhere):
    import fsspec

    pack(tiny_arrays)
    fsspec.filesystem("memory").rm_file("bucket/pets/ids-train.npy")
    elsewhere()
    with pytest.raises(InputError, match=rf"`data` .*{URL}/ids-train\.npy' \(FileNotFoundError"):
        load_source(URL, FitConfig())


def test_a_full_disk_is_named(tiny_arrays, elsewhere, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    pack(tiny_arrays)
    elsewhere()
    monkeypatch.setattr(Store, "fetch", full)
    with pytest.raises(StorageError, match="run the same command again"):
        copied(URL, FitConfig())


def test_where_no_set_is_it_says_so():
    with pytest.raises(InputError, match=rf"`data` must be the URL of a packed set.*{MANIFEST}"):
        load_source(URL, FitConfig())


def test_a_set_that_changed_leaves_the_old_copy_alone(tiny_arrays, image_folder, elsewhere):
    import fsspec

    pack(tiny_arrays)
    elsewhere()
    old = copied(URL, FitConfig())
    before = contents(old)
    fsspec.filesystem("memory").rm("bucket/pets", recursive=True)
    pack(image_folder, data_dir="other-copies")
    new = copied(URL, FitConfig())
    assert new != old
    assert contents(old) == before
    assert load_source(URL, FitConfig()).class_names == ("cat", "dog")
    assert copied(URL, FitConfig()) == new


@pytest.mark.parametrize("missing", [[], ["labels-test.npy"]])
def test_a_second_copy_is_made_whole_too(tiny_arrays, image_folder, elsewhere, missing):
    import fsspec

    pack(tiny_arrays)
    elsewhere()
    first = copied(URL, FitConfig())
    fsspec.filesystem("memory").rm("bucket/pets", recursive=True)
    pack(image_folder, data_dir="other-copies")
    second = copied(URL, FitConfig())
    before = contents(second)
    (second / MANIFEST).write_bytes(before[MANIFEST][:100])
    for name in missing:
        (second / name).unlink()
    assert copied(URL, FitConfig()) == second != first
    assert contents(second) == before


@pytest.mark.parametrize("sent", [0, 1, 5, 18])
def test_a_pack_that_broke_off_leaves_no_set_and_goes_on(tiny_arrays, elsewhere, objects, sent):
    pack(tiny_arrays, "pets")
    said = r"`out` .*has gone.*Run the same command again"
    with moving("send", at_most=sent) as first, pytest.raises(InputError, match=said):
        pack(tiny_arrays)
    assert MANIFEST not in objects()
    with pytest.raises(InputError, match="`data` must be the URL of a packed set"):
        load_source(URL, FitConfig())
    with moving("send") as then:
        pack(tiny_arrays)
    assert not {*first} & {*then}
    assert objects() == contents("pets")


def test_the_manifest_comes_last_and_nothing_is_sent_twice(tiny_arrays):
    with moving("send") as sent:
        pack(tiny_arrays)
    assert (sent[0], sent[-1]) == (BEGUN, MANIFEST)
    with moving("send") as again:
        pack(tiny_arrays)
    assert again == []


def test_what_was_damaged_after_it_was_packed_is_not_sent(tiny_arrays, objects):
    with moving("send", at_most=0), pytest.raises(InputError):
        pack(tiny_arrays)
    (copy_folder(URL, FitConfig()) / "ids-test.npy").write_bytes(b"?")
    with pytest.raises(InputError, match=r"`out` .*ids-test\.npy', which is not what was packed"):
        pack(tiny_arrays)
    assert objects() == {}


def test_another_set_there_is_refused_before_the_data_is_read(tiny_arrays, elsewhere, objects):
    pack(tiny_arrays)
    before = objects()
    elsewhere()
    with pytest.raises(InputError, match=rf"`out` .*{URL}', where a packed set is"):
        pack("no such data")
    assert objects() == before


def test_other_objects_there_are_left_alone(put, objects):
    put("bucket/pets/letter.txt", b"dear")
    with pytest.raises(InputError, match=r"`out` .*something else is: 'letter\.txt'"):
        pack("no such data")
    assert objects() == {"letter.txt": b"dear"}


def test_half_of_another_set_is_left_alone(tiny_arrays, put):
    pack(tiny_arrays, "pets")
    put(f"bucket/pets/{BEGUN}", Path("pets", MANIFEST).read_bytes() + b" ")
    with pytest.raises(InputError, match=r"`out` .*was begun.*Choose another URL"):
        pack(tiny_arrays)


def test_the_same_url_with_other_options_is_refused(tiny_arrays):
    pack(tiny_arrays)
    with pytest.raises(InputError, match=r"`out` .*\(seed 0 before, 1 now\)"):
        pack(tiny_arrays, seed=1)


def test_a_store_that_cannot_be_written_is_refused_before_the_data_is_read(monkeypatch):
    def refuse(_):
        raise PermissionError("Access Denied.\nmore of it")

    monkeypatch.setattr(Store, "try_writing", refuse)
    with pytest.raises(InputError, match=r"`out` .*\(PermissionError: Access Denied\)\. Check"):
        pack("no such data")


@pytest.mark.parametrize(
    "name",
    ["../secret", "..", ".", "", "/etc/passwd", "a/b", "a\0b", "\ud800", MANIFEST, "labels.npy", 7],
)
def test_a_hostile_name_is_refused(tiny_arrays, elsewhere, put, objects, name, tmp_path):
    pack(tiny_arrays)
    found = json.loads(objects()[MANIFEST])
    found["splits"]["train"]["shards"][0]["file"] = name
    put(f"bucket/pets/{MANIFEST}", json.dumps(found).encode())
    elsewhere()
    with pytest.raises(InputError, match=rf"`data` must have a whole {MANIFEST}.*{URL}"):
        copied(URL, FitConfig())
    assert not (tmp_path / "elsewhere").exists()


def test_sizes_in_a_manifest_are_not_believed(tiny_arrays, elsewhere, put, objects):
    pack(tiny_arrays)
    found = json.loads(objects()[MANIFEST])
    for row in found["splits"]["train"]["shards"]:
        row["bytes"] = 10**30
    put(f"bucket/pets/{MANIFEST}", json.dumps(found).encode())
    elsewhere()
    images = load_source(URL, FitConfig()).splits["train"].images
    assert images.sizes.tolist() == [Path(path).stat().st_size for path in images.paths]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b"null", b"{}"])
def test_a_manifest_that_is_none_is_refused(put, content):
    put(f"bucket/pets/{MANIFEST}", content)
    with pytest.raises(InputError, match=rf"`data` must have a whole {MANIFEST}"):
        copied(URL, FitConfig())


def test_of_a_manifest_no_more_is_read_than_one_can_have(tiny_arrays, monkeypatch):
    pack(tiny_arrays)
    monkeypatch.setattr(remote, "LARGEST_MANIFEST", 100)
    with pytest.raises(InputError, match=rf"`data` must have a whole {MANIFEST}"):
        copied(URL, FitConfig())


def test_missing_packages_are_named(monkeypatch):
    with pytest.raises(InputError, match=r"of a protocol that fsspec knows.*foo"):
        load_source("foo://bucket/pets", FitConfig())
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match=r"package is installed.*gcsfs.*'kclassify\[remote\]'"):
        load_source("gs://bucket/pets", FitConfig())
    monkeypatch.setattr("kclassify.checks.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"without fsspec.*'kclassify\[remote\]'"):
        load_source("s3://bucket/pets", FitConfig())


def test_fsspec_is_loaded_when_it_is_used():
    code = """
import sys
import kclassify.cli, kclassify.data.remote
print({"fsspec", "s3fs", "aiohttp", "botocore"} & set(sys.modules))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout == "set()\n"


FETCH = """
import os, signal, sys, time
from kclassify.config import FitConfig
from kclassify.data import remote
from kclassify.data.store import Store
remote.AT_ONCE = 1
fetch, left = Store.fetch, [int(sys.argv[2])]
def counted(self, path, *, name):
    fetch(self, path, name=name)
    print(name, flush=True)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    ends = time.monotonic() + 60
    while not os.path.exists("go") and time.monotonic() < ends:
        time.sleep(0.01)
Store.fetch = counted
remote.copied(sys.argv[1], FitConfig())
"""


def test_a_fetch_that_was_killed_goes_on(folder_url, tmp_path):
    (tmp_path / "go").touch()
    command = [sys.executable, "-c", FETCH, folder_url]
    assert subprocess.run([*command, "3"]).returncode == -signal.SIGKILL
    folder = copy_folder(folder_url, FitConfig())
    assert len([name for name in contents(folder) if name[0] != "."]) == 2
    again = subprocess.run([*command, "99"], capture_output=True, text=True, check=True)
    files = files_of(read_manifest(tmp_path / "shared"))
    assert len(again.stdout.split()) == len(files) - 2
    assert set(contents(folder)) == {MANIFEST, *files}


def test_of_two_fetches_at_once_one_waits(folder_url, tmp_path):
    command = [sys.executable, "-c", FETCH, folder_url, "99"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as first:
        fetched = [first.stdout.readline().strip()]
        with subprocess.Popen(command, **pipes) as second:
            assert "waiting for another process" in second.stderr.readline()
            (tmp_path / "go").touch()
            fetched += first.communicate()[0].split()
            assert second.communicate()[0] == ""
    assert (first.returncode, second.returncode) == (0, 0)
    files = files_of(read_manifest(tmp_path / "shared"))
    assert sorted(fetched) == sorted(files)
    folder = copy_folder(folder_url, FitConfig())
    assert set(contents(folder)) == {MANIFEST, *files}


@pytest.fixture
def s3(monkeypatch):
    """A server of S3 with an empty bucket."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    server = pytest.importorskip("moto.server", reason="moto[server,s3] is not installed")
    import boto3

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    yield client
    client.close()
    running.stop()
    # The next server has another address.
    s3fs.S3FileSystem.clear_instance_cache()


def test_the_commands_work_on_s3(s3, image_folder, elsewhere, capsys):
    url = "s3://bucket/pets"
    assert main(["pack", str(image_folder), url, "--quiet"]) == 0
    assert f"next: kclassify fit {url}" in capsys.readouterr().out
    names = [row["Key"] for row in s3.list_objects_v2(Bucket="bucket")["Contents"]]
    assert f"pets/{MANIFEST}" in names
    assert not [name for name in names if name.endswith((BEGUN, ".kclassify"))]
    elsewhere()
    fit = ["fit", url, "--run-dir", "run", "--model", "convnet", "--depth", "1", "--quiet"]
    assert main([*fit, "--filters", "4", "--epochs", "1", "--batch-size", "4"]) == 0
    assert main(["evaluate", "run"]) == 0
    assert main(["pack", str(image_folder), url, "--quiet", "--seed", "3"]) == 2
    assert main(["pack", str(image_folder), "s3://nothing/pets"]) == 2
    assert main(["fit", "s3://bucket/nothing"]) == 2
    other, pack_nowhere, fit_nothing = capsys.readouterr().err.splitlines()[-3:]
    assert "seed 0 before, 3 now" in other
    assert "bucket does not exist" in pack_nowhere
    assert f"no {MANIFEST} is found" in fit_nothing


@pytest.mark.parametrize(
    "url", ["sftp://me:secret@host/pets", "https://host/pets?key=secret", "s3://id:secret@bucket/a"]
)
@pytest.mark.parametrize("argument", ["data", "out"])
def test_a_secret_in_a_url_is_refused_and_not_repeated(tiny_arrays, url, argument):
    with pytest.raises(InputError, match=f"`{argument}` .*without a password") as found:
        load_source(url, FitConfig()) if argument == "data" else pack(tiny_arrays, url)
    assert "secret" not in str(found.value)


@pytest.mark.parametrize(
    "url", ["abfs://container@account/pets", "s3://bucket/a?b", "gs://a/b:c@d"]
)
def test_what_only_looks_like_one_is_taken(url):
    assert plain_url("data", url) == url


def test_a_whole_copy_may_be_one_that_nobody_can_write_to(tiny_arrays, monkeypatch):
    pack(tiny_arrays)
    first = copied(URL, FitConfig())

    def refuse(argument, _):
        raise InputError(f"`{argument}` must be in a folder that you may write to.")

    monkeypatch.setattr(remote, "check_place", refuse)
    assert copied(URL, FitConfig()) == first
    (first / MANIFEST).unlink()
    with pytest.raises(InputError, match="may write to"):
        copied(URL, FitConfig())


def test_a_set_that_another_process_fetches_meanwhile_is_not_written_over(
    tiny_arrays, elsewhere, monkeypatch
):
    pack(tiny_arrays)
    elsewhere()
    older, alone = copy_folder(URL, FitConfig()), remote.alone

    @contextmanager
    def after_another(folder, url):
        with alone(folder, url):
            if folder == older:
                folder.mkdir(exist_ok=True)
                (folder / MANIFEST).write_text("that of an older set")
            yield

    monkeypatch.setattr(remote, "alone", after_another)
    folder = copied(URL, FitConfig())
    assert folder != older
    assert contents(older) == {MANIFEST: b"that of an older set"}
    assert set(contents(folder)) == {MANIFEST, *files_of(read_manifest(folder))}


def test_a_manifest_may_come_in_pieces(tiny_arrays, objects, monkeypatch):
    pack(tiny_arrays)

    class Slow(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 100))

    store = Store.of("data", URL)
    monkeypatch.setattr(type(store.system), "open", lambda *_: Slow(objects()[MANIFEST]))
    assert store.read(MANIFEST, most=10**6) == objects()[MANIFEST]
    assert store.read(MANIFEST, most=150) == objects()[MANIFEST][:150]
