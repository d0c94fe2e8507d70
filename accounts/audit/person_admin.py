"""On the page of a person: what is kept on them, as a file; and their erasure."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.decorators import action
from unfold.enums import ActionVariant

from accounts import downloads, roles
from accounts.admin_pages import confirm
from accounts.audit.people import erase_person, export_person
from accounts.models import User

ERASE = (
    "Their name, address, sign-ins and memberships are erased, what was logged of their calls, and what tells of them "
    "in the audit trail. Their keys stop. What they spent stays, under no name. This cannot be undone."
)


class PersonalData:
    """Of the ModelAdmin of people. Both need the permission to delete users; the export also that to read logged
    content, which is in it."""

    actions_detail = ("export_personal_data", "erase_personal_data")

    def has_erase_permission(self, request: HttpRequest, object_id: str | int | None = None) -> bool:
        return request.user.has_perm("accounts.delete_user")

    def has_export_permission(self, request: HttpRequest, object_id: str | int | None = None) -> bool:
        return request.user.has_perms(["accounts.delete_user", "policies.view_loggedcontent"])

    @action(description="Export personal data", icon="download", url_path="export-person", permissions=["export"])
    def export_personal_data(self, request: HttpRequest, object_id: str) -> HttpResponse:
        user = self._person(request, object_id)
        if request.method != "POST":
            return confirm(
                self,
                request,
                [user],
                title="Export personal data",
                explanation="A file with everything that the database keeps on this person, texts of their calls "
                "included where a policy has them logged. That you took it is recorded.",
                button="Download",
                dangerous=False,
            )
        content = json.dumps(export_person(user), indent=2, ensure_ascii=False)
        response = HttpResponse(content, content_type="application/json; charset=utf-8")
        return downloads.as_attachment(response, f"person-{user.pk}.json")

    @action(
        description="Erase person",
        icon="person_remove",
        url_path="erase-person",
        permissions=["erase"],
        variant=ActionVariant.DANGER,
    )
    def erase_personal_data(self, request: HttpRequest, object_id: str) -> HttpResponse:
        user = self._person(request, object_id)
        if user.pk == request.user.pk:
            messages.error(request, "You cannot erase yourself: somebody else has to.")
            return HttpResponseRedirect(reverse("admin:accounts_user_change", args=[user.pk]))
        if request.method != "POST":
            return confirm(
                self,
                request,
                [user],
                title="Erase person",
                explanation=ERASE,
                button="Erase for good",
            )
        erase_person(user)
        messages.success(request, f"Erased. The person is now erased-{user.pk}.")
        return HttpResponseRedirect(reverse("admin:accounts_user_change", args=[user.pk]))

    def _person(self, request: HttpRequest, object_id: str) -> User:
        user: Any = self.get_object(request, unquote(str(object_id)))  # type: ignore[attr-defined]
        if user is None:
            raise Http404("There is no such person.")
        if not roles.may_manage(request.user, user):
            raise PermissionDenied
        return user
