"""/admin: what those may do who have the operator's key."""

from typing import Any

from litestar import Controller, Request, post, route
from litestar.params import FromPath, FromQuery

from app.auditing import parse_limit, parse_position, told_page
from app.clients import Client
from app.dependencies import AuditTrailDep, HttpPolicyDep, OperatorDep, WarmingDep
from app.headers import READ
from app.operating import parse_purge_body, parse_questions, told_circuits, told_purge
from app.threads import thread_id_of
from domain.chat import OPERATOR
from domain.fingerprint import scope_named
from domain.warming import Warmed

Http = Request[Any, Any, Any]


class OperatorController(Controller):
    """The cache, the circuits and the audit trail, in an operator's hands."""

    tags = ("Operators",)

    @post("/admin/cache/purge", status_code=200)
    async def purge(self, request: Http, operator: OperatorDep, policy: HttpPolicyDep) -> dict[str, Any]:
        """Empty the cache of all instances: of one model, of one scope, or altogether."""
        async with policy.bodies.whole(request.scope, request.receive, OPERATOR.user) as raw:
            body = parse_purge_body(raw)
        scope = None if body.scope is None else scope_named(body.scope)
        return told_purge(await operator.purge(body.model, scope))

    @post("/admin/cache/warm", status_code=200)
    async def warm(self, request: Http, warming: WarmingDep, policy: HttpPolicyDep) -> Warmed:
        """Ask questions ahead, one a line as for POST /v1/stream, and say what became of them.

        A client that leaves wants no more of them asked.
        """
        async with policy.bodies.whole(request.scope, request.receive, OPERATOR.user) as body:
            questions = parse_questions(body, policy.max_query_chars)
        async with Client(request.receive):
            return await warming.warm(questions, thread_id_of(request.scope))

    @route("/admin/circuits", http_method=READ)
    async def circuits(self, operator: OperatorDep) -> dict[str, Any]:
        """How the circuits of each provider's models stand."""
        return {"circuits": [told_circuits(circuit) for circuit in operator.circuits()]}

    @post("/admin/circuits/{provider:str}/reset", status_code=200)
    async def reset(self, operator: OperatorDep, provider: FromPath[str]) -> dict[str, Any]:
        """Close the circuits of all of a provider's models, on all instances."""
        return told_circuits(operator.reset(provider))

    @route("/admin/audit", http_method=READ)
    async def audit(
        self, audit_trail: AuditTrailDep, limit: FromQuery[str | None] = None, before: FromQuery[str | None] = None
    ) -> dict[str, Any]:
        """Read what became of requests, the newest first."""
        count, position = parse_limit(limit), parse_position(before)
        return told_page(await audit_trail.read(count, position), count)
