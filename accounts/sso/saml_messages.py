"""SAML 2.0: what we tell of ourselves, and whether what an IdP says holds. On python3-saml, less lenient than it."""

from __future__ import annotations

import base64
import binascii
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from django.db import transaction
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from lxml import etree
from onelogin.saml2.auth import OneLogin_Saml2_Auth
from onelogin.saml2.constants import OneLogin_Saml2_Constants as Saml
from onelogin.saml2.errors import OneLogin_Saml2_Error
from onelogin.saml2.idp_metadata_parser import OneLogin_Saml2_IdPMetadataParser
from onelogin.saml2.response import OneLogin_Saml2_Response
from onelogin.saml2.settings import OneLogin_Saml2_Settings
from onelogin.saml2.xml_utils import OneLogin_Saml2_XML

from accounts.encryption import decrypt, encrypt
from accounts.sso import documents, tokens
from accounts.sso.identity import Identity, values
from accounts.sso.models import IdentityProvider
from accounts.sso.provider import identity_of

# Taken instead of a NameID that is another one at every sign-in; all of them are for good.
LASTING = (
    "urn:oasis:names:tc:SAML:attribute:subject-id",
    "urn:oasis:names:tc:SAML:attribute:pairwise-id",
    "urn:oid:1.3.6.1.4.1.5923.1.1.1.13",
)
CONFIRMATION = "/saml:Subject/saml:SubjectConfirmation/saml:SubjectConfirmationData"
# A stylesheet, say, would run before anything is known of who sent it.
TRANSFORMS = {
    "http://www.w3.org/2000/09/xmldsig#enveloped-signature",
    "http://www.w3.org/2001/10/xml-exc-c14n#",
    "http://www.w3.org/2001/10/xml-exc-c14n#WithComments",
    "http://www.w3.org/TR/2001/REC-xml-c14n-20010315",
}
MAX_MESSAGE = 512 * 1024
KEPT = timedelta(days=1)  # of an assertion that does not say how long it holds
CERTIFICATE_YEARS = 20


class Malformed(Exception):
    """No SAML message at all."""


# --- settings -------------------------------------------------------------------------------------------------------
def sp_pair(idp: IdentityProvider) -> tuple[str, str]:
    """(private key, certificate), PEM; made when they are missing. Raises Undecryptable."""
    if not idp.sp_key:
        with transaction.atomic():
            locked = IdentityProvider.objects.select_for_update().get(pk=idp.pk)
            if not locked.sp_key:
                key, locked.sp_certificate = new_pair(idp.slug)
                locked.sp_key = encrypt(key)
                IdentityProvider.objects.filter(pk=idp.pk).update(
                    sp_key=locked.sp_key, sp_certificate=locked.sp_certificate
                )
        idp.sp_key, idp.sp_certificate = locked.sp_key, locked.sp_certificate
    return decrypt(idp.sp_key), idp.sp_certificate


def new_pair(name: str) -> tuple[str, str]:
    """(private key, certificate), PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"gatehouse {name}")])
    now = timezone.now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365 * CERTIFICATE_YEARS))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return pem, certificate.public_bytes(serialization.Encoding.PEM).decode()


def idp_facts(idp: IdentityProvider, *, fresh: bool = False) -> dict[str, Any]:
    """Its entity id, addresses and certificates, from its metadata. Raises documents.Unusable."""
    xml = idp.metadata_xml.encode() or documents.kept(idp.metadata_url, fresh=fresh)
    try:
        found = OneLogin_Saml2_IdPMetadataParser.parse(xml, entity_id=idp.idp_entity_id or None).get("idp", {})
    except (etree.LxmlError, ValueError, OneLogin_Saml2_Error) as error:
        raise documents.Unusable(f"The metadata cannot be read: {type(error).__name__}.") from error
    if not found.get("entityId"):
        raise documents.Unusable("The metadata describes no identity provider of that entity ID.")
    if not found.get("singleSignOnService", {}).get("url"):
        raise documents.Unusable("The metadata names no sign-in address for HTTP-Redirect.")
    if not (found.get("x509cert") or found.get("x509certMulti", {}).get("signing")):
        raise documents.Unusable("The metadata holds no certificate.")
    return dict(found)


def addresses(request: HttpRequest, idp: IdentityProvider) -> dict[str, str]:
    """What the IdP must know of us, by acs, sls and metadata; the last is our entity id too."""
    return {
        name: request.build_absolute_uri(reverse(f"saml_{name}", args=[idp.slug]))
        for name in ("acs", "sls", "metadata")
    }


def settings_for(request: HttpRequest, idp: IdentityProvider, facts: dict[str, Any], **security: Any) -> dict[str, Any]:
    own = addresses(request, idp)
    key, certificate = sp_pair(idp)
    return {
        "strict": True,
        "sp": {
            "entityId": own["metadata"],
            "assertionConsumerService": {"url": own["acs"], "binding": Saml.BINDING_HTTP_POST},
            "singleLogoutService": {"url": own["sls"], "binding": Saml.BINDING_HTTP_REDIRECT},
            "NameIDFormat": Saml.NAMEID_UNSPECIFIED,
            "x509cert": certificate,
            "privateKey": key,
        },
        "idp": facts,
        "security": {
            "authnRequestsSigned": True,
            "logoutResponseSigned": True,
            "signatureAlgorithm": Saml.RSA_SHA256,
            "digestAlgorithm": Saml.SHA256,
            "rejectDeprecatedAlgorithm": True,
            "requestedAuthnContext": False,
            "wantAttributeStatement": False,
            "allowRepeatAttributeName": True,
            "allowSingleLabelDomains": True,
            **security,
        },
    }


def own_metadata(request: HttpRequest, idp: IdentityProvider) -> bytes:
    config = settings_for(request, idp, {"entityId": "urn:unknown", "x509cert": ""})
    metadata = OneLogin_Saml2_Settings(config, sp_validation_only=True).get_sp_metadata()
    return metadata if isinstance(metadata, bytes) else str(metadata).encode()


def wire(request: HttpRequest, path: str, **given: Any) -> dict[str, Any]:
    return {
        "https": "on" if request.is_secure() else "off",
        "http_host": request.get_host(),
        "script_name": path,
        **given,
    }


# --- signing in -----------------------------------------------------------------------------------------------------
def begin(request: HttpRequest, idp: IdentityProvider) -> tuple[str, str]:
    """(where to send the browser, id of the request). Raises documents.Unusable."""
    auth = OneLogin_Saml2_Auth(
        wire(request, request.path, get_data={}, post_data={}), settings_for(request, idp, idp_facts(idp))
    )
    return str(auth.login(return_to="")), str(auth.get_last_request_id())


def parse(message: str) -> Any:
    """The document in a posted message: base64 of XML without a document type, with none but the usual ways to sign.
    Raises Malformed."""
    if not message or len(message) > MAX_MESSAGE:
        raise Malformed
    try:
        root = OneLogin_Saml2_XML.to_etree(base64.b64decode("".join(message.split()), validate=True))
    except (binascii.Error, ValueError, etree.LxmlError):
        raise Malformed from None
    used = {node.get("Algorithm") for node in root.iter(f"{{{Saml.NS_DS}}}Transform")}
    if not used <= TRANSFORMS:
        raise Malformed
    return root


class Answer:
    """An IdP's response. Nothing in it is believed before `identity` has returned."""

    def __init__(self, request: HttpRequest, idp: IdentityProvider, message: str) -> None:
        """Raises documents.Unusable, Malformed."""
        self._idp = idp
        self._acs = reverse("saml_acs", args=[idp.slug])
        self._request = wire(request, self._acs, get_data={}, post_data={"SAMLResponse": message})
        self._entity_id = addresses(request, idp)["metadata"]
        try:
            settings = OneLogin_Saml2_Settings(settings_for(request, idp, idp_facts(idp)))
            self._response = OneLogin_Saml2_Response(settings, message)
        except (OneLogin_Saml2_Error, etree.LxmlError, ValueError, KeyError):
            raise Malformed from None
        self.in_response_to = str(self._response.get_in_response_to() or "")

    def identity(self) -> Identity:
        """Who it is. It counts once. Raises tokens.Refused."""
        response = self._response
        if not response.is_valid(self._request, self.in_response_to or None):
            raise tokens.Refused(f"the response is not valid: {response.get_error()}")
        # python3-saml takes an assertion for nobody in particular as one for us,
        if self._entity_id not in response.get_audiences():
            raise tokens.Refused("the assertion is not for us (audience)")
        # and reads what it answers from the envelope, which need not be signed.
        answered = {data.get("InResponseTo", "") for data in response._query_assertion(CONFIRMATION)}
        if answered != {self.in_response_to}:
            raise tokens.Refused("the assertion answers another request (InResponseTo)")
        until = response.get_assertion_not_on_or_after()
        expires = datetime.fromtimestamp(until, UTC) if until else timezone.now() + KEPT
        tokens.spend(f"saml {self._idp.slug} {response.get_assertion_id()}", expires + timedelta(hours=1))
        return self._read()

    def _read(self) -> Identity:
        response = self._response
        attributes: dict[str, Any] = {**response.get_friendlyname_attributes(), **response.get_attributes()}
        name_id = str(response.get_nameid() or "")
        transient = response.get_nameid_format() == Saml.NAMEID_TRANSIENT
        named = [name.strip() for name in self._idp.subject_names.split(",") if name.strip()]
        if not named and not transient and name_id:
            subject = name_id
        else:
            subject = next((value for name in named or LASTING for value in values(attributes, name)), "")
        if not subject:
            raise tokens.Refused(
                "nothing in the assertion identifies the person for good: let the IdP send a persistent NameID "
                "or the attribute subject-id"
            )
        identity = identity_of(self._idp, subject, attributes, str(response.get_session_index() or ""))
        return replace(identity, name_id=name_id[:255])
