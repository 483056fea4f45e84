"""Every way a simulated provider fails, as the wire shows it, and every moment at which a client may leave."""

import asyncio
import errno
import json
import struct
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from socket import SO_LINGER, SOL_SOCKET
from urllib.parse import urlsplit

import pytest

from infrastructure.simulator.answers import answer_tokens
from tests.infrastructure.raw import (
    asked,
    connection,
    data_lines,
    everything,
    is_whole,
    post,
    request,
    until_words,
    words,
)

pytestmark = pytest.mark.anyio
PROVIDERS = ("openai", "deepseek", "gemini")
MODELS = {"openai": "gpt-4o", "deepseek": "deepseek-chat", "gemini": "gemini-2.5-flash"}
ANSWER = list(answer_tokens("What is a weir?", 12))
HELD = ("silence_headers", "silence_first_token", "stall", "held_open", "endless_error")
each_provider = pytest.mark.parametrize("provider", PROVIDERS)
streamed_or_not = pytest.mark.parametrize("stream", [True, False])


def model(provider, behaviour):
    return f"{MODELS[provider]}@tokens=12,{behaviour}"


async def outcome(simulator, provider, behaviour, **options):
    async with asked(simulator, provider, model(provider, behaviour), **options) as reader:
        return await everything(reader)


@each_provider
async def test_without_a_fault_the_body_is_whole(simulator, provider):
    received, reset = await outcome(simulator, provider, "gap_ms=0")

    assert is_whole(received)
    assert reset is None
    assert words(provider, data_lines(received)) == ANSWER


@each_provider
@streamed_or_not
async def test_reset_ends_the_connection_before_a_byte_is_sent(simulator, provider, stream):
    received, reset = await outcome(simulator, provider, "fault=reset", stream=stream)

    assert received == b""
    assert reset is not None
    await simulator.until(f"{provider}.faults==1")


@each_provider
@pytest.mark.parametrize("at", [0, 1, 7, 12])
async def test_cut_closes_after_its_tokens_without_the_final_chunk(simulator, provider, at):
    received, reset = await outcome(simulator, provider, f"fault=cut,at={at}")

    assert words(provider, data_lines(received)) == ANSWER[:at]
    assert not is_whole(received)
    assert reset is None
    await simulator.until(f"{provider}.faults==1")


@each_provider
async def test_reset_midstream_resets_after_its_tokens(simulator, provider):
    received, reset = await outcome(simulator, provider, "fault=reset_midstream,at=7")

    assert words(provider, data_lines(received)) == ANSWER[:7]
    assert reset is not None
    await simulator.until(f"{provider}.faults==1")


@pytest.mark.parametrize("gap", ["gap_ms=0", "gap_ms=1"])
@each_provider
async def test_malformed_breaks_one_line_and_goes_on(simulator, provider, gap):
    received, _ = await outcome(simulator, provider, f"{gap},fault=malformed,at=7")
    payloads = data_lines(received)

    assert words(provider, payloads) == ANSWER
    assert is_whole(received)
    broken = [payload for payload in payloads if not _is_json(payload) and payload != "[DONE]"]
    assert len(broken) == 1
    assert words(provider, payloads[: payloads.index(broken[0])]) == ANSWER[:7]
    assert simulator.counters(provider) | {"calls": 1, "faults": 1, "tokens": 12} == simulator.counters(provider)


@each_provider
async def test_an_error_event_is_the_last_thing_in_the_stream(simulator, provider):
    received, _ = await outcome(simulator, provider, "fault=error_event,at=7")
    *payloads, last = data_lines(received)

    assert words(provider, payloads) == ANSWER[:7]
    assert json.loads(last)["error"]["message"]
    assert is_whole(received)


@each_provider
async def test_no_finish_ends_the_body_cleanly_without_saying_why(simulator, provider):
    received, _ = await outcome(simulator, provider, "fault=no_finish,at=7")

    assert words(provider, data_lines(received)) == ANSWER[:7]
    assert is_whole(received)
    assert b"[DONE]" not in received
    assert b'"stop"' not in received
    assert b'"STOP"' not in received


@each_provider
async def test_done_unfinished_has_the_end_mark_and_says_no_reason(simulator, provider):
    received, _ = await outcome(simulator, provider, "fault=done_unfinished,at=7")

    assert words(provider, data_lines(received)) == ANSWER[:7]
    assert is_whole(received)
    assert (b"[DONE]" in received) is (provider != "gemini")
    assert b'"stop"' not in received.lower()


@each_provider
async def test_held_open_is_whole_but_for_its_end(simulator, provider):
    async with asked(simulator, provider, model(provider, "fault=held_open,gap_ms=0")) as reader:
        received = await _until_nothing_comes(reader)

    assert words(provider, data_lines(received)) == ANSWER
    assert b'"stop"' in received.lower()
    assert b"[DONE]" not in received
    await simulator.until(f"{provider}.closed_by_client==1")


@each_provider
async def test_an_endless_error_tells_its_status_and_never_all_of_its_reason(simulator, provider):
    async with asked(simulator, provider, model(provider, "fault=endless_error")) as reader:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b"The server had an error, and \r\n")
        await _nothing_comes(reader)

    assert head.startswith(b"HTTP/1.1 500 ")


@each_provider
async def test_an_error_may_say_as_a_date_when_to_come_back(simulator, provider):
    """In the header that HTTP has for it, and nowhere else."""
    received, _ = await _refusal(simulator, provider, "fault=429,retry_after_s=40,retry_after_as=date")
    far, _ = await _refusal(simulator, provider, "fault=429,retry_after_as=last_date")

    head = received.lower().partition(b"\r\n\r\n")[0]
    date = head.partition(b"retry-after: ")[2].partition(b"\r\n")[0].decode()
    assert 38 <= (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds() <= 40
    assert b"retry-after-ms" not in head
    assert b"retryDelay" not in received
    assert b"retry-after: Fri, 31 Dec 9999 23:59:59 -0100" in far.replace(b"Retry-After", b"retry-after")


async def test_a_provider_may_give_fewer_choices_than_it_is_asked_for(simulator):
    received, _ = await outcome(simulator, "openai", "choices=2,gap_ms=0", n=3)

    indices = {json.loads(line)["choices"][0]["index"] for line in data_lines(received) if line != "[DONE]"}
    assert indices == {0, 1}


async def test_remarks_stand_beside_every_text(simulator):
    received, _ = await outcome(simulator, "openai", "remarks=true,gap_ms=0")

    choices = [json.loads(line)["choices"][0] for line in data_lines(received) if line != "[DONE]"]
    assert {choice["content_filter_results"]["violence"]["severity"] for choice in choices} == {"safe"}


@each_provider
async def test_empty_is_a_correct_stream_that_says_nothing(simulator, provider):
    received, _ = await outcome(simulator, provider, "fault=empty")

    assert words(provider, data_lines(received)) == []
    assert b'"stop"' in received.lower()
    assert is_whole(received)


@each_provider
async def test_silence_first_token_sends_the_headers_and_no_more(simulator, provider):
    async with asked(simulator, provider, model(provider, "fault=silence_first_token")) as reader:
        headers = await reader.readuntil(b"\r\n\r\n")
        await _nothing_comes(reader)

    assert headers.startswith(b"HTTP/1.1 200 OK")
    await simulator.until(f"{provider}.closed_by_client==1")


@each_provider
@streamed_or_not
async def test_silence_headers_sends_nothing_at_all(simulator, provider, stream):
    async with asked(simulator, provider, model(provider, "fault=silence_headers"), stream=stream) as reader:
        await _nothing_comes(reader)

    await simulator.until(f"{provider}.closed_by_client==1")


@each_provider
async def test_a_stalled_stream_stays_open_after_its_tokens(simulator, provider):
    async with asked(simulator, provider, model(provider, "fault=stall,at=7,gap_ms=0")) as reader:
        assert await until_words(provider, reader, 7) == ANSWER[:7]
        await _nothing_comes(reader)

    await simulator.until(f"{provider}.closed_by_client==1")


@each_provider
@pytest.mark.parametrize(
    ("fault", "whole"), [("cut", False), ("reset_midstream", False), ("no_finish", True), ("malformed", True)]
)
async def test_an_answer_that_is_not_streamed_breaks_in_its_middle(simulator, provider, fault, whole):
    received, _ = await outcome(simulator, provider, f"fault={fault}", stream=False)
    _, _, body = received.partition(b"\r\n\r\n")

    assert received.startswith(b"HTTP/1.1 200 OK")
    assert is_whole(received) is whole
    assert not _is_json(b"".join(body.split(b"\r\n")[1::2]))


@each_provider
async def test_an_error_instead_of_an_answer_that_is_not_streamed_is_a_500(simulator, provider):
    received, _ = await _refusal(simulator, provider, "fault=error_event", stream=False)

    assert received.startswith(b"HTTP/1.1 500 ")


@each_provider
async def test_an_error_takes_as_long_as_the_first_token_would(simulator, provider):
    started = asyncio.get_running_loop().time()
    received, _ = await _refusal(simulator, provider, "fault=503,ttft_ms=100")

    assert received.startswith(b"HTTP/1.1 503 ")
    assert asyncio.get_running_loop().time() - started >= 0.09


@each_provider
@pytest.mark.parametrize("fault", ["", "fault=503,", "fault=silence_first_token,"])
@streamed_or_not
async def test_headers_can_be_held_back(simulator, provider, fault, stream):
    """As providers do until the model begins: with headers at once, a wait for them could not be told from none."""
    name = model(provider, f"{fault}headers_ms=100,ttft_ms=0")
    async with asked(simulator, provider, name, stream=stream) as reader:
        started = asyncio.get_running_loop().time()
        line = await reader.readline()

    assert line.startswith(b"HTTP/1.1 503 " if "503" in fault else b"HTTP/1.1 200 ")
    assert asyncio.get_running_loop().time() - started >= 0.09


@each_provider
@pytest.mark.parametrize(
    "behaviour", ["headers_s=60", "queued_s=60", "ttft_s=60", "gap_s=60", *(f"fault={name},at=1" for name in HELD)]
)
@pytest.mark.parametrize("leaving", ["close", "reset"])
@streamed_or_not
async def test_a_client_that_leaves_is_noticed_at_once(simulator, provider, behaviour, leaving, stream):
    async with connection(simulator.urls[provider]) as (_, writer):
        writer.write(request(simulator, provider, model(provider, behaviour), stream=stream))
        await simulator.until(f"{provider}.live==1")
        if leaving == "reset":
            writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))

    await simulator.until(f"{provider}.closed_by_client==1", timeout_s=1)
    assert simulator.counters(provider)["live"] == 0


async def test_a_client_that_leaves_in_a_burst_it_does_not_read_is_noticed(simulator):
    async with asked(simulator, "openai", "gpt-4o@tokens=1000000,gap_ms=0") as reader:
        await reader.readuntil(b"\r\n\r\n")
        assert simulator.counters("openai")["live"] == 1

    await simulator.until("openai.closed_by_client==1")
    assert simulator.counters("openai")["tokens"] < 1_000_000


async def test_a_slow_reader_of_a_burst_does_not_hold_up_others(simulator):
    async with asked(simulator, "openai", "gpt-4o@tokens=1000000,gap_ms=0") as slow:
        await slow.readuntil(b"\r\n\r\n")
        received, _ = await outcome(simulator, "openai", "gap_ms=1")

    assert is_whole(received)


@each_provider
async def test_off_refuses_connections_and_drops_those_there_are_until_on(simulator, provider):
    address = urlsplit(simulator.urls[provider])
    async with (
        connection(simulator.urls[provider]) as (idle, _),
        asked(simulator, provider, model(provider, "fault=stall,gap_ms=0")) as live,
    ):
        await simulator.until(f"{provider}.tokens==5")
        simulator.control("POST", f"/providers/{provider}/off")
        assert not is_whole((await everything(live))[0])
        assert (await everything(idle))[0] == b""

    with pytest.raises(OSError, match="Connect call failed") as refused:
        await asyncio.open_connection(address.hostname, address.port)
    assert refused.value.errno == errno.ECONNREFUSED
    assert simulator.counters(provider)["faults"] == 1

    simulator.control("POST", f"/providers/{provider}/on")
    received, _ = await outcome(simulator, provider, "gap_ms=0")
    assert is_whole(received)


@each_provider
async def test_a_body_that_is_not_json_is_refused(simulator, provider):
    for body in (b"{", b"[]", b""):
        received = await _posted(simulator, provider, body)
        assert received.startswith(b"HTTP/1.1 400 ")
        assert b"could not parse the JSON body" in received


@pytest.mark.parametrize(
    ("body", "message"),
    [(b"{}", b"contents is not specified"), (b'{"contents":[{"parts":3}]}', b"Expected `array`, got `int`")],
)
async def test_contents_that_cannot_be_right_are_refused(simulator, body, message):
    assert message in await _posted(simulator, "gemini", body)


@each_provider
async def test_a_request_without_a_key_is_refused(simulator, provider):
    received = await _posted(simulator, provider, b"{}", key="")

    assert received.startswith(b"HTTP/1.1 403 " if provider == "gemini" else b"HTTP/1.1 401 ")
    assert simulator.counters(provider)["faults"] == 1


async def _posted(simulator, provider, body, key="k"):
    path = {"openai": "/v1/chat/completions", "deepseek": "/chat/completions"}.get(
        provider, "/v1beta/models/gemini-2.5-flash:generateContent"
    )
    async with connection(simulator.urls[provider]) as (reader, writer):
        writer.write(post(path, urlsplit(simulator.urls[provider]).netloc, body, key))
        return await _response(reader)


async def _refusal(simulator, provider, behaviour, **options):
    async with asked(simulator, provider, model(provider, behaviour), **options) as reader:
        return await _response(reader), None


async def _response(reader):
    """The head of a response, and its body, whose length the head tells."""
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return head + await reader.readexactly(length)


async def _nothing_comes(reader):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await reader.read(1)


async def _until_nothing_comes(reader):
    received = bytearray()
    with suppress(TimeoutError):
        while True:
            async with asyncio.timeout(0.2):
                data = await reader.read(65536)
            assert data, "it has ended"
            received += data
    return bytes(received)


def _is_json(payload):
    try:
        json.loads(payload)
    except ValueError:
        return False
    return True
