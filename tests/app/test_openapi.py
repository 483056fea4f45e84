"""The document says what the service does, all of it, and the service does what the document says."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from dependency_injector.providers import Object

from app.container import Container
from app.errors import STATUSES
from app.main import create_litestar
from app.openapi import OPERATIONS
from app.openapi_components import PARAMETERS
from config.configuration import read_configuration
from tests.app import schemathesis_hooks
from tests.app.asking import CHAT, STREAM
from tests.serving import ADMIN_KEY

pytestmark = pytest.mark.anyio
PROJECT = Path(__file__).resolve().parents[2]
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
ANYWHERE = {"not_found", "method_not_allowed"}
"""Codes of addresses and methods that are not in the document."""


async def test_schemathesis_finds_nothing(service, simulator, tmp_path):
    """Thousands of requests, right and wrong, are answered as documented; the answers upstream stay short.

    That a text's lines are JSON cannot be said in the document: warming is left out.
    """
    for provider in ("openai", "deepseek", "gemini"):
        simulator.behave(provider, tokens=2, ttft_s=0, gap_s=0)
    command = [SCHEMATHESIS, "run", f"{service.url}/schema/openapi.json"]
    options = {"checks": "all", "phases": "examples,coverage,fuzzing", "max-examples": 20, "seed": 1, "workers": 1}
    options |= {"generation-database": "none", "request-timeout": 20}
    options |= {"header": f"Authorization: Bearer {ADMIN_KEY}", "exclude-path": "/admin/cache/warm"}
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": schemathesis_hooks.__name__, "PYTHONPATH": str(PROJECT)}
    process = await asyncio.create_subprocess_exec(
        *command,
        *arguments,
        cwd=tmp_path,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()

    assert process.returncode == 0, output.decode()


@pytest.fixture
async def document(client):
    return (await client.send("GET", "/schema/openapi.json")).json()


async def test_the_document_is_openapi_3_1(client):
    """In the media type that says so."""
    response = await client.send("GET", "/schema/openapi.json")

    assert response.status == 200
    assert response.headers["content-type"].startswith("application/vnd.oai.openapi+json")
    assert response.json()["openapi"].startswith("3.1")


def litestar():
    """The application, with no provider."""
    settings, catalogue = read_configuration({})
    return create_litestar(Container(settings=Object(settings), catalogue=Object(catalogue)))


async def test_every_route_is_in_the_document_and_nothing_else(document):
    """A route that is added without an entry stops here."""
    app = litestar()
    registered = {
        (route.path_format, method.lower())
        for route in app.routes
        for method in route.methods - {"OPTIONS", "HEAD"}
        if not route.path.startswith("/schema")
    }
    documented = {(path, method) for path, item in document["paths"].items() for method in item}

    assert documented == registered == set(OPERATIONS)


async def test_every_code_is_documented_where_it_can_come(document):
    """A new code is either of some operation, or of addresses that are not in the document."""
    named = {code for operation in OPERATIONS.values() for code in operation.codes} | {"internal"} | ANYWHERE
    told = {
        (status, code)
        for item in document["paths"].values()
        for operation in item.values()
        for status, response in operation["responses"].items()
        for code in STATUSES
        if f"`{code}`" in response["description"]
    }

    assert named == set(STATUSES)
    assert told >= {(str(STATUSES[code].status), code) for code in named - ANYWHERE}
    assert ("422", "provider_rejected") in told


async def test_every_parameter_that_the_framework_reads_is_documented():
    """And under the same name and place."""
    app = litestar()
    generated = app.openapi_schema.to_schema()["paths"]
    for (path, method), operation in OPERATIONS.items():
        read = {(each["in"], each["name"]) for each in generated[path][method].get("parameters", [])}
        assert read <= {(PARAMETERS[name]["in"], PARAMETERS[name]["name"]) for name in operation.parameters}


async def test_every_reference_leads_somewhere(document):
    """A document with loose ends generates no client."""
    for reference in references(document):
        place = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def references(part):
    if isinstance(part, dict):
        yield from (value for name, value in part.items() if name == "$ref")
        for value in part.values():
            yield from references(value)
    if isinstance(part, list):
        for value in part:
            yield from references(value)


async def test_every_operation_says_what_it_is(document):
    """Summaries alone are the methods' names."""
    for item in document["paths"].values():
        for operation in item.values():
            assert operation["description"]
            assert {"200", "204"} & set(operation["responses"])
            assert "500" in operation["responses"]


async def test_the_examples_are_answered(document, client):
    """Whoever copies one gets an answer."""
    for path in (STREAM, CHAT):
        example = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
        assert (await client.send("POST", path, json=example)).status == 200
