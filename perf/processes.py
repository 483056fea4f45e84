"""The processes of a measurement, each ended with the context that started it, and what they have used."""

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError

import msgspec
import psutil
from prometheus_client.parser import text_string_to_metric_families

from perf.load import Answers, Job

PROJECT = Path(__file__).resolve().parents[1]
_BIN = Path(sys.executable).parent
_START_LIMIT_S = 60.0
_open_url = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server: its address, its main process and the processes below it."""

    url: str
    processes: tuple[psutil.Process, ...]

    def cpu_s(self) -> float:
        """CPU seconds of all processes together, since they began."""
        times = [process.cpu_times() for process in self.processes]
        return sum(each.user + each.system for each in times)

    def rss_bytes(self) -> list[int]:
        """Resident memory: of the main process, then of its workers."""
        return [process.memory_info().rss for process in self.processes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulator:
    """The simulated providers: the base URL of the one that is asked, and the control server's."""

    openai: str
    control: str

    def calls(self) -> int:
        """How often the provider has been asked."""
        return self._count("calls")

    def wait_until_idle(self) -> None:
        """No call is under way."""
        while self._count("live"):
            time.sleep(0.1)

    def _count(self, name: str) -> int:
        with _open_url(f"{self.control}/counters", timeout=5) as response:
            return int(json.load(response)["openai"][name])


@contextmanager
def simulator() -> Iterator[Simulator]:
    """The simulated providers."""
    with _process(sys.executable, "-m", "infrastructure.simulator", "--port", "0", stdout=subprocess.PIPE) as process:
        addresses = json.loads(milestone(process))
        yield Simulator(openai=addresses["openai"], control=addresses["control"])


def failed_attempts(url: str) -> int:
    """How many of the calls of the service at `url` were none of an answer, by its own count."""
    with _open_url(f"{url}/metrics", timeout=5) as response:
        families = text_string_to_metric_families(response.read().decode())
    attempts = [each for family in families for each in family.samples if each.name == "sse_provider_attempts_total"]
    return int(sum(each.value for each in attempts if each.labels["outcome"] != "ok"))


@contextmanager
def weir(provider: Simulator, redis_url: str = "", port: int = 0, **settings: str) -> Iterator[Server]:
    """The service, with no limits, asking `provider`; with Redis if its URL is given; at any port if it is 0."""
    environment = {
        "WEIR_REDIS_URL": redis_url,
        "OPENAI_API_KEY": "x",
        "REFUSING_API_KEY": "x",
        "OPENAI_BASE_URL": provider.openai,
        "WEIR_CATALOGUE": str(PROJECT / "perf" / "catalogue.toml"),
        "WEIR_RATE_ANONYMOUS": "unlimited",
        "WEIR_RATE_STANDARD": "unlimited",
        "WEIR_RATE_PREMIUM": "unlimited",
        "WEIR_MAX_CONNECTIONS_PER_USER": "0",
        **settings,
    }
    with _server(str(_BIN / "weir"), "serve", "--port", str(port), environment=environment) as server:
        yield server


@contextmanager
def fleet(provider: Simulator, redis_url: str, size: int) -> Iterator[list[Server]]:
    """So many instances of the service over one Redis, as many starting at once as there are cores."""
    with ExitStack() as stack, ThreadPoolExecutor(os.cpu_count()) as starting:
        instances = [weir(provider, redis_url) for _ in range(size)]
        begun = [starting.submit(stack.enter_context, each) for each in instances]
        yield [each.result() for each in begun]


@contextmanager
def bare(application: str, environment: Mapping[str, str]) -> Iterator[Server]:
    """One of the bare servers of perf/bare.py."""
    with _server(sys.executable, "-m", "perf.bare", application, environment=environment) as server:
        yield server


def load(job: Job) -> Answers:
    """The job has been done, in a process of its own."""
    with loading(job) as generator:
        return finished(generator)


@contextmanager
def loading(job: Job) -> Iterator[subprocess.Popen[bytes]]:
    """A load generator at work; it writes its milestones on stdout, a line each."""
    with _process(sys.executable, "-m", "perf.load", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        with _pipe(process.stdin) as stdin:
            stdin.write(msgspec.json.encode(job))
        yield process


def milestone(process: subprocess.Popen[bytes]) -> bytes:
    """The next line that it writes."""
    return _pipe(process.stdout).readline()


def finished(generator: subprocess.Popen[bytes]) -> Answers:
    """What the generator has to tell in the end.

    Raises:
        RuntimeError: an answer was wrong; the first such one is in the text.
    """
    *_, last = _pipe(generator.stdout).read().splitlines()
    answers = msgspec.json.decode(last, type=Answers)
    if answers.failures:
        raise RuntimeError(f"{len(answers.failures)} of {answers.count} answers are wrong: {answers.failures[0]}")
    return answers


@contextmanager
def _server(*command: str, environment: Mapping[str, str]) -> Iterator[Server]:
    with (
        tempfile.TemporaryFile() as stderr,
        _process(*command, environment=environment, stdout=subprocess.DEVNULL, stderr=stderr) as process,
    ):
        url = _announced_url(process, stderr)
        _wait_until_answers(url)
        main = psutil.Process(process.pid)
        yield Server(url=url, processes=(main, *main.children(recursive=True)))


@contextmanager
def _process(
    *command: str,
    environment: Mapping[str, str] | None = None,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: IO[bytes] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    inherited = {**os.environ, **(environment or {})}
    process = subprocess.Popen(command, cwd=PROJECT, env=inherited, stdin=stdin, stdout=stdout, stderr=stderr)
    try:
        yield process
    finally:
        _end(process)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    """The pipe, which was asked for when the process was begun."""
    assert pipe is not None
    return pipe


def _end(process: subprocess.Popen[bytes]) -> None:
    family = [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        for member in family:
            member.kill()
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()


def _announced_url(process: subprocess.Popen[bytes], stderr: IO[bytes]) -> str:
    deadline_s = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        written = os.pread(stderr.fileno(), 65536, 0).decode()
        if found := re.search(r"serving at (\S+)\n", written):
            return found[1]
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} did not start: {os.pread(stderr.fileno(), 65536, 0).decode()}")


def _wait_until_answers(url: str) -> None:
    """The server answers; which status does not matter."""
    deadline_s = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline_s:
        try:
            _open_url(url, timeout=2).close()
        except HTTPError as error:
            error.close()
        except (URLError, OSError):
            time.sleep(0.05)
            continue
        return
    raise RuntimeError(f"{url} does not answer")


def raise_open_files() -> None:
    """Let this process and those it starts open as many files as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
