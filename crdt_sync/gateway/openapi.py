"""The API as an OpenAPI document, made from its operations."""

import re
from importlib.metadata import version
from typing import Any

from .calls import Operation
from .operations import OPERATIONS

_ROOM = {"type": "string", "description": "The room's name, percent-encoded as one segment."}


def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(f"/api/v1{operation.path}", {})[operation.method.lower()] = _describe(operation)
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "crdt-sync", "version": version("crdt-sync")},
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "responses": {"Problem": {"description": "It can't be done: RFC 9457.", "content": problem}},
            "schemas": {
                "Problem": {
                    "type": "object",
                    "required": ["type", "title", "status"],
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                    },
                }
            },
        },
    }


def _describe(operation: Operation) -> dict[str, Any]:
    parameters = [
        {"name": part, "in": "path", "required": True, "schema": _ROOM if part == "room" else {"type": "string"}}
        for part in re.findall(r"{(\w+)}", operation.path)
    ]
    parameters += [{"name": part, "in": "query", "schema": {"type": "string"}} for part in operation.query]
    described: dict[str, Any] = {
        "operationId": operation.handler.__name__,
        "summary": operation.summary,
        "description": "Needs " + _needed(operation),
        "parameters": parameters,
        "responses": {
            "2XX": {"description": "Done.", "content": {operation.answer: {}}},
            "default": {"$ref": "#/components/responses/Problem"},
        },
    }
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": {operation.body: {}}}
    return described


def _needed(operation: Operation) -> str:
    if operation.any_room:
        return "a grant; shows what that allows to read."
    return f"`{operation.right.name.lower()}` in " + ("the room." if "{room}" in operation.path else "`*`.")
