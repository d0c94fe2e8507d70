"""What a word list finds, what it leaves alone, and what that costs."""

from __future__ import annotations

import random
import string
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from policies.fold import Folded
from policies.tests.stream_law import check_stream_law
from policies.types import Span
from policies.wordlists import compile_wordlist
from policies.wordlists.disguise import inflected
from policies.wordlists.matcher import Matcher, fold_entry, validate_entry


def found(entries: Sequence[str], text: str, allowed: Sequence[str] = (), disguises: bool = False) -> list[str]:
    """What the list finds in the text, as it stands there."""
    scan = Matcher("list", entries, allowed, catch_disguises=disguises).scan(Folded(text), 0, True)
    assert scan.safe_upto == len(text)
    return [text[span.start : span.end] for span in scan.spans]


# --- words and phrases -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("My FUDGE, your fudge!", ["FUDGE", "fudge"]),
        ("fudge", ["fudge"]),
        ("_fudge_ **fudge** fudge's “fudge”", ["fudge"] * 4),
        ("ｆｕｄｇｅ and fu\u200bdge and fսdgе", ["ｆｕｄｇｅ", "fu\u200bdge", "fսdgе"]),
        ("fudge2 fudgery overfudge smudge fudgé", []),
        ("日本fudge日本", ["fudge"]),
        ("", []),
    ],
)
def test_words_are_found_whole_whatever_their_case_width_and_look_alikes(text: str, expected: list[str]) -> None:
    assert found(["Fudge"], text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Secret project", ["Secret project"]),
        ("the secret \n\t project!", ["secret \n\t project"]),
        ("secret\u00a0project", ["secret\u00a0project"]),
        ("secret\u2028project", ["secret\u2028project"]),
        ("secret projects, secretproject, secret. Project, secret-project", []),
        ("secret secret project", ["secret project"]),
    ],
)
def test_phrases_are_found_across_any_white_space_and_nothing_else(text: str, expected: list[str]) -> None:
    assert found(["secret project"], text) == expected


def test_overlapping_matches_are_all_found() -> None:
    assert found(["a b", "b", "b c", "a b c d"], "a b c") == ["a b", "b", "b c"]
    assert found(["aa aa"], "aa aa aa") == ["aa aa", "aa aa"]


@pytest.mark.parametrize(
    ("entry", "text", "expected"),
    [
        ("c++", "C++, c and c++11", ["C++", "c++"]),
        (".net", "asp.net or network", [".net"]),
        ("a.b", "a.b acb a b", ["a.b"]),
        ("don't", "don't don’t dont", ["don't", "don’t"]),
        ("e.g.", "e.g. this, eg that", ["e.g."]),
        ("a-b", "a-b a b", ["a-b"]),
        ("(x|y)", "(x|y) x y", ["(x|y)"]),
        ("[a-z]+", "abc [a-z]+", ["[a-z]+"]),
        ("rock 'n' roll", "rock  'n'  roll", ["rock  'n'  roll"]),
        ("' or 1=1 --", "x' or  1=1   -- y", ["' or  1=1   --"]),
        ("s&m", "S&M, s & m", ["S&M"]),
        ("m²", "12 m² m", ["m²"]),
        ("$cash", "$cash cash", ["$cash"]),
    ],
)
def test_everything_but_the_star_is_meant_literally(entry: str, text: str, expected: list[str]) -> None:
    assert found([entry], text) == expected


@pytest.mark.parametrize(
    ("entry", "text", "expected"),
    [
        ("fudg*", "fudge fudging FUDG smudge a.fudgé", ["fudge", "fudging", "FUDG", "fudgé"]),
        ("*fudge", "overfudge fudge fudges", ["overfudge", "fudge"]),
        ("*fudge*", "overfudged smudge", ["overfudged"]),
        ("f*dge", "fudge fidge fdge f.dge f*dge", ["fudge", "fidge", "fdge", "f*dge"]),
        ("f*d*e", "fudge feed fed fade", ["fudge", "fade"]),
        ("put * by*", "put it by, put by, put it all by, put this  bye", ["put it by", "put this  bye"]),
        ("fudg* cake*", "fudgy cakes and fudge pie", ["fudgy cakes"]),
        ("b*d-word", "bad-word bd word", ["bad-word"]),
        ("x*y", "x" + "a" * 64 + "y x" + "a" * 65 + "y", ["x" + "a" * 64 + "y"]),
    ],
)  # fmt: skip
def test_a_star_is_any_letters_of_one_word_and_alone_any_one_word(entry: str, text: str, expected: list[str]) -> None:
    assert found([entry], text) == expected


@pytest.mark.parametrize(
    ("entry", "text", "expected"),
    [
        ("坏话", "他说坏话了", ["坏话"]),
        ("わるい", "わるいことば", ["わるい"]),
        ("か", "がか", ["か"]),  # the first is another letter, though it is written with the same one and a mark
        ("คำหยาบ", "นี่คือคำหยาบมาก", ["คำหยาบ"]),
        ("t恤", "红T恤 at恤", ["T恤"]),
        ("坏 话", "坏\n 话 坏话", ["坏\n 话"]),
        ("🍬", "a🍬b", ["🍬"]),
        ("fudge 🍬", "my fudge  🍬!", ["fudge  🍬"]),
    ],
)
def test_scripts_without_spaces_and_pictograms_are_found_wherever_they_stand(
    entry: str, text: str, expected: list[str]
) -> None:
    assert found([entry], text) == expected


def test_a_cyrillic_word_is_not_the_latin_one_that_it_looks_like() -> None:
    assert found(["kot"], "кот kot") == ["kot"]
    assert found(["кот"], "кот kot") == ["кот", "kot"]
    assert found(["cocoa"], "сосоа соcoa cоcоа") == ["соcoa", "cоcоа"]


# --- exceptions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "allowed", "text", "expected"),
    [
        (["fudge"], ["fudge factory"], "the fudge factory makes fudge", ["fudge"]),
        (["fudge"], ["the fudge"], "the fudge and a fudge", ["fudge"]),
        (["fudge"], ["fudge"], "fudge", []),
        (["fudg*"], ["fudging"], "fudge fudging", ["fudge"]),
        (["*fudge*"], ["smudge*", "*fudgey"], "fudgey fudger", ["fudger"]),
        (["big fudge"], ["fudge factory"], "big fudge factory", ["big fudge"]),  # covers only a part
        (["fudge", "big fudge"], ["fudge factory"], "big fudge factory", ["big fudge"]),
        (["坏"], ["坏了"], "坏了坏", ["坏"]),
        (["c"], ["c++"], "c c++", ["c"]),
    ],
)
def test_what_an_exception_covers_does_not_count(
    entries: list[str], allowed: list[str], text: str, expected: list[str]
) -> None:
    assert found(entries, text, allowed) == expected


def test_a_word_that_is_an_exception_too_is_found_only_in_disguise() -> None:
    assert found(["fudge"], "fudge, f.u.d.g.e and fudg3", ["fudge"], disguises=True) == ["f.u.d.g.e", "fudg3"]


# --- disguises -------------------------------------------------------------------------------------------------------

DISGUISED = [
    "f u d g e", "f.u.d.g.e", "f-u-d-g-e", "f_u_d_g_e", "f  u  d  g  e", "F*U*D*G*E", "f\nu\nd\ng\ne",
    "fu**e", "f*dge", "fud*e", "f@#ge", "fuuudge", "fudddddge", "FUUDGEEE", "fffuuudddgggeee", "fuddge" + "eee",
    "fudg3", "f|_|dge".replace("|_|", "u"), "fvdg3", "fu\u200bd\u200bge", "fυdgе", "ｆｕｄｇｅ",
    "unfudgeable", "fudges", "fudging", "fudged", "fudger",
]  # fmt: skip


@pytest.mark.parametrize("disguised", DISGUISED)
def test_listed_words_are_found_in_disguise(disguised: str) -> None:
    assert found(["fudge"], f"What the {disguised} is this?", disguises=True) == [disguised]
    assert found(["fudge"], f"{disguised}!!", disguises=True) == [disguised]


@pytest.mark.parametrize(
    ("entry", "text", "expected"),
    [
        ("kniffel", "kn1ffel, kn!ffel, kni44el, k.n.i.f.f.e.l", ["kn1ffel", "kn!ffel", "k.n.i.f.f.e.l"]),
        ("plop", "pl0p p1op", ["pl0p", "p1op"]),
        ("hops", "h0p$ hop5", ["h0p$", "hop5"]),
        ("shop", "$hop 5hop", ["$hop", "5hop"]),
        ("bass", "b@ss ba$$", ["b@ss", "ba$$"]),
        ("bumble", "b*mbl*", []),  # the last letter is hidden: it may be anything
        ("bumblebee", "b*mbl*bee b*m*l*b*e", ["b*mbl*bee"]),
        ("слово", "с л о в о", ["с л о в о"]),
    ],
)
def test_digits_and_symbols_stand_for_letters(entry: str, text: str, expected: list[str]) -> None:
    assert found([entry], text, disguises=True) == expected


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("ass", "The class assignment assesses classic assets; bass, amass, assassin; x = a*s*s"),
        ("cock", "peacock, cocktail, Hitchcock, cockpit"),
        ("nique", "u n i q u e"),
        ("spic", "spicy, spices, s p i c y, spiced"),
        ("butt", "butter, button, butts".replace("butts", "")),
        ("tit", "title, titan, titrate, entity"),
        ("shop", "$hops->each(function ($hop) { return f($hop); })"),
        ("fudge", "f u d g e l, fudgel, fud ge, f-u-d g e, fu*ge*r, smu**e"),
        ("pencil", "**pen*** and **the pen***, pen***, p*****"),
        ("cab", "a b c a b, cab2, c4b7"),
        ("hello", "he.llo he-llo 4e110 h3110 w0r1d".replace("h3110", "")),
    ],
)
def test_natural_text_is_no_disguise(entry: str, text: str) -> None:
    assert found([entry], text, disguises=True) == []


def test_without_disguises_only_the_word_itself_is_found() -> None:
    text = " ".join(disguised for disguised in DISGUISED if Folded(disguised).text != "fudge")
    assert found(["fudge"], text) == []


def test_people_who_spell_go_on_spelling() -> None:
    assert found(["fudge"], "I f u d g e y o u", disguises=True) == ["f u d g e"]
    assert found(["fudge"], "b f u d g e", disguises=True) == []


@pytest.mark.parametrize(
    ("word", "forms"),
    [
        ("fudge", {"fudges", "fudging", "fudged", "fudger"}),
        ("plop", {"plops", "plopping", "plopped", "ploping"}),
        ("bitty", {"bittys", "bitties", "bittying"}),
        ("kiss", {"kisses", "kissing"}),
        ("pee", {"pees"}),
    ],
)
def test_words_take_the_endings_of_english(word: str, forms: set[str]) -> None:
    assert forms <= set(inflected(word))
    assert "peer" not in inflected("pee")


def test_what_is_a_form_itself_takes_no_other() -> None:
    assert found(["ass", "asses"], "assess assessing assesses asses", disguises=True) == ["asses"]


def test_words_of_another_language_take_no_english_endings() -> None:
    matcher = compile_wordlist("list", ["kniffel"], [], builtin="profanity-de", catch_disguises=True)
    assert not matcher.scan(Folded("kniffeling kniffels unkniffelable"), 0, True).spans
    assert matcher.scan(Folded("k.n.i.f.f.e.l"), 0, True).spans


# --- what an entry may be --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Fudge", " fudge "),
        ("fudge  cake", "FUDGE\u00a0cake"),
        ("fu\u200bdge", "fudge"),
        ("fudg**", "fudg*"),
        ("ﬁ", "fi"),
    ],
)
def test_entries_that_match_the_same_are_duplicates(one: str, other: str) -> None:
    assert fold_entry(one) == fold_entry(other)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("", "nothing"),
        ("\u200b\u00ad", "nothing"),
        ("*", "letter, digit or symbol"),
        ("* *", "letter, digit or symbol"),
        ("...", "letter, digit or symbol"),
        ("--*", "letter, digit or symbol"),
        ("x" * 401, "at most 400"),
        ("ﷺ" * 50, "at most 400"),
        ("a " * 33, "at most 32"),
        ("* fudge", "begin or end"),
        ("fudge *", "begin or end"),
        ("a*", "two letters"),
        ("fudge *x", "two letters"),
        ("坏*话", "without spaces"),
    ],
)
def test_entries_that_would_match_nothing_or_everything_are_refused_with_a_reason(entry: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate_entry(entry)
    assert found([entry], "fudge * x ... 坏a话") == []  # and do no harm


@pytest.mark.parametrize(
    "entry", ["fudge", "fudge cake", "f*", "c++", "🍬", "坏话", "*坏*", "a * b", "€", "x" * 400, "4711"]
)
def test_other_entries_are_taken(entry: str) -> None:
    if entry == "f*":
        entry = "fu*"
    validate_entry(entry)


# --- the law of streams ----------------------------------------------------------------------------------------------

ENTRIES = [
    "fudge", "fudge cake", "a b c", "a b", "c++", ".net", "don't", "kn*ff", "plop* off", "tea * cake", "坏话", "坏 话",
    "🍬", "кот", "ass", "-- x", "x --", "' or 1=1 --", "whole", "か", "ab cd ef gh", "$$x", "é", "e-f",
]  # fmt: skip
ALLOWED = ["fudge factory", "the fudge", "plop off ice*", "c++ primer", "ass man", "a b c d", "坏话了"]
PIECES = [
    *"fudgeabc \n-.*'+x1=$@30!?坏话了か🍬éсаI", "fudge", "cake", "  ", "**", "\u200b", "\u0301", "\u3099", "\u00ad",
    "ﬁ", "++", ".net", "net", "don", "t", "’", "kn", "ff", "plop", "off", "tea", "кот", "kot", "ass", "--", "or",
    "whole", "un", "able", "factory", "the", "ice", "primer", "man", "ab", "cd", "ef", "gh", "uuu", "ggg", "I ", "you",
    "Ｆ", "ing", "s", "z" * 70, "\u200b" * 5, "\ud800", " a ", " b ",
]  # fmt: skip
MATCHERS = [
    Matcher("list", ENTRIES, ALLOWED, catch_disguises=True),
    Matcher("list", ENTRIES, catch_disguises=True),
    Matcher("list", ENTRIES, ALLOWED),
    Matcher("list", [entry for entry in ENTRIES if entry[0] != "a"], catch_disguises=True),  # no common words
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=16).map("".join)


@given(TEXTS, st.sampled_from(MATCHERS), st.lists(st.integers(0, 60), max_size=6), st.sampled_from([(0,), (1, 0, 3)]))
@settings(max_examples=250)
@example("the fudge", MATCHERS[0], [], (0,))
@example("坏 话z", MATCHERS[2], [4], (0,))
@example("f u d g e", MATCHERS[1], [3, 5, 7], (0,))
@example("plop off ice cream", MATCHERS[0], [6, 9], (0,))
def test_random_splits_change_nothing(text: str, matcher: Matcher, cuts: list[int], lags: tuple[int, ...]) -> None:
    check_stream_law(matcher, text, cuts, matcher.left_context, lags)


@given(TEXTS, st.sampled_from(MATCHERS), st.sampled_from([1, 2]))
@settings(max_examples=80)
def test_splits_of_one_and_two_characters_change_nothing(text: str, matcher: Matcher, size: int) -> None:
    check_stream_law(matcher, text, range(0, len(text), size), matcher.left_context)


@pytest.mark.parametrize(
    ("text", "safe_upto"),
    [
        ("A harmless sentence, and ", 25),
        ("A harmless sentence, and", 21),  # the last word may grow
        ("harmless fudge ", 9),  # and be a phrase
        ("harmless fudge c", 9),
        ("harmless fudge pie ", 19),
        ("z" * 70, 70),  # no word of the list is as long
        ("fudge " + "z" * 70, 76),
        ("harmless f u", 9),
        ("harmless so. Y", 13),
        ("harmless x -", 9),
    ],
)
def test_no_more_is_held_back_than_may_become_a_match(text: str, safe_upto: int) -> None:
    assert MATCHERS[1].scan(Folded(text), 0, False).safe_upto == safe_upto


def test_a_match_waits_while_an_exception_may_still_cover_it() -> None:
    matcher = Matcher("list", ["fudge"], ["fudge factory"])
    assert matcher.scan(Folded("my fudge fac"), 0, False) == ([], 3)
    assert matcher.scan(Folded("my fudge factory "), 0, False) == ([], 17)
    assert matcher.scan(Folded("my fudge facts "), 0, False) == ([Span(3, 8, "list")], 15)


def test_only_what_begins_at_or_after_the_start_is_reported() -> None:
    matcher = Matcher("list", ["fudge"])
    assert matcher.scan(Folded("fudge fudge"), 1, True).spans == [Span(6, 11, "list")]


# --- cost ------------------------------------------------------------------------------------------------------------

PROSE = (
    "The quick brown fox jumps over the lazy dog, and then it doesn't look back: a well-known story of 1989 that we "
    "(all) know. Please summarise it in three sentences! "
)
PROMPT = (PROSE * 14)[:2048]


def many_words(count: int) -> Iterator[str]:
    """A fifth of them phrases."""
    dice = random.Random(3)

    def word() -> str:
        return "".join(dice.choices(string.ascii_lowercase, k=dice.randint(5, 11)))

    for number in range(count):
        yield " ".join(word() for _ in range(dice.randint(2, 4))) if number % 5 == 0 else word()


def best_us(work: Callable[[], object], rounds: int = 20, clock: Callable[[], float] = time.perf_counter) -> float:
    """Microseconds of the fastest round: machines that run tests are busy with other things."""
    times = []
    for _ in range(rounds):
        began = clock()
        work()
        times.append(clock() - began)
    return min(times) * 1e6


def costs_less(limit_us: float, work: Callable[[], object]) -> bool:
    """Whether it takes less than `limit_us`. A machine that is busy is asked again a little later."""
    for _ in range(10):
        if best_us(work) < limit_us:
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(scope="module")
def large() -> Matcher:
    return Matcher("large", many_words(100_000), catch_disguises=True)


def test_a_hundred_thousand_entries_cost_microseconds_on_two_kilobytes(large: Matcher) -> None:
    folded = Folded(PROMPT)
    assert not large.scan(folded, 0, True).spans
    assert costs_less(30, lambda: large.scan(folded, 0, True))  # about 4, once the text is folded and split into words
    assert costs_less(150, lambda: large.scan(Folded(PROMPT), 0, True))  # about 26 with both


def test_a_list_of_two_thousand_words_costs_less_than_ten_microseconds_on_a_folded_text() -> None:
    matcher, folded = Matcher("small", many_words(2000), catch_disguises=True), Folded(PROMPT)
    matcher.scan(folded, 0, True)
    assert costs_less(20, lambda: matcher.scan(folded, 0, True))  # about 3
    assert costs_less(100, lambda: matcher.scan(Folded(PROMPT), 0, True))  # about 16, folding included


@given(TEXTS)
def test_a_text_that_another_list_has_split_already_is_read_the_same(text: str) -> None:
    split = Folded(text)
    assert split.words is not None
    assert MATCHERS[3].scan(split, 0, True) == MATCHERS[3].scan(Folded(text), 0, True)


def test_entries_are_found_in_a_list_of_a_hundred_thousand(large: Matcher) -> None:
    for entry in random.Random(5).sample(list(many_words(100_000)), 200):
        text = f"{PROSE}{entry.upper()} {PROSE}"
        assert [text[span.start : span.end] for span in large.scan(Folded(text), 0, True).spans] == [entry.upper()]


def test_entries_take_a_few_hundred_bytes_each() -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        matcher = Matcher("list", many_words(4_000), catch_disguises=True)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not matcher.scan(Folded("x"), 0, True).spans
    assert (after - before) / 4_000 < 1500  # with endings; 150 MB for a hundred thousand


def test_no_other_thread_waits_long_while_a_large_list_is_compiled() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.001)  # as the web process has it
    try:
        assert any(worst_stall_ms(compile_large) < 20 for _ in range(5))
    finally:
        sys.setswitchinterval(interval)


def compile_large() -> None:
    Matcher("large", many_words(100_000), catch_disguises=True)


def worst_stall_ms(work: Callable[[], object]) -> float:
    """How long `work` ran at most, by the clock of its own thread, between two turns of one that wants to run every
    millisecond. What other programs take of the machine does not count."""
    clock, worst, done = time.pthread_getcpuclockid(threading.get_ident()), 0.0, threading.Event()

    def tick() -> None:
        nonlocal worst
        last = time.clock_gettime(clock)
        while not done.is_set():
            time.sleep(0.001)
            now = time.clock_gettime(clock)
            worst, last = max(worst, now - last), now

    thread = threading.Thread(target=tick)
    thread.start()
    work()
    done.set()
    thread.join()
    return worst * 1000


@pytest.mark.parametrize(
    "unit",
    [
        "a ",
        "a b ",
        "fudge ",
        "fudge cake fudge ",
        "the fudge factory ",
        "a.b.c.d.",
        "a*",
        "a1",
        "fuuu",
        "$@!",
        " ",
        "fu\u200b",
        "坏",
        "knknff",
        "tea ",
    ],
)
def test_time_grows_with_the_length_whatever_the_text_says(unit: str) -> None:
    short, long = (unit * (size // len(unit) + 1) for size in (3_000, 24_000))
    # By the clock of this thread: the long one takes longer than a turn on a busy machine.
    cost = best_us(lambda: MATCHERS[0].scan(Folded(short), 0, True), 3, time.thread_time)
    assert best_us(lambda: MATCHERS[0].scan(Folded(long), 0, True), 3, time.thread_time) < max(8 * 3 * cost, 10_000)
