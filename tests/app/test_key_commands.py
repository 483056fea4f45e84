"""`weir keys`, as a person types it."""

import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from domain.keys import digest_of
from infrastructure.memory.key_file import read_keys
from tests.app.asking import STREAM, connected
from tests.app.test_cli import weir
from tests.redis_servers import free_port
from tests.serving import serving

pytestmark = pytest.mark.anyio


@pytest.fixture
def keys(tmp_path):
    """The command, with keys in a file."""

    def run(*arguments):
        return weir("keys", *arguments, WEIR_API_KEYS_FILE=str(tmp_path / "keys"))

    run.path = tmp_path / "keys"
    return run


ANN = ("create", "--user", "ann", "--tier", "standard")


def test_a_key_is_printed_once_and_only_its_digest_is_kept(keys):
    """The key alone on stdout, for scripts."""
    done = keys(*ANN)
    text = done.stdout.rstrip("\n")
    [key] = read_keys(keys.path).values()

    assert done.returncode == 0
    assert re.fullmatch(r"weir_[0-9a-z]{12}_[0-9A-Za-z]{32}", text)
    assert key.digest == digest_of(text)
    assert (text in keys.path.read_text(), text in keys("list").stdout) == (False, False)
    assert done.stderr == f"weir: this is shown once; its id is {key.key_id}\n"
    assert keys.path.stat().st_mode & 0o777 == 0o600


def test_all_that_a_key_may_have_is_listed(keys):
    """And nothing that could be used."""
    options = ("--scope", "acme", "--expires", "90d", "--rate", "100 per 2 hours", "--tokens-per-minute", "5000")
    keys(*ANN, *options, "--budget-usd-per-day", "2.5", "--models", "gpt-4o, gpt-4o-mini")
    keys("create", "--user", "bob@example.com", "--tier", "premium", "--expires", "2999-01-31")
    first, second = keys("list").stdout.splitlines()

    assert re.match(r"[0-9a-z]{12}  valid  ann  standard  scope=acme  created=20", first)
    assert "rate=100 per 7200 s  tokens-per-minute=5000  budget-usd-per-day=2.5  models=gpt-4o,gpt-4o-mini" in first
    assert re.match(r"[0-9a-z]{12}  valid  bob@example.com  premium  created=.*  expires=2999-01-31T00:00:00Z", second)


def test_a_key_is_revoked_by_its_id(keys):
    """It stays in the list."""
    keys(*ANN)
    key_id = keys("list").stdout.split()[0]
    done = keys("revoke", key_id)

    assert (done.returncode, done.stdout) == (0, f"revoked: {key_id}\n")
    assert keys("list").stdout.split()[:2] == [key_id, "revoked"]


def test_keys_that_are_made_at_once_are_all_kept(keys):
    """Two administrators, or one script."""
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: keys(*ANN).stdout.strip(), range(8)))

    assert {key.digest for key in read_keys(keys.path).values()} == set(map(digest_of, made))
    assert [each.name for each in keys.path.parent.iterdir()] == ["keys"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create",), "Missing option '--user'"),
        (("create", "--user", "ann", "--tier", "gold"), "'gold' is not one of 'anonymous', 'standard', 'premium'"),
        ((*ANN, "--user", "address:192.0.2.1"), "--user: 1 to 100 of A-Z a-z 0-9 . _ @ + - are needed"),
        ((*ANN, "--scope", "shared"), "--scope: the name of a tenant is needed, such as acme"),
        ((*ANN, "--expires", "soon"), "--expires 'soon': a time to come such as 90d"),
        ((*ANN, "--expires", "2001-01-01"), "--expires '2001-01-01': a time to come"),
        ((*ANN, "--rate", "fast"), "--rate 'fast': a rate such as 10/minute"),
        ((*ANN, "--rate", "unlimited"), "--rate 'unlimited': a rate is needed"),
        ((*ANN, "--tokens-per-minute", "0"), "--tokens-per-minute: 1 to"),
        ((*ANN, "--budget-usd-per-day", "nan"), "--budget-usd-per-day: more than 0"),
        ((*ANN, "--models", "a,,b"), "--models: names of models are needed"),
        (("revoke", "all"), "'all': the id of a key is needed"),
        (("revoke", f"weir_000000000000_{'x' * 32}"), "that is a key, which is best kept off command lines"),
        (("revoke", "000000000000"), "'000000000000': there is no key of that id"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(keys, arguments, said):
    """And nothing is changed."""
    keys.path.touch()
    done = keys(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert keys.path.read_text() == ""


def test_where_keys_are_kept_has_to_be_said():
    """There is no place that could be meant."""
    done = weir("keys", "list")

    assert done.returncode == 2
    assert done.stderr == "weir: WEIR_API_KEYS_FILE or WEIR_REDIS_URL says where keys are kept; neither is set\n"


@pytest.mark.parametrize("arguments", [ANN, ("list",), ("revoke", "000000000000")])
def test_a_place_that_cannot_be_read_or_written_is_named(tmp_path, arguments):
    """With what is wrong there; nothing is overwritten."""
    (tmp_path / "keys").write_text("my notes\n")
    for environ, said in [
        (
            {"WEIR_API_KEYS_FILE": str(tmp_path / "keys")},
            f"WEIR_API_KEYS_FILE: {tmp_path}/keys: line 1: not a JSON object",
        ),
        (
            {"WEIR_API_KEYS_FILE": str(tmp_path / "no" / "keys")},
            f"WEIR_API_KEYS_FILE: {tmp_path}/no/keys: No such file or directory",
        ),
        (
            {"WEIR_REDIS_URL": f"redis://127.0.0.1:{free_port()}"},
            "WEIR_REDIS_URL: it refuses the connection: nothing listens there",
        ),
    ]:
        done = weir("keys", *arguments, **environ)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"weir: {said}\n")
    assert (tmp_path / "keys").read_text() == "my notes\n"


@pytest.mark.parametrize("arguments", [ANN, ("revoke", "000000000000")])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path, arguments):
    """/dev/null, for one, is everybody's."""
    pipe = tmp_path / "keys"
    os.mkfifo(pipe)
    done = weir("keys", *arguments, WEIR_API_KEYS_FILE=str(pipe))

    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"weir: WEIR_API_KEYS_FILE: {pipe}: not a file\n")
    assert pipe.is_fifo()


async def test_what_is_made_can_be_used_until_it_is_revoked(simulator, tmp_path):
    """From the command line to the stream, with a file."""
    place = {"WEIR_API_KEYS_FILE": str(tmp_path / "keys")}
    key = weir("keys", *ANN, **place).stdout.strip()
    with serving(simulator, WEIR_AUTH="required", **place) as service:
        async with connected(service.url) as client:
            served = await client.ask(STREAM, None, {"X-API-Key": key})
            weir("keys", "revoke", key.split("_")[1], **place)
            await until_refused(client, key)

    assert served.status == 200


async def until_refused(client, key):
    """Ask until the key does not work any more."""
    for _ in range(1000):
        response = await client.ask(STREAM, None, {"X-API-Key": key})
        if response.status == 401:
            assert response.json()["detail"] == "This API key was revoked."
            return
    raise AssertionError("it works for ever")
