"""The page in a real headless Chromium, spoken to over a pipe: no port, no other dependency."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kclassify.reporting.report import report

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no chromium on this machine")

HOSTILE = ("<script>console.error(1)</script>", "a|b", "two\nlines", "x" * 120, "e")
SECTIONS = [
    "Learning curves", "Metrics", "Confusion", "Worst errors", "Not looked at", "Configuration",
    "Data", "Environment", "How to reproduce",
]  # fmt: skip


class Browser:
    """One page of one Chromium; `events` are what the page has said since it was opened."""

    def __init__(self, profile: Path):
        theirs, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        # Chromium reads file 3 and writes file 4.
        command = f'exec "$@" 3<&{theirs} 4>&{theirs_out}'
        program = [find_chromium(), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", command, "bash", *program],
            pass_fds=(theirs, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(theirs_out)
        self._out, self._in = os.fdopen(ours_out, "wb"), os.fdopen(ours_in, "rb")
        self._buffer, self._count, self._session = b"", 0, None
        self.events: list[dict[str, Any]] = []
        self._attach()

    def _attach(self) -> None:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        answer = self._read_until(lambda read: read.get("id") == self._count)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, url: str, *, width: int, scheme: str) -> None:
        self.events.clear()
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.send("Emulation.setEmulatedMedia", features=[feature])
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        self.send("Page.navigate", url=url)
        self._read_until(lambda read: read.get("method") == "Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"]["value"]

    def said(self, *methods: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event["method"] in methods]

    def close(self) -> None:
        self._session = None
        self.send("Browser.close")
        self._process.wait(timeout=20)
        self._out.close()
        self._in.close()

    def _read_until(self, wanted) -> dict[str, Any]:
        while True:
            message = self._read()
            if "method" in message:
                self.events.append(message)
            if wanted(message):
                return message

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._in.fileno(), 1 << 16)
            if not part:
                raise RuntimeError("Chromium ended before it answered")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory, write_run, class_names):
    many = tuple(f"class {place}" for place in range(40))
    kinds = {"plain": class_names, "hostile": HOSTILE, "many": many}
    folder = tmp_path_factory.mktemp("runs")
    return {kind: report(write_run(folder / kind, names)) for kind, names in kinds.items()}


@pytest.mark.parametrize("kind", ["plain", "hostile", "many"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_and_is_whole(browser, pages, kind, width, scheme):
    browser.open(pages[kind].as_uri(), width=width, scheme=scheme)
    assert browser.evaluate("window.innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert browser.evaluate("document.images.length") == 12
    assert browser.evaluate("[...document.querySelectorAll('h2')].map(h => h.innerText)") == (
        SECTIONS
    )
    assert not browser.said("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")


def test_page_asks_for_nothing_but_itself(browser, pages):
    page = pages["plain"]
    browser.open(page.as_uri(), width=1280, scheme="light")
    urls = [sent["request"]["url"] for sent in browser.said("Network.requestWillBeSent")]
    assert [url for url in urls if not url.startswith("data:")] == [page.as_uri()]


def test_hostile_names_stay_text(browser, pages):
    browser.open(pages["hostile"].as_uri(), width=1280, scheme="light")
    assert browser.evaluate("document.scripts.length") == 0
    assert HOSTILE[0] in browser.evaluate("document.querySelector('#metrics').innerText")


@pytest.mark.parametrize(("scheme", "darker"), [("light", False), ("dark", True)])
def test_figures_follow_the_colour_scheme(browser, pages, scheme, darker):
    browser.open(pages["plain"].as_uri(), width=1280, scheme=scheme)
    brightness = (
        "(style => style.match(/[0-9]+/g).slice(0, 3).map(Number).reduce((a, b) => a + b))"
        "(getComputedStyle(document.querySelector({}))[{}])"
    )
    card = browser.evaluate(brightness.format("'section'", "'backgroundColor'"))
    text = browser.evaluate(brightness.format("'.plot.confusion text'", "'fill'"))
    assert (card < text) is darker
    assert abs(card - text) > 300


@pytest.mark.parametrize("width", [390, 1280])
def test_small_images_are_enlarged_in_pixels(browser, pages, width):
    browser.open(pages["plain"].as_uri(), width=width, scheme="light")
    box = browser.evaluate(
        "(i => [i.clientWidth, i.clientHeight, getComputedStyle(i).imageRendering])"
        "(document.images[0])"
    )
    assert box[0] == box[1] > 100
    assert box[2] == "pixelated"
