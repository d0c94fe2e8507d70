"""The configuration as the data plane sees it: compiled from the database, and the last good one when that fails."""

from __future__ import annotations

import dataclasses
import ssl
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from accounts.models import Team
from proxy import snapshot
from proxy.models import Model, Provider, Route
from proxy.services import save_provider
from proxy.snapshot import Holder, Snapshot, build
from usage.models import ModelPrice
from usage.pricing import Price
from usage.services import set_price

pytestmark = pytest.mark.django_db

NOT_PEM = "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----"


def provider(name: str = "here", credential: str | None = "sk-1", **fields: Any) -> Provider:
    row = Provider(name=name, **{"kind": "openai", "base_url": "https://api.example.org/v1", **fields})
    save_provider(row, credential=credential)
    return row


def model(name: str, *providers: Provider, **fields: Any) -> Model:
    row = Model.objects.create(name=name, **fields)
    for at in providers:
        Route.objects.create(model=row, provider=at)
    return row


def targets(built: Snapshot, name: str) -> list[list[str]]:
    entry = built.find(name)
    assert entry is not None
    return [[candidate.target.provider for candidate in tier] for tier in entry.tiers]


# --- what is in it ---------------------------------------------------------------------------------------------------


def test_model_leads_to_its_provider_with_everything_a_call_needs() -> None:
    here = provider(
        base_url="https://api.example.org/v1/",
        api_version="2024-10-21",
        connect_timeout_s=1.5,
        first_byte_timeout_s=20,
        idle_timeout_s=7,
        caller_key=True,
    )
    here.set_extra_headers({"X-Org": "42"})
    here.save()
    model("gpt-4o-mini", here, time_budget_s=90, context_window=1000)
    entry = build().find("gpt-4o-mini")
    assert entry is not None
    assert (entry.name, entry.time_budget_s, entry.context_window) == ("gpt-4o-mini", 90, 1000)
    target = entry.tiers[0][0].target
    assert (target.provider, target.kind, target.base_url) == ("here", "openai", "https://api.example.org/v1")
    assert (target.credential, target.extra_headers, target.api_version) == ("sk-1", {"X-Org": "42"}, "2024-10-21")
    assert (target.connect_timeout_s, target.first_byte_timeout_s, target.idle_timeout_s) == (1.5, 20, 7)
    assert (target.caller_key, target.private_network, target.ssl) == (True, False, True)


def test_upstreams_name_of_a_model_is_its_own_unless_the_route_says_otherwise() -> None:
    row = model("mini", provider("a"))
    Route.objects.create(model=row, provider=provider("b"), upstream_model="gpt-4o-mini", order=1)
    entry = build().find("mini")
    assert entry is not None
    assert [tier[0].target.upstream_model for tier in entry.tiers] == ["mini", "gpt-4o-mini"]


def test_kinds_usual_address_is_used_where_none_is_given() -> None:
    model("m", provider(base_url=""))
    entry = build().find("m")
    assert entry is not None
    assert entry.tiers[0][0].target.base_url == "https://api.openai.com/v1"


def test_routes_of_one_order_are_a_tier() -> None:
    row = model("m")
    for name, order in (("d", 2), ("a", 0), ("c", 1), ("b", 1)):
        Route.objects.create(model=row, provider=provider(name), order=order, weight=3)
    built = build()
    assert targets(built, "m") == [["a"], ["c", "b"], ["d"]]
    entry = built.find("m")
    assert entry is not None
    assert entry.tiers[1][0].target.weight == 3


def test_model_is_found_by_its_aliases_too() -> None:
    model("gpt-4o-mini", provider(), aliases=["mini", "gpt-4o-mini-2024-07-18"])
    built = build()
    assert built.find("mini") is built.find("gpt-4o-mini")
    assert [entry.name for entry in built.entries] == ["gpt-4o-mini"]
    assert built.find("GPT-4o-mini") is None


def test_own_name_counts_before_anothers_alias() -> None:
    """The forms do not allow it; two administrators at the same moment, or a shell, may."""
    here = provider()
    model("a", here, aliases=["b"])
    model("b", here)
    entry = build().find("b")
    assert entry is not None
    assert entry.name == "b"


def test_nothing_set_up_is_an_empty_snapshot() -> None:
    built = build()
    assert (built.models, built.entries, built.has_providers) == ({}, (), False)


def test_provider_without_models_is_a_provider() -> None:
    provider()
    assert build().has_providers


def test_echo_needs_neither_address_nor_key() -> None:
    model("echo", provider("echo", credential=None, kind="echo", base_url=""))
    assert targets(build(), "echo") == [["echo"]]


# --- what is left out ------------------------------------------------------------------------------------------------


def test_what_is_disabled_is_not_there() -> None:
    here, off = provider("here"), provider("off", enabled=False)
    model("m", here, off)
    model("of-the-disabled", off)
    model("disabled", here, enabled=False)
    row = model("one-route-off", here)
    Route.objects.create(model=row, provider=here, upstream_model="x", enabled=False)
    built = build()
    assert targets(built, "m") == [["here"]]
    assert targets(built, "one-route-off") == [["here"]]
    assert (built.find("disabled"), built.find("of-the-disabled")) == (None, None)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"kind": "no-such-kind"}, "no-such-kind"),
        ({"base_url": "http://127.0.0.1:11434/v1"}, "private network"),
        ({"base_url": "http://[::1]/v1"}, "private network"),
        ({"base_url": "http://169.254.169.254/latest"}, "private network"),
        ({"base_url": "ftp://api.example.org"}, "http"),
        ({"base_url": "not a url"}, "http"),
        ({"tls_ca": NOT_PEM}, "broken"),
        ({"credential": "gAAAAA-not-ours"}, "ENCRYPTION_KEYS"),
        ({"extra_headers": "gAAAAA-not-ours"}, "ENCRYPTION_KEYS"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_provider_that_cannot_be_used_is_left_out_and_told_and_the_others_work(
    fields: dict[str, Any], why: str
) -> None:
    broken = Provider(name="broken", **{"kind": "openai", "base_url": "https://api.example.org/v1", **fields})
    broken.save()
    model("m", broken, provider("good"))
    model("only-broken", broken)
    built = build()
    assert targets(built, "m") == [["good"]]
    assert built.find("only-broken") is None
    assert any("broken" in problem and why in problem for problem in built.problems)
    assert any("only-broken" in problem for problem in built.problems)


def test_no_secret_is_in_a_problem_or_in_what_is_printed() -> None:
    model("m", provider(credential="sk-secret-1"), provider("bad", credential="sk-secret-2", kind="no-such-kind"))
    built = build()
    assert "sk-secret" not in repr(built)
    assert "sk-secret" not in str(built.problems)


@pytest.mark.parametrize("url", ["https://93.184.215.14/v1", "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/v1"])
def test_public_address_is_as_good_as_a_name(url: str) -> None:
    model("m", provider(base_url=url))
    assert targets(build(), "m") == [["here"]]


def test_private_address_is_used_where_it_is_switched_on() -> None:
    model("llama", provider("ollama", base_url="http://127.0.0.1:11434/v1", private_network=True))
    assert targets(build(), "llama") == [["ollama"]]


# --- TLS -------------------------------------------------------------------------------------------------------------


def test_tls_is_verified_unless_switched_off() -> None:
    model("m", provider("usual"), provider("trusting", tls_verify=False))
    entry = build().find("m")
    assert entry is not None
    usual, trusting = (candidate.target.ssl for candidate in entry.tiers[0])
    assert usual is True
    assert isinstance(trusting, ssl.SSLContext)
    assert (trusting.verify_mode, trusting.check_hostname) == (ssl.CERT_NONE, False)


def test_own_authority_is_verified_too() -> None:
    context = snapshot.ssl_context(True, _certificate())
    assert isinstance(context, ssl.SSLContext)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(context.get_ca_certs()) == 1, "our own authority and nobody else's"


def _certificate() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "our own authority")])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1))
    authority = x509.BasicConstraints(ca=True, path_length=None)
    signed = built.add_extension(authority, critical=True).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


# --- prices ----------------------------------------------------------------------------------------------------------


def price_of(name: str) -> Any:
    entry = build().find(name)
    assert entry is not None
    return entry.tiers[0][0].price


def test_price_of_our_own_counts() -> None:
    model("gpt-4o-mini", provider())
    set_price("gpt-4o-mini", input_usd_per_mtok=Decimal("1.5"), output_usd_per_mtok=Decimal(2))
    price = price_of("gpt-4o-mini")
    assert (price.input, price.output) == (1_500_000_000, 2_000_000_000)


def test_listed_price_counts_where_there_is_none_of_our_own() -> None:
    model("gpt-4o-mini", provider())
    assert price_of("gpt-4o-mini").output > 0


def test_model_that_nobody_knows_has_no_price() -> None:
    model("our-own-llm", provider())
    assert price_of("our-own-llm") is None


def test_a_teams_own_price_counts_for_its_calls_only() -> None:
    team = Team.objects.create(name="research")
    model("gpt-4o-mini", provider("first"), provider("second"))
    ModelPrice.objects.create(
        model="gpt-4o-mini",
        team=team,
        input_nano_usd_per_mtok=1,
        output_nano_usd_per_mtok=2,
        valid_from=datetime.now(UTC) - timedelta(days=1),
    )
    entry = build().find("gpt-4o-mini")
    assert entry is not None
    for candidate in entry.tiers[0]:
        assert candidate.price is not None
        assert candidate.price_for(team.pk) == Price(1, 2)
        assert candidate.price_for(team.pk + 1) == candidate.price_for(None) == candidate.price


def test_snapshot_is_due_when_a_dated_price_begins() -> None:
    model("m", provider())
    holder = Holder()
    holder.refresh()
    assert not holder.is_due
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    set_price("m", input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal(2), valid_from=tomorrow)
    holder.refresh()
    assert not holder.is_due
    assert holder.current.stale_at == tomorrow
    holder.current = dataclasses.replace(holder.current, stale_at=datetime.now(UTC) - timedelta(seconds=1))
    assert holder.is_due


# --- building and holding --------------------------------------------------------------------------------------------


def test_building_asks_as_often_for_fifty_models_as_for_one() -> None:
    here = provider()

    def queries() -> int:
        with CaptureQueriesContext(connection) as seen:
            build()
        return len(seen)

    model("m", here)
    one = queries()
    for number in range(50):
        model(f"m-{number}", here)
    assert queries() == one <= 5


def test_nothing_in_it_can_be_changed() -> None:
    model("m", provider())
    built = build()
    entry = built.find("m")
    assert entry is not None
    for value, name in (
        (built, "entries"),
        (entry, "name"),
        (entry.tiers[0][0], "price"),
        (entry.tiers[0][0].target, "base_url"),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, None)


def test_holder_is_empty_before_the_first_snapshot() -> None:
    holder = Holder()
    assert not holder.current.has_providers
    assert holder.current.find("gpt-4o-mini") is None
    assert holder.age_s == float("inf")


def test_last_good_snapshot_stays_when_a_rebuild_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    model("m", provider())
    holder = Holder()
    holder.refresh()
    good, confirmed = holder.current, holder.age_s

    def away() -> Snapshot:
        raise OperationalError("away")

    monkeypatch.setattr(snapshot, "build", away)
    with pytest.raises(OperationalError):
        holder.refresh()
    assert holder.current is good
    assert holder.age_s >= confirmed


def test_calls_under_way_keep_the_snapshot_they_began_with() -> None:
    here = provider()
    model("m", here)
    holder = Holder()
    holder.refresh()
    began_with = holder.current
    Provider.objects.all().delete()
    holder.refresh()
    assert targets(began_with, "m") == [["here"]]
    assert holder.current.find("m") is None


def test_age_is_since_it_was_last_known_to_be_current() -> None:
    holder = Holder()
    holder.refresh()
    time.sleep(0.02)
    aged = holder.age_s
    assert 0.02 <= aged < 5
    holder.confirm()
    assert holder.age_s < aged


def test_problems_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    model("m", provider("broken", kind="no-such-kind"))
    Holder().refresh()
    assert "provider broken" in caplog.text
