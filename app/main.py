"""The composition root of the HTTP side."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from litestar import Litestar, Request, Response, Router
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp

from app.authentication import operators_only
from app.container import Container
from app.controllers.completions import CompletionController
from app.controllers.operations import OperationsController
from app.controllers.operators import OperatorController
from app.controllers.sessions import SessionController
from app.controllers.streams import StreamController
from app.cross_origin import CrossOrigin
from app.dependencies import HealthChecks, HttpPolicy, Metrics
from app.edge import Edge
from app.errors import ClientGone, on_client_gone, on_http_exception, on_weir_error
from app.openapi import CompleteDocument, openapi_config
from domain.errors import Internal, WeirError
from domain.events import DefectFound
from domain.operator import Operator
from domain.ports import AuditTrail
from domain.sessions import Conversations
from domain.warming import Warming

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[Any]]


def create_app(container: Container, *lifespan: Lifespan) -> ASGIApp:
    """The whole service as an ASGI application, and `lifespan` around it.

    Tests pass a container with overridden adapters.
    """
    app = Edge(
        create_litestar(container, *lifespan),
        container.events().publish,
        container.connections(),
        trusted=container.http_policy().trusted_proxies,
    )
    origins = container.settings().access.cors_origins
    return CrossOrigin(app, origins) if origins else app


def create_litestar(container: Container, *lifespan: Lifespan) -> Litestar:
    """The routes, and what they are given."""
    policy = container.http_policy()
    operators = Router("/", route_handlers=[OperatorController], guards=[operators_only(policy.operator_key)])
    return Litestar(
        route_handlers=[StreamController, CompletionController, SessionController, OperationsController, operators],
        dependencies=_dependencies(container),
        exception_handlers={
            WeirError: on_weir_error,
            HTTPException: on_http_exception,
            ClientGone: on_client_gone,
            Exception: _on_defect(container),
        },
        lifespan=[_lifespan(container), *lifespan],
        request_max_body_size=None,
        openapi_config=openapi_config(container.version(), _document(container, policy)),
        logging_config=None,
    )


def _document(container: Container, policy: HttpPolicy) -> CompleteDocument:
    return CompleteDocument(
        models=tuple(policy.models),
        providers=tuple(container.catalogue().providers),
        max_query_chars=policy.max_query_chars,
        is_key_required=container.settings().access.auth == "required",
    )


def _dependencies(container: Container) -> dict[str, Provide]:
    """What handlers may ask for by name.

    A handler asks for one of them: two that are ready at once the framework asks for in a task group, and takes longer
    for it than for all else that it does for a request.
    """

    def conversations() -> Conversations:
        return container.conversations()

    def policy() -> HttpPolicy:
        return container.http_policy()

    def health() -> HealthChecks:
        return container.health()

    def metrics() -> Metrics:
        return container.metrics()

    def audit_trail() -> AuditTrail:
        trail: AuditTrail = container.audit_trail()
        return trail

    def operator() -> Operator:
        return container.operator()

    def warming() -> Warming:
        return container.warming()

    named: dict[str, Callable[..., Any]] = {
        "conversations": conversations,
        "policy": policy,
        "health": health,
        "metrics": metrics,
        "operator": operator,
        "audit_trail": audit_trail,
        "warming": warming,
    }
    return {name: Provide(provide, sync_to_thread=False) for name, provide in named.items()}


def _lifespan(container: Container) -> Any:
    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncGenerator[None]:
        container.event_log()
        container.auditing()
        container.metrics()
        container.health()
        container.operator()
        app.state.service = container.service()  # before anything is heard that it would have to react to
        shared, connections = container.shared(), container.connections()
        for part in (*shared, connections):
            part.start()
        await container.learn_purges()()
        try:
            yield
        finally:
            await container.leaders().close()
            await container.conversations().close()
            for part in (*shared, connections):
                await part.close()
            for provider in container.providers_by_name().values():
                await provider.close()
            container.log_lines().flush()

    return lifespan


def _on_defect(container: Container) -> Any:
    def on_defect(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        """Log what happened; tell the client only that it did."""
        container.events().publish(DefectFound(thread_id=request.scope["state"]["thread_id"], error=error))
        return on_weir_error(request, Internal())

    return on_defect
