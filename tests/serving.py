"""The service as a real process, pointed at the simulated providers."""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from tests.simulation import Simulation

_PROJECT = Path(__file__).resolve().parents[1]
_WEIR = Path(sys.executable).with_name("weir")
_ANNOUNCEMENT = b"weir: serving at "

_HASTY_WARNING = "[WARNING] Killing worker-1 after it refused to gracefully stop\n"
"""On a busy machine Granian says so at once of a worker that has just ended, as two of its threads wait for that. One
that does refuse is given longer than we wait here."""

KEY = "sk-test-0123456789abcdef"
"""What each provider is asked with."""

ADMIN_KEY = "the-operators-own-key"

SETTINGS = {
    "WEIR_RATE_ANONYMOUS": "unlimited",
    "WEIR_RATE_STANDARD": "unlimited",
    "WEIR_RATE_PREMIUM": "unlimited",
    "WEIR_MAX_CONNECTIONS_PER_USER": "0",
    "WEIR_RETRY_BASE_S": "0.01",
    "WEIR_RETRY_MAX_S": "0.05",
    "WEIR_HEARTBEAT_S": "0.3",
    "WEIR_GRACE_S": "0.2",
    "WEIR_FIRST_TOKEN_TIMEOUT_S": "1",
    "WEIR_STALL_TIMEOUT_S": "1",
    "WEIR_BREAKER_FAILURES": "1000",
    "WEIR_BREAKER_WINDOW": "1000",
    "WEIR_RETRY_BUDGET_RATIO": "100",
    "WEIR_TRACE_SAMPLE_RATIO": "1",
    "WEIR_ADMIN_KEY": ADMIN_KEY,
    "WEIR_WARM_PER_S": "1000",
}
"""What tests run with unless they say otherwise: nothing is refused, and no test trips another."""


class Service:
    """A running `weir serve` at `url`; its log goes to a file that `log` reads."""

    def __init__(self, simulation: Simulation, settings: dict[str, str], *options: str) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by stop
        self.process = subprocess.Popen(
            [_WEIR, "serve", "--port", "0", *options],
            cwd=_PROJECT,
            env=environment(simulation, settings),
            stdout=self._log,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        announced = self.process.stderr.readline()
        if not announced.startswith(_ANNOUNCEMENT):
            raise RuntimeError(f"the service did not start: {(announced + self._kill()).decode()}")
        self.url = announced.removeprefix(_ANNOUNCEMENT).decode().strip()

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
        try:
            _, more = self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self._kill()
            raise
        self._log.close()
        ended = (self.process.returncode, more.decode().replace(_HASTY_WARNING, ""))
        assert ended == (0, ""), ended

    def _kill(self) -> bytes:
        """End it and its worker, at the latest after a second; return what was left to read on stderr."""
        self._log.close()
        try:
            return self.process.communicate(timeout=1)[1]
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            return self.process.communicate()[1]


@contextmanager
def serving(simulation: Simulation, *options: str, **settings: str):
    """A service of one's own, with these variables beside or instead of `SETTINGS`; it ends with the context."""
    service = Service(simulation, SETTINGS | settings, *options)
    try:
        yield service
    finally:
        service.stop()


def environment(simulation: Simulation, settings: dict[str, str]) -> dict[str, str]:
    """The variables that point the service at the simulated providers, beside `settings` and what is inherited."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WEIR_")}
    providers = {
        variable: value
        for name in ("OPENAI", "DEEPSEEK", "GEMINI")
        for variable, value in ((f"{name}_API_KEY", KEY), (f"{name}_BASE_URL", simulation.urls[name.lower()]))
    }
    return inherited | providers | settings
