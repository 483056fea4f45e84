"""The control server, and the simulator as a process."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infrastructure.raw import asked, data_lines, everything, is_whole, words
from tests.simulation import Simulation

pytestmark = pytest.mark.anyio
NONE = {"calls": 0, "live": 0, "finished": 0, "closed_by_client": 0, "faults": 0, "tokens": 0}


async def tokens(simulator, provider="openai", model="m"):
    async with asked(simulator, provider, model) as reader:
        received, _ = await everything(reader)
    return len(words(provider, data_lines(received)))


async def test_tells_its_addresses(simulator):
    assert simulator.control("GET", "/") == simulator.urls
    assert set(simulator.urls) == {"control", "openai", "deepseek", "gemini"}
    assert simulator.urls["openai"].endswith("/v1")


async def test_a_behaviour_lasts_its_times_and_then_the_next_one_holds(simulator):
    simulator.behave("openai", tokens=3, times=2)
    simulator.behave("openai", tokens=4, times=1)
    simulator.behave("openai", tokens=5)

    assert [await tokens(simulator) for _ in range(5)] == [3, 3, 4, 5, 5]


async def test_a_behaviour_is_for_one_provider_and_may_be_for_one_model(simulator):
    simulator.behave("openai", model="exact", tokens=3)
    simulator.behave("openai", tokens=4)

    assert await tokens(simulator, model="exact") == 3
    assert await tokens(simulator, model="other") == 4
    assert await tokens(simulator, "deepseek", "exact") == 25


async def test_a_behaviour_in_the_model_name_wins_and_uses_none_up(simulator):
    simulator.behave("openai", tokens=3, times=1)

    assert await tokens(simulator, model="m@tokens=7") == 7
    assert await tokens(simulator) == 3


async def test_deleting_gives_the_default_back(simulator):
    for path in ("/behaviours/openai", "/behaviours"):
        simulator.behave("openai", tokens=3)
        simulator.control("DELETE", path)
        assert await tokens(simulator) == 25


async def test_counters_say_how_every_call_ended(simulator):
    await tokens(simulator)
    await tokens(simulator, model="m@fault=no_finish,at=2")

    assert simulator.counters("openai") == NONE | {"calls": 2, "finished": 1, "faults": 1, "tokens": 27}
    assert simulator.counters("gemini") == NONE


async def test_waiting_answers_when_the_condition_holds_and_408_when_it_does_not(simulator):
    async with asked(simulator, "openai", "m@fault=stall,at=3"):
        await simulator.until("openai.tokens>=3")
        await simulator.until("openai.live<=1")
        status, counters = simulator.ask_control("GET", "/counters?until=openai.live==0&timeout_s=0.02")

    assert status == 408
    assert counters["openai"]["live"] == 1
    await simulator.until("openai.live==0")


async def test_the_latest_two_hundred_calls_are_kept(simulator):
    for number in range(201):
        async with asked(simulator, "openai", "m@tokens=0,ttft_ms=0", seed=number) as reader:
            assert is_whole((await everything(reader))[0])

    assert [call["body"]["seed"] for call in simulator.calls("openai")] == list(range(1, 201))


async def test_reset_forgets_everything_and_switches_everything_on(simulator):
    simulator.behave("openai", tokens=3)
    await tokens(simulator)
    simulator.control("POST", "/providers/openai/off")
    async with asked(simulator, "gemini", "m@fault=stall,gap_ms=0"):
        await simulator.until("gemini.tokens==5")
        simulator.reset()

        assert simulator.control("GET", "/counters") == {"openai": NONE, "deepseek": NONE, "gemini": NONE}
        assert simulator.calls("openai") == []
    assert await tokens(simulator) == 25
    assert simulator.counters("gemini") == NONE


async def test_switching_twice_is_switching_once(simulator):
    for switch, is_on in (("off", False), ("off", False), ("on", True), ("on", True)):
        answer = simulator.control("POST", f"/providers/gemini/{switch}")
        assert answer == {"provider": "gemini", "is_on": is_on}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "complaint"),
    [
        ("PUT", "/behaviours/azure", {}, 404, "unknown provider 'azure': one of openai, deepseek, gemini"),
        ("DELETE", "/behaviours/azure", None, 404, "unknown provider 'azure'"),
        ("POST", "/providers/azure/off", None, 404, "unknown provider 'azure'"),
        ("GET", "/calls/azure", None, 404, "unknown provider 'azure'"),
        ("POST", "/providers/openai/sideways", None, 404, "POST /providers/openai/sideways: Not Found"),
        ("PUT", "/behaviours/openai", {"speed": 1}, 400, "unknown field 'speed': one of tokens,"),
        ("PUT", "/behaviours/openai", {"fault": "refuse"}, 400, "'fault=refuse': one of reset,"),
        ("PUT", "/behaviours/openai", {"times": 0}, 400, "'times=0': a whole number, 1 or more, is expected"),
        ("PUT", "/behaviours/openai", {"model": 1}, 400, "'model=1': a model's name is expected"),
        ("PUT", "/behaviours/openai", [], 400, "the body is not a JSON object"),
        ("GET", "/counters?until=openai.live", None, 400, "'openai.live' is not like openai.live==0"),
        ("GET", "/counters?until=openai.age==0", None, 400, "no counter 'openai.age'"),
        ("GET", "/counters?until=openai.live==9&timeout_s=soon", None, 400, "'timeout_s=soon'"),
    ],
)
async def test_what_cannot_be_understood_is_said_in_one_sentence(*, simulator, method, path, body, status, complaint):
    answered, answer = simulator.ask_control(method, path, body)

    assert answered == status
    assert answer["error"].startswith(complaint)


async def test_ends_cleanly_when_told_to_even_with_streams_open():
    started = Simulation()
    async with asked(started, "openai", "m@fault=stall,gap_ms=0") as reader:
        await started.until("openai.tokens==5")
        assert started.stop() == 0
        received, _ = await everything(reader)

    assert not is_whole(received)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_ends_with_code_0_on_both_signals(number):
    started = Simulation()
    started.process.send_signal(number)
    assert started.process.wait(timeout=10) == 0
    started.stop()


async def test_a_port_that_is_taken_is_said_on_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "infrastructure.simulator", "--port", port]
        ended = subprocess.run(  # noqa: ASYNC221 - nothing else runs in this test
            command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=20, check=False
        )

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert f"port {port}" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
