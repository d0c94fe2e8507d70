"""Administrators' regular expressions: what is a match, that streams agree, what is refused, what it costs."""

from __future__ import annotations

import time

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.fold import Folded
from policies.patterns import MAX_PATTERN_CHARS, BadPattern, Patterns
from policies.tests.stream_law import check_stream_law
from policies.types import Scan, Span


class Scanning:
    """Patterns as a scanner of folded texts."""

    def __init__(self, *patterns: str, max_chars: int = 200) -> None:
        self.patterns = Patterns(patterns, max_chars)

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        return self.patterns.scan(text.original, start, final)


def found(text: str, *patterns: str, max_chars: int = 200) -> list[str]:
    scan = Patterns(patterns, max_chars).scan(text, 0, True)
    return [text[span.start : span.end] for span in scan.spans]


def held(text: str, *patterns: str, max_chars: int = 200) -> str:
    """What is held back of a stream that has come so far."""
    return text[Patterns(patterns, max_chars).scan(text, 0, False).safe_upto :]


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        (r"project\s+x", "On Project  X and PROJECT X.", ["Project  X", "PROJECT X"]),
        (r"\bcat\b", "cat concat cats, cat", ["cat", "cat"]),
        (r"^secret$", "secret\na secret\nsecret", ["secret", "secret"]),
        (r"\d{3}-\d{4}", "555-1234", ["555-1234"]),
        (r"straße", "In der STRASSE und der Straße", ["Straße"]),
        (r"größe \d+", "Äpfel 🍏 in GRÖSSE 4, Größe 5", ["Größe 5"]),
        (r"😀+y", "x😀😀y", ["😀😀y", "😀y"]),
        (r"a.c", "a\nc abc", ["abc"]),
        (r"(?s)a.c", "a\nc", ["a\nc"]),
        (r"(?-i)NATO", "nato NATO", ["NATO"]),
        (r"[[:digit:]]", "a12", ["1", "2"]),
        (r"\p{Cyrillic}{5}", "one слово", ["слово"]),
        (r"\Qa.b*\E", "a.b* axb", ["a.b*"]),
        (r"(?P<one>a)(?<two>b)", "ab", ["ab"]),
        (r"key: .*?;", "key: 1; key: 2;", ["key: 1;", "key: 2;"]),
    ],
)
def test_pattern_finds(pattern: str, text: str, matches: list[str]) -> None:
    assert found(text, pattern) == matches


def test_lone_surrogate_in_a_text_breaks_nothing() -> None:
    assert found("\ud800 é code 7", r"code \d") == ["code 7"]


def test_each_pattern_is_named_by_its_number() -> None:
    spans = Patterns(["one", "two"], 200).scan("two one", 0, True).spans
    assert sorted(spans) == [Span(0, 3, "pattern 2"), Span(4, 7, "pattern 1")]


def test_match_longer_than_the_limit_does_not_count() -> None:
    assert found("a" + "-" * 9 + "b a" + "-" * 8 + "b", "a-+b", max_chars=10) == ["a--------b"]


def test_match_hides_none_that_begins_inside_it() -> None:
    assert found("ababa", "aba") == ["aba", "aba"]
    assert found("red green blue", "red green|green blue") == ["red green", "green blue"]
    assert found("123", r"\d+") == ["123", "23", "3"]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "missing )"),
        ("[a", "missing ]"),
        ("a)|(b", "unexpected )"),
        ("a(?=b)", "(?="),
        (r"(a)\1", r"\1"),
        (r"\Aa", "use ^"),
        (r"a\z", "use $"),
        (r"\C", "not available"),
        ("a*", "nothing at all"),
        (r"\b", "nothing at all"),
        ("^$", "nothing at all"),
        (r"\büber", "ASCII letters only"),
        (r"caf\x{e9}\b|é\b", "ASCII letters only"),
        ("a" * (MAX_PATTERN_CHARS + 1), "longer than"),
        ("(?:(?:(?:x{9}){9}){9}){9}", "repetition"),
        (r"\pL{500}", "too large"),
        (r"\Q\E", "quotes nothing"),
    ],
)
def test_pattern_is_refused_with_a_reason(pattern: str, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadPattern) as refused:
        Patterns([pattern], 200)
    assert reason in str(refused.value)
    assert capfd.readouterr() == ("", ""), "RE2 itself must not write to the log"


# --- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pattern", "tail"),
    [
        ("nothing of it", "project x", ""),
        ("it is the pro", "project x", "pro"),
        ("it is project", "project x", "project"),
        ("it is project x,", "project x", ""),
        ("it is project x", "project x+", "project x"),
        ("a cat", r"\bcat\b", "cat"),
        ("a cats", r"\bcat\b", ""),
        ("call 555", r"\d{3}-\d{4}", "555"),
        ("call 5551", r"\d{3}-\d{4}", "551"),
        ("(x", r"(?:a|b)\(x", ""),
        ("b(", r"(?:a|b)\(x", "b("),
        ("one tw", "(one)? ?two", "one tw"),
        ("a" * 300, "a+b", "a" * 200),
        ("ab" * 40, "(ab){3}c", "ababab"),
        ("xababa", "(ab)+c", "ababa"),
        ("xabab", "(ab){3}", "abab"),
        ("aaa", r"a{2}\b", "aa"),
        ("it is A", "(?-i)ab", ""),
        ("it is A", "(?-i:b)?ab", "A"),
        ("a\n", "a.b", ""),
        ("a\n", "(?s)a.b", "a\n"),
        ("Ω ende GRÖ", "größe", "GRÖ"),
    ],
)
def test_stream_is_held_only_while_its_end_may_begin_a_match(text: str, pattern: str, tail: str) -> None:
    assert held(text, pattern) == tail


def test_without_an_expression_of_its_beginnings_a_stream_is_held_by_the_longest_match() -> None:
    pattern = r"x(?:\pL{6}){9}"  # compiles; its beginnings, which are more, do not
    assert held("-" * 300, pattern, max_chars=50) == "-" * 50
    assert found("x" * 55, pattern) == ["x" * 55]


@pytest.mark.parametrize("cut", range(1, 17))
def test_match_is_found_wherever_the_stream_is_cut(cut: int) -> None:
    scanner = Scanning(r"\bproject\s+x\b")
    assert len(check_stream_law(scanner, "on project  x, ok", [cut], 1)) == 1


LETTERS = st.text("ab \né", max_size=24)
ATOMS = st.sampled_from(["a", "b", " ", "é", ".", r"\w", "[ab]", "[^a]", r"\n", r"\Qab\E", r"(?i:A)", r"\pL"])
LOOKS = st.sampled_from([r"\b", "^", "$", r"\B"])
REPEATS = st.sampled_from(["*", "+", "?", "*?", "+?", "??", "{2}", "{1,2}", "{0,2}", "{2,}"])


def _longer(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, LOOKS).map("".join),
        st.tuples(LOOKS, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, REPEATS).map(lambda pair: f"({pair[0]}){pair[1]}"),
        inner.map(lambda pattern: f"(?s-i){pattern}"),
    )


PATTERNS = st.recursive(ATOMS, _longer, max_leaves=6)


def compiled(patterns: list[str], max_chars: int) -> Scanning | None:
    try:
        return Scanning(*patterns, max_chars=max_chars)
    except BadPattern:
        return None


@settings(max_examples=300, deadline=None)
@given(st.lists(PATTERNS, min_size=1, max_size=2), LETTERS, st.lists(st.integers(0, 24), max_size=8), st.data())
def test_any_pattern_keeps_the_law_of_streams(
    patterns: list[str], text: str, cuts: list[int], data: st.DataObject
) -> None:
    scanner = compiled(patterns, data.draw(st.sampled_from([3, 6, 40])))
    if scanner is not None:
        check_stream_law(scanner, text, cuts, 1, lags=data.draw(st.sampled_from([(0,), (1,), (0, 3)])))


@settings(max_examples=300, deadline=None)
@given(PATTERNS, LETTERS, st.sampled_from([3, 6, 40]))
def test_any_pattern_is_tried_at_every_place(pattern: str, text: str, max_chars: int) -> None:
    scanner = compiled([pattern], max_chars)
    if scanner is None:
        return
    options = re2.Options()
    options.case_sensitive = False
    regex = re2.compile(f"(?m:{pattern})", options)
    tried = [regex.match(text, place, place + max_chars) for place in range(len(text))]
    spans = [Span(*match.span(), "pattern 1") for match in tried if match is not None and match.group()]
    assert list(scanner.scan(Folded(text), 0, True).spans) == spans


# --- what it costs ---------------------------------------------------------------------------------------------------

ADVERSARIAL = {
    "one letter": ("a" * 50_000, [r"a+", r"a{1,50}b", r"(a+)+c"]),
    "never the end": ("a" * 50_000 + "b", [r"a[^b]*b", r"a.*b"]),
    "near matches": ("project " * 8_000, [r"project\s+x"]),
    "digits": ("1234-" * 10_000, [r"\d{4}-\d{4}-\d{4}-\d{5}"]),
}


@pytest.mark.parametrize("case", ADVERSARIAL)
def test_time_grows_with_the_text_whatever_it_says(case: str) -> None:
    text, patterns = ADVERSARIAL[case]
    scanner = Patterns(patterns, 200)
    begun = time.process_time()
    scanner.scan(text, 0, True)
    assert time.process_time() - begun < 3  # some 5 µs a character: backtracking would need hours
