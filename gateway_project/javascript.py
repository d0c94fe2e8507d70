"""Reads the settings of a JavaScript module without running it: object literals, and the little around them that
configuration files have.

    const words = ['a', 'b'];                       names given before, and ...spread
    module.exports = {                              or export default, exports.NAME = ...
        LIMIT: process.env.LIMIT || 500,            variables, || ?? && === !== ! + -
        WORDS: words,                               parseInt, Number, String, Boolean, JSON.parse, Object.freeze,
    };                                              .split(), .trim(), .toLowerCase()

Whatever else stands where a value should be (a function, a call, a template with expressions) is `Code`: it is known to
be there, and nobody knows what it would give. A statement that could change values is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

MAX_CHARS = 2 * 1024 * 1024
MAX_DEPTH = 50


class Unreadable(Exception):
    """The file is no such module, or does more than to list settings."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class Code:
    """What only running it would tell."""

    line: int


class Settings(dict[str, Any]):
    """An object literal. `lines`: where each of its entries stands."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}

    def put(self, name: str, value: Any, line: int) -> None:
        self[name] = value
        self.lines[name] = line

    def take(self, other: Settings) -> None:
        for name, value in other.items():
            self.put(name, value, other.lines[name])


def read(text: str, variable: Callable[[str], str | None]) -> Settings:
    """What the module exports. `variable` gives a variable of the environment, None where there is none. null and
    undefined are None. Raises Unreadable."""
    if len(text) > MAX_CHARS:
        raise Unreadable(1, f"is longer than {MAX_CHARS} characters")
    try:
        return _Module(list(_tokens(text.removeprefix("\ufeff"))), variable).run()
    except RecursionError:
        raise Unreadable(1, "is nested too deeply") from None


def has_code(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(has_code, value.values()))
    if isinstance(value, list):
        return any(map(has_code, value))
    return isinstance(value, Code)


# --- words ----------------------------------------------------------------------------------------------------------
class Token(NamedTuple):
    kind: str  # string, template, number, name, pattern, sign, end
    text: str
    line: int
    starts_line: bool


_PIECE = re.compile(
    r"""(?P<blank>\s+|//[^\n]*|/\*.*?\*/)
    |(?P<string>'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*")
    |(?P<template>`(?:\\.|[^`\\])*`)
    |(?P<number>0[xX][0-9a-fA-F]+|(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<name>[^\W\d][\w$]*|\$[\w$]*)
    |(?P<sign>\.\.\.|=>|===|!==|==|!=|\?\?|\?\.|\|\||&&|/(?!\*)|[^\w\s'"`/])""",
    re.VERBOSE | re.DOTALL,
)
_PATTERN = re.compile(r"/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\[\n])+/[a-z]*")
_BEFORE_PATTERN = re.compile(r"[(,=:\[!&|?{};+\-*%<>~^]|=>|===|!==|==|!=|\?\?|\|\||&&|return|typeof|case")


def _tokens(text: str) -> Iterator[Token]:
    position, line, starts_line = 0, 1, True
    before = ""
    while position < len(text):
        is_pattern = _begins_pattern(text, position, before)
        match = (_PATTERN if is_pattern else _PIECE).match(text, position)
        if match is None:
            raise Unreadable(line, f"has a {text[position : position + 2].strip()} without its end")
        kind = "pattern" if is_pattern else str(match.lastgroup)
        piece = match.group()
        if kind != "blank":
            yield Token(kind, piece, line, starts_line)
            before = piece if kind in ("sign", "name") else "value"
            starts_line = False
        line += piece.count("\n")
        starts_line = starts_line or "\n" in piece
        position = match.end()
    yield Token("end", "", line, True)


def _begins_pattern(text: str, position: int, before: str) -> bool:
    """A slash divides behind a value; anywhere else it begins a regular expression, with brackets of its own."""
    if text[position] != "/" or text[position + 1 : position + 2] in ("/", "*"):
        return False
    return not before or _BEFORE_PATTERN.fullmatch(before) is not None


_ESCAPE = re.compile(r"\\(?:u\{([0-9a-fA-F]{1,6})\}|u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(\r?\n)|(.))", re.DOTALL)
_PLAIN_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "0": "\0"}


def _unquote(token: Token) -> str:
    def replace(match: re.Match[str]) -> str:
        code = match[1] or match[2] or match[3]
        if code:
            return chr(int(code, 16))
        return "" if match[4] else _PLAIN_ESCAPES.get(match[5], match[5])

    try:
        text = _ESCAPE.sub(replace, token.text[1:-1])
        return text.encode("utf-16", "surrogatepass").decode("utf-16")  # two halves written one by one
    except ValueError:
        raise Unreadable(token.line, "holds a character that does not exist") from None


# --- statements -----------------------------------------------------------------------------------------------------
class _NotPlain(Exception):
    """An expression that only running it would tell."""


_OPENING = {"{": "}", "(": ")", "[": "]"}
_CLOSING = set(_OPENING.values())
_ENDS_VALUE = {",", ";", "}", "]", ")"}
_EQUALITY = {"==", "===", "!=", "!=="}
_CONSTANTS: dict[str, Any] = {"true": True, "false": False, "null": None, "undefined": None}


class _Module:
    def __init__(self, tokens: list[Token], variable: Callable[[str], str | None]) -> None:
        self._tokens = tokens
        self._variable = variable
        self._at = 0
        self._depth = 0
        self._names: dict[str, Any] = {}
        self._exported: Settings | None = None

    def run(self) -> Settings:
        while self._now.kind != "end":
            self._statement()
        if self._exported is None:
            raise Unreadable(1, "exports no settings: module.exports = {...} or export default {...}")
        return self._exported

    def _statement(self) -> None:
        token = self._now
        if token.text == ";" or token.kind == "string":  # 'use strict'
            self._at += 1
        elif token.text in ("const", "let", "var"):
            self._declaration()
        elif token.text in ("function", "async", "class"):
            self._skip_definition()
        elif token.text == "export":
            self._at += 1
            if self._take("default"):
                self._export(self._value(), token.line)
        elif token.text in ("import", "require", "console"):
            self._skip_statement()
        else:
            self._assignment()

    def _declaration(self) -> None:
        self._at += 1
        while True:
            if self._now.text == "{":
                self._unpack()
            else:
                name = self._next().text
                self._names[name] = self._value() if self._take("=") else None
            if not self._take(","):
                return

    def _unpack(self) -> None:
        """`const {A, B} = process.env`"""
        names = []
        self._expect("{")
        while not self._take("}"):
            names.append(self._next())
            self._take(",")
        self._expect("=")
        value = self._value()
        for name in names:
            self._names[name.text] = value.get(name.text) if isinstance(value, dict) else Code(name.line)

    def _assignment(self) -> None:
        """To what is exported, or to an entry of what has a name. Anything else could change it behind our back."""
        line = self._now.line
        path = [self._next().text]
        while self._take("."):
            path.append(self._next().text)
        if path[:2] == ["module", "exports"]:
            path = ["exports", *path[2:]]
        if len(path) > 2 or not self._take("="):
            raise Unreadable(line, "is code, and nothing is run here: write down the settings that it makes")
        if path == ["exports"]:
            self._export(self._value(), line)
            return
        owner = self._exports() if path[0] == "exports" else self._names.get(path[0])
        if len(path) != 2 or not isinstance(owner, Settings):
            raise Unreadable(line, f"sets {'.'.join(path)}, which is no settings")
        owner.put(path[1], self._value(), line)

    def _exports(self) -> Settings:
        if self._exported is None:
            self._exported = Settings()
        return self._exported

    def _export(self, value: Any, line: int) -> None:
        if not isinstance(value, Settings):
            raise Unreadable(line, "exports something else than an object with settings")
        self._exported = value

    # --- expressions ------------------------------------------------------------------------------------------------
    def _value(self) -> Any:
        """An expression, or Code if it is none that we know."""
        start = self._at
        depth = self._depth
        try:
            value = self._expression()
            if self._ends_value():
                return value
        except _NotPlain:
            self._depth = depth
        self._at = start
        self._skip_value()
        return Code(self._tokens[start].line)

    def _ends_value(self) -> bool:
        token = self._now
        ends = token.kind == "end" or (token.kind == "sign" and token.text in _ENDS_VALUE)
        return ends or (self._depth == 0 and token.starts_line)

    def _expression(self) -> Any:
        value = self._conjunction()
        while self._now.text in ("||", "??"):
            sign = self._next().text
            other = self._conjunction()
            value = (other if value is None else value) if sign == "??" else (value if _is_true(value) else other)
        return value

    def _conjunction(self) -> Any:
        value = self._comparison()
        while self._take("&&"):
            other = self._comparison()
            value = other if _is_true(value) else value
        return value

    def _comparison(self) -> Any:
        value = self._sum()
        while self._now.text in _EQUALITY:
            sign = self._next().text
            other = self._sum()
            if has_code(value) or has_code(other):
                raise _NotPlain
            same = type(value) is type(other) and value == other
            value = same if sign[0] == "=" else not same
        return value

    def _sum(self) -> Any:
        value = self._operand()
        while self._now.text == "+":
            self._at += 1
            other = self._operand()
            if not (isinstance(value, str) and isinstance(other, str)):
                raise _NotPlain
            value += other
        return value

    def _operand(self) -> Any:
        if self._take("!"):
            return not _is_true(self._operand())
        if self._take("-"):
            value = self._operand()
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise _NotPlain
            return -value
        return self._methods(self._primary())

    def _primary(self) -> Any:
        token = self._next()
        if token.kind == "string":
            return _unquote(token)
        if token.kind == "template" and "${" not in token.text:
            return _unquote(token)
        if token.kind == "number":
            return _number(token)
        if token.text == "[":
            return self._nested(self._array)
        if token.text == "{":
            return self._nested(self._object)
        if token.text == "(":
            value = self._nested(self._expression)
            if not self._take(")"):
                raise _NotPlain
            return value
        if token.kind == "name":
            return self._named(token)
        raise _NotPlain

    def _named(self, token: Token) -> Any:
        if token.text in _CONSTANTS:
            return _CONSTANTS[token.text]
        if token.text == "process" and self._take(".", "env"):
            return self._environment()
        if token.text in ("Object", "JSON") and self._take("."):
            return self._call(f"{token.text}.{self._next().text}")
        if self._now.text == "(":
            return self._call(token.text)
        if self._now.text == "=>" or token.text not in self._names:
            raise _NotPlain
        value = self._names[token.text]
        while isinstance(value, dict) and self._now.text in (".", "["):
            value = value.get(self._entry_name())
        return value

    def _environment(self) -> Any:
        if self._now.text not in (".", "["):
            return _Environment(self._variable)
        return self._variable(self._entry_name())

    def _entry_name(self) -> str:
        """Of `.NAME` or `['NAME']`."""
        if self._take("."):
            return self._next().text
        self._expect("[")
        name = self._next()
        if name.kind != "string" or not self._take("]"):
            raise _NotPlain
        return _unquote(name)

    def _call(self, name: str) -> Any:
        function = _FUNCTIONS.get(name)
        if function is None or not self._take("("):
            raise _NotPlain
        arguments = self._nested(lambda: self._items(")"))
        if has_code(arguments):
            raise _NotPlain
        return _computed(function, *arguments[:1])

    def _methods(self, value: Any) -> Any:
        while isinstance(value, str) and self._now.text in (".", "?."):
            self._at += 1
            name = self._next().text
            method = _METHODS.get(name)
            if method is None or not self._take("("):
                raise _NotPlain
            value = _computed(method, value, *self._items(")"))
        return value

    # --- lists and objects ------------------------------------------------------------------------------------------
    def _array(self) -> list[Any]:
        return self._items("]")

    def _items(self, closing: str) -> list[Any]:
        items: list[Any] = []
        while not self._take(closing):
            spread = self._take("...")
            value = self._value()
            if spread and not isinstance(value, list):
                raise _NotPlain
            items += value if spread else [value]
            if not self._take(",") and self._now.text != closing:
                self._wrong(f"{closing} or a comma")
        return items

    def _object(self) -> Settings:
        found = Settings()
        while not self._take("}"):
            if self._take("..."):
                value = self._value()
                if not isinstance(value, Settings):
                    raise _NotPlain
                found.take(value)
            else:
                self._entry(found)
            if not self._take(",") and self._now.text != "}":
                self._wrong("} or a comma")
        return found

    def _entry(self, found: Settings) -> None:
        token = self._next()
        if token.text in ("async", "get", "set", "*") and self._now.kind == "name":
            token = self._next()
        if token.kind not in ("string", "name", "number"):
            self._wrong("the name of a setting", token)
        name = _unquote(token) if token.kind == "string" else token.text
        if self._take(":"):
            found.put(name, self._value(), token.line)
        elif self._now.text == "(":  # a method
            self._skip_brackets()
            self._skip_brackets()
            found.put(name, Code(token.line), token.line)
        else:
            found.put(name, self._names.get(name, Code(token.line)), token.line)

    def _nested(self, read: Callable[[], Any]) -> Any:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable(self._now.line, "is nested too deeply")
        value = read()
        self._depth -= 1
        return value

    # --- moving on --------------------------------------------------------------------------------------------------
    @property
    def _now(self) -> Token:
        return self._tokens[self._at]

    def _next(self) -> Token:
        token = self._tokens[self._at]
        if token.kind == "end":
            raise Unreadable(token.line, "ends too early")
        self._at += 1
        return token

    def _take(self, *texts: str) -> bool:
        """Moves on if these signs or names are next."""
        tokens = self._tokens[self._at : self._at + len(texts)]
        if [token.text for token in tokens if token.kind in ("sign", "name")] != list(texts):
            return False
        self._at += len(texts)
        return True

    def _expect(self, text: str) -> None:
        if not self._take(text):
            self._wrong(text)

    def _wrong(self, wanted: str, token: Token | None = None) -> NoReturn:
        token = token or self._now
        if token.kind == "end":
            raise Unreadable(token.line, "ends too early")
        raise Unreadable(token.line, f"should have {wanted} before or instead of {token.text[:20]!r}")

    def _skip_brackets(self) -> None:
        """From an opening bracket to behind its closing one."""
        open_brackets: list[str] = []
        while True:
            token = self._next()
            if token.kind == "sign" and token.text in _OPENING:
                open_brackets.append(_OPENING[token.text])
            elif token.kind == "sign" and token.text in _CLOSING and open_brackets.pop() != token.text:
                raise Unreadable(token.line, f"has a {token.text} too many")
            if not open_brackets:
                return

    def _skip_value(self) -> None:
        """To the comma or bracket that ends it, or to the next line with a name, outside of any bracket."""
        start, questions = self._at, 0
        while True:
            token = self._now
            sign = token.text if token.kind == "sign" else ""
            starts_statement = self._depth == 0 and token.starts_line and token.kind == "name" and self._at > start
            if token.kind == "end" or sign in _ENDS_VALUE or starts_statement:
                return
            questions += (sign == "?") - (sign == ":")
            if questions < 0:
                self._wrong("a comma")
            if sign in _OPENING:
                self._skip_brackets()
            else:
                self._at += 1

    def _skip_definition(self) -> None:
        """A function or class: nothing in it is a setting, and nobody may call it."""
        while self._now.text != "{":
            if self._now.text == "(":
                self._skip_brackets()
            else:
                self._next()
        self._skip_brackets()

    def _skip_statement(self) -> None:
        """An import, or a call that only prints or loads: nothing in it is a setting."""
        self._at += 1
        while self._now.kind != "end" and not self._take(";"):
            if self._now.starts_line and self._now.text not in _OPENING:
                return
            if self._now.kind == "sign" and self._now.text in _OPENING:
                self._skip_brackets()
            else:
                self._at += 1


class _Environment(dict[str, Any]):
    """process.env as a whole."""

    def __init__(self, variable: Callable[[str], str | None]) -> None:
        super().__init__()
        self._variable = variable

    def get(self, name: str, default: Any = None) -> Any:
        return self._variable(name)


# --- what values do -------------------------------------------------------------------------------------------------
def _is_true(value: Any) -> bool:
    """As JavaScript judges it: empty lists and objects are true."""
    if isinstance(value, Code):
        raise _NotPlain
    return isinstance(value, list | dict) or bool(value)


def _number(token: Token) -> int | float:
    text = token.text.replace("_", "")
    if text[:2] in ("0x", "0X"):
        return int(text, 16)
    number = float(text)
    return int(number) if number.is_integer() else number


def _computed(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (TypeError, ValueError, RecursionError):
        raise _NotPlain from None


def _to_number(value: Any = None) -> int | float:
    if isinstance(value, int | float):
        return int(value) if isinstance(value, bool) else value
    number = float(str(value).strip())
    return int(number) if number.is_integer() else number


def _parse_int(value: Any = None) -> int:
    match = re.match(r"\s*[+-]?\d+", str(value))
    if match is None:
        raise ValueError
    return int(match.group())


def _parse_json(value: Any = None) -> Any:
    return json.loads(str(value))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "parseInt": _parse_int,
    "Number": _to_number,
    "String": lambda value="": value if isinstance(value, str) else json.dumps(value),
    "Boolean": lambda value=None: _is_true(value),
    "JSON.parse": _parse_json,
    "Object.freeze": lambda value=None: value,
}
_METHODS: dict[str, Callable[..., Any]] = {
    "split": lambda text, separator=",": text.split(separator),
    "trim": lambda text: text.strip(),
    "toLowerCase": lambda text: text.lower(),
}
