"""Noise from a keyed CSPRNG, and the one place where a bounded sum becomes releasable."""

import math
import os

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray
from torch import Tensor

from fedrec.errors import PrivacyError
from fedrec.privacy.clipping import BoundedSum

_ROOT_BYTES = 32
_SALT = b"fedrec noise, version 1"


class NoiseSource:
    """An AES-256-CTR stream whose key is derived by HKDF-SHA256 from a secret root and a public context.

    The same root and context give the same stream. The caller therefore binds the context to the whole
    question: run, round, part, step, parent hash, plan hash and a fingerprint of the data. A repeated round
    then repeats the same release, which costs nothing more, and another question never meets the same noise,
    which the difference of two answers would cancel. Hash or separate the fields: no two questions may read
    alike.

    Not for several threads at once; a forked process would repeat the stream.

    Example:
        >>> root = os.urandom(32)
        >>> source = NoiseSource.from_root(root, b"run|round 1|head")
        >>> again = NoiseSource.from_root(root, b"run|round 1|head")
        >>> bool((source.gaussian(3) == again.gaussian(3)).all()), source
        (True, NoiseSource(<secret>))
    """

    def __init__(self, key: bytes) -> None:
        # A zero nonce is safe: every context has its own key, and a key starts its counter once.
        self._stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()

    @classmethod
    def from_root(cls, root_key: bytes, context: bytes) -> "NoiseSource":
        """The stream of one question.

        Args:
            root_key: 32 bytes, secret.
            context: not empty, names the whole question (see the class).
        Raises: PrivacyError: another length of the root, or no context.
        """
        if len(root_key) != _ROOT_BYTES or not context:
            raise PrivacyError("noise needs a root key of 32 bytes and a context that names the question")
        return cls(HKDF(algorithm=SHA256(), length=32, salt=_SALT, info=context).derive(root_key))

    @classmethod
    def fresh(cls, context: bytes) -> "NoiseSource":
        """A stream under a new root from the operating system that nobody keeps: it can never be repeated."""
        return cls.from_root(os.urandom(_ROOT_BYTES), context)

    def __repr__(self) -> str:
        return "NoiseSource(<secret>)"

    def words(self, n: int) -> NDArray[np.uint64]:
        """The next `n` words of 64 bits, uint64 `[n]`."""
        return np.frombuffer(self._stream.update(bytes(8 * n)), dtype="<u8").astype(np.uint64, copy=False)

    def uniform(self, n: int) -> NDArray[np.float64]:
        """The next `n` uniform draws, float64 `[n]` in (0, 1]: multiples of 2**-53."""
        return ((self.words(n) >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53

    def gaussian(self, n: int) -> NDArray[np.float32]:
        """The next `n` standard normal draws, float32 `[n]`."""
        return self.gaussian_float64(n).astype(np.float32)

    def gaussian_float64(self, n: int) -> NDArray[np.float64]:
        """The same draws, not yet rounded; at most 9.5 in size.

        Radii come from 64 bits: of 53 the last few would be further apart than what is rounded to later.
        Reference: Box & Muller 1958, doi:10.1214/aoms/1177706645.
        """
        pairs = self.words(2 * -(-n // 2)).reshape(-1, 2)
        radius = np.sqrt(-2.0 * np.log((pairs[:, 0] | np.uint64(1)).astype(np.float64) * 2.0**-64))
        angle = 2.0 * math.pi * ((pairs[:, 1] >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)[:n]


def add_noise(bounded: BoundedSum, noise_std: float, source: NoiseSource) -> Tensor:
    """Add Gaussian noise to a bounded sum, which uses it up; the only way out for one.

    Args:
        bounded: private; of no user, too.
        noise_std: of each coordinate, gradient units, public; `PrivacyPlan.noise_std`.
        source: of this question alone.
    Returns: float32 `[params]` on the sum's device; released.
    Raises: PrivacyError: `noise_std` is not finite and > 0 (or beyond float32), or the sum was used before.
    Privacy: one Gaussian mechanism of sensitivity `bounded.l2_norm_bound`. Noise is added in float64 and the
        result rounded to a public grid, a millionth of `noise_std` wide: low bits do not tell the sum.
    Reference: Mironov 2012, doi:10.1145/2382196.2382264, on what low bits give away.
    """
    noised_sum = noised(bounded, noise_std, source)
    grid = 2.0 ** (math.floor(math.log2(noise_std)) - 20)
    return torch.from_numpy((np.round(noised_sum / grid) * grid).astype(np.float32)).to(bounded.value.device)


def noised(bounded: BoundedSum, noise_std: float, source: NoiseSource, clamp: float = math.inf) -> NDArray[np.float64]:
    """The same, float64 `[params]` and not yet rounded: for `add_noise` and `integers` alone, since low bits may tell.

    Args:
        clamp: the sum's coordinates are cut to this size before noise, which moves no two sums further apart.
    Raises, Privacy: as `add_noise`.
    """
    if not 1e-30 <= noise_std <= 1e30:
        raise PrivacyError(f"noise_std must be > 0, finite and within float32, is {noise_std!r}")
    total = bounded.consume().detach().cpu().double().numpy()
    clamped: NDArray[np.float64] = np.clip(total, -clamp, clamp)
    return clamped + noise_std * source.gaussian_float64(len(total))
