"""Dealing users to partners."""

import numpy as np
import pytest

from fedrec.data.partition import deal_users
from fedrec.errors import ConfigError


def test_a_seed_repeats_and_another_deals_otherwise() -> None:
    first, again, other = (deal_users(50, 4, seed) for seed in (1, 1, 2))
    assert [users.tolist() for users in first] == [users.tolist() for users in again]
    assert [users.tolist() for users in first] != [users.tolist() for users in other]
    assert first[0].dtype == np.int64


def test_dealing_is_random_not_in_blocks() -> None:
    # Neighbours in a file are alike; in blocks of 25 all 24 pairs would stay together.
    together = [np.diff(users).tolist().count(1) for users in deal_users(100, 4, seed=3)]
    assert max(together) < 16


@pytest.mark.parametrize(("n_users", "partners"), [(3, 4), (3, 0), (0, 0), (0, 1), (3, -1)])
def test_every_partner_needs_a_user(n_users: int, partners: int) -> None:
    with pytest.raises(ConfigError, match=f"partners = {partners}"):
        deal_users(n_users, partners, seed=0)
