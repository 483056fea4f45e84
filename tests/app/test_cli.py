"""The commands as a person types them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import KEY

WEIR = Path(sys.executable).with_name("weir")
NO_CURL = shutil.which("curl") is None and "CI" not in os.environ


def weir(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WEIR_")}
    return subprocess.run(
        [WEIR, *arguments], env=inherited | environ, capture_output=True, text=True, timeout=30, check=False
    )


COMMANDS = ["", "serve", "demo", "simulate", "check", "cache", "cache purge", "cache warm"]
KEY_COMMANDS = ["keys", "keys create", "keys list", "keys revoke"]


@pytest.mark.parametrize("command", COMMANDS + KEY_COMMANDS)
def test_every_command_explains_itself(command):
    """Nobody should have to read the source to use a command."""
    done = weir(*command.split(), "--help")

    assert done.returncode == 0
    assert done.stdout.startswith("Usage: weir")


@pytest.mark.parametrize(
    ("arguments", "environ", "expected"),
    [
        (("serve",), {}, "no provider has a key"),
        (("serve",), {"WEIR_HEARTBEAT_S": "fast"}, "WEIR_HEARTBEAT_S='fast': a number of seconds"),
        (("serve", "--port", "70000"), {}, "70000 is not in the range"),
        (("serve", "--workers", "2"), {"OPENAI_API_KEY": KEY}, "--workers 2: 1 is right"),
        (
            ("serve", "--host", "203.0.113.1"),
            {"OPENAI_API_KEY": KEY},
            "203.0.113.1:8000 cannot be listened on: Cannot assign requested address\n",
        ),
        (("demo", "--port", "http"), {}, "'http' is not a valid integer"),
        (("check",), {"WEIR_CATALOGUE": "/nowhere.toml"}, "WEIR_CATALOGUE='/nowhere.toml': the path of a TOML file"),
        (("serve",), {"WEIR_AUTH": "required"}, "WEIR_AUTH='required': also WEIR_API_KEYS_FILE or WEIR_REDIS_URL"),
        (
            ("demo",),
            {"WEIR_API_KEYS_FILE": "/nowhere"},
            "/nowhere: No such file or directory; weir keys create makes it",
        ),
        (("simulate", "--port", "-1"), {}, "-1 is not in the range"),
        (("simulte",), {}, "No such command 'simulte'"),
        (("cache", "purge"), {}, "WEIR_ADMIN_KEY: a key of printable ASCII characters"),
        (("cache", "purge"), {"WEIR_ADMIN_KEY": "ä"}, "WEIR_ADMIN_KEY: a key of printable ASCII characters"),
        (
            ("cache", "purge", "--url", "weir:8000"),
            {"WEIR_ADMIN_KEY": KEY},
            "--url 'weir:8000': an http:// or https://",
        ),
        (("cache", "warm", "/nowhere.jsonl"), {"WEIR_ADMIN_KEY": KEY}, "'/nowhere.jsonl': No such file"),
        (("cache", "warm", "/dev/null"), {"WEIR_ADMIN_KEY": KEY}, "/dev/null: no question"),
        (("cache", "warm", "justfile"), {"WEIR_ADMIN_KEY": KEY}, "justfile: line 1: body: not JSON"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(arguments, environ, expected):
    """A start that fails says what to change, on stderr."""
    done = weir(*arguments, **environ)

    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert KEY not in done.stderr


def test_a_taken_port_is_refused(simulation):
    """Two servers on one port would each get some of the requests."""
    port = simulation.urls["control"].rpartition(":")[2]

    for command in ("serve", "simulate"):
        done = weir(command, "--port", port, OPENAI_API_KEY=KEY)
        assert done.returncode == 2
        assert port in done.stderr


def test_check_tells_which_providers_can_be_used(simulator):
    """A wrong key is found before a request is lost to it."""
    done = weir(
        "check",
        OPENAI_API_KEY=KEY,
        OPENAI_BASE_URL=simulator.urls["openai"],
        DEEPSEEK_API_KEY="bad-key",
        DEEPSEEK_BASE_URL=simulator.urls["deepseek"],
        GEMINI_API_KEY="bad-key",
        GEMINI_BASE_URL=simulator.urls["gemini"],
    )

    assert done.returncode == 0
    assert re.search(r"ok\s+openai", done.stdout)
    assert f"fails deepseek: does not accept our key ({simulator.urls['deepseek']})" in done.stdout
    assert re.search(r"fails\s+gemini: does not accept our key", done.stdout)
    assert "bad-key" not in done.stdout


def test_check_tells_an_address_that_cannot_be_right(simulator):
    """Most often /v1 is missing, or is there once too often."""
    done = weir(
        "check",
        OPENAI_API_KEY=KEY,
        OPENAI_BASE_URL=simulator.urls["openai"].removesuffix("/v1"),
        GEMINI_API_KEY=KEY,
        GEMINI_BASE_URL=f"{simulator.urls['gemini']}/v1beta",
    )

    assert done.returncode == 1
    assert done.stdout.count("has no list of models at its address, which cannot be right (http://") == 2


def test_check_fails_when_nothing_could_be_served(simulator):
    """A deployment can ask before it sends traffic."""
    simulator.control("POST", "/providers/openai/off")

    done = weir("check", OPENAI_API_KEY=KEY, OPENAI_BASE_URL=simulator.urls["openai"])

    assert done.returncode == 1
    assert "refused the connection" in done.stdout


@pytest.mark.parametrize(("host", "expected"), [("localhost", "http://127.0.0.1:"), ("::1", "http://[::1]:")])
def test_a_host_may_be_a_name_or_of_either_family(host, expected):
    """The announced address can be copied into a client."""
    command = [WEIR, "serve", "--host", host, "--port", "0"]
    served = subprocess.Popen(command, env=os.environ | {"OPENAI_API_KEY": KEY}, stderr=subprocess.PIPE, text=True)
    try:
        assert expected in served.stderr.readline()
    finally:
        served.terminate()
        served.communicate(timeout=20)


@pytest.mark.skipif(NO_CURL, reason="curl is not installed: what the demo prints cannot be tried")
def test_the_demo_prints_lines_that_work_as_printed():
    """The first minute with the product: a stream, a hit, a failover."""
    demo = subprocess.Popen([WEIR, "demo", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        printed = list(iter(demo.stdout.readline, "Ctrl-C ends the demo.\n"))
        stream, again, failover = [line.strip() for line in printed if line.startswith("  curl")]
        answers = [_type(line) for line in (stream, again, failover)]
    finally:
        demo.terminate()
        rest = demo.communicate(timeout=20)[0]

    assert '"cache":"miss"' in answers[0]
    assert '"provider":"openai"' in answers[0]
    assert '"status":"cache_hit"' in answers[1]
    assert '"status":"failover","from":"openai","to":"deepseek"' in answers[2]
    assert all("event: complete" in answer for answer in answers)
    assert demo.returncode == 0
    assert "Traceback" not in rest


def _type(line: str) -> str:
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout
