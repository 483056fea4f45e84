"""What is written of what happens, and what must not be."""

import asyncio
import io
import json
import sys

import pytest

from domain.events import AttemptEnded, DefectFound, Events
from infrastructure.telemetry.lines import Lines
from infrastructure.telemetry.log import EventLog, make_log


@pytest.fixture
def written(capsysbinary):
    """The lines that are written of some events."""

    def write(*told):
        events = Events()
        EventLog(log=make_log(level="debug", form="json", lines=Lines(sys.stdout.buffer)), events=events)
        for event in told:
            events.publish(event)
        return [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]

    return write


def ended(outcome, reason):
    return AttemptEnded(thread_id="t", provider="openai", model="m", outcome=outcome, reason=reason)


def test_a_refusal_is_logged_without_the_words_of_the_provider(written):
    """They may quote the prompt."""
    [line] = written(ended("rejected", "my secret diary: is not a valid message"))

    assert line["reason"] == "the provider refused the request"
    assert "diary" not in json.dumps(line)


def test_a_failed_attempt_is_logged_with_our_reason(written):
    """An operator has to see why."""
    [line] = written(ended("unavailable", "refused the connection"))

    assert (line["level"], line["reason"], line["error_type"]) == ("warning", "refused the connection", "unavailable")


@pytest.mark.parametrize("outcome", ["unauthorized", "misconfigured"])
def test_what_somebody_here_has_to_change_is_an_error(written, outcome):
    """It goes on until then."""
    [line] = written(ended(outcome, "does not accept our key"))

    assert (line["level"], line["error_type"]) == ("error", outcome)


def test_a_listener_s_defect_is_logged_though_it_has_no_thread(written):
    """It must be found all the same."""
    [line] = written(DefectFound(thread_id="-", error=ZeroDivisionError("division by zero")))

    assert (line["thread_id"], line["error_type"]) == ("-", "ZeroDivisionError")
    assert "division by zero" in line["exception"]


class File(io.BytesIO):
    """Remembers what each write to the system would be."""

    def __init__(self):
        super().__init__()
        self.flushed = []

    def flush(self):
        self.flushed.append(self.getvalue())
        self.seek(0)
        self.truncate()


@pytest.mark.anyio
async def test_lines_of_one_round_of_the_loop_are_written_together():
    """A write for each would cost a hit more than all else about its line."""
    file = File()
    lines = Lines(file)
    for line in (b"one", b"two"):
        lines.info(line)
    assert not file.flushed

    await asyncio.sleep(0)
    lines.error(b"three")
    await asyncio.sleep(0)

    assert file.flushed == [b"one\ntwo\n", b"three\n"]


@pytest.mark.anyio
async def test_what_waits_can_be_written_at_once():
    """The loop may not come round again when the service stops."""
    file = File()
    lines = Lines(file)
    lines.info(b"last")

    lines.flush()

    assert file.flushed == [b"last\n"]


def test_without_a_loop_each_line_is_written_at_once():
    """There is nobody to do it later."""
    file = File()
    lines = Lines(file)
    for line in (b"one", b"two"):
        lines.info(line)

    assert file.flushed == [b"one\n", b"two\n"]
