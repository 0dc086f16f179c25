"""A real headless Chromium, driven over its own pipe (Chrome DevTools Protocol): no package, no port.

A test that asks for it is skipped where no Chromium is installed.
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--mute-audio",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # nothing outside this machine can be reached
)
# Chromium reads commands from file 3 and writes answers to file 4.
_START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)


def find() -> str | None:
    """The path of a Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page of one Chromium."""

    def __init__(self, program: str, profile: Path) -> None:
        down, up = os.pipe(), os.pipe()
        high = [fcntl.fcntl(end, fcntl.F_DUPFD, 200) for end in (down[0], up[1])]
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        command = [program, *FLAGS, *sandbox, f"--user-data-dir={profile}", "about:blank"]
        start = [sys.executable, "-c", _START, *(str(end) for end in high), *command]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            start, pass_fds=high, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
        for end in (*high, down[0], up[1]):
            os.close(end)
        self._write, self._read = down[1], up[0]
        self._numbers = itertools.count(1)
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        self.complaints: list[str] = []  # errors of scripts, refusals of the content security policy, failed loads
        self._loaded = threading.Event()
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session: str | None = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._send("Browser.close", {}, None)
            self._process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
        self._reader.join(10)
        os.close(self._write)
        os.close(self._read)

    def _listen(self) -> None:
        text = b""
        while part := os.read(self._read, 1 << 20):
            *whole, text = (text + part).split(b"\0")
            for one in whole:
                self._take(json.loads(one))

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers[message["id"]].put(message)
            return
        method, facts = message["method"], message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Runtime.exceptionThrown":
            thrown = facts["exceptionDetails"]
            self.complaints.append(thrown.get("exception", {}).get("description", thrown["text"]))
        elif method == "Log.entryAdded" and facts["entry"]["level"] == "error":
            self.complaints.append(f"{facts['entry']['text']} {facts['entry'].get('url', '')}".strip())

    def _send(self, method: str, params: dict[str, Any], session: str | None) -> int:
        number = next(self._numbers)
        self._answers[number] = queue.Queue()
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")
        return number

    def _call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        number = self._send(method, params, session)
        try:
            answer = self._answers[number].get(timeout=60)
        except queue.Empty:
            answer = {"error": f"no answer in 60 s; Chromium ended with {self._process.poll()}"}
        del self._answers[number]
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol to the page."""
        return self._call(method, self._session, **params)

    def open(self, url: str) -> None:
        """Opens an address and waits for its load event."""
        self._loaded.clear()
        self.call("Page.navigate", url=url)
        assert self._loaded.wait(60), f"{url} did not load"

    def reload(self) -> None:
        """Loads the page again, as F5 does."""
        self._loaded.clear()
        self.call("Page.reload")
        assert self._loaded.wait(60)

    def js(self, expression: str) -> Any:
        """The value of an expression; promises are waited for."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            thrown = found["exceptionDetails"]
            raise AssertionError(thrown.get("exception", {}).get("description", thrown["text"]))
        return found["result"].get("value")

    def until(self, expression: str, seconds: float = 120) -> None:
        """Waits until an expression is true."""
        end = time.monotonic() + seconds
        while not self.js(f"Boolean({expression})"):
            assert time.monotonic() < end, (
                f"never true: {expression}; the page says: {self.js('document.body.innerText')}"
            )
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """A real click of the mouse in the middle of an element."""
        one = f"document.querySelector({json.dumps(selector)})"
        self.js(f"{one}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        middle = (
            f"(() => {{ const b = {one}.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }})()"
        )
        place = None
        while place != (place := self.js(middle)):  # until it stands still
            time.sleep(0.1)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def type(self, selector: str, text: str) -> None:
        """Replaces what stands in a field, as a paste does."""
        self.js(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)}); one.focus(); one.select(); }})()"
        )
        self.call("Input.insertText", text=text)

    def key(self, key: str, code: str = "", modifiers: int = 0) -> None:
        """Presses a key."""
        text = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
        codes = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        number = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
        facts = {"key": key, "code": code or key, "windowsVirtualKeyCode": number, "modifiers": modifiers}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **facts)
        self.call("Input.dispatchKeyEvent", type="keyUp", **facts)

    def resize(self, width: int, height: int, *, phone: bool = False, dark: bool = False) -> None:
        """A window of this size, in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, file: Path, *, whole: bool = False) -> None:
        """A PNG of the window, or of the whole page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))
