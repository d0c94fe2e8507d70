"""What is JSON and what is not, class by class, named after what is strange about it: for test_fuzz.py."""

from __future__ import annotations


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]", inside: bytes = b"") -> bytes:
    return opening * depth + inside + closing * depth


# Values that are JSON.
Y_VALUES = {
    "array_empty": b"[]", "array_in_array": b"[[]]", "array_of_null": b"[null]",
    "array_with_blanks": b"[ 1 ,\t2\n,\r3 ]", "array_with_leading_blank": b"[ 1]",
    "array_heterogeneous": b'[null, 1, "1", {}]', "array_ending_in_newline": b'["a"\n]', "number": b"123.456789",
    "number_zero": b"0", "number_minus_zero": b"-0", "number_minus_zero_float": b"-0.0", "number_negative": b"-123",
    "number_0e1": b"0e1", "number_0e+1": b"0e+1", "number_capital_e": b"1E22", "number_capital_e_minus": b"1E-2",
    "number_exponent": b"123e45", "number_exponent_with_sign": b"1e+2",
    "number_close_to_zero": b"-0.%s1" % (b"0" * 77), "number_double_huge": b"1.7976931348623157e308",
    "number_after_blank": b" 4", "number_max_int64": b"9223372036854775807",
    "number_min_int64": b"-9223372036854775808", "number_max_uint64": b"18446744073709551615",
    "number_beyond_double_precision": b"9007199254740993", "number_beyond_64_bits": b"123456789012345678901234567890",
    "object_empty": b"{}", "object_empty_key": b'{"":0}', "object_of_strings": b'{"title":"\\u041f\\u043e"}',
    "object_escaped_nul_in_key": b'{"foo\\u0000bar": 42}', "object_with_newlines": b'{\n"a": "b"\n}',
    "object_simple": b'{"a":[]}', "object_long_strings": b'{"x":[{"id": "%s"}], "id": "%s"}' % (b"x" * 40, b"x" * 40),
    "string": b'"asd"', "string_empty": b'""', "string_1_2_3_byte_sequences": b'"\\u0060\\u012a\\u12AB"',
    "string_surrogate_pair": b'"\\uD801\\udc37"', "string_surrogate_pairs": b'"\\ud83d\\ude39\\ud83d\\udc8d"',
    "string_allowed_escapes": b'"\\"\\\\\\/\\b\\f\\n\\r\\t"', "string_backslash_and_u": b'"\\\\u0000"',
    "string_escaped_nul": b'"\\u0000"', "string_escaped_control": b'"\\u0012"',
    "string_escaped_noncharacter": b'"\\uFFFF"', "string_comments": b'"a/*b*/c/*d//e"',
    "string_double_escape": b'"\\\\a"', "string_last_code_point": b'"\xf4\x8f\xbf\xbf"',
    "string_nonbreaking_blank": '"new\u00a0line"'.encode(), "string_noncharacter": '"\U0001bfff"'.encode(),
    "string_pi": '"π"'.encode(), "string_separators": '"\u2028\u2029"'.encode(), "string_delete": b'"a\x7fa"',
    "string_bom_inside": '"\ufeff"'.encode(), "string_unescaped_utf8": '"€𝄞"'.encode(), "true": b"true",
    "false": b"false", "null": b"null", "nested_100_deep": nested(100),
    "objects_nested_50_deep": nested(50, b'{"a":', b"}", b"1"),
}  # fmt: skip

# Values that are not.
N_VALUES = {
    "array_1_true_without_comma": b"[1 true]", "array_extra_comma": b'["",]', "array_double_comma": b"[1,,2]",
    "array_just_comma": b"[,]", "array_missing_value": b"[, 1]", "array_colon": b'["": 1]', "array_unclosed": b'["x"',
    "array_closed_twice": b'["x"]]', "array_star": b"[*]", "array_closed_by_brace": b"[1}",
    "array_newline_unclosed": b'["a",\n4\n,1,', "number_++": b"++1234", "number_plus": b"+1", "number_minus": b"-",
    "number_minus_01": b"-01", "number_01": b"012", "number_leading_dot": b".2e-3", "number_trailing_dot": b"1.",
    "number_0.e1": b"0.e1", "number_2.e3": b"2.e3", "number_0e": b"0e", "number_0e+": b"0e+", "number_1e+-": b"1e+-2",
    "number_1eE2": b"1eE2", "number_9.e+": b"9.e+", "number_hex": b"0x42", "number_octal": b"0o7",
    "number_infinity": b"Infinity", "number_minus_infinity": b"-Infinity", "number_inf": b"Inf", "number_nan": b"NaN",
    "number_minus_nan": b"-NaN", "number_underscore": b"1_000", "number_thousands": b"1 000",
    "number_with_letter": b"1.2a-3", "number_double_dot": b"0.1.2", "number_expression": b"1+2",
    "number_fullwidth_digit": "１".encode(), "number_minus_blank": b"- 1", "number_comma": b"1,5",
    "object_bad_value": b'{"x": truth}', "object_missing_colon": b'{"a" b}', "object_double_colon": b'{"x"::"b"}',
    "object_comma_for_colon": b'{"x", null}', "object_missing_value": b'{"a":', "object_missing_key": b'{:"b"}',
    "object_number_key": b"{1:1}", "object_unquoted_key": b'{a: "b"}', "object_single_quotes": b"{'a':0}",
    "object_trailing_comma": b'{"id":0,}', "object_trailing_commas": b'{"id":0,,}',
    "object_two_commas": b'{"a":1,,"b":2}', "object_unclosed": b'{"a":1',
    "object_with_comment": b'{"a":/*comment*/1}', "object_trailing_comment": b'{"a":1}/**/',
    "object_garbage_at_end": b'{"a":1}#', "object_emoji_key": '{🇨🇭}'.encode(), "string_single_quotes": b"'a'",
    "string_unclosed": b'"a', "string_escape_x": b'"\\x00"', "string_escape_a": b'"\\a"',
    "string_escape_uppercase_u": b'"\\U0001F600"', "string_incomplete_escape": b'"\\"', "string_bad_u": b'"\\u00G0"',
    "string_short_u": b'"\\u00A"', "string_incomplete_surrogate": b'"\\uD834\\uDd"',
    "string_escaped_emoji": '"\\🌀"'.encode(), "string_raw_newline": b'"a\nb"', "string_raw_tab": b'"\t"',
    "string_raw_nul": b'"a\x00b"', "string_raw_control": b'"\x1f"', "string_backquotes": b"`a`",
    "string_no_quotes": b"abc", "string_escaped_quote_outside": b'\\"a"', "true_capital": b"True", "true_cut": b"tru",
    "nul": b"nul", "undefined": b"undefined", "empty": b"", "nothing_but_blank": b" ", "form_feed": b"\x0c1",
    "vertical_tab": b"1\x0b", "nonbreaking_blank": b"\xc2\xa01", "word_joiner": b"\xe2\x81\xa01",
    "two_values": b"1 2", "lone_bracket": b"]", "nested_100000_unclosed": b"[" * 100_000,
    "objects_nested_100000_unclosed": b'[{"":' * 50_000,
}  # fmt: skip

# Values that a parser may take or refuse: beyond what every language can hold, or not quite Unicode.
I_VALUES = {
    "number_huge_exponent": b"0.4e006%s" % (b"9" * 90), "number_double_overflow": b"123123e100000",
    "number_neg_double_overflow": b"-123123e100000", "number_underflow": b"123e-10000000",
    "number_5000_digits": b"1" * 5000, "number_100000_digits": b"7" * 100_000,
    "number_500000_decimals": b"0." + b"7" * 500_000, "string_lone_high_surrogate": b'"\\uDADA"',
    "string_lone_low_surrogate": b'"\\uDd61a"', "string_inverted_pair": b'"\\uDd1e\\uD834"',
    "string_high_surrogate_then_letter": b'"\\uD888\\u1234"', "string_surrogate_key": b'{"\\uDFAA":0}',
    "string_invalid_utf8": b'"\xff"', "string_iso_latin_1": b'"\xe9"', "string_overlong_2": b'"\xc0\xaf"',
    "string_overlong_6": b'"\xfc\x83\xbf\xbf\xbf\xbf"', "string_truncated_utf8": b'"\xe0\xff"',
    "string_lone_continuation": b'"\x81"', "string_utf8_surrogate": b'"\xed\xa0\x80"',
    "string_beyond_unicode": b'"\xf4\xbf\xbf\xbf"', "nested_500_deep": nested(500), "nested_1000_deep": nested(1000),
    "nested_10000_deep": nested(10_000), "nested_100000_deep": nested(100_000),
    "objects_nested_20000_deep": nested(20_000, b'{"a":', b"}", b"1"),
}  # fmt: skip

# Whole bodies that are not a JSON object.
N_BODIES = {
    "nothing": b"", "blank": b" ", "byte_order_mark": b"\xef\xbb\xbf", "incomplete_byte_order_mark": b"\xef\xbb{}",
    "null": b"null", "number": b"1", "string": b'"asd"', "array": b"[]", "array_of_a_body": b'[{"model":"echo"}]',
    "true": b"true", "object_closed_twice": b'{"model":"echo"}}',
    "object_then_object": b'{"model":"echo"}{"model":"echo"}', "unclosed": b'{"model":"echo"',
    "single_quoted": b"{'model':'echo'}", "only_opening": b"{", "only_closing": b"}",
    "form": b"model=echo&messages=x", "html": b"<.>", "asn_1": b"\x30\x80",
    "utf_16": '{"model":"echo"}'.encode("utf-16"), "utf_16_be": '{"a":1}'.encode("utf-16-be"),
    "utf_32": '{"a":1}'.encode("utf-32"), "nul_bytes": b"\x00" * 100, "nul_at_end": b'{"model":"echo"}\x00',
    "lone_quote": b'"', "json_lines": b'{"model":"echo"}\n{"model":"echo"}', "comment": b'// x\n{"model":"echo"}',
    "100000_brackets": b"[" * 100_000, "100000_braces": b"{" * 100_000, "100000_keys_open": b'{"a":' * 100_000,
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    "multipart": b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\necho\r\n--x--\r\n',
}  # fmt: skip
