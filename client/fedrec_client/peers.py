"""Whom this partner adds up with under masks: public keys that its owner has compared with theirs, by name."""

from fedrec.errors import ConfigError, ProtocolError
from fedrec.files import json_bytes, read_json, replace_file, storage_errors
from fedrec.signing import fingerprint
from fedrec.terms import NAME
from fedrec_client.settings import Node

FORMAT = 1
_KEY_HEX = 64


class Peers:
    """Public keys in a file. No coordinator can add one: masks towards partners that it made up would hide nothing.

    Args:
        node: whose owner accepts them.
    """

    def __init__(self, node: Node) -> None:
        self._own, self._path = node.settings.name, node.state / "peers.json"
        self._own_key = node.signing_key().public.hex()

    def keys(self) -> dict[str, bytes]:
        """Accepted keys by name. Raises RunError: the file is damaged."""
        if not self._path.is_file():
            return {}
        values, _ = read_json(self._path, FORMAT)
        return {str(name): bytes.fromhex(key) for name, key in values["peers"].items()}

    def add(self, name: str, key: str, *, replace: bool = False) -> str:
        """Accept a key from now on; its fingerprint.

        Raises: ConfigError: no name, no key, this node's own name, or another key is known and `replace` is false.
        """
        key = key.strip().lower()
        problems = [] if NAME.fullmatch(name) else [f"{name!r} is no partner's name"]
        problems += [f"{name} is this node's own name"] if name == self._own else []
        problems += ["that key is this node's own"] if key == self._own_key else []
        if len(key) != _KEY_HEX or set(key) - set("0123456789abcdef"):
            problems.append(f"the key must be {_KEY_HEX} hex digits, as `flower-client peers key` prints it")
        known = self.keys()
        if not problems and not replace and known.get(name, bytes.fromhex(key)) != bytes.fromhex(key):
            problems.append(
                f"{name} is known with another key, {fingerprint(known[name])}; --replace accepts the new one"
            )
        twins = [other for other, bytes_ in known.items() if bytes_.hex() == key and other != name]
        problems += [f"that key is known as {', '.join(twins)}'s: a partner counts once"] if twins else []
        if problems:
            raise ConfigError.of_all(problems, "ask the partner itself, not the coordinator", "peers add")
        self._keep({**known, name: bytes.fromhex(key)})
        return fingerprint(bytes.fromhex(key))

    def remove(self, name: str) -> None:
        """Accept it no longer. Raises ConfigError: it was not."""
        known = self.keys()
        if name not in known:
            raise ConfigError(f"{name} is no peer", f"there are {', '.join(sorted(known)) or 'none'}")
        self._keep({other: key for other, key in known.items() if other != name})

    def _keep(self, keys: dict[str, bytes]) -> None:
        values = {"format": FORMAT, "peers": {name: key.hex() for name, key in sorted(keys.items())}}
        with storage_errors(self._path.parent):
            replace_file(self._path, json_bytes(values))


def refuse_too_few(peers: Peers, needed: int) -> None:
    """Raises ProtocolError unless so many partners, this one included, could add up."""
    there = len(peers.keys()) + 1
    if there < needed:
        raise ProtocolError(
            f"sums under masks need {needed} partners, {there} are accepted here",
            "exchange keys with the other partners: flower-client peers key, then flower-client peers add NAME KEY",
        )
