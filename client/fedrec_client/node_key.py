"""The key with which Flower's node says who it is: P-384, in OpenSSH's form, which its SuperNode reads."""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedrec.errors import ConfigError
from fedrec.signing import read_secret

_REMEDY = "`ssh-keygen -t ecdsa -b 384 -N '' -f FILE` makes one, or leave the option out"


def make_node_key() -> bytes:
    """A new one."""
    return _openssh(ec.generate_private_key(ec.SECP384R1()))


def read_node_key(path: Path) -> bytes:
    """A partner's own, in OpenSSH's or PEM's form.

    Raises: ConfigError: missing, readable by others, encrypted, or of another kind.
    """
    content = read_secret(path)
    is_openssh = content.lstrip().startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    load = serialization.load_ssh_private_key if is_openssh else serialization.load_pem_private_key
    try:
        key = load(content, None)
    except TypeError as error:
        raise ConfigError(f"{path}: is encrypted; a node starts without a password", _REMEDY) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: no private key that Flower's node reads", _REMEDY) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ConfigError(f"{path}: no P-384 key, which Flower's node authentication asks for", _REMEDY)
    return _openssh(key)


def public_part(openssh: bytes) -> bytes:
    """Its public key, PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    key = serialization.load_ssh_private_key(openssh, None).public_key()
    return key.public_bytes(serialization.Encoding.PEM, form)


def _openssh(key: ec.EllipticCurvePrivateKey) -> bytes:
    form, none = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, none)
