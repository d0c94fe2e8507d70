from __future__ import annotations

import pytest

from accounts.sso.tests.issuers import Oidc, SamlIdp


@pytest.fixture
def oidc(db: None, monkeypatch: pytest.MonkeyPatch) -> Oidc:
    """An OpenID provider, as yet without an issuer."""
    return Oidc(monkeypatch)


@pytest.fixture
def saml(db: None) -> SamlIdp:
    return SamlIdp()
