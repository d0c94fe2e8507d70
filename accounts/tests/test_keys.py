from __future__ import annotations

import hashlib
import hmac
import re
import zlib

import pytest

from accounts import keys
from accounts.keys import Digest, MalformedKey, Peppers

PEPPER, OLDER = "p" * 48, "ö" * 80  # the second is longer than a SHA-256 block


def test_key_has_the_documented_format():
    public_id = keys.make_public_id()
    key = keys.make_key(public_id)

    assert re.fullmatch(r"sk-gh-[0-9A-Za-z]{12}-[0-9A-Za-z]{49}", key)
    assert keys.public_id(key) == public_id


def test_two_keys_of_one_public_id_differ():
    assert keys.make_key("a" * 12) != keys.make_key("a" * 12)


@pytest.mark.parametrize("unsigned", ["", "sk-gh-", "sk-gh-AAAAAAAAAAAA-" + "z" * 43])
def test_checksum_is_crc32_in_base62(unsigned):
    number = 0
    for digit in keys.checksum(unsigned):
        number = number * 62 + keys.ALPHABET.index(digit)

    assert number == zlib.crc32(unsigned.encode())
    assert len(keys.checksum(unsigned)) == 6


def test_every_single_wrong_character_is_noticed():
    key = keys.make_key("Ab0" * 4)
    for at in range(len(key)):
        wrong = key[:at] + ("x" if key[at] != "x" else "y") + key[at + 1 :]
        with pytest.raises(MalformedKey):
            keys.public_id(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sk-gh-",
        "sk-" + "x" * 48,
        "sk-gh-AAAAAAAAAAAA-" + "x" * 49,
        "sk-gh-AAAAAAAAAAA\0-" + "x" * 49,
        "sk-gh-AAAAAAAAAAAÄ-" + "x" * 49,
        "sk-gh-AAAAAAAAAAA٣-" + "x" * 49,
        "sk-gh-\ud800AAAAAAAAAAA-" + "x" * 49,
        "x" * 1_000_000,
    ],
)
def test_other_text_is_malformed(text):
    with pytest.raises(MalformedKey):
        keys.public_id(text)


@pytest.mark.parametrize("around", ["{}\n", " {}", "{}x", "{}\0"])
def test_nothing_may_stand_around_a_key(around):
    with pytest.raises(MalformedKey):
        keys.public_id(around.format(keys.make_key("a" * 12)))


@pytest.mark.parametrize("pepper", [PEPPER, OLDER, "", "x" * 64, "x" * 65])
def test_digest_is_hmac_sha256(pepper):
    digest = Peppers([pepper]).digest("some key")

    assert digest.value == hmac.new(pepper.encode(), b"some key", hashlib.sha256).hexdigest()
    assert digest.pepper == Peppers.fingerprint(pepper)


def test_only_the_key_itself_fits_its_digest():
    peppers = Peppers([PEPPER])
    digest = peppers.digest("the key")

    assert peppers.verify("the key", digest)
    assert not peppers.verify("another", digest)
    assert not peppers.verify("the key", Digest("", ""))


def test_a_new_pepper_in_front_leaves_old_keys_valid():
    digest = Peppers([OLDER]).digest("the key")

    assert Peppers([PEPPER, OLDER]).verify("the key", digest)
    assert Peppers([PEPPER, OLDER]).digest("the key").pepper == Peppers.fingerprint(PEPPER)


def test_a_dropped_pepper_ends_the_keys_made_under_it():
    assert not Peppers([PEPPER]).verify("the key", Peppers([OLDER]).digest("the key"))


def test_all_digests_are_in_the_order_of_the_peppers():
    assert Peppers([PEPPER, OLDER]).all_digests("k") == [
        Peppers([PEPPER]).digest("k").value,
        Peppers([OLDER]).digest("k").value,
    ]


def test_at_least_one_pepper_is_needed():
    with pytest.raises(ValueError, match="pepper"):
        Peppers([])


def test_fingerprint_does_not_tell_the_pepper():
    assert PEPPER not in Peppers.fingerprint(PEPPER)
    assert len(Peppers.fingerprint(PEPPER)) == 8


def test_old_key_may_have_any_format():
    assert keys.old_key_sha256("Sk old/1~") == hashlib.sha256(b"Sk old/1~").hexdigest()


@pytest.mark.parametrize("text", ["", " ", "a ", "\ta", "a\0b", "a\nb", "schlüssel", "\ud800", "x" * 513])
def test_old_key_that_no_header_could_carry_is_malformed(text):
    with pytest.raises(MalformedKey):
        keys.old_key_sha256(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("0" * 64, True), ("A" * 64, False), ("0" * 63, False), ("0" * 64 + "\n", False)]
)
def test_sha256_is_64_lower_case_hex_digits(text, expected):
    assert keys.is_sha256(text) is expected
