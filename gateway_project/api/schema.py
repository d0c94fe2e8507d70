"""The description of the management API in OpenAPI 3.1: /api/v1/schema/, and as pages at /api/v1/docs/."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.pagination import BasePagination

from gateway_project.api.pages import AFTER, LIMIT, MOST, USUAL

UNSAFE = ("POST", "PUT", "PATCH", "DELETE")
WITH_BODY = ("POST", "PUT", "PATCH")


class ErrorBody(serializers.Serializer):
    message = serializers.CharField(help_text="What happened and what to do, for people.")
    type = serializers.CharField(help_text="invalid_request_error, or server_error.")
    param = serializers.CharField(allow_null=True, help_text="The field, parameter or header that it is about.")
    code = serializers.CharField(allow_null=True, help_text="For programs; null for mistakes in the request.")


class Error(serializers.Serializer):
    error = ErrorBody()


ERRORS = {
    400: "A mistake in the request: `param` says where.",
    401: "No valid management token, and nobody is signed in.",
    403: "The permission or the scope is missing, or the token may not be used from there.",
    404: "There is no such object.",
    405: "Not with this method.",
    409: "It is in use, exists already, or the same request is under way.",
    412: "The object has changed since the state that If-Match names.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    422: "The Idempotency-Key was used for another request.",
    503: "The database cannot be reached. `retry-after` says when to come again.",
}
HEADER: Any = OpenApiParameter.HEADER
IF_MATCH = OpenApiParameter(
    "If-Match", str, HEADER, description="Only if the object still has this ETag, else 412 and nothing is changed."
)
IF_NONE_MATCH = OpenApiParameter(
    "If-None-Match", str, HEADER, description="Only if the object has another ETag than this, else 304."
)
ONCE = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255},
    HEADER,
    description="Any text of your own for this request: within 24 hours it is done only once.",
)


class Pages(BasePagination):
    """Only describes what gateway_project.api.pages does."""

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        following = {
            "type": ["string", "null"],
            "description": "For `after`, to get the next page. Null: no more.",
        }
        properties = {"data": schema, "next": following}
        return {"type": "object", "required": ["data", "next"], "properties": properties}

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        limit = {"type": "integer", "minimum": 1, "maximum": MOST, "default": USUAL}
        return [
            _parameter(LIMIT, "How many at most.", limit),
            _parameter(AFTER, "The `next` of the page before. Empty: the first page.", {"type": "string"}),
            *(_parameter(name, one.words, one.schema) for name, one in _filters(view).items()),
        ]


def _filters(view: Any) -> dict[str, Any]:
    return dict(view.filters) if getattr(view, "action", "list") == "list" and hasattr(view, "filters") else {}


def _parameter(name: str, words: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": words, "schema": schema}


class Schema(AutoSchema):
    def _is_list_view(self, serializer: Any = None) -> bool:
        """Lists under a row too: all of them come in pages."""
        if self.method == "GET" and getattr(self.view, "action", None) in getattr(self.view, "paged", ()):
            return True
        return bool(super()._is_list_view(serializer))

    def get_tags(self) -> list[str]:
        return [getattr(self.view, "tag_name", None) or getattr(self.view, "resource", None) or "other"]

    def get_override_parameters(self) -> list[Any]:
        view: Any = self.view
        found: list[Any] = []
        one = "{id}" in self.path or getattr(view, "single", False)
        if one and self.method in UNSAFE and not self._only_reads():
            found.append(IF_MATCH)
        if one and self.method == "GET" and getattr(view, "action", None) == "retrieve":
            found.append(IF_NONE_MATCH)
        if self.method == "POST" and not self._only_reads() and getattr(view, "repeats", True):
            found.append(ONCE)
        if one and self._tags_reply():
            tag = "Which state this is, for If-Match and If-None-Match."
            found.append(OpenApiParameter("ETag", str, HEADER, description=tag, response=[200, 201]))
        return found

    def _tags_reply(self) -> bool:
        return getattr(self.view, "action", None) in ("retrieve", "create", "partial_update")

    def _only_reads(self) -> bool:
        return getattr(self.view, "action", None) in getattr(self.view, "reading", ())

    def _get_response_bodies(self, direction: Any = "response") -> Any:
        bodies = super()._get_response_bodies(direction)
        reference = self.resolve_serializer(Error, "response").ref
        if getattr(self.view, "action", None) == "retrieve":
            bodies["304"] = {"description": "It has the ETag that If-None-Match names."}
        for status, words in ERRORS.items():
            if str(status) not in bodies and self._may_end_with(status):
                bodies[str(status)] = {"description": words, "content": {"application/json": {"schema": reference}}}
        return dict(sorted(bodies.items()))

    def _may_end_with(self, status: int) -> bool:
        if status in (409, 412, 422):
            return self.method in UNSAFE
        if status in (413, 415):
            return self.method in WITH_BODY
        return True


class TokenScheme(OpenApiAuthenticationExtension):
    target_class = "gateway_project.api.access.ByToken"
    name = "managementToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer", "description": "A management token: gh-mt-..."}


class KeyScheme(OpenApiAuthenticationExtension):
    target_class = "usage.me.ByKey"
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer", "description": "An API key: sk-gh-..."}


def only_ours(endpoints: list[Any]) -> list[Any]:
    """What is described: the views of the management API. The others under it have pages of their own."""
    return [one for one in endpoints if one[3].cls.__module__.startswith("gateway_project.api.")]
