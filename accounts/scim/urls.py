"""Below /scim/v2/. The last two answer whatever else is asked for in the shape SCIM has for errors."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import path, re_path
from django.views.decorators.csrf import csrf_exempt


def _later(name: str) -> Callable[..., HttpResponse]:
    """A view that is imported when it is first asked for: to build the library's models takes as long as the rest of a
    start."""

    @csrf_exempt
    def view(request: HttpRequest, **named: Any) -> HttpResponse:
        response: HttpResponse = getattr(import_module("accounts.scim.views"), name).as_view()(request, **named)
        return response

    return view


urlpatterns = [
    path("Users", _later("UsersView"), name="scim_users"),
    path("Users/<str:object_id>", _later("UserView"), name="scim_user"),
    path("Groups", _later("GroupsView"), name="scim_groups"),
    path("Groups/<str:object_id>", _later("GroupView"), name="scim_group"),
    path("ServiceProviderConfig", _later("ConfigView"), name="scim_config"),
    path("Schemas", _later("SchemasView"), name="scim_schemas"),
    path("Schemas/<str:object_id>", _later("SchemaView"), name="scim_schema"),
    path("ResourceTypes", _later("ResourceTypesView"), name="scim_resource_types"),
    path("ResourceTypes/<str:object_id>", _later("ResourceTypeView"), name="scim_resource_type"),
    re_path(r"^.*$", _later("NothingView"), name="scim_nothing"),
]
