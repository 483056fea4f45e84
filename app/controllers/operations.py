"""Health and metrics: what probes and Prometheus ask."""

from typing import Any

from litestar import Controller, Response, route
from litestar.response.base import ASGIResponse

from app.dependencies import HealthDep, MetricsDep
from app.headers import READ


class OperationsController(Controller):
    """What operators' machines read."""

    tags = ("Operations",)

    @route("/health/live", http_method=READ)
    async def live(self) -> dict[str, str]:
        """The process is up."""
        return {"status": "live"}

    @route("/health/ready", http_method=READ)
    async def ready(self, health: HealthDep) -> Response[dict[str, str]]:
        """Whether work may be sent here: 503 while no provider can be used."""
        is_ready = health.is_ready
        return Response({"status": "ready" if is_ready else "not ready"}, status_code=200 if is_ready else 503)

    @route("/health", http_method=READ)
    async def health(self, health: HealthDep) -> Response[dict[str, Any]]:
        """All checks."""
        body = {"status": health.status, "checks": health.checks()}
        return Response(body, status_code=200 if health.is_ready else 503)

    @route("/metrics", http_method=READ)
    async def metrics(self, metrics: MetricsDep) -> ASGIResponse:
        """Prometheus' text format."""
        return ASGIResponse(body=metrics.text(), headers={"content-type": metrics.content_type})
