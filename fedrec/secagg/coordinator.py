"""The coordinator's side of one sum: it passes messages on, adds masked vectors up, and takes the masks off the sum."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import ProtocolError, QuorumError
from fedrec.secagg import shamir
from fedrec.secagg.masks import Words, add_stream, agree, derive, from_words, public_key
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
    seed_commitment,
    share_commitment,
    shared_signed,
    survivors_signed,
)
from fedrec.secagg.packing import unpack
from fedrec.secagg.partner import MASK_KEY, SEED, holds, pair_key, pair_sign
from fedrec.signing import verify

# Nobody's: to see whether a secret can be agreed with a key at all.
_ANY_PRIVATE = bytes([1] * 32)
_SIGNATURE_BYTES = 64


@dataclass
class CoordinatorSum:
    """One sum. Each step takes partners' messages, then closes; who is missing by then is lost for the sum.

    It holds one vector, the sum of the masked ones, whatever the number of partners.

    Args:
        terms: what is added up.
        identities: public keys of the cohort by name.
        spoilers: partners whose shares, as they committed to them, give another secret than they committed to, or
            of whom too many others could open no share. The sum is lost because of them.
    Raises, from every `take_...`: ProtocolError: a message that is no good, whose sender then counts as lost.
    Raises, from every `close_...` and `total`: QuorumError: too few are left; the attempt has failed.
    """

    terms: SumTerms
    identities: Mapping[str, bytes] = field(repr=False)
    spoilers: set[str] = field(default_factory=set)
    _keys: dict[str, Keys] = field(default_factory=dict, repr=False)
    _seen_keys: set[bytes] = field(default_factory=set, repr=False)
    _roster: Roster = field(default_factory=lambda: Roster(keys=()), repr=False)
    _session: bytes = field(default=b"", repr=False)
    _shares: dict[str, Shares] = field(default_factory=dict, repr=False)
    _shared: tuple[str, ...] = field(default=(), repr=False)
    _masked: dict[str, str] = field(default_factory=dict, repr=False)
    _survivors: tuple[str, ...] = field(default=(), repr=False)
    _confirmed: dict[str, str] = field(default_factory=dict, repr=False)
    _revealed: dict[str, Revealed] = field(default_factory=dict, repr=False)
    _sum: Words = field(default_factory=lambda: np.zeros(0, np.uint32), repr=False)
    _is_open: bool = False

    def take_keys(self, partner: str, keys: Keys) -> None:
        """Step 1."""
        if keys.partner != partner or partner in self._keys or partner not in self.terms.cohort:
            raise ProtocolError("keys of another, of a stranger, or twice")
        verify(self.identities[partner], "secagg-keys", keys.signed(self.terms.context), keys.signature)
        degree = 0 if self.terms.graph.is_complete else self.terms.graph.degree
        chosen = set(keys.chosen)
        in_order = list(keys.chosen) == sorted(chosen)
        if not in_order or len(chosen) != degree or not chosen <= set(self.terms.cohort) - {partner}:
            raise ProtocolError(f"drew no {degree} neighbours of the cohort, in order")
        self._refuse_bad_keys(keys)
        self._seen_keys |= {keys.mask_key, keys.share_key}
        self._keys[partner] = keys

    def _refuse_bad_keys(self, keys: Keys) -> None:
        """What every partner would refuse the whole roster for must cost its sender alone its turn."""
        both = {keys.mask_key, keys.share_key}
        if len(both - self._seen_keys) != 2:
            raise ProtocolError("a key is another's, or stands there twice")
        for key in both:
            agree(_ANY_PRIVATE, key)

    def close_keys(self) -> Roster:
        """Step 1 ends: what everybody is told in step 2."""
        self._need(len(self._keys), "sent keys")
        self._roster = Roster(keys=tuple(self._keys[name] for name in sorted(self._keys)))
        self._session = self.terms.session(self._roster)
        return self._roster

    def take_shares(self, partner: str, shares: Shares) -> None:
        """Step 2."""
        if partner in self._shares or partner not in self._roster.by_name:
            raise ProtocolError("shares of a stranger, or twice")
        holders = {name for name in self._roster.by_name if holds(self.terms, self._roster, partner, name)}
        if shares.sealed.keys() != holders - {partner} or shares.commitments.keys() != holders:
            raise ProtocolError("shares for others than its neighbours")
        self._shares[partner] = shares

    def close_shares(self) -> tuple[str, ...]:
        """Step 2 ends: who shared; `inbox` has what each of them is told in step 3."""
        self._need(len(self._shares), "shared")
        self._shared = tuple(sorted(self._shares))
        self._sum = np.zeros(self.terms.numbers, np.uint32)
        return self._shared

    def inbox(self, partner: str) -> Inbox:
        """What the others sealed for one of them."""
        owners = [n for n in self._shared if n != partner and holds(self.terms, self._roster, n, partner)]
        return Inbox(
            shared=self._shared,
            sealed={owner: self._shares[owner].sealed[partner] for owner in owners},
            commitments={owner: self._shares[owner].commitments[partner] for owner in owners},
        )

    def take_masked(self, partner: str, content: bytes) -> None:
        """Step 3: added to the sum at once, if it was masked towards all who shared."""
        if partner in self._masked or partner not in self._shares:
            raise ProtocolError("a masked vector of a stranger, or twice")
        signature = base64.b64encode(content[:_SIGNATURE_BYTES]).decode()
        told = shared_signed(self._session, partner, self._shared)
        verify(self.identities[partner], "secagg-shared", told, signature)
        self._sum += unpack(content[_SIGNATURE_BYTES:], self.terms.numbers, self.terms.bits)
        self._masked[partner] = signature

    def close_masked(self) -> tuple[str, ...]:
        """Step 3 ends: whose vectors are in the sum; `survivors_for` has what each of them is told in step 4."""
        self._need(len(self._masked), "sent a masked vector")
        self._survivors = tuple(sorted(self._masked))
        return self._survivors

    def survivors_for(self, partner: str) -> Survivors:
        """Who survived, with the signatures of those whose shares one of them holds."""
        owners = (n for n in self._survivors if n != partner and holds(self.terms, self._roster, n, partner))
        return Survivors(survivors=self._survivors, signatures={name: self._masked[name] for name in owners})

    def take_confirmation(self, partner: str, confirmation: Confirmation) -> None:
        """Step 4."""
        if partner in self._confirmed or partner not in self._masked:
            raise ProtocolError("a confirmation of a stranger, or twice")
        values = survivors_signed(self._session, partner, self._shared, self._survivors)
        verify(self.identities[partner], "secagg-survivors", values, confirmation.signature)
        self._confirmed[partner] = confirmation.signature

    def close_confirmations(self) -> Confirmations:
        """Step 4 ends."""
        self._need(len(self._confirmed), "confirmed")
        return Confirmations(signatures=dict(sorted(self._confirmed.items())))

    def take_revealed(self, partner: str, revealed: Revealed) -> None:
        """Step 5. A share that is not the one its owner committed to costs the sender its turn; few may be missing."""
        if partner in self._revealed or partner not in self._masked:
            raise ProtocolError("shares of a stranger, or twice")
        alive = set(self._survivors)
        mine = {n for n in self._shared if holds(self.terms, self._roster, n, partner)}
        if not (revealed.seeds.keys() <= mine & alive and revealed.mask_keys.keys() <= mine - alive):
            raise ProtocolError("shares of others than those whom it holds shares of")
        missing = mine - revealed.seeds.keys() - revealed.mask_keys.keys()
        if len(missing) > self.terms.most_missing:  # or who withholds would have honest owners taken for spoilers
            raise ProtocolError(f"shares of {len(missing)} partners are missing, more than can have sealed none")
        for kind, place, told in ((SEED, 0, revealed.seeds), (MASK_KEY, 1, revealed.mask_keys)):
            for owner, share in told.items():
                expected = self._shares[owner].commitments[partner][place]
                if share_commitment(self._session, kind, owner, partner, share) != expected:
                    raise ProtocolError(f"a share of {owner} is not the one that was committed to")
        self._revealed[partner] = revealed

    def total(self) -> NDArray[np.int64]:
        """The sum of the survivors' vectors, int64 `[numbers]`, as long as it fits into the terms' bits.

        Raises: QuorumError: a secret cannot be opened: too few shares, or `spoilers`. ProtocolError: opened before.
        """
        if self._is_open:
            raise ProtocolError("the sum was opened before")  # the masks are off it already
        seeds = {name: self._seed(name) for name in self._survivors}
        mask_keys = {name: self._mask_key(name) for name in sorted(set(self._shared) - set(self._survivors))}
        if self.spoilers:
            names = ", ".join(sorted(self.spoilers))
            raise QuorumError(f"secrets cannot be opened as they were shared out by {names}", "ask without them")
        total, self._is_open = self._sum, True
        for name, seed in seeds.items():
            add_stream(total, derive(seed, self._session, "self", name), -1)
        for name, private in mask_keys.items():
            self._take_off_lost(total, name, private)
        return from_words(total, self.terms.bits)

    def _seed(self, survivor: str) -> bytes:
        seed = self._opened(survivor, SEED)
        if seed_commitment(self._session, survivor, seed) != self._shares[survivor].seed_commitment:
            self.spoilers.add(survivor)
        return seed

    def _mask_key(self, lost: str) -> bytes:
        private = self._opened(lost, MASK_KEY)
        if not private or public_key(private) != self._roster.by_name[lost].mask_key:
            self.spoilers.add(lost)
        return private

    def _take_off_lost(self, total: Words, lost: str, private: bytes) -> None:
        """What survivors added for somebody whose vector never came."""
        for name in self._survivors:
            if holds(self.terms, self._roster, name, lost) or holds(self.terms, self._roster, lost, name):
                secret = agree(private, self._roster.by_name[name].mask_key)
                add_stream(total, pair_key(secret, self._session, name, lost), -pair_sign(name, lost))

    def _opened(self, owner: str, kind: str) -> bytes:
        """Nothing, of an owner who shared out nothing that can be opened."""
        points = {name: place for place, name in enumerate(self.terms.cohort, start=1)}
        holders = [name for name in sorted(self._revealed) if holds(self.terms, self._roster, owner, name)]
        if len(holders) < self.terms.threshold:
            raise QuorumError(
                f"{len(holders)} holders of shares of {owner} are left, {self.terms.threshold} are needed"
            )
        shares: dict[int, bytes] = {}
        for name in holders:
            told = self._revealed[name].seeds if kind == SEED else self._revealed[name].mask_keys
            if owner in told and len(shares) < self.terms.threshold:
                shares[points[name]] = told[owner]
        try:
            return shamir.combine(shares) if len(shares) == self.terms.threshold else b""
        except ProtocolError:  # committed to what is no share at all
            return b""

    def _need(self, number: int, what: str) -> None:
        if number < self.terms.least:
            raise QuorumError(f"{number} partners {what}, {self.terms.least} are needed")
