"""What sums under masks are made of, each against something slower or older than itself."""

import hashlib
import hmac
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedrec.errors import ProtocolError
from fedrec.secagg import masks, shamir
from fedrec.secagg.masks import add_stream, agree, derive, from_words, public_key, seal, to_words, unseal
from fedrec.secagg.packing import pack, packed_bytes, unpack

SECRET, SESSION = bytes(range(32)), bytes([9] * 32)
RNG = np.random.default_rng(1)
# RFC 7748 security considerations, and the order-8 points that libraries list.
P = 2**255 - 19
SMALL_ORDER = [
    *(value.to_bytes(32, "little") for value in (0, 1, P - 1, P, P + 1)),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]


@pytest.mark.parametrize("threshold", range(1, 7))
def test_any_shares_up_to_the_threshold_open_a_secret_and_fewer_another(
    threshold: int, make_stream: Callable[[str], Any]
) -> None:
    points = [1, 2, 3, 7, 50, 99_999]
    shares = shamir.split(SECRET, points, threshold, make_stream("split"))
    for some in itertools.combinations(points, threshold):
        assert shamir.combine({point: shares[point] for point in some}) == SECRET
    assert shamir.combine(shares) == SECRET
    for few in itertools.combinations(points, threshold - 1):
        if few:
            assert shamir.combine({point: shares[point] for point in few}) != SECRET
    assert threshold == 1 or SECRET not in shares.values()


def test_fewer_shares_fit_any_secret() -> None:
    """The reason why they tell nothing: with one more share of anybody's choice, every secret is possible."""
    shares = shamir.split(SECRET, [1, 2, 3], 3)
    for wanted in (bytes(32), bytes([200] * 32)):
        # The line through (0, wanted), (1, share), (2, share) is a polynomial of degree 2: its value at 3 is a share.
        known = {0: int.from_bytes(wanted, "big")} | {p: int.from_bytes(shares[p], "big") for p in (1, 2)}
        third = (known[0] - 3 * known[1] + 3 * known[2]) % shamir.PRIME
        assert shamir.combine({1: shares[1], 2: shares[2], 3: third.to_bytes(32, "big")}) == wanted


def test_the_field_is_the_largest_below_2_to_256() -> None:
    def is_probably_prime(number: int) -> bool:
        return all(pow(base, number - 1, number) == 1 for base in (2, 3, 5, 7))

    assert [n for n in range(shamir.PRIME, 2**256) if n % 2 and is_probably_prime(n)] == [shamir.PRIME]


def test_the_polynomial_is_as_the_entropy_says(make_stream: Callable[[str], Any]) -> None:
    stream = make_stream("s")
    drawn = [int.from_bytes(stream(32), "big") for _ in range(2)]
    shares = shamir.split(SECRET, [1, 2, 3], 3, make_stream("s"))
    for point in (1, 2, 3):
        value = int.from_bytes(SECRET, "big") + drawn[1] * point + drawn[0] * point**2
        assert int.from_bytes(shares[point], "big") == value % shamir.PRIME


@pytest.mark.parametrize(
    ("secret", "points", "threshold"),
    [
        (SECRET, [1, 2], 3),
        (SECRET, [1, 2], 0),
        (SECRET, [1, 1], 2),
        (SECRET, [0, 1], 2),
        (SECRET, [1, shamir.PRIME], 2),
        (SECRET, [], 1),
        (bytes([255] * 32), [1, 2], 2),
        (bytes(31), [1, 2], 2),
        (bytes(33), [1, 2], 2),
    ],
)
def test_what_cannot_be_split_is_refused(secret: bytes, points: list[int], threshold: int) -> None:
    with pytest.raises(ValueError, match=r"threshold|field element") as found:
        shamir.split(secret, points, threshold)
    assert secret.hex() not in str(found.value)


@pytest.mark.parametrize("shares", [{}, {1: bytes(31)}, {1: bytes(32), 2: bytes([255] * 32)}, {1: bytes(33)}])
def test_what_are_no_shares_is_refused(shares: dict[int, bytes]) -> None:
    with pytest.raises(ProtocolError, match="field elements"):
        shamir.combine(shares)


def test_a_draw_is_never_outside_of_the_field() -> None:
    answers = iter([bytes([255] * 32), shamir.PRIME.to_bytes(32, "big"), bytes([7] * 32)])
    assert shamir.draw(lambda n_bytes: next(answers)) == bytes([7] * 32)


def slow_pack(values: list[int], bits: int) -> bytes:
    """Bit by bit."""
    whole = sum(value << (place * bits) for place, value in enumerate(values))
    return whole.to_bytes(-(-len(values) * bits // 8), "little")


@pytest.mark.parametrize("bits", range(1, 33))
def test_packing_equals_a_slow_oracle(bits: int) -> None:
    for length in (0, 1, 2, 7, 8, 9, 15, 16, 17, 41):
        values = RNG.integers(0, 2**bits, length, dtype=np.uint64).astype(np.uint32)
        content = pack(values, bits)
        assert content == slow_pack(values.tolist(), bits)
        assert len(content) == packed_bytes(length, bits)
        assert np.array_equal(unpack(content, length, bits), values)


def test_packing_drops_higher_bits() -> None:
    assert pack(np.array([0xFFFFFFFF, 0x12345678], np.uint32), 12) == slow_pack([0xFFF, 0x678], 12)


@pytest.mark.parametrize("bits", range(1, 33))
def test_bits_behind_the_last_number_are_refused(bits: int) -> None:
    for length in (1, 3, 5, 7):
        content = bytearray(pack(np.zeros(length, np.uint32), bits))
        for place in range(length * bits, 8 * len(content)):
            content[place // 8] |= 1 << (place % 8)
            with pytest.raises(ProtocolError, match="behind its last"):
                unpack(bytes(content), length, bits)
            content[place // 8] ^= 1 << (place % 8)
        assert not unpack(bytes(content), length, bits).any()


@pytest.mark.parametrize("more", [-1, 1, 8])
def test_another_length_is_refused(more: int) -> None:
    with pytest.raises(ProtocolError, match="not 9 numbers of 20 bits"):
        unpack(bytes(packed_bytes(9, 20) + more), 9, 20)


@pytest.mark.parametrize("bits", [0, 33, -1])
def test_other_widths_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="bits must be"):
        pack(np.zeros(1, np.uint32), bits)
    with pytest.raises(ValueError, match="bits must be"):
        unpack(b"", 0, bits)


@pytest.mark.parametrize("bits", [1, 2, 8, 20, 31, 32])
def test_integers_come_back_and_those_that_would_not_are_refused(bits: int) -> None:
    half = 2 ** (bits - 1)
    vector = np.array([-half, half - 1, 0, -1], np.int64)
    words = to_words(vector, bits)
    assert words.tolist() == [int(value) % 2**bits for value in vector]
    assert np.array_equal(from_words(words, bits), vector)
    for wrong in (half, -half - 1, 2**40, np.iinfo(np.int64).min):
        with pytest.raises(ProtocolError, match=f"does not fit into {bits} bits") as found:
            to_words(np.array([0, wrong], np.int64), bits)
        assert bits < 8 or str(wrong) not in str(found.value)
    assert to_words(np.zeros(0, np.int64), bits).shape == (0,)


def one_shot(key: bytes, numbers: int) -> np.ndarray:
    """The stream in one piece."""
    cipher = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(cipher.update(bytes(4 * numbers)), "<u4")


@pytest.mark.parametrize("numbers", [0, 1, 7, 8, 9, 16, 17, 40])
def test_a_stream_is_one_aes_ctr_stream_however_many_blocks_it_takes(
    numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks, "_BLOCK", 8)
    start = RNG.integers(0, 2**32, numbers, dtype=np.uint64).astype(np.uint32)
    total = start.copy()
    add_stream(total, SECRET, 1)
    assert np.array_equal(total, start + one_shot(SECRET, numbers))
    add_stream(total, SECRET, -1)
    assert np.array_equal(total, start)


def test_a_vector_longer_than_a_real_block_equals_the_oracle() -> None:
    total = np.zeros(masks._BLOCK + 1001, np.uint32)
    add_stream(total, SECRET, 1)
    assert np.array_equal(total, one_shot(SECRET, len(total)))
    assert total.dtype == np.uint32


def test_added_streams_cancel_in_any_order() -> None:
    total = np.zeros(100, np.uint32)
    other = bytes([1] * 32)
    for key, sign in ((SECRET, 1), (other, -1), (other, 1), (SECRET, -1)):
        add_stream(total, key, sign)
    assert not total.any()
    add_stream(total, SECRET, 1)
    add_stream(total, other, -1)
    assert total.any()


def test_a_derived_key_is_hkdf_by_hand() -> None:
    """RFC 5869: extract with the session as salt, expand with version and roles, each after its length."""
    info = b"fedrec-secagg/1" + b"\x00\x04mask" + b"\x00\x01a" + b"\x00\x02\xc3\xa9"
    extracted = hmac.digest(SESSION, SECRET, "sha256")
    assert derive(SECRET, SESSION, "mask", "a", "é") == hmac.digest(extracted, info + b"\x01", "sha256")


def test_no_two_purposes_share_a_key() -> None:
    """Role lists that read alike, in another order, of another number, session or secret."""
    lists = [(), ("ab",), ("a", "b"), ("b", "a"), ("a", "b", ""), ("", "a", "b"), ("a", "", "b"), ("a\x00\x01b",)]
    keys = [derive(SECRET, SESSION, *roles) for roles in lists]
    keys += [derive(SECRET, bytes([8] * 32), "a", "b"), derive(bytes(32), SESSION, "a", "b")]
    assert len(set(keys)) == len(keys)


def test_mutant_roles_without_lengths_read_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    def joined(secret: bytes, session: bytes, *roles: str) -> bytes:
        return hashlib.sha256(secret + session + "".join(roles).encode()).digest()

    monkeypatch.setitem(globals(), "derive", joined)
    with pytest.raises(AssertionError):
        test_no_two_purposes_share_a_key()


def test_two_keys_agree() -> None:
    one, other = bytes([1] * 32), bytes([2] * 32)
    assert agree(one, public_key(other)) == agree(other, public_key(one)) != agree(one, public_key(one))


def test_agreement_is_rfc_7748s() -> None:
    """Section 5.2, first vector."""
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    assert agree(scalar, point).hex() == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_keys_of_small_order_are_refused(point: bytes) -> None:
    with pytest.raises(ProtocolError, match="none that a secret can be agreed with") as found:
        agree(SECRET, point)
    assert SECRET.hex() not in str(found.value)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_keys_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(ProtocolError, match="none that a secret"):
        agree(SECRET, bytes(length))


def test_what_was_sealed_opens_for_the_same_key_and_session_alone() -> None:
    sealed = seal(SECRET, bytes(64), SESSION)
    assert len(sealed) == 80
    assert unseal(SECRET, sealed, SESSION) == bytes(64)
    changed = bytes([sealed[0] ^ 1]) + sealed[1:]
    for key, content, about in (
        (bytes(32), sealed, SESSION),
        (SECRET, sealed, bytes(32)),
        (SECRET, changed, SESSION),
        (SECRET, sealed[:-1], SESSION),
    ):
        with pytest.raises(ProtocolError, match="cannot be opened"):
            unseal(key, content, about)
