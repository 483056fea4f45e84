"""The service as a real process, pointed at the simulated providers."""

import os
import select
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from tests.simulation import Simulation

_PROJECT = Path(__file__).resolve().parents[1]
_WEIR = Path(sys.executable).with_name("weir")
_ANNOUNCEMENT = b"weir: serving at "
_STARTS = 200
_WAIT_S = 0.05
_open = build_opener(ProxyHandler({})).open

KEY = "sk-test-0123456789abcdef"
"""What each provider is asked with."""

SETTINGS = {
    "WEIR_RATE_ANONYMOUS": "unlimited",
    "WEIR_MAX_CONNECTIONS_PER_USER": "0",
    "WEIR_RETRY_BASE_S": "0.01",
    "WEIR_RETRY_MAX_S": "0.05",
    "WEIR_HEARTBEAT_S": "0.3",
    "WEIR_GRACE_S": "0.2",
    "WEIR_FIRST_TOKEN_TIMEOUT_S": "1",
    "WEIR_STALL_TIMEOUT_S": "1",
    "WEIR_BREAKER_FAILURES": "1000",
    "WEIR_BREAKER_WINDOW": "1000",
    "WEIR_TRACE_SAMPLE_RATIO": "1",
}
"""What tests run with unless they say otherwise: nothing is refused, and no test trips another."""


class Service:
    """A running `weir serve` at `url`; its log goes to a file that `log` reads."""

    def __init__(self, simulation: Simulation, settings: dict[str, str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by stop
        self.process = subprocess.Popen(
            [_WEIR, "serve", "--port", "0"],
            cwd=_PROJECT,
            env=_environment(simulation, settings),
            stdout=self._log,
            stderr=subprocess.PIPE,
        )
        announced = self.process.stderr.readline()
        assert announced.startswith(_ANNOUNCEMENT), announced + self.process.stderr.read()
        self.url = announced.removeprefix(_ANNOUNCEMENT).decode().strip()
        self._wait_until_up()

    def log(self) -> str:
        """All that was logged so far."""
        self._log.seek(0)
        return self._log.read().decode()

    def stop(self) -> None:
        """End it as an operator would.

        Raises:
            AssertionError: it does not end with code 0, or wrote more than its announcement to stderr.
        """
        self.process.terminate()
        _, more = self.process.communicate(timeout=20)
        self._log.close()
        assert (self.process.returncode, more.decode()) == (0, "")

    def _wait_until_up(self) -> None:
        """It answers; a line on stderr before that is its last."""
        for _ in range(_STARTS):
            try:
                with _open(f"{self.url}/health/live", timeout=5):
                    return
            except URLError:
                is_ended, _, _ = select.select([self.process.stderr], [], [], _WAIT_S)
            if is_ended:
                break
        self.process.terminate()
        raise AssertionError(self.process.communicate(timeout=20)[1].decode())


@contextmanager
def serving(simulation: Simulation, **settings: str):
    """A service of one's own, with these variables beside or instead of `SETTINGS`; it ends with the context."""
    service = Service(simulation, SETTINGS | settings)
    try:
        yield service
    finally:
        service.stop()


def _environment(simulation: Simulation, settings: dict[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WEIR_")}
    providers = {
        variable: value
        for name in ("OPENAI", "DEEPSEEK", "GEMINI")
        for variable, value in ((f"{name}_API_KEY", KEY), (f"{name}_BASE_URL", simulation.urls[name.lower()]))
    }
    return inherited | providers | settings
