"""The catalogue of providers, models and routes: one TOML file, and the keys and addresses the environment adds."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from config.accepted import API_KEY, URL, Accepted, hidden, one_of
from config.errors import ConfigurationError
from config.table import CHOICES, CONCURRENCY, CONTEXT_TOKENS, LIST, TABLES, TEXT, USD, WEIGHT, Key, below, read_table
from domain.selection import Model, Prefill, Route, Strategy

Kind = Literal["openai", "gemini"]
Tables = dict[str, dict[str, Any]]

SHIPPED = Path(__file__).with_name("catalogue.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderConfig:
    """Where a provider is, which protocol it speaks and the key it is asked with.

    `max_concurrency` is how many calls one instance may have open at it, `max_choices` how many answers (`n`) one call
    may ask for; None: any number.
    """

    name: str
    kind: Kind
    base_url: str
    api_key: str = field(repr=False)
    max_concurrency: int | None = None
    max_choices: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """The providers that have a key and the models they can answer.

    `left_out` says, a sentence each, which providers and models of the file are not here, and why.
    """

    providers: Mapping[str, ProviderConfig]
    models: Mapping[str, Model]
    left_out: tuple[str, ...] = ()


def _matching(pattern: str, value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise ValueError(f"not {pattern}")
    return value


# Whatever stands here is never shown: it may be the key itself, put where the variable's name belongs.
_KEY_VARIABLE = Accepted(
    sentence="the name of an environment variable that ends in _API_KEY",
    read=lambda value: _matching(r"[A-Z][A-Z0-9_]*_API_KEY", value),
    show=hidden,
)
_PROVIDER_NAME = Accepted(
    sentence="1 to 40 lower-case letters, digits, _ and -", read=lambda name: _matching(r"[a-z0-9_-]{1,40}", name)
)
_MODEL_NAME = Accepted(
    sentence="1 to 200 printable ASCII characters without blanks", read=lambda name: _matching(r"[!-~]{1,200}", name)
)

_ROOT = {"providers": Key(accepted=TABLES), "models": Key(accepted=TABLES)}
_PROVIDER: dict[str, Key[Any]] = {
    "kind": Key(accepted=one_of(*sorted(get_args(Kind)))),
    "base_url": Key(accepted=URL),
    "api_key_env": Key(accepted=_KEY_VARIABLE),
    "max_concurrency": Key(accepted=CONCURRENCY, may_be_left_out=True),
    "max_choices": Key(accepted=CHOICES, may_be_left_out=True),
}
_MODEL: dict[str, Key[Any]] = {
    "strategy": Key(accepted=one_of(*Strategy), default=Strategy.PRIORITY.value),
    "routes": Key(accepted=LIST),
}
_ROUTE: dict[str, Key[Any]] = {
    "provider": Key(accepted=TEXT),
    "model": Key(accepted=TEXT),
    "usd_per_mtok_in": Key(accepted=USD, default=0.0),
    "usd_per_mtok_out": Key(accepted=USD, default=0.0),
    "weight": Key(accepted=WEIGHT, default=1),
    "prefill": Key(accepted=one_of(*Prefill), default=Prefill.NONE.value),
    "context_tokens": Key(accepted=CONTEXT_TOKENS, may_be_left_out=True),
}


def read_catalogue(path: Path | None, environ: Mapping[str, str]) -> Catalogue:
    """Return what the file at `path` (None: the shipped one) and the keys in `environ` make possible.

    Raises:
        ConfigurationError: the file cannot be read or cannot be right; everything wrong with it is listed.
    """
    place = f"{path or SHIPPED.name}: "
    problems: list[str] = []
    root = read_table(place, _load(path or SHIPPED), _ROOT, problems)
    providers = _read_providers(below(place, "providers"), root.get("providers", {}), problems)
    models = _read_models(below(place, "models"), root.get("models", {}), sorted(providers), problems)
    for provider in providers.values():
        _add_environment(provider, environ, problems)
    if problems:
        raise ConfigurationError(tuple(dict.fromkeys(problems)))
    return _catalogue(providers, models)


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as refused:
        reason = refused.strerror if isinstance(refused, OSError) else refused
        raise ConfigurationError(
            (f"WEIR_CATALOGUE={str(path)!r}: the path of a TOML file that can be read: {reason}",)
        ) from refused


def _check_names(place: str, tables: Mapping[str, object], accepted: Accepted[str], problems: list[str]) -> None:
    for name in tables:
        try:
            accepted.read(name)
        except ValueError:
            problems.append(f"{below(place, name)}: its name must be {accepted.sentence}")


def _read_providers(place: str, tables: Mapping[str, object], problems: list[str]) -> Tables:
    _check_names(place, tables, _PROVIDER_NAME, problems)
    return {name: read_table(below(place, name), table, _PROVIDER, problems) for name, table in tables.items()}


def _read_models(place: str, tables: Mapping[str, object], providers: list[str], problems: list[str]) -> Tables:
    _check_names(place, tables, _MODEL_NAME, problems)
    route = _ROUTE | ({"provider": Key(accepted=one_of(*providers))} if providers else {})
    models = {name: read_table(below(place, name), table, _MODEL, problems) for name, table in tables.items()}
    for name, model in models.items():
        routes = below(below(place, name), "routes")
        model["routes"] = [
            read_table(f"{routes}[{number}]", table, route, problems)
            for number, table in enumerate(model.get("routes", []))
        ]
    return models


def _add_environment(provider: dict[str, Any], environ: Mapping[str, str], problems: list[str]) -> None:
    """Add the provider's `api_key`, empty when it has none, and override its `base_url`."""
    provider["api_key"] = ""
    stem = provider.get("api_key_env", "").removesuffix("_API_KEY")
    for target, name, accepted in (("api_key", f"{stem}_API_KEY", API_KEY), ("base_url", f"{stem}_BASE_URL", URL)):
        given = environ.get(name, "").strip() if stem else ""
        try:
            provider.update({target: accepted.read(given)} if given else {})
        except ValueError:
            problems.append(accepted.problem(name, given))


def _catalogue(tables: Tables, models: Tables) -> Catalogue:
    providers = {name: _provider(name, table) for name, table in tables.items() if table["api_key"]}
    every_model = [_model(name, table, providers) for name, table in models.items()]
    return Catalogue(
        providers=providers,
        models={model.name: model for model in every_model if model.routes},
        left_out=(*_without_key(tables), *_without_route(models, providers)),
    )


def _provider(name: str, table: Mapping[str, Any]) -> ProviderConfig:
    said = {key: value for key, value in table.items() if key != "api_key_env"}
    return ProviderConfig(name=name, **said)


def _model(name: str, table: Mapping[str, Any], providers: Mapping[str, ProviderConfig]) -> Model:
    routes = tuple(
        _route(route, providers[route["provider"]]) for route in table["routes"] if route["provider"] in providers
    )
    return Model(name=name, routes=routes, strategy=Strategy(table["strategy"]))


def _route(table: Mapping[str, Any], provider: ProviderConfig) -> Route:
    return Route(**{**table, "prefill": Prefill(table["prefill"])}, max_choices=provider.max_choices)


def _without_key(providers: Tables) -> Iterator[str]:
    for name, table in providers.items():
        if not table["api_key"]:
            yield f"provider {name} is left out: {table['api_key_env']} is not set"


def _without_route(models: Tables, providers: Mapping[str, ProviderConfig]) -> Iterator[str]:
    for name, table in models.items():
        asked = sorted({route["provider"] for route in table["routes"]})
        if not providers.keys() & set(asked):
            yield f"model {name} is left out: no key for any of its providers ({', '.join(asked)})"
