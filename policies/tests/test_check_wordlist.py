"""The check `wordlist`: several lists at once, in every action, whole and streamed."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError

from policies.checks.base import clean_settings
from policies.checks.wordlist import Wordlist
from policies.fold import Folded
from policies.tests import tools
from policies.tests.tools import Words, made
from policies.types import Span

WORLD = Words(sweets=["fudge", "fudge cake", "lolli*"], cakes=["cake", "坏话"], codes=["c++"])


def check(*names: str) -> Wordlist:
    made_check = made(Wordlist, WORLD, wordlists=list(names))
    assert isinstance(made_check, Wordlist)
    return made_check


def test_a_rule_names_its_lists_in_a_box_a_file_or_the_api() -> None:
    for given in ("sweets\ncakes", ["sweets", "cakes"], ("sweets", " cakes ", "sweets")):
        assert sorted(clean_settings(Wordlist, {"wordlists": given})["wordlists"]) == ["cakes", "sweets"]


@pytest.mark.parametrize("given", [{}, {"wordlists": []}, {"wordlists": ""}, {"wordlists": [1]}])
def test_a_rule_without_a_list_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        clean_settings(Wordlist, given)


def test_a_rule_with_a_list_that_does_not_exist_cannot_be_compiled() -> None:
    with pytest.raises(LookupError):
        check("sweets", "weather")


def test_findings_say_which_list_and_never_what() -> None:
    spans = check("sweets", "cakes").scan(Folded("a fudge cake"), 0, True).spans
    assert set(spans) == {Span(2, 7, "sweets"), Span(2, 12, "sweets"), Span(8, 12, "cakes")}


def test_what_may_still_become_a_match_for_one_list_is_held_back_for_all() -> None:
    assert check("cakes").scan(Folded("my fudge "), 0, False).safe_upto == 9
    assert check("cakes", "sweets").scan(Folded("my fudge "), 0, False).safe_upto == 3


def test_listed_words_are_masked_in_requests_and_replies() -> None:
    tools.check_redacts(check("sweets", "cakes"), "My FUDGE  cake, a lollipop!", "My ****, a ****!")


def test_listed_words_block_requests_and_replies() -> None:
    tools.check_blocks(check("sweets"), "I like fudge.")
    assert "Rephrase" in Wordlist.message and "fudge" not in Wordlist.message


def test_words_that_only_contain_a_listed_one_pass() -> None:
    tools.check_passes(check("sweets", "cakes", "codes"), "Fudgery, cupcakes and c+ in Pancakeland")


@pytest.mark.parametrize(
    "text",
    [
        "My fudge cake",
        "f.u.d.g.e and fu\u200bdgе, 他说坏话了 c++",
        "fu**e LOLLIES fudge\n\ncake fuuudge",
    ],
)
def test_the_check_keeps_every_law(text: str) -> None:
    tools.check_holds(check("sweets", "cakes", "codes"), text)


def test_harmless_text_keeps_flowing() -> None:
    text = "Here is a short answer about the weather: it rains, and a cold wind blows from the north-west."
    tools.check_keeps_flowing(check("sweets", "cakes"), text, at_most=11)  # the word that is being written
