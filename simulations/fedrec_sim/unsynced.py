"""Ledgers of thousands of simulated partners: all that a ledger checks, without the wait for the disk."""

from typing import ClassVar

from fedrec.privacy.ledger import PrivacyLedger


class UnsyncedLedger(PrivacyLedger):
    """The same records, chain, anchor and refusals; a loss of power may cost the newest records, a crash cannot.

    A real ledger waits for the disk some ten times a round (about 80 ms where it was measured), which is nothing for
    one partner and a quarter of an hour a round for 10,000 of them on one machine. Nobody's data depend on a
    simulated ledger. It lies here, where neither the core nor the partner's node may import from (a test), so that no
    configuration of a node can ask for it; `private.ledger = "unsynced"` does in a simulation, and the run's
    configuration and summary show it.
    """

    _synced: ClassVar[bool] = False
