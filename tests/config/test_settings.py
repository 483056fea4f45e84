import math
from dataclasses import FrozenInstanceError, fields
from operator import attrgetter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import ConfigurationError
from config.settings import VARIABLES, Settings, read_settings
from config.variable import Source
from domain.breaker import BreakerPolicy
from domain.calls import Deadlines
from domain.limiting import Rate
from domain.retrying import RetryPolicy

RANGES = {
    "WEIR_MAX_CONNECTIONS": (1, 1_000_000),
    "WEIR_MAX_CONNECTIONS_PER_USER": (0, 1_000_000),
    "WEIR_QUEUE_SIZE": (0, 1_000_000),
    "WEIR_QUEUE_TIMEOUT_S": (0.05, 3600),
    "WEIR_HEADER_TIMEOUT_S": (0.05, 3600),
    "WEIR_BODY_TIMEOUT_S": (0.05, 3600),
    "WEIR_MAX_REQUEST_BYTES": (1, 1_073_741_824),
    "WEIR_MAX_QUERY_CHARS": (1, 100_000_000),
    "WEIR_CACHE_L1_ENTRIES": (1, 10_000_000),
    "WEIR_CACHE_L1_BYTES": (1, 1_099_511_627_776),
    "WEIR_CACHE_TTL_S": (1, 31_536_000),
    "WEIR_SESSION_MESSAGES": (2, 1000),
    "WEIR_SESSION_BYTES": (1024, 1_048_576),
    "WEIR_SESSION_TTL_S": (1, 31_536_000),
    "WEIR_HEARTBEAT_S": (0.05, 3600),
    "WEIR_CONNECT_TIMEOUT_S": (0.05, 3600),
    "WEIR_FIRST_TOKEN_TIMEOUT_S": (0.05, 3600),
    "WEIR_STALL_TIMEOUT_S": (0.05, 3600),
    "WEIR_TOTAL_TIMEOUT_S": (0.05, 86_400),
    "WEIR_RETRY_ATTEMPTS": (1, 20),
    "WEIR_RETRY_BASE_S": (0.001, 3600),
    "WEIR_RETRY_MAX_S": (0.001, 3600),
    "WEIR_RETRY_AFTER_MAX_S": (0, 3600),
    "WEIR_RETRY_BUDGET_RATIO": (0, 100),
    "WEIR_HEDGE_RATIO": (0, 1),
    "WEIR_BREAKER_FAILURES": (1, 1000),
    "WEIR_BREAKER_WINDOW": (1, 1000),
    "WEIR_BREAKER_OPEN_S": (0.05, 86_400),
    "WEIR_GRACE_S": (0, 3600),
    "WEIR_TRACE_SAMPLE_RATIO": (0, 1),
    "WEIR_WARM_PER_S": (0.01, 10_000),
    "WEIR_WARM_CONCURRENCY": (1, 1000),
    **{f"WEIR_TOKENS_PER_MINUTE_{tier}": (0, 1_000_000_000) for tier in ("ANONYMOUS", "STANDARD", "PREMIUM")},
}
CHOICES = {
    "WEIR_AUTH": ("optional", "required"),
    "WEIR_CACHE_SCOPE": ("shared", "tenant", "user"),
    "WEIR_MIDSTREAM": ("continue", "fail"),
    "WEIR_LOG_LEVEL": ("debug", "info", "warning", "error"),
    "WEIR_LOG_FORMAT": ("json", "console"),
}
RATES = {"WEIR_RATE_ANONYMOUS": 10, "WEIR_RATE_STANDARD": 100, "WEIR_RATE_PREMIUM": 1000}
# What another variable must be for the whole range of the first one to be open.
COMPANIONS = {
    "WEIR_RETRY_BASE_S": {"WEIR_RETRY_MAX_S": "3600"},
    "WEIR_RETRY_MAX_S": {"WEIR_RETRY_BASE_S": "0.001"},
    "WEIR_BREAKER_FAILURES": {"WEIR_BREAKER_WINDOW": "1000"},
    "WEIR_BREAKER_WINDOW": {"WEIR_BREAKER_FAILURES": "1"},
    "WEIR_AUTH": {"WEIR_API_KEYS_FILE": "/etc/weir/keys"},
}
STATED = {stated.name: stated for stated in VARIABLES}


def value_of(name, settings):
    """Return what the variable `name` became, in whichever part of the settings it is."""
    for part in fields(settings):
        source = part.metadata.get(Source)
        for attribute, stated in source.variables.items() if source else ():
            if stated.name == name:
                return attrgetter(f"{part.name}.{attribute}".rstrip("."))(settings)
    raise LookupError(name)


def problems_of(environ):
    with pytest.raises(ConfigurationError) as refused:
        read_settings(environ)
    return refused.value.problems


def test_an_empty_environment_gives_the_defaults_of_the_contract():
    settings = read_settings({})

    assert settings == Settings()
    assert settings.catalogue is None
    assert (settings.limits.max_connections, settings.limits.max_connections_per_user) == (10_000, 3)
    assert (settings.limits.max_request_bytes, settings.limits.max_query_chars) == (1_048_576, 32_000)
    assert {name: value_of(name, settings) for name in RATES} == {
        name: Rate(amount=amount, per_s=60) for name, amount in RATES.items()
    }
    assert settings.limits.tokens_per_minute_premium == 0
    assert (settings.cache.l1_entries, settings.cache.l1_bytes) == (1000, 67_108_864)
    assert (settings.cache.ttl_s, settings.cache.scope) == (3600, "shared")
    assert (settings.deadlines.connect_s, settings.deadlines.first_token_s) == (5, 10)
    assert (settings.deadlines.stall_s, settings.deadlines.total_s) == (10, 300)
    assert (settings.retry.attempts, settings.retry.base_s, settings.retry.max_s) == (3, 1, 30)
    assert (settings.breaker.failures, settings.breaker.window, settings.breaker.open_s) == (5, 10, 60)
    assert (settings.heartbeat_s, settings.grace_s, settings.trace_sample_ratio) == (15, 10, 0.1)
    assert (settings.log.level, settings.log.format) == ("info", "json")


def test_the_domain_s_own_defaults_are_those_of_the_environment():
    """Whoever builds a policy without the environment gets what an operator who set nothing gets."""
    settings = Settings()

    assert (settings.deadlines, settings.retry, settings.breaker) == (Deadlines(), RetryPolicy(), BreakerPolicy())


def test_every_variable_is_under_one_of_the_claims_below():
    """A variable added to the table without a range here would go untested."""
    others = {"WEIR_CATALOGUE", "WEIR_REDIS_URL", "WEIR_LOG_LINGER_MS", "WEIR_ADMIN_KEY"}
    access = {"WEIR_API_KEYS_FILE", "WEIR_TRUSTED_PROXIES", "WEIR_CORS_ORIGINS"}
    assert set(STATED) == set(RANGES) | set(CHOICES) | set(RATES) | others | access


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("end", [0, 1])
def test_both_ends_of_a_range_are_inside_it(name, end):
    edge = RANGES[name][end]

    settings = read_settings({name: str(edge)} | COMPANIONS.get(name, {}))

    assert value_of(name, settings) == edge
    assert isinstance(value_of(name, settings), type(value_of(name, Settings())))


@pytest.mark.parametrize(
    ("name", "choice"), [(name, choice) for name, choices in CHOICES.items() for choice in choices]
)
def test_every_choice_is_taken(name, choice):
    assert value_of(name, read_settings({name: choice} | COMPANIONS.get(name, {}))) == choice


@pytest.mark.parametrize(
    "text", ["fast", "-1", "nan", "inf", "-inf", "1e400", "9" * 5000, "1,5", "0x10", "10s", "1 0", "{}"]
)
@pytest.mark.parametrize("name", [*RANGES, *CHOICES, *RATES])
def test_a_value_that_cannot_be_right_is_named_with_what_would_be(name, text):
    """The operator can mend it from the message alone."""
    [problem] = problems_of({name: text})

    assert problem.startswith(f"{name}='{text[:70]}")
    assert problem.endswith(f": {STATED[name].accepted.sentence}")
    assert len(problem) < 300


@pytest.mark.parametrize("name", RANGES)
def test_the_first_value_outside_a_range_is_refused_with_the_range(name):
    least, most = RANGES[name]

    for outside in (math.nextafter(least, -math.inf), math.nextafter(most, math.inf), least - 1, most + 1):
        [problem] = problems_of({name: str(outside)})
        assert f"from {least} to {most}" in problem


@pytest.mark.parametrize("name", [name for name in RANGES if isinstance(value_of(name, Settings()), int)])
def test_a_count_is_whole(name):
    [problem] = problems_of({name: "1.5"})

    assert "a whole number" in problem


def test_the_sentence_of_the_handbook_is_the_sentence_of_the_code():
    assert problems_of({"WEIR_HEARTBEAT_S": "fast"}) == (
        "WEIR_HEARTBEAT_S='fast': a number of seconds from 0.05 to 3600",
    )


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10/minute", Rate(amount=10, per_s=60)),
        ("100 per 2 hours", Rate(amount=100, per_s=7200)),
        ("1/second", Rate(amount=1, per_s=1)),
        ("unlimited", None),
    ],
)
def test_a_rate_is_read_in_the_notation_of_limits(text, rate):
    assert read_settings({"WEIR_RATE_ANONYMOUS": text}).limits.rate_anonymous == rate


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "10",
        "0/minute",
        "10/0 minutes",
        "10 per 00 seconds",
        "10/fortnight",
        "1/second;10/minute",
        "9999999999/day",
        f"1 per {'9' * 400} years",
    ],
)
def test_a_rate_that_could_not_be_kept_is_refused(text):
    """Two rates in one value would otherwise silently become the first, and no time at all would become one unit."""
    [problem] = problems_of({"WEIR_RATE_ANONYMOUS": text})

    assert "10/minute" in problem


@pytest.mark.parametrize("name", STATED)
@pytest.mark.parametrize("blank", ["", " ", "\n"])
def test_an_empty_variable_is_an_unset_one(name, blank):
    assert read_settings({name: blank}) == Settings()


def test_blanks_around_a_value_do_not_count():
    """Values that come from a file end with a newline."""
    assert read_settings({"WEIR_LOG_LEVEL": " debug\n", "WEIR_GRACE_S": "3\n"}).log.level == "debug"


def test_keys_cannot_be_required_where_there_are_none():
    """Nobody could ask."""
    assert problems_of({"WEIR_AUTH": "required"}) == (
        "WEIR_AUTH='required': also WEIR_API_KEYS_FILE or WEIR_REDIS_URL, where the keys are",
    )


def test_proxies_are_addresses_and_networks():
    """IPv4 within IPv6 is IPv4."""
    proxies = read_settings({"WEIR_TRUSTED_PROXIES": "10.0.0.0/8, ::1,::ffff:192.0.2.0/120"}).access.trusted_proxies

    assert [str(proxy) for proxy in proxies] == ["10.0.0.0/8", "::1/128", "192.0.2.0/24"]


@pytest.mark.parametrize("text", ["10.0.0.1/8", "proxy", "10.0.0.0/33", "10.0.0.0/8,,::1"])
def test_what_is_no_network_is_refused(text):
    """A proxy believed by mistake is an open door."""
    [problem] = problems_of({"WEIR_TRUSTED_PROXIES": text})

    assert "such as 10.0.0.0/8" in problem


def test_origins_are_compared_as_browsers_send_them():
    assert read_settings({"WEIR_CORS_ORIGINS": "https://App.example,http://[::1]:80"}).access.cors_origins == (
        "https://app.example",
        "http://[::1]:80",
    )
    assert read_settings({"WEIR_CORS_ORIGINS": "*"}).access.cors_origins == ("*",)


@pytest.mark.parametrize("text", ["app.example", "https://app.example/", "null", "https://a b", "https://a\n"])
def test_what_is_no_origin_is_refused(text):
    """It would never be one that a browser sends."""
    [problem] = problems_of({"WEIR_CORS_ORIGINS": f"https://x,{text},"})

    assert "without a path" in problem


def test_a_catalogue_is_a_path():
    assert read_settings({"WEIR_CATALOGUE": "/etc/weir.toml"}).catalogue == Path("/etc/weir.toml")


def test_every_problem_is_listed_not_the_first_alone():
    environ = dict.fromkeys(RANGES, "many") | dict.fromkeys(CHOICES, "none")

    problems = problems_of(environ)

    assert {problem.partition("=")[0] for problem in problems} == set(environ)
    assert str(ConfigurationError(problems)).splitlines() == list(problems)


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        (
            {"WEIR_BREAKER_FAILURES": "11"},
            "WEIR_BREAKER_FAILURES=11: no more than WEIR_BREAKER_WINDOW, which is 10",
        ),
        (
            {"WEIR_RETRY_MAX_S": "0.5"},
            "WEIR_RETRY_BASE_S=1: no more than WEIR_RETRY_MAX_S, which is 0.5",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused(environ, problem):
    assert problems_of(environ) == (problem,)


def test_a_value_that_is_wrong_by_itself_contradicts_nothing():
    """One mistake, one message."""
    assert len(problems_of({"WEIR_BREAKER_FAILURES": "900", "WEIR_BREAKER_WINDOW": "ten"})) == 1


def test_an_unknown_variable_is_told_with_the_nearest_known_one_and_without_its_value():
    settings = read_settings({"WEIR_HEARTBEET_S": "3", "WEIR_ADMINKEY": "hush", "WEIR_EMPTY": "", "PATH": "/bin"})

    assert settings.notes == (
        "WEIR_ADMINKEY is not known; did you mean WEIR_ADMIN_KEY?",
        "WEIR_HEARTBEET_S is not known; did you mean WEIR_HEARTBEAT_S?",
    )


def test_a_file_of_keys_that_is_not_read_is_told():
    """Who has set both wonders why no key works."""
    settings = read_settings({"WEIR_API_KEYS_FILE": "keys.jsonl", "WEIR_REDIS_URL": "redis://127.0.0.1"})

    assert settings.notes == ("WEIR_API_KEYS_FILE is not read: with WEIR_REDIS_URL keys are in Redis",)


def test_settings_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Settings().heartbeat_s = 1


@given(name=st.sampled_from(sorted(STATED)), text=st.text())
def test_any_text_is_read_or_refused_by_name(name, text):
    """Nothing but ConfigurationError ever comes out, and it is about the variable that was given."""
    try:
        settings = read_settings({name: text})
    except ConfigurationError as refused:
        [problem] = refused.problems
        assert name in problem
    else:
        assert isinstance(settings, Settings)


@given(name=st.sampled_from(sorted(RANGES)), number=st.floats() | st.integers())
def test_a_number_is_read_exactly_when_it_is_in_range(name, number):
    least, most = RANGES[name]
    whole = isinstance(value_of(name, Settings()), int)
    fits = least <= number <= most and (isinstance(number, int) or not whole)

    try:
        settings = read_settings({name: str(number)} | COMPANIONS.get(name, {}))
    except ConfigurationError:
        assert not fits
    else:
        assert fits
        assert value_of(name, settings) == number


@pytest.mark.parametrize("name", STATED)
def test_the_handbook_lists_the_variable_with_its_default_meaning_and_range(name):
    """docs/settings.md cannot fall behind the table in the code."""
    stated = STATED[name]
    default = f"`{stated.default}`" if stated.default else "empty"
    handbook = Path(__file__).parents[2] / "docs" / "settings.md"

    assert (
        f"| `{name}` | {default} | {stated.meaning} | {stated.accepted.sentence} |" in handbook.read_text().splitlines()
    )


def test_the_operators_key_is_kept_as_what_it_can_be_compared_with():
    """Settings may be printed; a key may not."""
    settings = read_settings({"WEIR_ADMIN_KEY": "correct-horse"})

    assert settings.admin_key.matches("correct-horse")
    assert not settings.admin_key.matches("correct-horsf")
    assert "horse" not in repr(settings)
    assert settings.admin_key.digest.hex() not in repr(settings)


def test_an_operators_key_that_no_header_could_carry_is_refused_unseen():
    """The message goes to a log."""
    assert problems_of({"WEIR_ADMIN_KEY": "correct horse"}) == (
        "WEIR_ADMIN_KEY: a key of printable ASCII characters without blanks",
    )


def test_the_linger_is_stated_in_milliseconds_and_used_in_seconds():
    """As all times are inside."""
    assert read_settings({"WEIR_LOG_LINGER_MS": "20"}).log_linger_s == 0.02
    [problem] = problems_of({"WEIR_LOG_LINGER_MS": "1001"})
    assert "milliseconds from 0 to 1000" in problem
