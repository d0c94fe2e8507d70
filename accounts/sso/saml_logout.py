"""SAML 2.0 single log-out that the IdP starts: a signed LogoutRequest, in the query or in a form."""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest
from django.utils import timezone
from lxml import etree
from onelogin.saml2.auth import OneLogin_Saml2_Auth
from onelogin.saml2.constants import OneLogin_Saml2_Constants as Saml
from onelogin.saml2.errors import OneLogin_Saml2_Error, OneLogin_Saml2_ValidationError
from onelogin.saml2.logout_request import OneLogin_Saml2_Logout_Request
from onelogin.saml2.logout_response import OneLogin_Saml2_Logout_Response
from onelogin.saml2.utils import OneLogin_Saml2_Utils
from onelogin.saml2.xml_utils import OneLogin_Saml2_XML

from accounts.sso import tokens
from accounts.sso.models import IdentityProvider
from accounts.sso.saml_messages import Malformed, idp_facts, parse, settings_for, wire

AGE = timedelta(minutes=10)
SIGNATURE = "/samlp:LogoutRequest/ds:Signature"
Troubles = (
    OneLogin_Saml2_Error,
    OneLogin_Saml2_ValidationError,
    etree.LxmlError,
    binascii.Error,
    ValueError,
    KeyError,
    IndexError,
)


@dataclass(frozen=True, slots=True)
class Asked:
    name_id: str
    sessions: tuple[str, ...]  # none: all of them
    answer_to: str  # where the browser takes our answer; "" when the IdP wants none


def read(request: HttpRequest, idp: IdentityProvider) -> Asked:
    """Raises tokens.Refused, documents.Unusable, Malformed."""
    given = request.POST if request.method == "POST" else request.GET
    if any(len(given.getlist(name)) > 1 for name in given):
        raise Malformed
    if request.method == "POST":
        _check_references(parse(given["SAMLRequest"]))
    facts = idp_facts(idp)
    query = {"query_string": request.META.get("QUERY_STRING", ""), "validate_signature_from_qs": True}
    data = wire(request, request.path, get_data=dict(given.items()), post_data={}, **query)
    auth = OneLogin_Saml2_Auth(data, settings_for(request, idp, facts, wantMessagesSigned=request.method == "GET"))
    try:
        asked = OneLogin_Saml2_Logout_Request(auth.get_settings(), given["SAMLRequest"])
        xml = asked.get_xml()
        signed = _form_is_signed(xml, facts) if request.method == "POST" else auth.validate_request_signature(given)
        if not signed:
            raise tokens.Refused("the log-out request is not signed by the identity provider")
        if not asked.is_valid(data):
            raise tokens.Refused(f"the log-out request is not valid: {asked.get_error()}")
        name_id = str(asked.get_nameid(xml, auth.get_settings().get_sp_key()) or "")
        sessions = tuple(str(index)[:255] for index in asked.get_session_indexes(xml) if index)
        _check_is_new(idp, facts, asked, xml)
        return Asked(name_id[:255], sessions, _answer(auth, str(asked.id), given.get("RelayState", "")))
    except Troubles as error:
        raise tokens.Refused(f"the log-out request cannot be read: {type(error).__name__}") from None


def _check_references(root: Any) -> None:
    """That the one signature there is covers the whole message. Raises Malformed."""
    references = list(root.iter(f"{{{Saml.NS_DS}}}Reference"))
    if len(references) != 1 or references[0].get("URI") not in ("", f"#{root.get('ID')}"):
        raise Malformed


def _form_is_signed(xml: str, facts: dict[str, Any]) -> bool:
    several = facts.get("x509certMulti", {}).get("signing")
    root = OneLogin_Saml2_XML.to_etree(xml)
    method = root.find(f".//{{{Saml.NS_DS}}}SignatureMethod")
    if method is None or method.get("Algorithm") in Saml.DEPRECATED_ALGORITHMS:
        return False
    return bool(OneLogin_Saml2_Utils.validate_sign(root, facts.get("x509cert"), xpath=SIGNATURE, multicerts=several))


def _check_is_new(idp: IdentityProvider, facts: dict[str, Any], asked: Any, xml: str) -> None:
    root = OneLogin_Saml2_XML.to_etree(xml)
    issued = datetime.fromisoformat(str(root.get("IssueInstant")).replace("Z", "+00:00"))
    if asked.get_issuer(xml) != facts["entityId"]:
        raise tokens.Refused("the log-out request does not say who it is from")
    if abs(timezone.now() - issued) > AGE:
        raise tokens.Refused("the log-out request is too old")
    tokens.spend(f"saml logout {idp.slug} {asked.id}", timezone.now() + 2 * AGE)


def _answer(auth: Any, request_id: str, relay_state: str) -> str:
    target = auth.get_slo_response_url()
    if not target:
        return ""
    response = OneLogin_Saml2_Logout_Response(auth.get_settings())
    response.build(request_id)
    parameters = {"SAMLResponse": response.get_response()}
    if relay_state:
        parameters["RelayState"] = relay_state
    auth.add_response_signature(parameters, Saml.RSA_SHA256)
    return str(auth.redirect_to(target, parameters))
