"""Terms: who has to agree to what, and what is barred until they have."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.db.models import ProtectedError
from django.test import Client
from django.utils import timezone

from accounts import services as accounts_services
from accounts.authentication import check_now
from accounts.models import Team, User
from accounts.portal.keys import make_own_key
from accounts.requests import terms
from accounts.requests.models import TermsAgreement, TermsVersion

DAY = timedelta(days=1)


def publish(text: str = "Be nice.", ago: timedelta = DAY, grace: timedelta | None = None) -> TermsVersion:
    grace_until = None if grace is None else timezone.now() + grace
    return TermsVersion.objects.create(text=text, published_at=timezone.now() - ago, grace_until=grace_until)


def test_without_terms_nobody_is_barred(alice: User) -> None:
    TermsVersion.objects.create(text="a draft")
    publish(ago=-DAY)
    assert terms.barring(alice) is None


def test_agreeing_opens_the_way(alice: User, bob: User) -> None:
    version = publish()
    assert terms.barring(alice) == version
    terms.agree(alice, version.pk)
    terms.agree(alice, version.pk)
    assert terms.barring(alice) is None
    assert terms.barring(bob) == version
    assert TermsAgreement.objects.count() == 1


def test_new_version_asks_again(alice: User) -> None:
    terms.agree(alice, publish(ago=2 * DAY).pk)
    newer = publish("Be nicer.")
    assert terms.barring(alice) == newer


def test_until_the_grace_is_over_the_earlier_agreement_does(alice: User, bob: User) -> None:
    terms.agree(alice, publish(ago=2 * DAY).pk)
    newer = publish(grace=DAY)
    assert terms.barring(alice) is None
    assert terms.to_agree(alice) == newer
    assert terms.barring(bob) == newer
    newer.grace_until = timezone.now()
    newer.save()
    assert terms.barring(alice) == newer


def test_nobody_agrees_to_what_they_have_not_seen(alice: User) -> None:
    older = publish(ago=2 * DAY)
    publish()
    with pytest.raises(ValidationError, match="newer version"):
        terms.agree(alice, older.pk)


def test_version_that_somebody_agreed_to_stays(alice: User) -> None:
    version = publish()
    terms.agree(alice, version.pk)
    with pytest.raises(ProtectedError):
        version.delete()


@pytest.mark.parametrize("page", ["/keys/new/", "/playground/"])
def test_keys_and_playground_are_behind_the_terms(page: str, alice: User, client: Client) -> None:
    client.force_login(alice)
    version = publish()
    response = client.get(page)
    assert response["Location"] == f"/terms/?next={page.replace('/', '%2F')}"
    terms.agree(alice, version.pk)
    assert client.get(page).status_code == 200


def test_keys_that_are_there_go_on_working(alice: User, research: Team) -> None:
    key, secret = accounts_services.create_key("laptop", research, alice)
    publish()
    assert check_now(secret, accounts_services.peppers()).key_id == key.pk


def test_no_way_of_making_a_key_of_ones_own_gets_past_the_terms(alice: User, research: Team, models: None) -> None:
    publish()
    with pytest.raises(ValidationError, match="agree to the terms"):
        make_own_key(alice, str(research.pk), "k", models=None, endpoints=None, expires_at=None, budget=None)
