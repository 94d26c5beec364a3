"""Chromium without a window, driven over its debugging protocol through a pipe: no extra packages."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE = 120.0
"""Seconds that a reply may take before the test fails."""


def executable() -> str | None:
    """The browser that is installed, if any."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Chromium:
    """One browser process with one page at a time."""

    def __init__(self, profile: Path) -> None:
        program = executable()
        assert program is not None
        commands, self._out = os.pipe()
        self._in, replies = os.pipe()
        # The protocol is spoken on descriptors 3 and 4.
        script = f'exec "$@" 3<&{commands} 4>&{replies}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(commands, replies),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(commands)
        os.close(replies)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.complaints: list[str] = []  # of the page: errors, console errors, refused requests
        self.requests: list[str] = []  # addresses that the page asked for

    def close(self) -> None:
        """End the process and its children."""
        os.close(self._out)
        os.close(self._in)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def open(self, path: Path, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Open a file in a page of this size and wait until it says that it is drawn."""
        if self._session is None:
            target = self._call("Target.createTarget", url="about:blank", session=None)["targetId"]
            reply = self._call("Target.attachToTarget", targetId=target, flatten=True, session=None)
            self._session = reply["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        self.call("Page.navigate", url="about:blank")
        self.complaints.clear()
        self.requests.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.absolute().as_uri())
        end = time.monotonic() + PATIENCE
        while not self.run("location.href !== 'about:blank' && document.documentElement?.dataset.drawn"):
            assert time.monotonic() < end, f"{path} was not drawn; it complained: {self.complaints}"
            time.sleep(0.02)

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        reply = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def press(self, *keys: str) -> None:
        """Press keys on what has the focus."""
        for key in keys:
            text = {"text": " "} if key == " " else {}
            code = "Space" if key == " " else key
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=code, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=code)

    def screenshot(self, path: Path, *, top: int = 0, height: int | None = None) -> None:
        """The page as PNG, all of its height or a part."""
        width, whole = self.run("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": top, "width": width, "height": height or whole - top, "scale": 1}
        reply = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(reply["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol for the open page."""
        return self._call(method, session=self._session, **parameters)

    def _call(self, method: str, *, session: str | None, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._read()
            if reply.get("id") == self._number:
                assert "error" not in reply, f"{method}: {reply['error']}"
                return dict(reply["result"])
            self._note(reply)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], PATIENCE)
            assert ready, "Chromium does not answer"
            chunk = os.read(self._in, 1 << 20)
            assert chunk, "Chromium has ended"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning", "assert"):
                self.complaints.append(json.dumps(parameters["args"]))
            case "Log.entryAdded" if parameters["entry"]["level"] in ("error", "warning"):
                self.complaints.append(parameters["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
