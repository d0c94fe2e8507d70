"""SAML 2.0: what is asked, and which assertions are believed."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from django.test import Client
from django.utils.http import urlencode
from onelogin.saml2.utils import OneLogin_Saml2_Utils

from accounts.models import User
from accounts.sso.models import IdentityProvider, SsoSession
from accounts.sso.saml_messages import new_pair
from accounts.sso.tests.issuers import AUDIENCE, ENTITY, SAML_KEY, SamlIdp, instant, signed

STRANGERS_KEY = new_pair("stranger")[0]
TRANSIENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"


def is_signed_in(client: Client) -> bool:
    return "_auth_user_id" in client.session


def test_request_is_signed(saml: SamlIdp, client: Client) -> None:
    sent = saml.begin(client)
    assert sent["SigAlg"] == SHA256
    saml.row.refresh_from_db()
    metadata = client.get("/accounts/saml/uni/metadata/").content.decode()
    certificate = "".join(line for line in saml.row.sp_certificate.splitlines() if "-----" not in line)
    assert certificate in metadata.replace("\n", "")
    query = sent["query"].partition("&Signature=")[0] + "&" + urlencode({"SigAlg": SHA256})
    assert OneLogin_Saml2_Utils.validate_binary_sign(
        query, base64.b64decode(sent["Signature"]), saml.row.sp_certificate, SHA256
    )


@pytest.mark.parametrize("sign", ["assertion", "response"])
def test_sign_in_makes_a_person(saml: SamlIdp, client: Client, sign: str) -> None:
    answer = saml.post(client, saml.response(saml.begin(client, "?next=/keys/")["id"], sign=sign))
    assert answer["location"] == "/keys/"
    assert client.session["_auth_user_id"] == str(User.objects.get(username="n-1").pk)


@pytest.mark.parametrize(
    "changed",
    [
        {"audience": AUDIENCE.format("https://other.example.org/metadata")},
        {"audience": ""},
        {"until": -10},
        {"since": 600},
        {"issuer": "https://evil.example.org"},
        {"acs": "https://other.example.org/acs"},
        {"confirms": ""},
        {"confirms": 'InResponseTo="another" '},
        {"key": STRANGERS_KEY},
        {"sign": "nothing"},
        {"format": TRANSIENT},
    ],
    ids=lambda changed: " ".join(changed),
)
def test_assertion_that_is_not_for_this_sign_in_is_refused(
    saml: SamlIdp, client: Client, changed: dict[str, Any]
) -> None:
    """Numbers are seconds from now."""
    changed = {name: instant(value) if isinstance(value, int) else value for name, value in changed.items()}
    answers = saml.begin(client)["id"]
    assert saml.post(client, saml.response(answers, **changed)).status_code == 403
    assert not is_signed_in(client)
    assert not User.objects.exists()


def test_assertion_counts_once(saml: SamlIdp, client: Client) -> None:
    xml = saml.response(saml.begin(client)["id"])
    assert saml.post(client, xml).status_code == 302
    assert saml.post(client, xml).status_code == 403
    stolen = Client()
    assert saml.post(stolen, xml).status_code == 403
    assert not is_signed_in(stolen)


def test_stolen_assertion_does_not_answer_the_thiefs_own_request(saml: SamlIdp, client: Client) -> None:
    """Its envelope is not signed, so the thief may write there what they like."""
    xml = saml.response(saml.begin(Client())["id"])
    own = saml.begin(client)["id"]
    envelope, assertion = xml.split("<saml:Assertion", 1)
    forged = re.sub(r'InResponseTo="[^"]+"', f'InResponseTo="{own}"', envelope) + "<saml:Assertion" + assertion
    assert saml.post(client, forged).status_code == 403
    assert not is_signed_in(client)


def test_changed_attribute_is_refused(saml: SamlIdp, client: Client) -> None:
    xml = saml.response(saml.begin(client)["id"])
    assert saml.post(client, xml.replace("course-1", "admins")).status_code == 403


def test_comment_in_the_name_cuts_nothing_off(saml: SamlIdp, client: Client) -> None:
    xml = saml.response(saml.begin(client)["id"], subject="root.evil")
    saml.post(client, xml.replace("root.evil", "root<!-- -->.evil"))
    assert not User.objects.filter(username="root").exists()


@pytest.mark.parametrize("place", ["before", "inside", "signature"])
def test_signature_wrapping_is_refused(saml: SamlIdp, client: Client, place: str) -> None:
    answers = saml.begin(client)["id"]
    good = saml.response(answers)
    start, end = good.index("<saml:Assertion"), good.index("</samlp:Response>")
    assertion = good[start:end]
    signature = assertion[
        assertion.index("<ds:Signature") : assertion.index("</ds:Signature>") + len("</ds:Signature>")
    ]
    evil = assertion.replace(signature, "").replace("n-1", "root").replace('ID="_', 'ID="_evil')
    forged = {
        "before": good[:start] + evil + assertion + good[end:],
        "inside": good[:start] + evil.replace("</saml:Assertion>", f"{assertion}</saml:Assertion>") + good[end:],
        "signature": good[:start]
        + evil.replace(
            "</saml:Issuer>",
            "</saml:Issuer>"
            + signature.replace("</ds:Signature>", f"<ds:Object>{assertion}</ds:Object></ds:Signature>"),
            1,
        )
        + good[end:],
    }[place]
    assert saml.post(client, forged).status_code == 403
    assert not is_signed_in(client)


def test_sign_in_that_begins_at_the_idp_is_refused_unless_it_is_allowed(saml: SamlIdp, client: Client) -> None:
    assert saml.post(client, saml.response("")).status_code == 403
    IdentityProvider.objects.update(allow_idp_initiated=True)
    xml = saml.response("")
    assert saml.post(client, xml)["location"] == "/"
    assert saml.post(Client(), xml).status_code == 403


def test_answer_of_one_idp_is_none_to_another(saml: SamlIdp, client: Client) -> None:
    other = SamlIdp("other")
    assert other.post(client, saml.response(saml.begin(client)["id"])).status_code == 403


@pytest.mark.parametrize(
    "message",
    [
        "",
        "%%%",
        base64.b64encode(b"no xml").decode(),
        base64.b64encode(b"<a><b></a>").decode(),
        base64.b64encode(b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>').decode(),
        base64.b64encode(b"\x00\xff").decode(),
        base64.b64encode(b"<a>" + b"x" * 600_000 + b"</a>").decode(),
        base64.b64encode(
            b'<a xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:Transform Algorithm="urn:xslt"/></a>'
        ).decode(),
    ],
    ids=["nothing", "no base64", "no XML", "not closed", "document type", "bytes", "too long", "stylesheet"],
)
def test_what_is_no_message_is_a_400(saml: SamlIdp, client: Client, message: str) -> None:
    assert client.post("/accounts/saml/uni/acs/", {"SAMLResponse": message}).status_code == 400
    assert client.post("/accounts/saml/uni/sls/", {"SAMLRequest": message}).status_code == 400
    assert client.get("/accounts/saml/uni/sls/", {"SAMLRequest": message}).status_code == 400


@pytest.mark.parametrize("xml", ["<a/>", "<samlp:Response xmlns:samlp='urn:oasis:names:tc:SAML:2.0:protocol'/>"])
def test_xml_that_is_no_response_is_refused(saml: SamlIdp, client: Client, xml: str) -> None:
    saml.begin(client)
    assert saml.post(client, xml).status_code in (400, 403)


def test_transient_name_does_where_an_attribute_identifies(saml: SamlIdp, client: Client) -> None:
    IdentityProvider.objects.update(subject_names="groups")
    xml = saml.response(saml.begin(client)["id"], format=TRANSIENT, subject="changes-each-time")
    assert saml.post(client, xml).status_code == 302
    assert User.objects.get().username == "course-1"


# --- log-out that the IdP starts --------------------------------------------------------------------------------------
LOGOUT = """<samlp:LogoutRequest xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol"
 xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" ID="{id}" Version="2.0" IssueInstant="{now}"
 Destination="http://testserver/accounts/saml/uni/sls/"><saml:Issuer>{issuer}</saml:Issuer><saml:NameID>{subject}</saml:NameID>
{session}</samlp:LogoutRequest>"""


def logout_request(**changed: str) -> str:
    facts = {"id": "_l1", "now": instant(), "issuer": ENTITY, "subject": "n-1", "session": ""}
    return LOGOUT.format(**{**facts, **changed})


def query_of(xml: str, key: str = SAML_KEY) -> str:
    """A redirect as the IdP signs it."""
    query = urlencode(
        {"SAMLRequest": OneLogin_Saml2_Utils.deflate_and_base64_encode(xml), "RelayState": "r", "SigAlg": SHA256}
    )
    signature = base64.b64encode(OneLogin_Saml2_Utils.sign_binary(query, key, _rsa_sha256()))
    return f"{query}&{urlencode({'Signature': signature})}"


def _rsa_sha256() -> Any:
    import xmlsec

    return xmlsec.Transform.RSA_SHA256


@pytest.fixture
def signed_in(saml: SamlIdp, client: Client) -> Client:
    saml.post(client, saml.response(saml.begin(client)["id"]))
    assert client.get("/").status_code == 200
    return client


def test_idp_logs_a_person_out_and_gets_an_answer(signed_in: Client) -> None:
    answer = Client().get(f"/accounts/saml/uni/sls/?{query_of(logout_request())}")
    assert answer["location"].startswith("https://idp.example.org/slo?SAMLResponse=")
    assert "Signature=" in answer["location"]
    assert signed_in.get("/").status_code == 302
    assert not SsoSession.objects.exists()


def test_idp_logs_a_person_out_by_a_form(signed_in: Client) -> None:
    form = {"SAMLRequest": base64.b64encode(signed(logout_request()).encode()).decode()}
    assert Client().post("/accounts/saml/uni/sls/", form).status_code == 302
    assert signed_in.get("/").status_code == 302


def test_idp_ends_one_of_its_sessions_only(signed_in: Client) -> None:
    other = "<samlp:SessionIndex>session-2</samlp:SessionIndex>"
    assert Client().get(f"/accounts/saml/uni/sls/?{query_of(logout_request(session=other))}").status_code == 302
    assert signed_in.get("/").status_code == 200


@pytest.mark.parametrize(
    "changed",
    [{"issuer": "https://evil.example.org"}, {"now": instant(-3600)}, {"now": "never"}],
    ids=["issuer", "old", "no time"],
)
def test_log_out_request_that_does_not_hold_is_refused(signed_in: Client, changed: dict[str, str]) -> None:
    assert Client().get(f"/accounts/saml/uni/sls/?{query_of(logout_request(**changed))}").status_code == 400
    assert signed_in.get("/").status_code == 200


@pytest.mark.parametrize("key", ["", STRANGERS_KEY], ids=["unsigned", "a stranger's"])
def test_log_out_request_needs_the_idps_signature(signed_in: Client, key: str) -> None:
    query = query_of(logout_request(), key or SAML_KEY)
    query = query if key else query.split("&SigAlg=")[0]
    assert Client().get(f"/accounts/saml/uni/sls/?{query}").status_code == 400
    form = signed(logout_request(), key) if key else logout_request()
    body = base64.b64encode(form.encode()).decode()
    assert Client().post("/accounts/saml/uni/sls/", {"SAMLRequest": body}).status_code == 400
    assert signed_in.get("/").status_code == 200


def test_log_out_request_counts_once(signed_in: Client) -> None:
    query = query_of(logout_request())
    assert [Client().get(f"/accounts/saml/uni/sls/?{query}").status_code for _ in range(2)] == [302, 400]
