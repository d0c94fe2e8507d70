"""The endpoints of SCIM 2.0."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from scim2_models import (
    AuthenticationScheme,
    Bulk,
    ChangePassword,
    Context,
    EnterpriseUser,
    ETag,
    Filter,
    Meta,
    NotFoundException,
    Patch,
    PatchOp,
    Resource,
    ResourceType,
    ResponseParameters,
    SearchRequest,
    ServiceProviderConfig,
    Sort,
)
from scim2_models import Group as GroupResource
from scim2_models import User as PlainUserResource

from accounts.models import User
from accounts.scim import filters, selectors, services
from accounts.scim.models import ScimGroup, ScimMember
from accounts.scim.requests import Problem, ScimView, answer, base_of, body_of
from accounts.scim.resources import UserResource, as_group, as_user, version_of

MAX_RESULTS = 200
LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"


# --- what the two kinds have in common ------------------------------------------------------------------------------
class OneView(ScimView):
    model: Any

    def rows(self) -> QuerySet[Any]:
        raise NotImplementedError

    def resource(self, row: Any, base: str) -> Resource[Any]:
        raise NotImplementedError

    def get(self, request: HttpRequest, object_id: str) -> HttpResponse:
        resource = self.resource(self._row(object_id), base_of(request))
        version = version_of(resource)
        if version in _tags(request, "If-None-Match"):
            return answer(304, etag=version)
        return shown(request, resource)

    def put(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row, _ = self._locked(request, object_id)
        wanted = self.model.model_validate(body_of(request), scim_ctx=Context.RESOURCE_REPLACEMENT_REQUEST)
        return shown(request, self.resource(self.change(row, wanted), base_of(request)))

    def patch(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row, resource = self._locked(request, object_id)
        operations = PatchOp[self.model].model_validate(  # type: ignore[name-defined]
            body_of(request), scim_ctx=Context.RESOURCE_PATCH_REQUEST
        )
        operations.patch(resource)
        return shown(request, self.resource(self.change(row, resource), base_of(request)))

    def delete(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row, _ = self._locked(request, object_id)
        self.remove(row)
        return answer(204)

    def change(self, row: Any, resource: Any) -> Any:
        raise NotImplementedError

    def remove(self, row: Any) -> None:
        raise NotImplementedError

    def _row(self, object_id: str, *, lock: bool = False) -> Any:
        known = object_id.isascii() and object_id.isdigit() and len(object_id) < 19
        rows = self.rows().select_for_update(of=("self",)) if lock else self.rows()
        row = rows.filter(pk=int(object_id)).first() if known else None
        if row is None:
            raise NotFoundException(detail="There is nobody and nothing with this id.")
        return row

    def _locked(self, request: HttpRequest, object_id: str) -> tuple[Any, Resource[Any]]:
        row = self._row(object_id, lock=True)
        resource = self.resource(row, base_of(request))
        wanted = _tags(request, "If-Match")
        if wanted and "*" not in wanted and version_of(resource) not in wanted:
            raise Problem(412, "It has changed since.")
        return row, resource


class ListView(ScimView):
    fields: filters.Fields

    def page(self, request: HttpRequest, rows: QuerySet[Any]) -> tuple[list[Any], int, int]:
        """(rows, how many there are in all, the number of the first)"""
        asked: Any = SearchRequest.model_validate(
            {name: request.GET[name] for name in ("startIndex", "count") if request.GET.get(name)}
        )
        if text := request.GET.get("filter"):
            rows = rows.filter(filters.condition(text, self.fields)).distinct()
        start, count = asked.start_index_0 or 0, MAX_RESULTS if asked.count is None else asked.count
        if start > 10**9:
            raise Problem(400, "startIndex is too large.", "invalidValue")
        return list(rows[start : start + min(count, MAX_RESULTS)]), rows.count(), start + 1

    def listed(self, request: HttpRequest, resources: list[Resource[Any]], total: int, first: int) -> HttpResponse:
        shown_resources = [dumped(request, resource) for resource in resources]
        body: dict[str, Any] = {"schemas": [LIST], "totalResults": total, "startIndex": first}
        return answer(200, {**body, "itemsPerPage": len(resources), "Resources": shown_resources})


def dumped(request: HttpRequest, resource: Resource[Any]) -> dict[str, Any]:
    """What was asked for of it (RFC 7644, 3.9)."""
    of_kind: Any = ResponseParameters[type(resource)]  # type: ignore[misc]
    asked = of_kind.model_validate(
        {name: request.GET[name] for name in ("attributes", "excludedAttributes") if request.GET.get(name)}
    )
    if resource.meta is not None:
        resource.meta.version = version_of(resource)
    body: dict[str, Any] = resource.model_dump(scim_ctx=Context.RESOURCE_QUERY_RESPONSE, response_parameters=asked)
    return body


def shown(request: HttpRequest, resource: Resource[Any], status: int = 200) -> HttpResponse:
    body = dumped(request, resource)
    response = answer(status, body, etag=str(resource.meta.version) if resource.meta else "")
    if status == 201 and resource.meta is not None:
        response["Location"] = str(resource.meta.location)
    return response


def _tags(request: HttpRequest, header: str) -> set[str]:
    return {tag.strip() for tag in request.headers.get(header, "").split(",") if tag.strip()}


# --- people ---------------------------------------------------------------------------------------------------------
def user_resource(user: User, base: str) -> UserResource:
    members = ScimMember.objects.filter(user=user).select_related("group").order_by("group")
    return as_user(user, base, [member.group for member in members])


class UserView(OneView):
    model = UserResource

    def rows(self) -> QuerySet[User]:
        return selectors.people()

    def resource(self, row: User, base: str) -> UserResource:
        return user_resource(row, base)

    def change(self, row: User, resource: UserResource) -> User:
        return services.change_person(row, resource, self.provider)

    def remove(self, row: User) -> None:
        services.delete_person(row)


class UsersView(ListView):
    fields = filters.USER_FIELDS

    def get(self, request: HttpRequest) -> HttpResponse:
        users, total, first = self.page(request, selectors.people())
        of_user: dict[int, list[ScimGroup]] = {}
        for member in ScimMember.objects.filter(user__in=users).select_related("group").order_by("group"):
            of_user.setdefault(member.user_id, []).append(member.group)
        base = base_of(request)
        resources: list[Any] = [as_user(user, base, of_user.get(user.pk, ())) for user in users]
        return self.listed(request, resources, total, first)

    def post(self, request: HttpRequest) -> HttpResponse:
        wanted = UserResource.model_validate(body_of(request), scim_ctx=Context.RESOURCE_CREATION_REQUEST)
        user = services.create_person(wanted, self.provider)
        return shown(request, user_resource(user, base_of(request)), 201)


# --- groups ---------------------------------------------------------------------------------------------------------
def group_resource(group: ScimGroup, base: str) -> GroupResource:
    return as_group(group, base, group.members.order_by("user").values_list("user_id", "user__username"))


class GroupView(OneView):
    model = GroupResource

    def rows(self) -> QuerySet[ScimGroup]:
        return selectors.groups()

    def resource(self, row: ScimGroup, base: str) -> GroupResource:
        return group_resource(row, base)

    def change(self, row: ScimGroup, resource: GroupResource) -> ScimGroup:
        return services.change_group(row, resource)

    def remove(self, row: ScimGroup) -> None:
        services.delete_group(row)


class GroupsView(ListView):
    fields = filters.GROUP_FIELDS

    def get(self, request: HttpRequest) -> HttpResponse:
        groups, total, first = self.page(request, selectors.groups())
        of_group: dict[int, list[tuple[int, str]]] = {}
        if "members" not in request.GET.get("excludedAttributes", "").split(","):
            members = ScimMember.objects.filter(group__in=groups).order_by("user")
            for group_id, user_id, name in members.values_list("group_id", "user_id", "user__username"):
                of_group.setdefault(group_id, []).append((user_id, name))
        base = base_of(request)
        resources: list[Any] = [as_group(group, base, of_group.get(group.pk)) for group in groups]
        return self.listed(request, resources, total, first)

    def post(self, request: HttpRequest) -> HttpResponse:
        wanted = GroupResource.model_validate(body_of(request), scim_ctx=Context.RESOURCE_CREATION_REQUEST)
        return shown(request, group_resource(services.create_group(wanted), base_of(request)), 201)


# --- what there is --------------------------------------------------------------------------------------------------
SCHEMAS = {str(model.__schema__): model.to_schema() for model in (PlainUserResource, EnterpriseUser, GroupResource)}
TYPES = {kind.name: kind for kind in (ResourceType.from_resource(model) for model in (UserResource, GroupResource))}


class Described(ListView):
    found: dict[Any, Any]
    kind: str

    def get(self, request: HttpRequest) -> HttpResponse:
        if request.GET.get("filter"):
            raise Problem(403, "There is no filter here.")
        described = [_described(thing, self.kind, request) for thing in self.found.values()]
        return self.listed(request, described, len(described), 1)


class OneDescribed(ScimView):
    found: dict[Any, Any]
    kind: str

    def get(self, request: HttpRequest, object_id: str) -> HttpResponse:
        if object_id not in self.found:
            raise NotFoundException(detail="There is nothing with this id.")
        return answer(200, dumped(request, _described(self.found[object_id], self.kind, request)))


def _described(thing: Any, kind: str, request: HttpRequest) -> Any:
    copy = thing.model_copy()
    copy.meta = Meta(resource_type=kind, location=f"{base_of(request)}/{kind}s/{thing.id or thing.name}")
    return copy


class SchemasView(Described):
    found, kind = SCHEMAS, "Schema"


class SchemaView(OneDescribed):
    found, kind = SCHEMAS, "Schema"


class ResourceTypesView(Described):
    found, kind = TYPES, "ResourceType"


class ResourceTypeView(OneDescribed):
    found, kind = TYPES, "ResourceType"


class ConfigView(ScimView):
    def get(self, request: HttpRequest) -> HttpResponse:
        scheme = AuthenticationScheme(
            type=AuthenticationScheme.Type.oauthbearertoken,
            name="SCIM token",
            description="A token made in the admin or by manage.py create_scim_token.",
            primary=True,
        )
        config = ServiceProviderConfig(
            patch=Patch(supported=True),
            bulk=Bulk(supported=False, max_operations=0, max_payload_size=0),
            filter=Filter(supported=True, max_results=MAX_RESULTS),
            change_password=ChangePassword(supported=False),
            sort=Sort(supported=False),
            etag=ETag(supported=True),
            authentication_schemes=[scheme],
        )
        location = f"{base_of(request)}/ServiceProviderConfig"
        config.meta = Meta(resource_type="ServiceProviderConfig", location=location)
        return answer(200, dumped(request, config))


class NothingView(ScimView):
    """Whatever else is asked for below /scim/v2."""

    def get(self, request: HttpRequest) -> HttpResponse:
        raise NotFoundException(detail="There is no such endpoint.")

    post = put = patch = delete = get
