"""What is written of what happens, and what must not be."""

import json

import pytest

from domain.events import AttemptEnded, DefectFound, Events
from infrastructure.telemetry.log import EventLog, make_log


@pytest.fixture
def written(capsysbinary):
    """The lines that are written of some events."""

    def write(*told):
        events = Events()
        EventLog(log=make_log(level="debug", form="json"), events=events)
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


def test_a_listener_s_defect_is_logged_though_it_has_no_thread(written):
    """It must be found all the same."""
    [line] = written(DefectFound(thread_id="-", error=ZeroDivisionError("division by zero")))

    assert (line["thread_id"], line["error_type"]) == ("-", "ZeroDivisionError")
    assert "division by zero" in line["exception"]
