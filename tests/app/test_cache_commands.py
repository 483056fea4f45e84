"""`weir cache` against a running service."""

import json

import pytest

from tests.app.asking import MODEL, STREAM, connected, question
from tests.app.test_cli import weir
from tests.redis_servers import free_port
from tests.serving import ADMIN_KEY

pytestmark = pytest.mark.anyio


@pytest.fixture
def cache(service, simulator):
    """The command, pointed at the service."""

    def run(*arguments, key=ADMIN_KEY, url=service.url):
        return weir("cache", *arguments, "--url", url, WEIR_ADMIN_KEY=key)

    return run


@pytest.fixture
def file(tmp_path):
    """A file of questions, as they are given or in JSON."""

    def write(*lines):
        path = tmp_path / "questions.jsonl"
        path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
        return str(path)

    return write


async def cache_of(service, query):
    async with connected(service.url) as client:
        return (await client.ask(STREAM, query)).headers["x-cache"]


@pytest.mark.parametrize(("padding_chars", "parts"), [(0, (20, 1)), (31_000, (16, 1))])
async def test_a_file_of_questions_is_asked_ahead_in_parts(service, cache, file, padding_chars, parts):
    """Whatever its length, no request lasts for long nor is too large; what was done so far is told."""
    queries = [question() + "?" * padding_chars for _ in range(sum(parts))]

    done = cache("warm", file(*({"model": MODEL, "query": query} for query in queries), ""))

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"asked {part}: 0 were stored, {part} are now" for part in parts]
    assert [await cache_of(service, query) for query in (queries[0], queries[-1])] == ["l1", "l1"]


async def test_what_could_not_be_stored_is_told_with_the_reason(cache, file):
    """And is an exit code that a script sees."""
    done = cache("warm", file({"model": "gpt-9", "query": "?"}))

    assert done.returncode == 1
    assert "1 failed: unknown_model" in done.stdout


async def test_lines_that_cannot_be_right_are_named_before_anything_is_asked(cache, file, simulator):
    """All of them, by their numbers in the file."""
    done = cache("warm", file({"model": MODEL, "query": question()}, "", "{", {"model": MODEL}))

    assert done.returncode == 2
    assert [line.partition(".jsonl: ")[2][:7] for line in done.stderr.splitlines()] == ["line 3:", "line 4:"]
    assert simulator.calls("openai") == []


@pytest.mark.parametrize(
    ("options", "said", "left"),
    [
        ((), "purged: everything", "miss"),
        (("--model", MODEL), f"purged: model {MODEL}", "miss"),
        (("--model", MODEL, "--scope", "user:ann"), f"purged: model {MODEL} and scope user:ann", "l1"),
    ],
)
async def test_the_cache_is_purged(service, cache, options, said, left):
    """Of what was meant."""
    query = question()
    await cache_of(service, query)

    done = cache("purge", *options)

    assert (done.returncode, done.stdout, done.stderr) == (0, f"{said}\n", "")
    assert await cache_of(service, query) == left


@pytest.mark.parametrize(
    ("arguments", "how", "said"),
    [
        (("purge",), {"key": "wrong"}, "unauthorized: WEIR_ADMIN_KEY is another one than the service has"),
        (("purge",), {"url": f"http://127.0.0.1:{free_port()}"}, "Connection refused; --url says where"),
    ],
)
async def test_a_no_of_the_service_is_one_line_and_exit_code_1(cache, arguments, how, said):
    """It says what the service said."""
    done = cache(*arguments, **how)

    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("weir: ")
    assert said in line
    assert "wrong" not in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "gpt-9"), "unknown_model: The model 'gpt-9' is not in the catalogue"),
        (("--scope", "all"), "invalid_request: scope: shared, tenant:NAME or user:NAME is needed"),
    ],
)
async def test_what_the_service_finds_wrong_with_the_input_is_exit_code_2(cache, arguments, said):
    """As for every command."""
    done = cache("purge", *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"weir: {said}")


async def test_an_address_without_operators_routes_is_told_as_such(cache, simulation):
    """Whoever mixes up ports is not left to guess."""
    done = cache("purge", url=simulation.urls["control"])

    assert done.returncode == 1
    assert "is that Weir?" in done.stderr or "no operators' routes" in done.stderr
