"""Settings of a JavaScript module are read, never run."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gateway_project import javascript
from gateway_project.javascript import Code, Unreadable

ENVIRONMENT = {"LIMIT": "500", "ON": "true", "LIST": "a, b"}


def read(text: str) -> dict[str, Any]:
    return dict(javascript.read(text, ENVIRONMENT.get))


def value(expression: str) -> Any:
    return read(f"module.exports = {{A: {expression}, LAST: 1}}")["A"]


# --- modules --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        "module.exports = {A: 1}",
        "export default {A: 1};",
        "\ufeff'use strict';\nmodule.exports = {A: 1}\n",
        "const config = {A: 1};\nmodule.exports = config;",
        "const config = {}\nconfig.A = 1\nexport default config",
        "exports.A = 1",
        "module.exports.A = 1",
        "const A = 1; module.exports = {A}",
        "const base = {A: 2, B: 3}; module.exports = {...base, A: 1}",
        "require('dotenv').config()\nimport path from 'path'\nimport {x,\n y} from './z'\nexports.A = 1",
        "console.log('hello')\nmodule.exports = {A: 1}",
        "function one(a = {}) { return {b: 1} } class C { m() {} }\nmodule.exports = {A: 1}",
        "// {\n/* } */ module.exports /* = */ = Object.freeze({A: 1, // last\n})",
        "let one = 1, two = 2\nvar three\nmodule.exports = {A: one}",
    ],
)
def test_module_exports_its_settings(text: str) -> None:
    assert read(text)["A"] == 1


def test_settings_know_their_lines() -> None:
    text = "module.exports = {\n  A: [\n    1],\n  'B': 2, C: 3\n}\nmodule.exports.D = 4"
    found = javascript.read(text, ENVIRONMENT.get)
    assert found.lines == {"A": 2, "B": 4, "C": 4, "D": 6}


def test_later_setting_of_a_name_counts() -> None:
    assert read("module.exports = {A: 1, A: 2}") == {"A": 2}


# --- values ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("'it\\'s'", "it's"),
        ('"a\\n\\t\\\\b"', "a\n\t\\b"),
        ("'\\u00e9\\x41\\u{1F600}\\ud83d\\ude00'", "éA😀😀"),
        ("'a\\\nb'", "ab"),
        ("`two\nlines`", "two\nlines"),
        ("-1.5e1", -15),
        ("0x1F", 31),
        ("1_000", 1000),
        (".5", 0.5),
        ("true", True),
        ("null", None),
        ("undefined", None),
        ("[1, 'a', [], {b: null},]", [1, "a", [], {"b": None}]),
        ("[...['a'], 'b']", ["a", "b"]),
        ("{'x-y': 1, 2: 3}", {"x-y": 1, "2": 3}),
        ("('a' + \"b\")", "ab"),
        ("process.env.LIMIT", "500"),
        ("process.env['LIMIT'] || 7", "500"),
        ("process.env.NOPE || 'usual'", "usual"),
        ("process.env.NOPE\n || 'usual'", "usual"),
        ("process.env.NOPE ?? 0", 0),
        ("0 ?? 5", 0),
        ("0 || ''", ""),
        ("[] && 'full'", "full"),
        ("process.env.ON === 'true'", True),
        ("process.env.NOPE !== 'true'", True),
        ("!process.env.NOPE", True),
        ("1 == true", False),
        ("parseInt(process.env.LIMIT, 10)", 500),
        ("Number(process.env.NOPE || '2.5')", 2.5),
        ("String(7)", "7"),
        ("Boolean('')", False),
        ("JSON.parse('{\"a\": [1]}')", {"a": [1]}),
        ("process.env.LIST.split(',')", ["a", " b"]),
        ("' A '.trim().toLowerCase()", "a"),
    ],
)
def test_value_is_what_javascript_would_make_of_it(expression: str, expected: Any) -> None:
    found = value(expression)
    assert found == expected
    assert type(found) is type(expected) or isinstance(expected, dict | int)


def test_names_given_before_are_known() -> None:
    text = "const {LIMIT, NOPE} = process.env\nconst words = ['a']\nconst b = {c: {d: 1}}\n"
    assert read(text + "module.exports = {LIMIT, NOPE, W: words, D: b.c['d']}") == {
        "LIMIT": "500", "NOPE": None, "W": ["a"], "D": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    "expression",
    [
        "function (a) { return {b: /[{]'/} }",
        "(a) => ({b: 1})",
        "async a => { await b }",
        "require('./words.json')",
        "unknown",
        "new Map([[1, 2]])",
        "a ? 1 : 2",
        "a\n ? 1\n : 2",
        "`x${1}`",
        "'1' + 2",
        "process.env.NOPE.split(',')",
        "process.env",
        "parseInt('x')",
        "JSON.parse('{')",
        "/regular|expression/",
        "other() || 'a'",
        "other() === 1",
        "!other()",
        "{...other()}",
        "'a'.repeat(9)",
    ],
)
def test_value_that_only_running_it_would_tell_is_known_to_be_there(expression: str) -> None:
    found = read(f"module.exports = {{\n A: {expression}, LAST: [1]}}")
    assert javascript.has_code(found["A"]) or not isinstance(found["A"], str | int | list)
    assert found["LAST"] == [1]


def test_code_is_found_in_what_holds_it() -> None:
    assert value("[1, f()]") == [1, Code(1)]
    assert javascript.has_code(value("{a: [{b: f()}]}"))
    assert not javascript.has_code(value("{a: [{b: 1}]}"))


def test_methods_of_an_object_are_code() -> None:
    found = read("module.exports = {m(a) { return {} }, async n() {}, get o() { return 1 }, A: 1}")
    assert found == {"m": Code(1), "n": Code(1), "o": Code(1), "A": 1}


# --- what is refused ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "exports no settings"),
        ("module.exports = [1]", 1, "exports something else"),
        ("module.exports = {A: 1", 1, "ends too early"),
        ("module.exports = {A: 1 B: 2}", 1, "should have a comma before or instead of ':'"),
        ("module.exports = {\nA: 1\nB: 2}", 3, "should have a comma"),
        ("module.exports = {A: f(]}", 1, "has a ] too many"),
        ("const c = {A: 1}\nif (x) { c.A = 2 }\nmodule.exports = c", 2, "is code, and nothing is run here"),
        ("const c = {A: []}\nc.A.push(1)\nmodule.exports = c", 2, "is code"),
        ("const c = {A: 1}\nObject.assign(c, {A: 2})\nmodule.exports = c", 2, "is code"),
        ("let a = 1\na = 2", 2, "sets a, which is no settings"),
        ("module.exports = {A: '\\ud800'}", 1, "a character that does not exist"),
        ("module.exports = {A:\n'unfinished}", 2, "has a 'u without its end"),
        ("module.exports = {A:\n`unfinished}", 2, "has a `u without its end"),
        ("module.exports = {\n/* unfinished}", 2, "has a /* without its end"),
        ("module.exports = {A:\n/unfinished}", 2, "has a /u without its end"),
        ("module.exports = {A: " + "[" * 60 + "]" * 60 + "}", 1, "nested too deeply"),
        ("module.exports = {A: " + "!" * 50_000 + "1}", 1, "nested too deeply"),
        (" " * (javascript.MAX_CHARS + 1), 1, "is longer than"),
    ],
)
def test_module_that_cannot_be_read_is_refused_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read(text)
    assert caught.value.line == line
    assert message in str(caught.value)


@pytest.mark.parametrize("unit", ["/*", "(", "'\\", "`", "/", "a.", "[{", "a?", "...", "\\u{", "(/[", "=/", "/*/"])
def test_time_to_read_grows_with_the_length_alone(unit: str) -> None:
    begun = time.process_time()
    with pytest.raises(Unreadable):
        read("module.exports = {A: " + unit * (100_000 // len(unit)))
    assert time.process_time() - begun < 2
