"""The simulated providers as a real process, for tests and load runs."""

import json
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

import anyio.to_thread

_PROJECT = Path(__file__).resolve().parents[1]
_open = build_opener(ProxyHandler({})).open


class Simulation:
    """A running `python -m infrastructure.simulator`; `urls` has its addresses: control, openai, deepseek, gemini."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "infrastructure.simulator", "--port", "0"]
        self.process = subprocess.Popen(command, cwd=_PROJECT, stdout=subprocess.PIPE)
        announced = self.process.stdout.readline()
        if not announced:
            raise RuntimeError(f"the simulator ended with code {self.stop()} before it announced its addresses")
        self.urls: dict[str, str] = json.loads(announced)

    def control(self, method: str, path: str, body: object = None):
        """Return what the control server answers, decoded.

        Raises:
            AssertionError: it answers with an error; the text is its own.
        """
        status, answer = self.ask_control(method, path, body)
        assert status == 200, f"{method} {path}: {status} {answer}"
        return answer

    def ask_control(self, method: str, path: str, body: object = None):
        """Return the status and the decoded body of the control server's answer."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.urls["control"] + path, data=data, method=method)
        try:
            with _open(request, timeout=70) as response:
                return response.status, json.load(response)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)

    def behave(self, provider: str, **behaviour: object) -> None:
        """Give `provider` a behaviour: its fields, and `times` or `model` if wanted."""
        self.control("PUT", f"/behaviours/{provider}", behaviour)

    def counters(self, provider: str) -> dict[str, int]:
        """Return the counters of `provider`."""
        return self.control("GET", "/counters")[provider]

    def calls(self, provider: str) -> list[dict]:
        """Return the latest requests to `provider`, oldest first: path, headers, body."""
        return self.control("GET", f"/calls/{provider}")

    async def until(self, condition: str, timeout_s: float = 5) -> None:
        """Return as soon as `condition`, like `openai.live==0`, holds.

        Raises:
            AssertionError: it does not within `timeout_s`; the text has all counters.
        """
        query = urlencode({"until": condition, "timeout_s": timeout_s})
        await anyio.to_thread.run_sync(self.control, "GET", f"/counters?{query}")

    def reset(self) -> None:
        """Forget behaviours, calls and counters, and switch every provider on."""
        self.control("POST", "/reset")

    def stop(self) -> int:
        """End the process as an operator would, and return its exit code: 0 when it ends cleanly."""
        self.process.terminate()
        self.process.stdout.close()
        return self.process.wait(timeout=10)
