"""The demo: simulated providers, and the service pointed at them through the real SDKs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import Request

from app.loopback import open_directly

PACE = {"ttft_s": 0.3, "gap_s": 0.05, "tokens": 40}
"""Slow enough to watch."""

_LIFTED = {
    "WEIR_RATE_ANONYMOUS": "unlimited",
    "WEIR_RATE_STANDARD": "unlimited",
    "WEIR_RATE_PREMIUM": "unlimited",
    "WEIR_MAX_CONNECTIONS_PER_USER": "0",
    "WEIR_RETRY_BASE_S": "0.2",
    "WEIR_LOG_FORMAT": "console",
    "WEIR_LOG_LEVEL": "warning",
}


@contextmanager
def simulated_providers() -> Iterator[dict[str, str]]:
    """Simulated providers in a process of their own, which ends with the context; their base URLs by name."""
    command = [sys.executable, "-m", "infrastructure.simulator", "--port", "0"]
    # In a session of its own: Ctrl-C is for the service, whose streams need their providers until they have ended.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)  # noqa: S603
    try:
        assert process.stdout is not None  # noqa: S101  # it is piped
        addresses: dict[str, str] = json.loads(process.stdout.readline())
        for provider in ("openai", "deepseek", "gemini"):
            _put(f"{addresses['control']}/behaviours/{provider}", PACE)
        yield addresses
    finally:
        process.terminate()
        process.wait()


def environment(addresses: dict[str, str]) -> dict[str, str]:
    """What the demo sets beside what is set already: the simulated providers always, the rest unless it is set."""
    providers = {
        variable: value
        for name in ("OPENAI", "DEEPSEEK", "GEMINI")
        for variable, value in (
            (f"{name}_API_KEY", "simulated"),
            (f"{name}_BASE_URL", addresses[name.lower()]),
        )
    }
    return _LIFTED | dict(os.environ) | providers | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def things_to_try(url: str, control: str) -> str:
    """What the demo prints: three lines to copy."""
    ask = f"curl -N {url}/v1/stream -H 'Content-Type: application/json' -d"
    return f"""
Weir is at {url}, its providers are simulated. Try, in another terminal:

  # a stream
  {ask} '{{"model": "gpt-4o-mini", "query": "What is a weir?"}}'

  # the same again, from cache: nothing is asked upstream
  {ask} '{{"model": "gpt-4o-mini", "query": "What is a weir?"}}'

  # OpenAI is switched off, and the next provider answers
  curl -X POST {control}/providers/openai/off && {ask} '{{"model": "gpt-4o-mini", "query": "Who answers now?"}}'

To switch it on again: curl -X POST {control}/providers/openai/on
Ctrl-C ends the demo.
"""


def _put(url: str, body: object) -> None:
    request = Request(url, json.dumps(body).encode(), method="PUT")  # noqa: S310  # loopback, ours
    with open_directly(request, timeout=5):
        pass
