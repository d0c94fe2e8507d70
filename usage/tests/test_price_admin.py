"""Prices in the admin: typed as providers publish them, dated, for everyone or one team; and what re-rating did."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts import catalogue
from accounts.admin_pages import change_url
from accounts.models import Team, User
from usage.models import ModelPrice, Rerating
from usage.price_list import price_of
from usage.prices import set_price
from usage.pricing import Price
from usage.tests.events import add

PRICES, ADD = reverse("admin:usage_modelprice_changelist"), reverse("admin:usage_modelprice_add")
RERATINGS = reverse("admin:usage_rerating_changelist")
PLAIN = {"model": "gpt-test", "valid_from_0": "2027-01-01", "valid_from_1": "00:00", "batch_percent": "100"}
TOKENS = {"input_usd_per_mtok": "0.0375", "output_usd_per_mtok": "2.5"}

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalogue._sources, "models", lambda: ["gpt-test"])


def priced(**more: Any) -> ModelPrice:
    return ModelPrice.objects.create(
        **{"model": "gpt", "input_nano_usd_per_mtok": 10**9, "output_nano_usd_per_mtok": 2 * 10**9, **more}
    )


def send(client: Client, **fields: str) -> ModelPrice:
    response = client.post(ADD, {**PLAIN, **TOKENS, **fields})
    assert response.status_code == 302, response.context["errors"]
    return ModelPrice.objects.latest("pk")


def mistakes(client: Client, **fields: str) -> dict[str, list[str]]:
    response = client.post(ADD, {**PLAIN, **TOKENS, **fields})
    assert response.status_code == 200
    assert not ModelPrice.objects.exists()
    return dict(response.context["adminform"].form.errors)


# --- setting --------------------------------------------------------------------------------------------------------
def test_price_is_typed_in_dollars_per_million_tokens(admin_client: Client) -> None:
    row = send(admin_client, cached_usd_per_mtok="", cache_write_usd_per_mtok="0")
    assert row.valid_from == datetime(2027, 1, 1, tzinfo=UTC)
    assert price_of(row) == Price(int(Decimal("0.0375") * 10**9), int(Decimal("2.5") * 10**9), cache_write=0)
    page = admin_client.get(PRICES).content.decode()
    for words in ("$0.0375", "$2.50", "as input", "Everyone", "cache write", "later"):
        assert words in page


def test_everything_that_providers_publish_can_be_typed(admin_client: Client, research: Team) -> None:
    row = send(
        admin_client,
        team=str(research.pk),
        cached_usd_per_mtok="0.01",
        reasoning_usd_per_mtok="3",
        audio_input_usd_per_mtok="40",
        audio_output_usd_per_mtok="80",
        cache_write_1h_usd_per_mtok="6",
        image_input_usd_per_mtok="12",
        image_output_usd_per_mtok="32",
        request_usd="0.005",
        image_usd="0.04",
        tools_usd="web_search: 10\r\n\r\n file_search : $2.50 \r\n",
        batch_percent="50",
        tiers_usd="200,001: input 0.075, output 5, cached 0.02, image_input 0.03\r\n1000000: input 1, output 10",
    )
    apiece: dict[str, Any] = {
        "request": 5_000_000,
        "image": 40_000_000,
        "tools": {"web_search": 10_000_000, "file_search": 2_500_000},
        "batch_percent": 50,
    }
    assert row.team == research
    assert price_of(row) == Price(
        37_500_000,
        2_500_000_000,
        cached=10_000_000,
        reasoning=3_000_000_000,
        audio_input=40_000_000_000,
        audio_output=80_000_000_000,
        cache_write_1h=6_000_000_000,
        image_input=12_000_000_000,
        image_output=32_000_000_000,
        **apiece,
        tiers=(
            (1_000_000, Price(10**9, 10**10, **apiece)),
            (200_001, Price(75_000_000, 5_000_000_000, cached=20_000_000, image_input=30_000_000, **apiece)),
        ),
    )


def test_page_of_a_price_shows_every_figure_of_it(admin_client: Client) -> None:
    row = send(
        admin_client,
        cache_write_1h_usd_per_mtok="6.01",
        image_input_usd_per_mtok="12.02",
        image_output_usd_per_mtok="32.03",
    )
    page = admin_client.get(change_url(row)).content.decode()
    for figure in ("$6.01", "$12.02", "$32.03"):
        assert figure in page
    listed = admin_client.get(PRICES).content.decode()
    assert "cache write, pictures" in listed


@pytest.mark.parametrize(
    ("field", "typed", "said"),
    [
        ("input_usd_per_mtok", "", "required"),
        ("output_usd_per_mtok", "-1", "greater than or equal to 0"),
        ("input_usd_per_mtok", "0.0000000001", "no more than 9 decimal places"),
        ("batch_percent", "101", "less than or equal to 100"),
        ("tools_usd", "web_search 10", "not like the example"),
        ("tools_usd", "web search: 10", "letters, digits and _"),
        ("tools_usd", "batch: 10", "is no tool"),
        ("tools_usd", "web_search: ten", "not an amount"),
        ("tools_usd", "web_search: NaN", "between 0 and 1,000,000"),
        ("tools_usd", "web_search: 1\nweb_search: 2", "there twice"),
        ("tiers_usd", "long: input 1, output 2", "not a number of tokens"),
        ("tiers_usd", "200001: input 1", "output is missing"),
        ("tiers_usd", "200001: input 1, output 2, image 3", "no price of a tier"),
        ("tiers_usd", "200001: input one, output 2", "not an amount"),
        ("tiers_usd", "0: input 1, output 2", "one token at least"),
        ("tiers_usd", "5: input 1, output 2\n5: input 1, output 2", "same length"),
    ],
)
def test_typing_mistake_is_told_at_its_field(admin_client: Client, field: str, typed: str, said: str) -> None:
    assert said in " ".join(mistakes(admin_client, **{field: typed})[field])


def test_price_of_a_model_that_is_not_there_cannot_be_set(admin_client: Client) -> None:
    assert "model" in mistakes(admin_client, model="unknown")


def test_setting_the_next_price_begins_with_the_one_before(admin_client: Client, research: Team) -> None:
    set_price(
        "gpt-test",
        team=research,
        input_usd_per_mtok=Decimal("2.5"),
        output_usd_per_mtok=Decimal(10),
        tools_usd={"web_search": Decimal("0.01")},
        tiers=[{"from_prompt_tokens": 200_001, "input_usd_per_mtok": Decimal(5), "output_usd_per_mtok": Decimal(15)}],
    )
    row = ModelPrice.objects.get()
    response = admin_client.get(reverse("admin:usage_modelprice_copy", args=[row.pk]), follow=True)
    form = response.context["adminform"].form
    page = response.content.decode()
    assert form["model"].initial == "gpt-test"
    assert form["team"].initial == research.pk
    assert form["input_usd_per_mtok"].initial == Decimal("2.5")
    for words in ("web_search: 10", "200001: input 5, output 15"):
        assert words in page
    assert admin_client.get(ADD, {"copy": "nonsense"}).status_code == 200


def test_price_of_the_past_says_what_it_replaces(admin_client: Client) -> None:
    priced(model="gpt-test", valid_from=datetime(2026, 1, 1, tzinfo=UTC))
    priced(model="gpt-test", valid_from=datetime(2026, 3, 1, tzinfo=UTC))
    add(datetime(2026, 2, 3, tzinfo=UTC), model="gpt-test")
    past = {"valid_from_0": "2026-02-01", "valid_from_1": "08:30"}
    said = [str(one) for one in get_messages(admin_client.post(ADD, {**PLAIN, **TOKENS, **past}).wsgi_request)]
    assert said[0] == (
        "The price of gpt-test replaces that of 1 Jan 2026 from 1 Feb 2026, 08:30 UTC on until that of 1 Mar 2026. "
        "Calls since then keep what they cost until they are priced again: "
        "manage.py rerate --from 2026-02-01T08:30 --model gpt-test --reason TEXT"
    )


def test_price_of_now_or_later_replaces_none_in_the_past(admin_client: Client) -> None:
    priced(model="gpt-test", valid_from=datetime(2026, 1, 1, tzinfo=UTC))
    add(timezone.now(), model="gpt-test")
    response = admin_client.post(ADD, {**PLAIN, **TOKENS})
    assert not [one for one in get_messages(response.wsgi_request) if "replaces" in str(one)]


# --- looking --------------------------------------------------------------------------------------------------------
def test_price_that_counts_now_is_marked(admin_client: Client, research: Team) -> None:
    now = timezone.now()
    for days in (-20, -10, 10):
        priced(valid_from=now + timedelta(days=days))
        priced(valid_from=now + timedelta(days=days, hours=-1), team=research)
    page = admin_client.get(PRICES).context["cl"]
    marks = [(page.model_admin.whose(row), page.model_admin.counts(row)) for row in page.result_list]
    assert marks == [
        (whose, counts) for counts in ("later", "now", "no more") for whose in ("Everyone", "Team research")
    ]


def test_price_is_history_and_does_not_change(admin_client: Client) -> None:
    url = reverse("admin:usage_modelprice_change", args=[priced().pk])
    assert admin_client.get(url).status_code == 200
    assert admin_client.post(url, {"input_usd_per_mtok": "1"}).status_code == 403


def test_page_of_a_price_shows_all_of_it(admin_client: Client, research: Team) -> None:
    row = priced(
        team=research,
        reasoning_nano_usd_per_mtok=3 * 10**9,
        request_nano_usd=5_000_000,
        tools_nano_usd={"web_search": 10_000_000},
        batch_percent=50,
        tiers=[{"from_prompt_tokens": 200_001, "input": 5 * 10**9, "output": 15 * 10**9, "cache_write": 10**6}],
    )
    page = admin_client.get(reverse("admin:usage_modelprice_change", args=[row.pk])).content.decode()
    for words in (
        "Team research",
        "$3.00",
        "$0.005",
        "web_search $10.00 per 1,000 calls",
        "50 %",
        "from 200,001 prompt tokens on: input $5.00, output $15.00, cache write $0.001",
        "as output",
        "its tokens only",
    ):
        assert words in page


@pytest.mark.parametrize(("chosen", "shown"), [("everyone", ["Everyone"]), ("teams", ["Team research"])])
def test_prices_of_teams_can_be_told_apart(admin_client: Client, research: Team, chosen: str, shown: list[str]) -> None:
    priced()
    priced(team=research)
    page = admin_client.get(PRICES, {"for": chosen}).context["cl"]
    assert [page.model_admin.whose(row) for row in page.result_list] == shown


# --- re-rating ------------------------------------------------------------------------------------------------------
def test_runs_are_listed_with_their_sums(admin_client: Client, alice: User) -> None:
    times = {"start": datetime(2026, 11, 1, tzinfo=UTC), "end": datetime(2026, 11, 2, 8, 30, tzinfo=UTC)}
    Rerating.objects.create(**times, reason="late", events=12_345, changed=1_000, delta_nano_usd=-(10**9), by=alice)
    run = Rerating.objects.create(**times, reason="wrong", model="gpt", delta_nano_usd=5 * 10**9)
    page = admin_client.get(RERATINGS).content.decode()
    for words in (
        "1 Nov 2026 to 2 Nov 2026, 08:30",
        "late",
        "12,345",
        "1,000",
        "-$1.00",
        "+$5.00",
        "alice",
        "Every model",
    ):
        assert words in page
    assert page.index("+$5.00") < page.index("-$1.00"), "the newest first"
    assert admin_client.get(reverse("admin:usage_rerating_change", args=[run.pk])).status_code == 200


def test_run_that_was_cut_off_says_so(admin_client: Client) -> None:
    day = datetime(2026, 11, 1, tzinfo=UTC)
    for ended_at, words in ((None, "run it again"), (day + timedelta(days=3), "Nov")):
        run = Rerating.objects.create(start=day, end=day + timedelta(days=1), reason="late", ended_at=ended_at)
        page = admin_client.get(reverse("admin:usage_rerating_change", args=[run.pk])).content.decode()
        assert words in page
        assert ("run it again" in page) == (ended_at is None)


def test_runs_are_records_that_nobody_changes(admin_client: Client) -> None:
    day = datetime(2026, 11, 1, tzinfo=UTC)
    run = Rerating.objects.create(start=day, end=day + timedelta(days=1), reason="late")
    url = reverse("admin:usage_rerating_change", args=[run.pk])
    assert admin_client.post(url, {"reason": "other"}).status_code == 403
    assert admin_client.post(reverse("admin:usage_rerating_delete", args=[run.pk])).status_code == 403
    assert admin_client.get(reverse("admin:usage_rerating_add")).status_code == 403


def test_first_list_says_what_re_rating_is(admin_client: Client) -> None:
    assert "manage.py rerate" in admin_client.get(RERATINGS).content.decode()
