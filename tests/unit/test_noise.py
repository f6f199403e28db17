"""The keyed stream against an implementation by hand, its distribution, and who may touch a bounded sum."""

import hashlib
import hmac
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

import fedrec
from fedrec.errors import PrivacyError
from fedrec.privacy.clipping import BoundedSum, clip_and_sum
from fedrec.privacy.noise import NoiseSource, add_noise
from fedrec.privacy.sampling import poisson_sample
from fedrec_sim.seeds import seeded_root

ROOT = bytes(range(32))


def source(context: bytes = b"run|1|head") -> NoiseSource:
    return NoiseSource.from_root(ROOT, context)


def test_stream_is_aes_ctr_under_an_hkdf_key() -> None:
    """RFC 5869 and the counter mode by hand: a change of the stream would change every repeated release."""
    extracted = hmac.digest(b"fedrec noise, version 1", ROOT, "sha256")
    key = hmac.digest(extracted, b"run|1|head" + b"\x01", "sha256")
    block = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()  # one block at a time, to count by hand
    stream = b"".join(block.update(counter.to_bytes(16, "big")) for counter in range(3))
    words = [int.from_bytes(stream[i : i + 8], "little") for i in range(0, 48, 8)]
    assert source().uniform(6).tolist() == [((word >> 11) + 1) / 2**53 for word in words]


def test_same_context_same_stream_however_it_is_cut() -> None:
    whole = source().gaussian(1000)
    again = source()
    assert np.array_equal(whole, np.concatenate([again.gaussian(10), again.gaussian(990)]))
    assert whole.dtype == np.float32
    assert source().gaussian(0).shape == source().uniform(0).shape == (0,)
    assert np.array_equal(source().gaussian(7), whole[:7])


def test_uniforms_are_uniform_and_never_zero() -> None:
    draws = source().uniform(200_000)
    assert draws.min() > 0
    assert draws.max() <= 1
    assert stats.kstest(draws, "uniform").pvalue > 0.01


def test_gaussians_are_standard_normal_to_the_tails() -> None:
    draws = source().gaussian(400_000).astype(np.float64)
    assert stats.kstest(draws, "norm").pvalue > 0.01
    beyond = int((np.abs(draws) > 4).sum())
    assert 10 <= beyond <= 45  # expected 25
    assert abs(np.corrcoef(draws[::2], draws[1::2])[0, 1]) < 4 / math.sqrt(200_000)


def test_both_tails_are_as_heavy_as_a_normal_distribution() -> None:
    """Beyond 3, 4 and 4.5 standard deviations, either side: within 4.5 standard errors of the expected count."""
    draws = source().gaussian_float64(2_000_000)
    for bound in (3.0, 4.0, 4.5):
        expected = len(draws) * stats.norm.sf(bound)
        for side in (draws, -draws):
            assert abs(int((side > bound).sum()) - expected) < 4.5 * math.sqrt(expected)
    assert draws.max() > 4.7


@pytest.mark.parametrize("of", [lambda x: x, np.square, np.sign, lambda x: (np.abs(x) > 2).astype(float)])
def test_draws_are_independent_of_the_ones_before(of: Callable[[np.ndarray], np.ndarray]) -> None:
    """Lags 1 to 12, in the draws and in what of them could hide a dependence: size, sign, being in the tail."""
    draws = of(source().gaussian_float64(400_000))
    draws = (draws - draws.mean()) / draws.std()
    correlations = [float(np.mean(draws[:-lag] * draws[lag:])) for lag in range(1, 13)]
    assert max(abs(c) for c in correlations) < 4.5 / math.sqrt(len(draws))


def test_other_contexts_and_roots_are_independent() -> None:
    mine = source().gaussian(100_000)
    others = [
        source(b"run|2|head"),
        NoiseSource.from_root(seeded_root(1), b"run|1|head"),
        NoiseSource.fresh(b"x"),
    ]
    for other in others:
        assert abs(np.corrcoef(mine, other.gaussian(100_000))[0, 1]) < 5 / math.sqrt(100_000)


def test_fresh_sources_never_repeat() -> None:
    assert not np.array_equal(NoiseSource.fresh(b"x").uniform(4), NoiseSource.fresh(b"x").uniform(4))


def test_seeded_roots_repeat_and_differ() -> None:
    assert seeded_root(1) == seeded_root(1) != seeded_root(2)
    assert len(seeded_root(-1)) == 32


@pytest.mark.parametrize(("root", "context"), [(bytes(31), b"x"), (bytes(33), b"x"), (bytes(32), b"")])
def test_a_wrong_root_or_no_context_is_refused(root: bytes, context: bytes) -> None:
    with pytest.raises(PrivacyError, match="32 bytes"):
        NoiseSource.from_root(root, context)


def test_repr_shows_no_key() -> None:
    assert repr(source()) == "NoiseSource(<secret>)"


def bounded(params: int = 50_000, value: float = 3.0) -> BoundedSum:
    return BoundedSum(torch.full((params,), value), 1.0)


@pytest.mark.parametrize("noise_std", [1e-4, 0.7, 2.0, 1e6])
def test_noise_has_the_asked_spread_around_the_sum(noise_std: float) -> None:
    noised = add_noise(bounded(), noise_std, source())
    assert noised.dtype == torch.float32
    residue = (noised.double().numpy() - 3.0) / noise_std
    assert stats.kstest(residue, "norm").pvalue > 0.01


def test_an_empty_sample_is_noised_like_any_other() -> None:
    noised = add_noise(clip_and_sum(torch.zeros(0, 10_000), 1.0), 2.0, source())
    assert float(noised.std()) == pytest.approx(2.0, rel=0.05)


def test_low_bits_lie_on_a_public_grid() -> None:
    """Float noise added to a float gives away the sum's low bits where the two nearly cancel."""
    noised = add_noise(bounded(value=0.1234567), 1.0, source()).double() * 2**20
    assert torch.equal(noised, noised.round())


def test_a_sum_is_noised_once() -> None:
    total = bounded()
    add_noise(total, 1.0, source())
    with pytest.raises(PrivacyError, match="twice"):
        add_noise(total, 1.0, source(b"another"))


@pytest.mark.parametrize("noise_std", [0.0, -1.0, math.nan, math.inf, 1e-40])
def test_no_noise_is_refused_and_the_sum_not_used_up(noise_std: float) -> None:
    total = bounded(2)
    with pytest.raises(PrivacyError, match="noise_std"):
        add_noise(total, noise_std, source())
    add_noise(total, 1.0, source())


def test_only_noise_consumes_bounded_sums() -> None:
    root = Path(fedrec.__file__).parents[1]
    sources = [p for f in ("fedrec", "server", "client", "simulations") for p in (root / f).rglob("*.py")]
    users = {path.name for path in sources if ".consume()" in path.read_text(encoding="utf-8")}
    assert users == {"noise.py", "clipping.py"}


def test_sampling_takes_each_user_with_the_public_probability() -> None:
    taken = poisson_sample(100_000, 0.3, source())
    assert len(taken) == pytest.approx(30_000, abs=4 * math.sqrt(21_000))
    assert np.array_equal(taken, np.unique(taken))
    assert taken.dtype == np.int64
    assert np.array_equal(taken, poisson_sample(100_000, 0.3, source()))


def test_privacy_draws_from_nothing_but_the_keyed_stream() -> None:
    """No generator with a seed, in any file between a row and its release."""
    root = Path(fedrec.__file__).parent
    seeded = re.compile(r"manual_seed|torch\.(randn?|normal|bernoulli)|np\.random|default_rng|import random|Generator")
    files = [path for folder in ("privacy", "aggregation") for path in (root / folder).glob("*.py")]
    assert not [path.name for path in files if seeded.search(path.read_text(encoding="utf-8"))]
    assert len(files) > 10


def test_no_partner_or_coordinator_code_can_make_a_key_from_a_seed() -> None:
    root = Path(fedrec.__file__).parents[1]
    files = [path for folder in ("fedrec", "server", "client") for path in (root / folder).rglob("*.py")]
    assert not [path.name for path in files if "seeded_root" in path.read_text(encoding="utf-8")]


def test_sampling_everybody_and_nobody() -> None:
    assert poisson_sample(5, 1.0, source()).tolist() == [0, 1, 2, 3, 4]
    assert poisson_sample(0, 0.5, source()).tolist() == []
    assert poisson_sample(3, 1e-12, source()).tolist() == []


@pytest.mark.parametrize("prob", [0.0, -0.1, 1.1, math.nan])
def test_a_probability_out_of_range_is_refused(prob: float) -> None:
    with pytest.raises(PrivacyError, match="sampling_prob"):
        poisson_sample(3, prob, source())


def test_seeded_root_is_pinned() -> None:
    """Runs of simulations are repeatable only as long as this does not change."""
    assert seeded_root(7) == hashlib.sha256(b"fedrec seeded root, no secret: 7").digest()
