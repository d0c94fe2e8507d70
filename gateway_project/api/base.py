"""What every view of the management API has, and what every resource has.

A resource is a model with a serialiser. Its own module says how a row is saved (`save`), what else can be done with it,
and which filters its list has. Rows are found, shown, tagged, locked and judged here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, cast

from django.contrib import admin
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpResponse, HttpResponseNotModified
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.html import strip_tags
from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.permissions import SAFE_METHODS
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet

from accounts.addresses import client_ip
from accounts.audit import acting, trail
from accounts.tokens.models import ManagementToken
from gateway_project.api import errors, repeats
from gateway_project.api.access import AUTHENTICATION, MayDo, has_right, in_words
from gateway_project.api.bodies import AlwaysJson, JsonParser
from gateway_project.api.errors import Conflict
from gateway_project.api.pages import AFTER, LIMIT, Filter, check_parameters, filtered, page_of
from gateway_project.api.schema import Pages, Schema
from gateway_project.api.tags import check_match, is_known, tag_of

RIGHTS = {
    "list": "view", "retrieve": "view", "create": "add", "update": "change", "partial_update": "change",
    "destroy": "delete",
}  # fmt: skip


class ApiView(APIView):
    """Errors in the one shape; who acts is known to the audit trail; what is changed is changed whole or not at all."""

    authentication_classes: Sequence[Any] = AUTHENTICATION
    parser_classes: Sequence[Any] = (JsonParser,)
    renderer_classes: Sequence[Any] = (JSONRenderer,)
    content_negotiation_class: Any = AlwaysJson
    schema = Schema()
    parameters: ClassVar[tuple[str, ...]] = ()

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """DRF's own, but that the handler runs in a transaction, once for each Idempotency-Key."""
        self.args, self.kwargs = args, kwargs
        request = self.initialize_request(request, *args, **kwargs)
        self.request, self.headers = request, self.default_response_headers
        try:
            self.initial(request, *args, **kwargs)
            handler = getattr(self, str(request.method).lower(), None) if request.method in METHODS else None
            if handler is None:
                handler = self.http_method_not_allowed
            else:
                check_parameters(request, self.known_parameters())
            with self._acting(request):
                response = self._run(request, lambda: handler(request, *args, **kwargs))
        except Exception as error:
            response = self.handle_exception(error)
        self.response = self.finalize_response(request, response, *args, **kwargs)
        return self.response

    def _run(self, request: Request, handler: Callable[[], Any]) -> Any:
        if request.method in SAFE_METHODS:
            return handler()
        repeat = repeats.begin(request) if self.repeatable() else None
        if repeat is not None and repeat.reply is not None:
            return repeat.reply
        try:
            with transaction.atomic():
                if not self.reads():
                    trail.lock()  # before any row, as everywhere: so nobody waits in a circle
                response = handler()
                if repeat is not None:
                    repeat.keep(response)
        except BaseException:
            if repeat is not None:
                repeat.forget()
            raise
        return response

    @contextmanager
    def _acting(self, request: Request) -> Iterator[None]:
        name = f"token {request.auth}" if isinstance(request.auth, ManagementToken) else ""
        user = request.user if request.user.is_authenticated else None
        with acting(channel="api", user=user, name=name, ip=client_ip(cast(Any, request))):
            yield

    def repeatable(self) -> bool:
        return True

    def reads(self) -> bool:
        return self.request.method in SAFE_METHODS

    def is_unknown_method(self) -> bool:
        return not hasattr(self, str(self.request.method).lower())

    def known_parameters(self) -> Sequence[str]:
        return self.parameters

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        if not response.has_header("Cache-Control"):
            response["Cache-Control"] = "private, no-cache" if response.has_header("ETag") else "no-store"
        patch_vary_headers(response, ["Authorization", "Cookie"])
        return response

    def get_exception_handler(self) -> Any:
        return errors.handle


METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")


class Resource(ApiView, GenericViewSet):
    """`save(given, row)` writes what was given, already of the right types; without a row it makes one. It may leave
    rows of its own for `extra`, which the reply shows beside what the serialiser shows."""

    http_method_names = ["get", "head", "post", "put", "patch", "delete"]
    permission_classes: Sequence[Any] = (MayDo,)
    pagination_class = Pages  # described only
    lookup_value_regex = "[0-9]{1,18}"

    resource: ClassVar[str]
    model: ClassVar[type[Model]]
    filters: ClassVar[Mapping[str, Filter]] = {}
    newest_first: ClassVar[bool] = False
    # By action: a right (see access.has_right) where it is not that of RIGHTS, and actions by POST that only read.
    rights: ClassVar[Mapping[str, str]] = {}
    reading: ClassVar[tuple[str, ...]] = ()
    # Actions that are lists under a row.
    paged: ClassVar[tuple[str, ...]] = ()
    volatile: ClassVar[tuple[str, ...]] = ()

    # --- who may -----------------------------------------------------------------------------------------------------
    def right(self) -> str:
        return self.rights.get(self.action) or RIGHTS.get(self.action, "view" if self.reads() else "change")

    def reads(self) -> bool:
        return self.request.method in SAFE_METHODS or self.action in self.reading

    def is_unknown_method(self) -> bool:
        return self.action is None

    def repeatable(self) -> bool:
        return self.action not in self.reading

    def known_parameters(self) -> Sequence[str]:
        if self.action in self.paged:
            return (LIMIT, AFTER)
        return (*self.filters, LIMIT, AFTER) if self.action == "list" else self.parameters

    def need(self, right: str, row: Model | None = None, model: type[Model] | None = None) -> None:
        """Raises PermissionDenied."""
        if not has_right(self.request, model or self.model, right, row):
            raise PermissionDenied(f"This needs the permission to {in_words(model or self.model, right)}.")

    # --- rows --------------------------------------------------------------------------------------------------------
    def get_queryset(self) -> QuerySet[Any]:
        return self.model._default_manager.all()

    def row(self, **conditions: Any) -> Any:
        """The one that the address names, locked where it may be about to change. Raises NotFound, PermissionDenied and
        Changed."""
        queryset = self.get_queryset().filter(**(conditions or {"pk": int(self.kwargs["pk"])}))
        if not self.reads():
            queryset = queryset.select_for_update(of=("self",))
        row = queryset.first()
        if row is None:
            raise NotFound(f"There is no such {self.model._meta.verbose_name}.")
        if not self.reads():
            if not has_right(self.request, self.model, self.right(), row):
                raise PermissionDenied(self.refusal(row))
            check_match(self.request, self.tag(row))
        return row

    def refusal(self, row: Model) -> str:
        return f"You may not do that to this {self.model._meta.verbose_name}; see how the admin explains it."

    def shown(self, row: Any) -> dict[str, Any]:
        return dict(self.get_serializer(row).data)

    def tag(self, row: Any) -> str:
        return tag_of(self.shown(row), self.volatile)

    def given(self, row: Any = None, serializer: Any = None) -> dict[str, Any]:
        """The body, judged by type. Raises ValidationError."""
        kind = serializer or self.get_serializer
        judge = kind(data=self.request.data, partial=row is not None)
        judge.is_valid(raise_exception=True)
        return dict(judge.validated_data)

    def answer(self, row: Any, status: int = 200, extra: Mapping[str, Any] | None = None) -> Any:
        shown = self.shown(row)
        tag = tag_of(shown, self.volatile)
        if self.request.method in ("GET", "HEAD") and is_known(self.request, tag):
            response: Any = HttpResponseNotModified()
        else:
            response = Response({**shown, **(extra or {})}, status=status)
        response["ETag"] = tag
        if extra:
            response["Cache-Control"] = "no-store"
        if status == 201:
            response["Location"] = self.url_of(row)
        return response

    def url_of(self, row: Any) -> str:
        return reverse(f"{self.basename}-detail", args=[row.pk])

    def fresh(self, row: Any) -> Any:
        """As it is stored now, with what lists show of it."""
        return self.get_queryset().get(pk=row.pk)

    def save(self, given: dict[str, Any], row: Any) -> Any:
        raise TypeError(f"{type(self).__name__} writes nothing")

    extra: dict[str, Any] | None = None


class Listed(Resource):
    def list(self, request: Request) -> Response:
        page = page_of(filtered(self.get_queryset(), request, self.filters), request, newest_first=self.newest_first)
        return Response({"data": self.many(page.rows), "next": page.next})

    def many(self, rows: Sequence[Any]) -> Any:
        return self.get_serializer(rows, many=True).data


class Retrieved(Resource):
    def retrieve(self, request: Request, pk: str) -> Any:
        return self.answer(self.row())


class Created(Resource):
    def create(self, request: Request) -> Any:
        row = self.save(self.given(), None)
        return self.answer(self.fresh(row), 201, self.extra)


class Updated(Resource):
    def partial_update(self, request: Request, pk: str) -> Any:
        row = self.row()
        row = self.save(self.given(row), row)
        return self.answer(self.fresh(row))


class Deleted(Resource):
    def destroy(self, request: Request, pk: str) -> HttpResponse:
        row = self.row()
        self.check_deletion(row)
        self.remove(row)
        return Response(status=204)

    def check_deletion(self, row: Any) -> None:
        """What the admin's page of deletion refuses. Raises PermissionDenied and Conflict."""
        if not admin.site.is_registered(self.model):
            return
        judge = admin.site.get_model_admin(self.model)
        _, _, lacking, protected = judge.get_deleted_objects([row], self.request)
        if lacking:
            raise PermissionDenied(f"With it would go what you may not delete: {', '.join(sorted(map(str, lacking)))}.")
        if protected:
            raise Conflict(f"It is in use: {', '.join(strip_tags(str(one)) for one in protected)}.")

    def remove(self, row: Any) -> None:
        row.delete()


class Everything(Listed, Retrieved, Created, Updated, Deleted):
    """The five usual actions."""
