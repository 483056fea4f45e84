"""An operator's SIGTERM ends the service, whatever it is doing and whatever was done to it before."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.app import metrics
from tests.app.asking import STREAM, connected
from tests.app.wire import connection, head, response
from tests.serving import KEY, serving

WEIR = Path(sys.executable).with_name("weir")
PROCESSES = Path("/proc")


def workers_of(pid):
    """The processes that it has begun."""
    stats = [path.read_text() for path in PROCESSES.glob("[0-9]*/stat") if path.exists()]
    return [int(stat.partition(" ")[0]) for stat in stats if int(stat.rpartition(")")[2].split()[1]) == pid]


def kill_worker(pid, number):
    """Its worker hears of it alone: of a group, it may before the main process does."""
    [worker] = workers_of(pid)
    os.kill(worker, number)


@pytest.mark.parametrize("end", [os.kill, os.killpg, kill_worker], ids=["process", "group", "worker"])
def test_a_service_that_is_still_starting_ends_at_once(end):
    """A rollout that is taken back must not wait for what has not begun."""
    environ, command = os.environ | {"OPENAI_API_KEY": KEY}, [WEIR, "serve", "--port", "0"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, start_new_session=True) as served:
        while not workers_of(served.pid):
            assert served.poll() is None
        end(served.pid, signal.SIGTERM)
        _, said = served.communicate(timeout=20)

    assert (served.returncode, said) == (0, b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_group_that_is_stopped_while_it_waits_for_redis_ends(number):
    """The worker is told by whoever stops the group, as a terminal does and systemd, and by the main process."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.settimeout(20)
        redis = {"WEIR_REDIS_URL": f"redis://127.0.0.1:{mute.getsockname()[1]}"}
        with subprocess.Popen(
            [WEIR, "serve", "--port", "0"],
            env=os.environ | {"OPENAI_API_KEY": KEY} | redis,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as served:
            connections = [mute.accept()]
            try:
                while not workers_of(served.pid):
                    connections.append(mute.accept())
                connections.append(mute.accept())
                os.killpg(served.pid, number)
                served.communicate(timeout=20)
            finally:
                if served.poll() is None:
                    os.killpg(served.pid, signal.SIGKILL)
                for each, _ in connections:
                    each.close()

    assert served.returncode == 0


@pytest.mark.anyio
async def test_a_body_that_is_still_coming_is_not_waited_for(simulator):
    """Its client is told to ask elsewhere; it has cost nothing yet."""
    with serving(simulator, WEIR_BODY_TIMEOUT_S="60") as service:
        async with connection(service.url) as (reader, writer), connected(service.url) as client:
            writer.write(head("POST", STREAM, "content-type: application/json", "content-length: 1000") + b"{")
            while await metrics.total(client, "sse_requests_total", endpoint="/metrics") < 2:
                pass
            service.process.terminate()
            status, headers, body = await response(reader)
            service.process.wait(timeout=10)

    assert (status, json.loads(body)["code"]) == (503, "draining")
    assert (headers["connection"], headers["retry-after"]) == ("close", "1")


def test_signals_reach_the_one_thread_that_acts_on_them(simulator):
    """One that another thread got would be acted on when this one wakes up, which it does for signals alone."""
    with serving(simulator) as service:
        pid = service.process.pid
        masks = {
            int(path.parent.name): int(re.search(r"SigBlk:\s*(\w+)", path.read_text())[1], 16)
            for path in (PROCESSES / str(pid) / "task").glob("*/status")
        }

    is_blocked = {thread: bool(mask >> (signal.SIGTERM - 1) & 1) for thread, mask in masks.items()}
    assert is_blocked == {thread: thread != pid for thread in masks}
    assert len(masks) > 1
