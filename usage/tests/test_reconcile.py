"""`manage.py reconcile`: a provider's own figures against ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts.time_ids import to_unix_us
from usage import provider_exports, retention, rollups, services
from usage.models import Adjustment, MoneySettings, UsageEvent
from usage.provider_exports import BadExport, Figures
from usage.reconcile import family
from usage.tests.events import NOON, add

DAY = date(2026, 11, 20)
UNIX = 1795132800  # its midnight in UTC
DOLLAR = 10**9

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: Any, name: str = "export") -> Path:
        path = tmp_path / name
        path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
        return path

    return to_file


# --- what providers export --------------------------------------------------------------------------------------------
OPENAI_USAGE = (
    "start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,user_id,api_key_id,model,batch,"
    "service_tier,input_tokens,output_tokens,input_cached_tokens,input_uncached_tokens\n"
    f"{UNIX},{UNIX + 86400},2026-11-20T00:00:00+00:00,2026-11-21T00:00:00+00:00,proj_1,5,,,gpt-4o-2024-08-06,false,"
    "default,1000,500,800,200\n"
    f"{UNIX},{UNIX + 86400},2026-11-20T00:00:00+00:00,2026-11-21T00:00:00+00:00,proj_2,1,,,gpt-4o-2024-08-06,false,"
    "default,10,5,0,10\n"
    f"{UNIX + 86400},{UNIX + 172800},2026-11-21T00:00:00+00:00,2026-11-22T00:00:00+00:00,,,,,,,,,,,\n"
)
OPENAI_COSTS = (
    "start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,line_item,project_id\n"
    f'{UNIX},{UNIX + 86400},,,0.8958740000000000,usd,"gpt-4o-2024-08-06, input",\n'
    f'{UNIX},{UNIX + 86400},,,0.10,usd,"gpt-4o-2024-08-06, output",\n'
    f"{UNIX + 86400},{UNIX + 172800},,,,,,\n"
)
ANTHROPIC_USAGE = (
    "usage_date_utc,model_version,api_key,workspace,usage_type,context_window,usage_input_tokens_no_cache,"
    "usage_input_tokens_cache_write_5m,usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,"
    "usage_output_tokens,web_search_count,inference_geo,speed\n"
    "2026-11-20,claude-haiku-4-5-20251001,key,Default,standard,≤ 200k,50000,100,20,3000,2000,0,global,\n"
)
ANTHROPIC_COSTS = (
    "usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,list_price_usd,cost_type\n"
    "2026-11-20,Claude Haiku 4.5,Default,key,message,≤ 200k,input_no_cache,0.05,0.05,token\n"
    "2026-11-20,Claude Haiku 4.5,Default,key,message,≤ 200k,output,0.02,0.02,token\n"
)
GENERIC = "date;model;requests;input_tokens;cost_usd\n2026-11-20;mistral-large-2411;3;1,200;$1.25\n"


def openai_page(*results: dict[str, Any], **page: Any) -> dict[str, Any]:
    buckets = [{"object": "bucket", "start_time": UNIX, "end_time": UNIX + 86400, "results": list(results)}]
    return {"object": "page", "data": buckets, "has_more": False, "next_page": None} | page


def anthropic_page(*results: dict[str, Any]) -> dict[str, Any]:
    bucket = {"starting_at": "2026-11-20T00:00:00Z", "ending_at": "2026-11-21T00:00:00Z", "results": list(results)}
    return {"data": [bucket], "has_more": False, "next_page": None}


OPENAI_JSON = openai_page(
    {
        "object": "organization.usage.completions.result", "input_tokens": 1010, "output_tokens": 505,
        "input_cached_tokens": 800, "num_model_requests": 6, "project_id": None, "model": "gpt-4o-2024-08-06",
    }
)  # fmt: skip
OPENAI_COSTS_JSON = openai_page(
    {
        "object": "organization.costs.result", "amount": {"value": 0.995874, "currency": "usd"},
        "line_item": "gpt-4o-2024-08-06, input", "project_id": None,
    }
)  # fmt: skip
ANTHROPIC_JSON = anthropic_page(
    {
        "uncached_input_tokens": 50000, "cache_read_input_tokens": 3000, "output_tokens": 2000,
        "cache_creation": {"ephemeral_1h_input_tokens": 20, "ephemeral_5m_input_tokens": 100},
        "model": "claude-haiku-4-5-20251001", "server_tool_use": {"web_search_requests": 0},
    }
)  # fmt: skip
ANTHROPIC_COSTS_JSON = anthropic_page({"amount": "7.25", "currency": "USD", "model": "claude-haiku-4-5-20251001"})

GPT, HAIKU = "gpt-4o-2024-08-06", "claude-haiku-4-5-20251001"
CENT = DOLLAR // 100


@pytest.mark.parametrize(
    ("text", "provider", "model", "figures"),
    [
        (OPENAI_USAGE, "openai", GPT, Figures(6, 1010, 505, 800)),
        (OPENAI_JSON, "openai", GPT, Figures(6, 1010, 505, 800)),
        (OPENAI_COSTS, "openai", GPT, Figures(cost=995_874_000)),
        (OPENAI_COSTS_JSON, "openai", GPT, Figures(cost=995_874_000)),
        (ANTHROPIC_USAGE, "anthropic", HAIKU, Figures(None, 53_120, 2000, 3000)),
        (ANTHROPIC_JSON, "anthropic", HAIKU, Figures(None, 53_120, 2000, 3000)),
        (ANTHROPIC_COSTS, "anthropic", "Claude Haiku 4.5", Figures(cost=7 * CENT, rounded_by=CENT)),
        (ANTHROPIC_COSTS_JSON, "anthropic", HAIKU, Figures(cost=72_500_000)),
        (GENERIC, "", "mistral-large-2411", Figures(3, 1200, cost=DOLLAR + DOLLAR // 4)),
    ],
    ids=[
        "OpenAI usage CSV", "OpenAI usage JSON", "OpenAI costs CSV", "OpenAI costs JSON", "Anthropic usage CSV",
        "Anthropic usage JSON", "Anthropic costs CSV", "Anthropic costs JSON", "our own CSV",
    ],
)  # fmt: skip
def test_exports_of_providers_are_read(write: Write, text: Any, provider: str, model: str, figures: Figures) -> None:
    export = provider_exports.read(write(text))
    assert (export.provider, export.by) == (provider, {(DAY, model): figures})


def test_file_as_a_spreadsheet_saves_it_is_read(write: Write) -> None:
    export = provider_exports.read(write("\ufeff" + GENERIC.replace(";", "\t").replace("\n", "\r\n")))
    assert list(export.by) == [(DAY, "mistral-large-2411")]


def test_pages_of_an_answer_may_be_in_one_list(write: Write) -> None:
    export = provider_exports.read(write([OPENAI_JSON | {"has_more": True}, OPENAI_JSON]))
    assert export.by[DAY, GPT].requests == 12
    assert export.warnings == []


def test_page_that_is_not_the_last_one_is_pointed_out(write: Write) -> None:
    assert "one page of several" in provider_exports.read(write(OPENAI_JSON | {"has_more": True})).warnings[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no known header: the file is empty"),
        ("when,who\n", "line 1: no known header: when, who"),
        (GENERIC.replace("1,200", "many"), "line 2: column input_tokens: 'many' is not a number"),
        (GENERIC.replace(";3;", ";-3;"), "line 2: column requests: '-3' is not a whole number"),
        (GENERIC.replace(";3;", ";2.5;"), "line 2: column requests: '2.5' is not a whole number"),
        (GENERIC.replace("2026-11-20", "20/11/26"), "line 2: column date: '20/11/26' is not a date"),
        (
            GENERIC.replace("$1.25", "12,34"),
            "line 2: column cost_usd: '12,34' is not a number: write decimals after a po",
        ),
        (GENERIC.replace("$1.25", "0,123"), "line 2: column cost_usd: '0,123' is not a number"),
        (GENERIC.replace("$1.25", "1.234,56"), "line 2: column cost_usd: '1.234,56' is not a number"),
        (GENERIC.replace("$1.25", "1e5000"), "line 2: column cost_usd: '1e5000' is too large"),
        (GENERIC.replace("$1.25", "1e999999"), "line 2: column cost_usd: '1e999999' is not a number"),
        (
            GENERIC.replace("2026-11-20", "9999-12-31"),
            "line 2: column date: '9999-12-31' is not between 1970-01-01 and",
        ),
        (
            GENERIC.replace("2026-11-20", "0001-01-01T00:00+14:00"),
            "line 2: column date: '0001-01-01T00:00.14:00' is not",
        ),
        ("date," + "x" * 200_000 + "\n", "line 1: field larger than field limit"),
        (GENERIC + "2026-11-20;m\n", "line 3: not as many columns"),
        (GENERIC + "2026-11-20;m;1;1;1;1\n", "line 3: not as many columns"),
        (GENERIC.splitlines()[0], "there is no usage in it"),
        (OPENAI_COSTS.replace("0.10,usd", "0.10,eur"), "line 3: amounts in eur"),
        ('{"data": [}', "line 1: not JSON"),
        ('{"error": "no"}', "no list `data`"),
        ({"data": [{"start_time": UNIX}]}, r"data\[0\]: no list `results`"),
        (openai_page({"input_tokens": "x"}), r"data\[0\].results\[0\]: 'x' is not a number"),
        (openai_page({"input_tokens": True}), r"data\[0\].results\[0\]: True is not a number"),
        (
            f'{{"data": [{{"start_time": {UNIX}, "results": [{{"input_tokens": {"9" * 5000}}}]}}]}}',
            "9999… is too large",
        ),
        ("[" * 100_000, "lists in lists without end"),
        (openai_page({"amount": "5"}), r"data\[0\].results\[0\]: amount is not an object"),
        (openai_page({"amount": None}), r"data\[0\].results\[0\]: value is missing"),
        (
            anthropic_page({"cache_read_input_tokens": 1, "cache_creation": [1]}),
            r"data\[0\].results\[0\]: cache_creation is not an object",
        ),
        (anthropic_page({"output_tokens": 1}), r"data\[0\].results\[0\]: cache_read_input_tokens is missing"),
    ],
    ids=str,
)
def test_bad_file_is_refused_with_the_place_and_the_reason(write: Write, text: Any, message: str) -> None:
    with pytest.raises(BadExport, match=message):
        provider_exports.read(write(text))


def test_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"PK\x03\x04\xff\xfe")
    for name, message in (("missing", "No such file"), ("binary", "not a text file")):
        with pytest.raises(BadExport, match=message):
            provider_exports.read(tmp_path / name)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4-0613", "gpt-4"),
        ("Claude Haiku 4.5", "claude-haiku-4-5-20251001"),
        ("Claude 3.5 Sonnet 2024-10-22", "claude-3-5-sonnet-20241022"),
        ("mistral-large-2411", "mistral-large-latest"),
        ("models/gemini-2.5-pro", "gemini-2.5-pro"),
    ],
)
def test_models_are_recognised_with_and_without_their_date(theirs: str, ours: str) -> None:
    assert family(theirs) == family(ours)


def test_amounts_may_have_a_sign_a_currency_and_groups_of_three_digits(write: Write) -> None:
    for written, nano in (("-$5", -5 * DOLLAR), ("$1,234,567.5", 1_234_567_500_000_000), ("1.5e-3", 1_500_000)):
        export = provider_exports.read(write(GENERIC.replace("$1.25", written)))
        assert export.by[DAY, "mistral-large-2411"].cost == nano


@pytest.mark.parametrize("models", [("gpt-4o", "gpt-4o-mini"), ("claude-opus-4", "claude-opus-4-5"), ("o1", "o3")])
def test_other_models_are_other_models(models: tuple[str, str]) -> None:
    assert family(models[0]) != family(models[1])


# --- the comparison ---------------------------------------------------------------------------------------------------
def compare(*arguments: Any) -> tuple[int, str]:
    """Exit code and what was printed, the last line included."""
    out = StringIO()
    try:
        call_command("reconcile", *map(str, arguments), stdout=out)
    except CommandError as error:
        return error.returncode, out.getvalue() + str(error)
    return 0, out.getvalue()


def used(at: datetime = NOON, count: int = 1, **changed: Any) -> None:
    add(at, count, **{"upstream_model": GPT, "prompt_tokens": 1010, "completion_tokens": 505} | changed)
    rollups.roll_up_all()


def lines(printed: str) -> list[list[str]]:
    """The words of the table's lines."""
    found = [line.split() for line in printed.splitlines() if not line.startswith("/")]
    return [words for words in found if set(words) & {"requests", "input", "output", "cached", "cost"}]


@pytest.mark.django_db
def test_figures_that_agree_end_well(write: Write) -> None:
    used(cached_tokens=800)
    used(count=5, prompt_tokens=0, completion_tokens=0)
    code, printed = compare(write(OPENAI_USAGE))
    assert code == 0, printed
    assert lines(printed) == [
        ["2026-11-20", GPT, "requests", "6", "6"],
        ["input", "1,010", "1,010"],
        ["output", "505", "505"],
        ["cached", "800", "800"],
    ]
    assert "All 4 figures agree within 1 %." in printed


@pytest.mark.django_db
def test_figures_that_differ_are_marked_and_end_with_code_1(write: Write) -> None:
    used(cached_tokens=800, count=6, prompt_tokens=200, completion_tokens=0)
    code, printed = compare(write(OPENAI_USAGE))
    assert code == 1
    assert ["input", "1,010", "1,200", "+190", "(15.8", "%)", "<-"] in lines(printed)
    assert "3 of 4 figures differ by more than 1 %." in printed


@pytest.mark.django_db
def test_tolerance_is_the_operators(write: Write) -> None:
    used(prompt_tokens=1000)
    export = write("date,model,input_tokens\n2026-11-20,gpt-4o,1030\n")
    assert compare(export, "--provider=openai", "--tolerance=3")[0] == 0
    assert compare(export, "--provider=openai", "--tolerance=2.5%")[0] == 1


@pytest.mark.django_db
def test_only_differences_are_printed_on_demand(write: Write) -> None:
    used(count=6, prompt_tokens=0, completion_tokens=0)
    _, printed = compare(write(OPENAI_USAGE), "--differences")
    assert [words[-6] for words in lines(printed)] == ["1,010", "505", "800"]


@pytest.mark.django_db
def test_costs_are_compared_with_adjustments_and_to_the_rounding_of_the_provider(write: Write) -> None:
    used(provider="anthropic", upstream_model=HAIKU, cost_nano_usd=60_000_000)
    Adjustment.objects.create(
        id=UUID(services.new_event_id(to_unix_us(NOON))), event_id=UsageEvent.objects.get().pk, at=NOON, model="gpt",
        provider="anthropic", status=200, delta_nano_usd=5_000_000,
    )  # fmt: skip
    code, printed = compare(write(ANTHROPIC_COSTS))
    assert code == 0, printed
    assert lines(printed) == [
        ["2026-11-20", "claude-haiku-4-5", "cost", "$0.070000", "$0.065000", "-$0.005000", "(7.1", "%)"]
    ]


@pytest.mark.django_db
def test_usage_and_costs_may_come_in_two_files(write: Write) -> None:
    used(count=6)
    _, printed = compare(write(OPENAI_USAGE, "usage.csv"), write(OPENAI_COSTS, "costs.csv"))
    table = lines(printed)
    assert table[0][:4] == ["2026-11-20", GPT, "requests", "6"]
    assert [words[:2] for words in table[1:]] == [
        ["input", "1,010"], ["output", "505"], ["cached", "800"], ["cost", "$0.995874"],
    ]  # fmt: skip


@pytest.mark.django_db
def test_model_that_routes_name_without_its_date_is_compared_with_the_dated_one(write: Write) -> None:
    used(upstream_model="gpt-4o", count=2, prompt_tokens=0, completion_tokens=0)
    used(upstream_model=GPT, prompt_tokens=0, completion_tokens=0)
    code, printed = compare(write("date,model,requests\n2026-11-20,gpt-4o-2024-08-06,3\n"), "--provider=openai")
    assert (code, lines(printed)) == (0, [["2026-11-20", "gpt-4o", "requests", "3", "3"]])


@pytest.mark.django_db
def test_two_dated_models_are_compared_each_by_itself_when_both_sides_name_them(write: Write) -> None:
    used(upstream_model="gpt-4o-2024-05-13")
    used(upstream_model=GPT)
    export = write("date,model,requests\n2026-11-20,gpt-4o-2024-05-13,2\n2026-11-20,gpt-4o-2024-08-06,0\n")
    code, printed = compare(export, "--provider=openai")
    assert code == 1
    assert [words[1:6] for words in lines(printed)] == [
        ["gpt-4o-2024-05-13", "requests", "2", "1", "-1"],
        ["gpt-4o-2024-08-06", "requests", "0", "1", "+1"],
    ]


@pytest.mark.django_db
def test_export_that_is_not_split_by_model_is_compared_by_day(write: Write) -> None:
    used()
    used(upstream_model="o3")
    result = {"num_model_requests": 2, "input_tokens": 2020, "output_tokens": 1010, "model": None}
    code, printed = compare(write(openai_page(result)))
    assert code == 0, printed
    assert lines(printed)[0] == ["2026-11-20", "(all", "models)", "requests", "2", "2"]


@pytest.mark.django_db
def test_usage_that_only_one_side_knows_is_a_difference(write: Write) -> None:
    used(upstream_model="o3")
    code, printed = compare(write("date,model,requests\n2026-11-20,gpt-4o,1\n"), "--provider=openai")
    assert code == 1
    assert [words[:5] for words in lines(printed)] == [
        ["2026-11-20", "gpt-4o", "requests", "1", "0"],
        ["2026-11-20", "o3", "requests", "0", "1"],
    ]


@pytest.mark.django_db
def test_credit_that_we_know_nothing_of_is_a_difference(write: Write) -> None:
    used()
    code, printed = compare(write("date,model,cost_usd\n2026-11-19,gpt-4o,-5\n"), "--provider=openai")
    assert code == 1
    assert lines(printed) == [
        ["2026-11-19", "gpt-4o", "cost", "-$5.000000", "$0.000000", "+$5.000000", "(100.0", "%)", "<-"]
    ]


@pytest.mark.django_db
def test_mistyped_year_takes_no_longer_than_another(
    write: Write, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    used()
    export = write("date,model,requests\n2006-11-20,gpt-4o,1\n2026-11-20,gpt-4o,1\n")
    with django_assert_max_num_queries(10):
        code, printed = compare(export, "--provider=openai")
    assert code == 1
    assert [words[:4] for words in lines(printed)] == [
        ["2006-11-20", "gpt-4o", "requests", "1"], ["2026-11-20", "gpt-4o", "requests", "1"],
    ]  # fmt: skip


@pytest.mark.django_db
def test_calls_that_the_provider_bills_are_counted_and_no_others(write: Write) -> None:
    used()
    used(status=499, estimated=True)
    used(status=429, prompt_tokens=0, completion_tokens=0, cost_nano_usd=0)
    used(attempts=0, prompt_tokens=0, completion_tokens=0)
    used(provider="azure")
    used(NOON + timedelta(days=1))
    code, printed = compare(write("date,model,requests\n2026-11-20,gpt-4o,2\n"), "--provider=openai")
    assert code == 0, printed
    assert "1 of our calls are estimates" in printed


@pytest.mark.django_db
def test_calls_without_a_price_are_mentioned(write: Write) -> None:
    used(cost_nano_usd=None)
    assert "1 of our calls have no price" in compare(write(OPENAI_COSTS))[1]


@pytest.mark.django_db
def test_only_the_days_asked_for_are_compared(write: Write) -> None:
    used(NOON)
    used(NOON + timedelta(days=1))
    export = write("date,model,requests\n" + "".join(f"2026-11-{day},gpt-4o,1\n" for day in (19, 20, 21, 22)))
    assert compare(export)[0] == 1
    assert compare(export, "--from=2026-11-20", "--to=2026-11-22")[0] == 0


@pytest.mark.django_db
def test_days_whose_events_are_deleted_are_not_compared(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    used(NOON)
    used(NOON + timedelta(days=10))
    MoneySettings.objects.create(events_kept_days=5)
    monkeypatch.setattr(timezone, "now", lambda: NOON + timedelta(days=12))
    retention.prune()
    export = "date,model,requests\n2026-11-20,gpt-4o,1\n"
    code, printed = compare(write(export + "2026-11-30,gpt-4o,1\n"))
    assert code == 0, printed
    assert "deleted already: 2026-11-20." in printed
    assert compare(write(export)) == (
        2, "The usage events of all these days are deleted already: there is nothing to compare with."
    )  # fmt: skip


# --- whose calls ------------------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_provider_is_the_one_that_the_format_is_of(write: Write) -> None:
    used()
    used(provider="azure")
    assert "Compared with the calls to openai" in compare(write(OPENAI_USAGE))[1]


@pytest.mark.django_db
def test_provider_is_the_only_one_that_was_called(write: Write) -> None:
    used(provider="acme")
    assert "Compared with the calls to acme" in compare(write(OPENAI_USAGE))[1]


@pytest.mark.django_db
def test_provider_must_be_named_when_it_is_not_plain(write: Write) -> None:
    used(provider="acme")
    used(provider="azure")
    assert compare(write(OPENAI_USAGE)) == (2, "Say with --provider which of acme, azure.")


@pytest.mark.django_db
def test_provider_that_was_never_called_is_refused(write: Write) -> None:
    used(provider="acme")
    assert compare(write(OPENAI_USAGE), "--provider=acne") == (
        2, "There is no call to a provider named 'acne'; there are calls to acme."
    )  # fmt: skip


# --- mistakes ---------------------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_files_of_two_providers_are_refused(write: Write) -> None:
    assert compare(write(OPENAI_USAGE, "a"), write(ANTHROPIC_USAGE, "b")) == (
        2, "These files are of different providers: anthropic, openai."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--from=soon"], 1, "not a date"),
        (["--to=0001-01-01"], 1, "'0001-01-01' is not between 1970-01-01 and"),
        (["--to=9999-12-31"], 1, "'9999-12-31' is not between 1970-01-01 and"),
        (["--tolerance=-1"], 1, "not a percentage"),
        (["--tolerance=some"], 1, "not a percentage"),
        (["--from=2026-12-01"], 1, "--to must be later"),
        (["--provider=x", "--from=2026-01-01", "--to=2026-01-02"], 2, "say nothing of 2026-01-01"),
    ],
)
@pytest.mark.django_db
def test_mistakes_are_explained(write: Write, arguments: list[str], code: int, message: str) -> None:
    done, printed = compare(write(OPENAI_USAGE), *arguments)
    assert done == code
    assert message in printed


def test_bad_file_ends_with_code_2(write: Write) -> None:
    code, printed = compare(write("a,b\n", "bad.csv"))
    assert code == 2
    assert "bad.csv: line 1: no known header" in printed
