import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.catalogue import SHIPPED, Catalogue, ProviderConfig, read_catalogue
from config.configuration import read_configuration
from config.errors import ConfigurationError
from domain.selection import Model, Prefill, Route, Strategy

SECRET = "sk-verysecret"
KEYS = {"OPENAI_API_KEY": f"{SECRET}-o", "DEEPSEEK_API_KEY": f"{SECRET}-d", "GEMINI_API_KEY": f"{SECRET}-g"}

PROVIDER = """
[providers.openai]
kind = "openai"
base_url = "https://api.example/v1"
api_key_env = "OPENAI_API_KEY"
"""
MODEL = """
[models."gpt-4o-mini"]
routes = [{ provider = "openai", model = "gpt-4o-mini" }]
"""
PLACE = 'models."gpt-4o-mini".routes[0]'


def with_provider(line):
    """Return a catalogue whose provider says `line` instead of its own line of that key, or besides the others."""
    key = line.partition(" ")[0]
    kept = [own for own in PROVIDER.splitlines() if not own.startswith(f"{key} ")]
    return "\n".join([*kept, line, MODEL])


def with_route(extra):
    return PROVIDER + MODEL.replace('model = "gpt-4o-mini"', f'model = "gpt-4o-mini", {extra}')


def with_model(line):
    return f'{PROVIDER}\n[models."gpt-4o-mini"]\n{line}\n'


@pytest.fixture
def catalogue_file(tmp_path):
    path = tmp_path / "catalogue.toml"
    path.write_text(PROVIDER + MODEL)
    return path


@pytest.fixture
def problems_of(catalogue_file):
    """Write a catalogue, read it, and return what is wrong with it, without the file's name."""

    def read(content, environ=KEYS):
        catalogue_file.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(ConfigurationError) as refused:
            read_catalogue(catalogue_file, environ)
        return tuple(problem.removeprefix(f"{catalogue_file}: ") for problem in refused.value.problems)

    return read


def test_the_shipped_catalogue_answers_every_model_from_every_provider():
    catalogue = read_catalogue(None, KEYS)

    assert set(catalogue.providers) == {"openai", "deepseek", "gemini"}
    assert set(catalogue.models) == {
        "gpt-4o-mini",
        "gpt-4o",
        "gpt-4.1",
        "gpt-4.1-mini",
        "deepseek-chat",
        "deepseek-reasoner",
        "gemini-2.5-flash",
        "gemini-2.5-pro",
    }
    for name, model in catalogue.models.items():
        assert model.routes[0].model == name
        assert {route.provider for route in model.routes} == set(catalogue.providers)
        assert all(route.usd_per_mtok_in < route.usd_per_mtok_out for route in model.routes)
    assert catalogue.left_out == ()


def test_the_shipped_gpt_4o_mini_is_the_one_of_the_contract():
    assert read_catalogue(None, KEYS).models["gpt-4o-mini"] == Model(
        name="gpt-4o-mini",
        strategy=Strategy.PRIORITY,
        routes=(
            Route(
                provider="openai",
                model="gpt-4o-mini",
                usd_per_mtok_in=0.15,
                usd_per_mtok_out=0.6,
                weight=3,
                context_tokens=128_000,
            ),
            Route(
                provider="deepseek",
                model="deepseek-chat",
                usd_per_mtok_in=0.27,
                usd_per_mtok_out=1.1,
                weight=1,
                context_tokens=128_000,
                prefill=Prefill.DEEPSEEK,
                max_choices=1,
            ),
            Route(
                provider="gemini",
                model="gemini-2.5-flash",
                usd_per_mtok_in=0.3,
                usd_per_mtok_out=2.5,
                weight=1,
                context_tokens=1_048_576,
                prefill=Prefill.ASSISTANT,
                max_choices=1,
            ),
        ),
    )


def test_one_model_of_one_provider_is_the_same_wherever_it_stands():
    """A price corrected in one place and not in another would make costs depend on the name asked for."""
    tables = tomllib.loads(SHIPPED.read_text())["models"].values()
    said = {
        tuple(sorted((key, value) for key, value in route.items() if key != "weight"))
        for table in tables
        for route in table["routes"]
    }

    assert len(said) == len({(dict(route)["provider"], dict(route)["model"]) for route in said})


def test_prices_weight_and_strategy_may_be_left_out(catalogue_file):
    assert read_catalogue(catalogue_file, KEYS) == Catalogue(
        providers={
            "openai": ProviderConfig(
                name="openai", kind="openai", base_url="https://api.example/v1", api_key=KEYS["OPENAI_API_KEY"]
            )
        },
        models={
            "gpt-4o-mini": Model(name="gpt-4o-mini", routes=(Route(provider="openai", model="gpt-4o-mini"),)),
        },
    )


@pytest.mark.parametrize("strategy", Strategy)
def test_every_strategy_can_be_chosen(catalogue_file, strategy):
    catalogue_file.write_text(f'{PROVIDER}{MODEL}strategy = "{strategy}"\n')

    assert read_catalogue(catalogue_file, KEYS).models["gpt-4o-mini"].strategy is strategy


def test_a_route_says_how_it_goes_on_with_an_answer_and_how_much_it_can_read(catalogue_file):
    catalogue_file.write_text(with_route('prefill = "deepseek", context_tokens = 65_536'))

    [route] = read_catalogue(catalogue_file, KEYS).models["gpt-4o-mini"].routes
    assert (route.prefill, route.context_tokens) == (Prefill.DEEPSEEK, 65_536)


def test_a_provider_says_how_many_calls_it_takes_at_once(catalogue_file):
    catalogue_file.write_text(with_provider("max_concurrency = 8"))

    assert read_catalogue(catalogue_file, KEYS).providers["openai"].max_concurrency == 8


def test_a_provider_says_how_many_answers_a_call_may_ask_for_and_so_do_its_routes(catalogue_file):
    catalogue_file.write_text(with_provider("max_choices = 4"))
    catalogue = read_catalogue(catalogue_file, KEYS)

    assert catalogue.providers["openai"].max_choices == 4
    assert [route.max_choices for model in catalogue.models.values() for route in model.routes] == [4]


def test_of_the_shipped_providers_openai_alone_gives_several_answers():
    """DeepSeek takes no notice of n, and Gemini streams one whatever it is asked."""
    models = read_catalogue(None, KEYS).models.values()

    most = {(route.provider, route.max_choices) for model in models for route in model.routes}
    assert most == {("openai", None), ("deepseek", 1), ("gemini", 1)}


def test_a_provider_without_a_key_is_left_out_with_its_routes_and_that_is_said():
    catalogue = read_catalogue(None, {"GEMINI_API_KEY": "g", "OPENAI_API_KEY": " "})

    assert set(catalogue.providers) == {"gemini"}
    assert {route.provider for model in catalogue.models.values() for route in model.routes} == {"gemini"}
    assert catalogue.left_out == (
        "provider openai is left out: OPENAI_API_KEY is not set",
        "provider deepseek is left out: DEEPSEEK_API_KEY is not set",
    )


def test_a_model_without_a_route_is_left_out_and_that_is_said(catalogue_file):
    catalogue = read_catalogue(catalogue_file, {})

    assert catalogue.models == catalogue.providers == {}
    assert catalogue.left_out == (
        "provider openai is left out: OPENAI_API_KEY is not set",
        "model gpt-4o-mini is left out: no key for any of its providers (openai)",
    )


def test_the_environment_overrides_where_a_provider_is():
    environ = KEYS | {"OPENAI_BASE_URL": "http://127.0.0.1:9000/v1/\n", "GEMINI_BASE_URL": ""}

    providers = read_catalogue(None, environ).providers

    assert providers["openai"].base_url == "http://127.0.0.1:9000/v1"
    assert providers["gemini"].base_url == "https://generativelanguage.googleapis.com"


def test_a_key_from_a_file_with_a_newline_is_the_key():
    """A newline in a header value would make every call fail, far from its cause."""
    assert read_catalogue(None, {"OPENAI_API_KEY": "k\n"}).providers["openai"].api_key == "k"


def test_no_repr_shows_a_key():
    assert SECRET not in repr(read_catalogue(None, KEYS))


BAD_URLS = [
    "ftp://x",
    "api.example",
    "https://",
    "http://h:0",
    "http://h:99999",
    "http://[::1",
    "http://a b",
    "http://é",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_an_address_that_is_none_is_refused_in_the_file_and_in_the_environment(problems_of, url):
    accepted = "an http:// or https:// address without user, query or fragment"

    assert problems_of(with_provider(f"base_url = '{url}'")) == (f"providers.openai.base_url='{url}': {accepted}",)
    assert problems_of(PROVIDER + MODEL, KEYS | {"OPENAI_BASE_URL": url}) == (f"OPENAI_BASE_URL='{url}': {accepted}",)


@pytest.mark.parametrize(
    "url", [f"https://me:{SECRET}@h/v1", f"https://{SECRET}@h", f"https://h/v1?key={SECRET}", f"https://h/#{SECRET}"]
)
def test_an_address_that_carries_a_secret_is_refused_without_showing_it(problems_of, url):
    [in_file] = problems_of(with_provider(f'base_url = "{url}"'))
    [in_environment] = problems_of(PROVIDER + MODEL, KEYS | {"OPENAI_BASE_URL": url})

    assert "***" in in_file
    assert SECRET not in in_file + in_environment


@pytest.mark.parametrize("key", [f"{SECRET}\n{SECRET}", f"{SECRET} {SECRET}", f"{SECRET}é", f"“{SECRET}”"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(problems_of, key):
    assert problems_of(PROVIDER + MODEL, {"OPENAI_API_KEY": key}) == (
        "OPENAI_API_KEY: a key of printable ASCII characters without blanks",
    )


@pytest.mark.parametrize("line", [f'api_key_env = "{SECRET}"', f'api_key = "{SECRET}"'])
def test_a_key_written_into_the_file_is_refused_without_showing_it(problems_of, line):
    """The likeliest mistake with a file that asks for the name of a key."""
    problems = problems_of(with_provider(line))

    assert problems[0].startswith("providers.openai.api_key")
    assert SECRET not in "".join(problems)


ONE_PROBLEM = {
    "unknown table": (f"{PROVIDER}{MODEL}[modles]\n", "modles: not a known key; one of models, providers"),
    "unknown key of a provider": (
        with_provider("timeout_s = 3"),
        "providers.openai.timeout_s: not a known key; one of api_key_env, base_url, kind, max_choices, max_concurrency",
    ),
    "unknown key of a model": (
        PROVIDER + MODEL + 'stategy = "priority"',
        'models."gpt-4o-mini".stategy: not a known key; one of routes, strategy',
    ),
    "unknown key of a route": (
        with_route("wieght = 2"),
        (
            f"{PLACE}.wieght: not a known key; one of context_tokens, model, prefill, provider, usd_per_mtok_in, "
            "usd_per_mtok_out, weight"
        ),
    ),
    "unknown provider": (
        PROVIDER + MODEL.replace('"openai"', '"opnai"'),
        f"{PLACE}.provider='opnai': one of openai",
    ),
    "unknown kind": (with_provider('kind = "claude"'), "providers.openai.kind='claude': one of gemini, openai"),
    "kind of a wrong type": (with_provider("kind = ['openai']"), "providers.openai.kind=a list: one of gemini, openai"),
    "address of a wrong type": (
        with_provider("base_url = 80"),
        "providers.openai.base_url=80: an http:// or https:// address without user, query or fragment",
    ),
    "key variable of another ending": (
        with_provider('api_key_env = "OPENAI_KEY"'),
        "providers.openai.api_key_env: the name of an environment variable that ends in _API_KEY",
    ),
    "name of a provider": (
        PROVIDER + MODEL + PROVIDER.replace("openai]", '"Open AI"]'),
        'providers."Open AI": its name must be 1 to 40 lower-case letters, digits, _ and -',
    ),
    "name of a model": (
        PROVIDER + MODEL + MODEL.replace("gpt-4o-mini", "", 1),
        'models."": its name must be 1 to 200 printable ASCII characters without blanks',
    ),
    "unknown strategy": (
        PROVIDER + MODEL + 'strategy = "dearest"',
        "models.\"gpt-4o-mini\".strategy='dearest': one of priority, weighted, cheapest, fastest, round_robin",
    ),
    "no routes": (with_model("routes = []"), 'models."gpt-4o-mini".routes=a list: a list of at least one table'),
    "routes missing": (with_model(""), 'models."gpt-4o-mini".routes: missing; a list of at least one table'),
    "routes of a wrong type": (
        with_model("routes = 3"),
        'models."gpt-4o-mini".routes=3: a list of at least one table',
    ),
    "route of a wrong type": (with_model("routes = ['openai']"), f"{PLACE}='openai': a table"),
    "model of a wrong type": (f"{PROVIDER}[models]\ngpt = 1", "models.gpt=1: a table"),
    "models missing": (PROVIDER, "models: missing; at least one table"),
    "model name missing": (
        PROVIDER + MODEL.replace(', model = "gpt-4o-mini"', ""),
        f"{PLACE}.model: missing; text that is not empty",
    ),
    "model name empty": (
        PROVIDER + MODEL.replace('model = "gpt-4o-mini"', 'model = ""'),
        f"{PLACE}.model='': text that is not empty",
    ),
    "negative price": (
        with_route("usd_per_mtok_in = -0.1"),
        f"{PLACE}.usd_per_mtok_in=-0.1: a number of US dollars from 0 to 1000000",
    ),
    "price that is none": (
        with_route("usd_per_mtok_out = nan"),
        f"{PLACE}.usd_per_mtok_out=nan: a number of US dollars from 0 to 1000000",
    ),
    "price as text": (
        with_route('usd_per_mtok_out = "0.6"'),
        f"{PLACE}.usd_per_mtok_out='0.6': a number of US dollars from 0 to 1000000",
    ),
    "weight of nothing": (with_route("weight = 0"), f"{PLACE}.weight=0: a whole number from 1 to 1000000"),
    "unknown prefill": (with_route('prefill = "user"'), f"{PLACE}.prefill='user': one of assistant, deepseek, none"),
    "no room": (
        with_route("context_tokens = 0"),
        f"{PLACE}.context_tokens=0: a whole number of tokens from 1 to 1000000000",
    ),
    "no call allowed": (
        with_provider("max_concurrency = 0"),
        "providers.openai.max_concurrency=0: a whole number of calls from 1 to 1000000",
    ),
    "calls as text": (
        with_provider('max_concurrency = "8"'),
        "providers.openai.max_concurrency='8': a whole number of calls from 1 to 1000000",
    ),
    "no answer allowed": (
        with_provider("max_choices = 0"),
        "providers.openai.max_choices=0: a whole number of answers from 1 to 128",
    ),
    "weight in parts": (with_route("weight = 1.5"), f"{PLACE}.weight=1.5: a whole number from 1 to 1000000"),
}


@pytest.mark.parametrize(("content", "problem"), ONE_PROBLEM.values(), ids=ONE_PROBLEM)
def test_a_mistake_is_told_once_with_its_place_and_what_would_be_accepted(problems_of, content, problem):
    assert problems_of(content) == (problem,)


def test_routes_are_counted_from_zero_and_providers_told_in_order(problems_of):
    content = SHIPPED.read_text().replace('"deepseek", model', '"depseek", model', 1)

    assert problems_of(content) == (
        "models.\"gpt-4o-mini\".routes[1].provider='depseek': one of deepseek, gemini, openai",
    )


def test_everything_wrong_with_a_file_is_listed(problems_of):
    content = """
    extra = 1
    [providers.a]
    kind = "x"
    [models.m]
    strategy = 1
    routes = [{ provider = "b", weight = "heavy" }]
    """

    assert {problem.partition(":")[0].partition("=")[0] for problem in problems_of(content)} == {
        "extra",
        "providers.a.kind",
        "providers.a.base_url",
        "providers.a.api_key_env",
        "models.m.strategy",
        "models.m.routes[0].provider",
        "models.m.routes[0].model",
        "models.m.routes[0].weight",
    }


@pytest.mark.parametrize("content", [b"[providers", b"a = 1\na = 2", b"\xff\xfe", b"a = " + b"[" * 10_000, b"a = \0"])
def test_a_file_that_is_not_toml_is_refused(problems_of, content):
    [problem] = problems_of(content)

    assert "the path of a TOML file that can be read: " in problem


def test_a_file_that_is_not_there_is_named(tmp_path):
    for path, reason in ((tmp_path / "none.toml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigurationError, match=f"WEIR_CATALOGUE='{path}': .*{reason}"):
            read_catalogue(path, KEYS)


def test_a_byte_order_mark_is_no_mistake(catalogue_file):
    """Editors of one operating system write it unasked."""
    catalogue_file.write_text(PROVIDER + MODEL, encoding="utf-8-sig")

    assert read_catalogue(catalogue_file, KEYS).models


def test_environment_and_catalogue_are_reported_together(catalogue_file):
    catalogue_file.write_text(with_route("weight = 0"))
    environ = KEYS | {"WEIR_CATALOGUE": str(catalogue_file), "WEIR_GRACE_S": "long"}

    with pytest.raises(ConfigurationError) as refused:
        read_configuration(environ)

    assert refused.value.problems == (
        "WEIR_GRACE_S='long': a number of seconds from 0 to 3600",
        f"{catalogue_file}: {PLACE}.weight=0: a whole number from 1 to 1000000",
    )


def test_a_good_configuration_is_settings_and_catalogue(catalogue_file):
    settings, catalogue = read_configuration(KEYS | {"WEIR_CATALOGUE": f"{catalogue_file}\n", "WEIR_GRACE_S": "0"})

    assert settings.catalogue == catalogue_file
    assert settings.grace_s == 0
    assert set(catalogue.models) == {"gpt-4o-mini"}


TOML_VALUE = st.one_of(
    st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers(), max_size=2), st.just({"a": 1})
)


def as_toml(value):
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "{ a = 1 }"
        case str():
            return '"' + "".join(f"\\U{ord(mark):08x}" for mark in value if not 0xD800 <= ord(mark) < 0xE000) + '"'
        case _:
            return str(value)


@given(
    key=st.sampled_from(
        ["provider", "model", "usd_per_mtok_in", "usd_per_mtok_out", "weight", "prefill", "context_tokens"]
    ),
    value=TOML_VALUE,
)
def test_any_value_in_a_route_is_read_or_refused_by_place(tmp_path_factory, key, value):
    """Nothing but ConfigurationError ever comes out, and it is about the key that was given."""
    path = tmp_path_factory.getbasetemp() / "any.toml"
    route = {"provider": '"openai"', "model": '"m"'} | {key: as_toml(value)}
    path.write_text(f"{PROVIDER}[models.m]\nroutes = [{{ {', '.join(f'{k} = {v}' for k, v in route.items())} }}]")

    try:
        catalogue = read_catalogue(path, KEYS)
    except ConfigurationError as refused:
        [problem] = refused.problems
        assert problem.startswith(f"{path}: models.m.routes[0].{key}=")
    else:
        assert getattr(catalogue.models["m"].routes[0], key) == value
