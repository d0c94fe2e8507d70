"""An OpenID provider and a SAML IdP in memory, which sign whatever a test wants: for what no real one would say."""

from __future__ import annotations

import base64
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from allauth.socialaccount.providers.oauth2.client import OAuth2Client
from cryptography.hazmat.primitives.asymmetric import rsa
from django.core.cache import cache
from django.http import HttpResponse
from django.test import Client
from onelogin.saml2.utils import OneLogin_Saml2_Utils

from accounts.encryption import encrypt
from accounts.sso import documents
from accounts.sso.models import IdentityProvider
from accounts.sso.saml_messages import new_pair

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SAML_KEY, SAML_CERTIFICATE = new_pair("idp")
ENTITY = "https://idp.example.org/saml"


class OidcIssuer:
    """`claims` go into the id_token, `userinfo` is what the userinfo page says; both over what is usual."""

    def __init__(self, slug: str = "corp", url: str = "https://idp.example.org") -> None:
        self.url = url
        self.client_id = f"client-of-{slug}"
        self.claims: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        self.algorithm, self.key, self.kid = "RS256", KEY, "one"
        self.tokens: dict[str, Any] | None = None
        self.row = IdentityProvider(
            kind="oidc", slug=slug, name=slug.title(), discovery_url=url, client_id=self.client_id
        )
        self.row.set_secret("secret")
        self.row.save()

    def document(self, url: str) -> Any:
        path = url.removeprefix(self.url)
        if path == documents.WELL_KNOWN:
            pages = {"authorization_endpoint": "/auth", "token_endpoint": "/token", "jwks_uri": "/jwks"}
            pages["userinfo_endpoint"] = "/me"
            found: dict[str, Any] = {name: self.url + page for name, page in pages.items()}
            return found | {"issuer": self.url, "authorization_response_iss_parameter_supported": True}
        if path == "/jwks":
            public = jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
            return {"keys": [{**public, "kid": "one", "use": "sig"}]}
        return {"sub": "s-1", **self.userinfo}

    def token(self, **claims: Any) -> str:
        now = int(time.time())
        usual = {"iss": self.url, "aud": self.client_id, "sub": "s-1", "iat": now, "exp": now + 300}
        given = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        return jwt.encode(given, self.key, self.algorithm, headers={"kid": self.kid})


class Oidc:
    """Signs in as a browser does, without one. `issuers` by address."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cache.clear()
        self.issuers: dict[str, OidcIssuer] = {}
        self.asked: list[str | None] = []
        self._nonce = ""
        monkeypatch.setattr(documents, "fetch", self._fetch)
        monkeypatch.setattr(OAuth2Client, "get_access_token", self._exchange)

    def issuer(self, slug: str = "corp", url: str = "https://idp.example.org") -> OidcIssuer:
        self.issuers[url] = OidcIssuer(slug, url)
        return self.issuers[url]

    def begin(self, client: Client, slug: str = "corp", query: str = "") -> dict[str, str]:
        """What the browser is sent to the issuer with."""
        answer = client.get(f"/accounts/oidc/{slug}/login/{query}")
        assert answer.status_code == 302, answer.content
        sent = {name: value[0] for name, value in parse_qs(urlsplit(answer["location"]).query).items()}
        self._nonce = sent["nonce"]
        return sent

    def finish(self, client: Client, state: str, slug: str = "corp", **given: str) -> HttpResponse:
        query = {"state": state, "code": "c", "iss": "https://idp.example.org", **given}
        answer: Any = client.get(
            f"/accounts/oidc/{slug}/login/callback/", {name: value for name, value in query.items() if value}
        )
        return answer

    def sign_in(self, client: Client, query: str = "") -> HttpResponse:
        return self.finish(client, self.begin(client, query=query)["state"])

    def _fetch(self, url: str, headers: Any = None) -> bytes:
        import orjson

        parts = urlsplit(url)
        return orjson.dumps(self.issuers[f"{parts.scheme}://{parts.netloc}"].document(url))

    def _exchange(self, code: str, pkce_code_verifier: str | None = None, **_: Any) -> dict[str, Any]:
        self.asked.append(pkce_code_verifier)
        issuer = next(iter(self.issuers.values()))
        return issuer.tokens or {
            "access_token": "at",
            "id_token": issuer.token(**{"nonce": self._nonce, **issuer.claims}),
        }


METADATA = """<EntityDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata" entityID="{entity}"><IDPSSODescriptor
 protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol"><KeyDescriptor use="signing"><KeyInfo
 xmlns="http://www.w3.org/2000/09/xmldsig#"><X509Data><X509Certificate>{certificate}</X509Certificate></X509Data></KeyInfo>
</KeyDescriptor><SingleLogoutService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
 Location="https://idp.example.org/slo"/><SingleSignOnService
 Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="https://idp.example.org/sso"/>
</IDPSSODescriptor></EntityDescriptor>"""
ASSERTION = """<saml:Assertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" ID="{id}" Version="2.0"
 IssueInstant="{now}"><saml:Issuer>{issuer}</saml:Issuer><saml:Subject><saml:NameID
 Format="{format}">{subject}</saml:NameID><saml:SubjectConfirmation
 Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"><saml:SubjectConfirmationData {confirms}NotOnOrAfter="{until}"
 Recipient="{acs}"/></saml:SubjectConfirmation></saml:Subject><saml:Conditions NotBefore="{since}"
 NotOnOrAfter="{until}">{audience}</saml:Conditions><saml:AuthnStatement AuthnInstant="{now}"
 SessionIndex="session-1"><saml:AuthnContext><saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:Password
</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement><saml:AttributeStatement><saml:Attribute
 Name="groups"><saml:AttributeValue>{group}</saml:AttributeValue></saml:Attribute></saml:AttributeStatement>
</saml:Assertion>"""
RESPONSE = """<samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" ID="r{id}" Version="2.0"
 IssueInstant="{now}" Destination="{acs}" {envelope}><saml:Issuer xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"
>{issuer}</saml:Issuer><samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/>
</samlp:Status>{assertion}</samlp:Response>"""
AUDIENCE = "<saml:AudienceRestriction><saml:Audience>{}</saml:Audience></saml:AudienceRestriction>"
PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"


def instant(seconds: float = 0) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


class SamlIdp:
    def __init__(self, slug: str = "uni") -> None:
        body = "".join(line for line in SAML_CERTIFICATE.splitlines() if "-----" not in line)
        self.base = f"http://testserver/accounts/saml/{slug}"
        self.slug = slug
        self.row = IdentityProvider.objects.create(
            kind="saml",
            slug=slug,
            name="University",
            metadata_xml=METADATA.format(entity=ENTITY, certificate=body),
            # To make one for each test would take a second.
            sp_key=encrypt(SAML_KEY),
            sp_certificate=SAML_CERTIFICATE,
        )

    def begin(self, client: Client, query: str = "") -> dict[str, str]:
        """What the browser is sent to the IdP with; `id` is that of the request."""
        answer = client.get(f"/accounts/saml/{self.slug}/login/{query}")
        assert answer.status_code == 302, answer.content
        sent = {name: value[0] for name, value in parse_qs(urlsplit(answer["location"]).query).items()}
        xml = OneLogin_Saml2_Utils.decode_base64_and_inflate(sent["SAMLRequest"]).decode()
        return {**sent, "query": urlsplit(answer["location"]).query, "id": xml.split(' ID="')[1].split('"')[0]}

    def response(self, answers: str, *, sign: str = "assertion", key: str = SAML_KEY, **changed: Any) -> str:
        """XML. `changed`: any of the texts in the templates above."""
        facts = {
            "id": f"_{time.time_ns():x}",
            "now": instant(),
            "since": instant(-60),
            "until": instant(300),
            "issuer": ENTITY,
            "subject": "n-1",
            "format": PERSISTENT,
            "acs": f"{self.base}/acs/",
            "audience": AUDIENCE.format(f"{self.base}/metadata/"),
            "group": "course-1",
            "confirms": f'InResponseTo="{answers}" ' if answers else "",
            "envelope": f'InResponseTo="{answers}"' if answers else "",
            **changed,
        }
        assertion = ASSERTION.format(**facts)
        if sign == "assertion":
            assertion = signed(assertion, key)
        whole = RESPONSE.format(**facts, assertion=assertion)
        return signed(whole, key) if sign == "response" else whole

    def post(self, client: Client, xml: str | bytes) -> Any:
        """The IdP's form, and what the browser does then."""
        body = xml.encode() if isinstance(xml, str) else xml
        answer: Any = client.post(f"/accounts/saml/{self.slug}/acs/", {"SAMLResponse": base64.b64encode(body).decode()})
        return client.get(answer["location"]) if answer.status_code == 302 else answer


def signed(xml: str, key: str = SAML_KEY) -> str:
    done = OneLogin_Saml2_Utils.add_sign(xml, key, SAML_CERTIFICATE)
    return done.decode() if isinstance(done, bytes) else str(done)
