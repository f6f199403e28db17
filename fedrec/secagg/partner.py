"""A partner's side of one sum. It answers five steps, in order, each once, and reveals one kind of share of anybody."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import PrivacyError, ProtocolError
from fedrec.secagg import shamir
from fedrec.secagg.masks import KEY_BYTES, add_stream, agree, derive, public_key, seal, to_words, unseal
from fedrec.secagg.messages import (
    Confirmation,
    Confirmations,
    Inbox,
    Keys,
    Revealed,
    Roster,
    Shares,
    SumTerms,
    Survivors,
    keys_signed,
    seed_commitment,
    share_commitment,
    survivors_signed,
)
from fedrec.secagg.packing import pack
from fedrec.signing import SigningKey, verify

SEED, MASK_KEY = "seed", "mask-key"


@dataclass
class PartnerSum:
    """One partner in one sum; made anew for every attempt, and of no use after its last step or a refusal.

    Nothing of it is written to disk: after a crash the partner is one of those that were lost, and its masks are
    taken off by the others.

    Args:
        name: the partner's.
        identity: its long-lived signing key.
        peers: public keys that the partner's owner accepts, by name; the own one need not be among them.
        terms: what is added up, as this partner derives it.
        entropy: of all secrets; the operating system's, but in test vectors.
    Raises: PrivacyError: somebody of the cohort is no peer.
    Reference: Bonawitz et al. 2017, doi:10.1145/3133956.3133982, Figure 4, with signatures and consistency check;
        Bell et al. 2020, doi:10.1145/3372297.3417885, above 100 partners. docs/secagg.md has every message.
    """

    name: str
    identity: SigningKey = field(repr=False)
    peers: Mapping[str, bytes] = field(repr=False)
    terms: SumTerms
    entropy: shamir.Entropy = field(default=os.urandom, repr=False)
    _step: int = 0
    _roster: Roster = field(default_factory=lambda: Roster(keys=()), repr=False)
    _session: bytes = field(default=b"", repr=False)
    _shared: tuple[str, ...] = field(default=(), repr=False)
    _survivors: tuple[str, ...] = field(default=(), repr=False)
    _chosen: tuple[str, ...] = field(default=(), repr=False)
    _held: dict[str, bytes] = field(default_factory=dict, repr=False)  # owner -> its two shares for this partner

    def __post_init__(self) -> None:
        if self.name not in self.terms.cohort:
            raise ProtocolError("this partner is not in the cohort")
        if strangers := sorted(set(self.terms.cohort) - {self.name} - self.peers.keys()):
            listed = ", ".join(strangers[:5])
            raise PrivacyError(f"the cohort has partners that are no peers of this one: {listed}", "see peers")
        self._share_private = self.entropy(KEY_BYTES)
        # Field elements, since they are shared out.
        self._mask_private, self._seed = shamir.draw(self.entropy), shamir.draw(self.entropy)

    def keys(self) -> Keys:
        """Step 1: fresh keys, and the neighbours, drawn before anybody's keys are known."""
        self._enter(0)
        if not self.terms.graph.is_complete:
            others = [name for name in self.terms.cohort if name != self.name]
            self._chosen = tuple(sorted(_drawn(others, self.terms.graph.degree, self.entropy)))
        keys = public_key(self._mask_private), public_key(self._share_private)
        signed = keys_signed(self.terms.context, self.name, *keys, self._chosen)
        self._step = 1
        return Keys(
            partner=self.name,
            mask_key=keys[0],
            share_key=keys[1],
            chosen=self._chosen,
            signature=self.identity.sign("secagg-keys", signed),
        )

    def shares(self, roster: Roster) -> Shares:
        """Step 2: seal shares of both secrets for every holder.

        Raises: ProtocolError: a roster that is not of this sum, too small, or with a signature that does not hold.
        """
        self._enter(1)
        self._check_roster(roster)
        self._roster, self._session = roster, self.terms.session(roster)
        points, seeds, keys = self._split()
        sealed, commitments = {}, {}
        for holder, point in points.items():
            seed, key = seeds[point], keys[point]
            if holder == self.name:
                self._held[holder] = seed + key
            else:
                sealed[holder] = seal(self._sealing_key(self.name, holder), seed + key, self._session)
            commitments[holder] = (
                share_commitment(self._session, SEED, self.name, holder, seed),
                share_commitment(self._session, MASK_KEY, self.name, holder, key),
            )
        self._step = 2
        committed = seed_commitment(self._session, self.name, self._seed)
        return Shares(sealed=sealed, commitments=commitments, seed_commitment=committed)

    def check_inbox(self, inbox: Inbox) -> None:
        """Step 3, before a row is read: open what others sealed, and see that enough of them did.

        Raises: ProtocolError: too few shared, somebody who is not in the roster, or a share that is not the one
            that its owner committed to.
        """
        self._enter(2)
        self._check_shared(inbox)
        for owner, sealed in inbox.sealed.items():
            try:
                pair = unseal(self._sealing_key(owner, self.name), sealed, self._session)
            except ProtocolError as error:
                raise ProtocolError(f"a share that partner {owner} sealed cannot be opened") from error
            seed, key = pair[:KEY_BYTES], pair[KEY_BYTES:]
            told = (
                share_commitment(self._session, SEED, owner, self.name, seed),
                share_commitment(self._session, MASK_KEY, owner, self.name, key),
            )
            if told != inbox.commitments[owner]:
                raise ProtocolError(f"partner {owner} committed to other shares than it sent")
            self._held[owner] = pair
        self._shared = inbox.shared
        self._step = 3

    def mask(self, vector: NDArray[np.int64]) -> bytes:
        """Step 3: the vector, hidden and packed.

        Args:
            vector: int64 `[numbers]`; noised already. Private until masked, and after that nobody's but the sum's.
        Raises: ProtocolError: another length, or a number that does not fit.
        Privacy: to whoever lacks the masks the result is uniform. Masks are used up by it.
        """
        self._enter(3)
        if vector.shape != (self.terms.numbers,):
            raise ProtocolError(f"the vector is not {self.terms.numbers} numbers")
        words = to_words(vector, self.terms.bits)
        add_stream(words, derive(self._seed, self._session, "self", self.name), 1)
        for other in self._shared:
            if other != self.name and self._are_neighbours(self.name, other):
                secret = agree(self._mask_private, self._roster.by_name[other].mask_key)
                add_stream(words, pair_key(secret, self._session, self.name, other), pair_sign(self.name, other))
        self._step = 4
        self._forget_own()
        return pack(words, self.terms.bits)

    def confirm(self, survivors: Survivors) -> Confirmation:
        """Step 4: sign the one set of survivors that this partner accepts in this sum.

        Raises: ProtocolError: fewer than the terms' least, somebody who did not share, or this partner missing.
        """
        self._enter(4)
        named = survivors.survivors
        if list(named) != sorted(set(named)) or not set(named) <= set(self._shared):
            raise ProtocolError("survivors must have shared, and stand in order, each once")
        if len(named) < self.terms.least or self.name not in named:
            raise ProtocolError(f"a sum of fewer than {self.terms.least}, or without this partner, is not opened")
        self._survivors, self._step = named, 5
        values = survivors_signed(self._session, self._shared, named)
        return Confirmation(signature=self.identity.sign("secagg-survivors", values))

    def reveal(self, confirmations: Confirmations) -> Revealed:
        """Step 5: of survivors a share of the seed, of lost ones a share of the mask key; never both of one.

        Raises: ProtocolError: too few signatures, or one that is not over the same survivors.
        """
        self._enter(5)
        signed = confirmations.signatures
        if not signed.keys() <= set(self._survivors) or len(signed) < self.terms.least:
            raise ProtocolError(f"fewer than {self.terms.least} survivors have confirmed each other")
        values = survivors_signed(self._session, self._shared, self._survivors)
        for name, signature in signed.items():
            verify(self._public(name), "secagg-survivors", values, signature)
        self._step = 6
        held, self._held = self._held, {}
        alive = set(self._survivors)
        return Revealed(
            seeds={owner: pair[:KEY_BYTES] for owner, pair in held.items() if owner in alive},
            mask_keys={owner: pair[KEY_BYTES:] for owner, pair in held.items() if owner not in alive},
        )

    def _enter(self, step: int) -> None:
        """A step out of order ends the sum for this partner; so does a step that fails, since none is repeated."""
        if self._step != step:
            self._step = -1
            self._held.clear()
            self._forget_own()
            raise ProtocolError("this partner's part in the sum is over, or was asked out of order")
        self._step = -1

    def _forget_own(self) -> None:
        """Python cannot wipe what it holds; it can let go of it."""
        self._mask_private = self._seed = self._share_private = b""

    def _check_roster(self, roster: Roster) -> None:
        names = [keys.partner for keys in roster.keys]
        if names != sorted(set(names)) or not set(names) <= set(self.terms.cohort):
            raise ProtocolError("the roster is not of this cohort, or not in order")
        if len(names) < self.terms.least or self.name not in names:
            raise ProtocolError(f"a roster of fewer than {self.terms.least}, or without this partner")
        for keys in roster.keys:
            self._check_keys(keys)
        if len({key for keys in roster.keys for key in (keys.mask_key, keys.share_key)}) != 2 * len(names):
            raise ProtocolError("a key stands in the roster twice")

    def _check_keys(self, keys: Keys) -> None:
        verify(self._public(keys.partner), "secagg-keys", keys.signed(self.terms.context), keys.signature)
        own = public_key(self._mask_private), public_key(self._share_private)
        if keys.partner == self.name and (keys.mask_key, keys.share_key) != own:
            raise ProtocolError("the roster has other keys of this partner than it sent")
        degree = 0 if self.terms.graph.is_complete else self.terms.graph.degree
        chosen = keys.chosen
        if len(chosen) != degree or list(chosen) != sorted(set(chosen)) or keys.partner in chosen:
            raise ProtocolError(f"partner {keys.partner} drew no {degree} neighbours")
        if not set(chosen) <= set(self.terms.cohort):
            raise ProtocolError(f"partner {keys.partner} drew somebody who was not asked")

    def _check_shared(self, inbox: Inbox) -> None:
        names = set(inbox.shared)
        if list(inbox.shared) != sorted(names) or not names <= self._roster.by_name.keys():
            raise ProtocolError("those who shared are not of the roster, or not in order")
        if len(names) < self.terms.least or self.name not in names:
            raise ProtocolError(f"fewer than {self.terms.least} shared, or not this partner")
        owners = {name for name in names if name != self.name and self._holds(name, self.name)}
        if inbox.sealed.keys() != owners or inbox.commitments.keys() != owners:
            raise ProtocolError("sealed shares are missing, or are of others than those who shared")

    def _split(self) -> tuple[dict[str, int], dict[int, bytes], dict[int, bytes]]:
        points = {name: place for place, name in enumerate(self.terms.cohort, start=1)}
        held = {n: p for n, p in points.items() if n in self._roster.by_name and self._holds(self.name, n)}
        if len(held) < self.terms.threshold:
            raise ProtocolError("too few of this partner's neighbours are left to hold its shares")
        made = [
            shamir.split(secret, list(held.values()), self.terms.threshold, self.entropy)
            for secret in (self._seed, self._mask_private)
        ]
        return held, made[0], made[1]

    def _holds(self, owner: str, holder: str) -> bool:
        return holds(self.terms, self._roster, owner, holder)

    def _are_neighbours(self, one: str, other: str) -> bool:
        return self._holds(one, other) or self._holds(other, one)

    def _sealing_key(self, owner: str, holder: str) -> bytes:
        other = owner if holder == self.name else holder
        secret = agree(self._share_private, self._roster.by_name[other].share_key)
        return derive(secret, self._session, "share", owner, holder)

    def _public(self, name: str) -> bytes:
        return self.identity.public if name == self.name else self.peers[name]


def holds(terms: SumTerms, roster: Roster, owner: str, holder: str) -> bool:
    """Whether a partner holds shares of another's secrets: in the complete graph all do, of themselves too."""
    return terms.graph.is_complete or holder in roster.by_name[owner].chosen


def pair_key(secret: bytes, session: bytes, one: str, other: str) -> bytes:
    """Of the stream that two partners share; the same for both."""
    return derive(secret, session, "mask", *sorted((one, other)))


def pair_sign(name: str, other: str) -> int:
    """Who comes first in the order of names adds, the other takes off."""
    return 1 if name < other else -1


def _drawn(names: Iterable[str], number: int, entropy: shamir.Entropy) -> list[str]:
    """So many of the names, uniformly: the first ones after sorting by random keys."""
    return [name for _, name in sorted((entropy(16), name) for name in names)][:number]
