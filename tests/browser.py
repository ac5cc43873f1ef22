"""A headless Chromium for tests: open a page, read its DOM, collect what its console says and what it requests."""

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # root and containers cannot have one; only pages made by the tests are opened
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
PATIENCE = 30.0  # seconds, for a start or an answer on a busy machine


def find_chromium() -> str | None:
    """Return the path of a Chromium or Chrome; None if this machine has none."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


@dataclass
class Page:
    """A tab: what it said and requested so far, and ways to ask it something.

    console: 'level: text' of every console line, uncaught exception and browser complaint. requests: URLs.
    """

    socket: ClientConnection
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _calls: int = 0

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol and return its result; RuntimeError if it fails."""
        self._calls += 1
        self.socket.send(json.dumps({"id": self._calls, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv(timeout=PATIENCE))
            if message.get("id") == self._calls:
                break
            self._note(message["method"], message["params"])
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return message["result"]

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, awaited if it is a promise; RuntimeError if it throws."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = PATIENCE) -> None:
        """Return once the JavaScript expression is true; TimeoutError after so many seconds."""
        end = time.monotonic() + seconds
        while not self.evaluate(f"Boolean({expression})"):
            if time.monotonic() > end:
                raise TimeoutError(f"not true after {seconds} s: {expression}; console: {self.console}")
            time.sleep(0.05)

    def resize(self, width: int, height: int = 900, phone: bool = False) -> None:
        """Set the viewport, in CSS pixels, and bring the tab to the front: others are not laid out anew."""
        self.send("Page.bringToFront")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.send("Emulation.setDeviceMetricsOverride", **size)

    def prefer(self, scheme: str) -> None:
        """Emulate a reader who prefers the scheme 'light' or 'dark'; brings the tab to the front."""
        self.send("Page.bringToFront")
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def go(self, address: str | Path) -> None:
        """Open a URL or a file and wait until it is loaded."""
        url = address.resolve().as_uri() if isinstance(address, Path) else address
        answer = self.send("Page.navigate", url=url)
        if "errorText" in answer:
            raise RuntimeError(f"{url}: {answer['errorText']}")
        self.wait_for("document.readyState === 'complete'")

    def screenshot(self, file: Path, full: bool = True) -> Path:
        """Write a PNG of the whole page, or of what the viewport shows."""
        image = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        file.write_bytes(base64.b64decode(image["data"]))
        return file

    def pdf(self, file: Path) -> Path:
        """Write the page as it prints on A4."""
        paper = self.send("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=True)
        file.write_bytes(base64.b64decode(paper["data"]))
        return file

    def _note(self, event: str, detail: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(detail["request"]["url"])
        elif event == "Runtime.consoleAPICalled":
            words = (str(a.get("value", a.get("description"))) for a in detail["args"])
            self.console.append(f"{detail['type']}: {' '.join(words)}")
        elif event == "Runtime.exceptionThrown":
            thrown = detail["exceptionDetails"]
            self.console.append(f"error: {thrown.get('exception', {}).get('description', thrown['text'])}")
        elif event == "Log.entryAdded":
            self.console.append(f"{detail['entry']['level']}: {detail['entry']['text']}")


@dataclass(frozen=True)
class Browser:
    """A running Chromium, reached on a port of 127.0.0.1."""

    port: int

    @contextmanager
    def page(self, width: int = 1280, scheme: str = "light", phone: bool = False) -> Iterator[Page]:
        """Lend an empty tab of the given width in CSS pixels."""
        opener = build_opener(ProxyHandler({}))
        with opener.open(Request(f"http://127.0.0.1:{self.port}/json/new", method="PUT"), timeout=PATIENCE) as answer:
            address = json.load(answer)["webSocketDebuggerUrl"]
        with connect(address, max_size=None, proxy=None, compression=None) as socket:
            page = Page(socket)
            for domain in ("Page", "Runtime", "Network", "Log"):
                page.send(f"{domain}.enable")
            page.resize(width, phone=phone)
            page.prefer(scheme)
            yield page
            page.send("Page.close")


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Lend a Chromium with a new, empty profile; it is ended and its profile removed afterwards."""
    program = find_chromium()
    if program is None:
        raise FileNotFoundError(f"no browser here: none of {', '.join(NAMES)} is on the PATH")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, *FLAGS, f"--user-data-dir={profile}"]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            yield Browser(_port(Path(profile) / "DevToolsActivePort", process))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _port(file: Path, process: subprocess.Popen) -> int:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        lines = file.read_text().split("\n") if file.exists() else []
        if len(lines) == 2:  # the second line is written last
            return int(lines[0])
        time.sleep(0.05)
    raise TimeoutError(f"Chromium opened no DevTools port; exit status {process.poll()}")
