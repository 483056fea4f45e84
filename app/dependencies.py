"""What controllers may ask for, by type. The container provides it; mypy checks it, not the framework."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from litestar.di import NamedDependency
from litestar.params import SkipValidation
from litestar.types import Scope

from app.reading import Bodies
from domain.addresses import Network
from domain.callers import Callers
from domain.lifecycle import Lifecycle
from domain.operator import Operator
from domain.operator_key import OperatorKey
from domain.ports import AuditTrail
from domain.sessions import Conversations
from domain.warming import Warming


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpPolicy:
    """What the controllers are told by the configuration.

    `models` are the catalogue's names, each with the provider that is asked first; `began_at_s` is Unix time.
    """

    heartbeat_s: float
    bodies: Bodies
    max_query_chars: int
    models: Mapping[str, str]
    began_at_s: float
    operator_key: OperatorKey | None = None
    trusted_proxies: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Who answers, who knows who asks, and what the controllers are told.

    It is in the application's state, not among the dependencies: for a stored answer the framework would take as long
    to hand it over as we do to find that.
    """

    lifecycle: Lifecycle
    callers: Callers
    policy: HttpPolicy


def service_of(scope: Scope) -> Service:
    """The service that a request is for."""
    service: Service = scope["litestar_app"].state.service
    return service


class HealthChecks(Protocol):
    """What /health tells."""

    @property
    def is_ready(self) -> bool:
        """Whether work may be sent here."""
        ...

    @property
    def status(self) -> str:
        """All in one word: healthy, degraded or unhealthy."""
        ...

    def checks(self) -> dict[str, Any]:
        """Every check, by name."""
        ...


class Metrics(Protocol):
    """What /metrics tells."""

    content_type: str

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        ...


AuditTrailDep = NamedDependency[SkipValidation[AuditTrail]]
OperatorDep = NamedDependency[SkipValidation[Operator]]
WarmingDep = NamedDependency[SkipValidation[Warming]]
ConversationsDep = NamedDependency[SkipValidation[Conversations]]
HttpPolicyDep = NamedDependency[SkipValidation[HttpPolicy]]
HealthDep = NamedDependency[SkipValidation[HealthChecks]]
MetricsDep = NamedDependency[SkipValidation[Metrics]]
