"""What a partner agreed to: the coordinator's signed terms, held against the partner's own policy, kept on its disk."""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache

from fedrec.errors import ConfigError, PrivacyError, ProtocolError, RunError
from fedrec.files import json_bytes, read_json, replace_file, sha256, storage_errors
from fedrec.privacy.accounting import epsilon_pld
from fedrec.privacy.plan import PartPlan
from fedrec.signing import verify
from fedrec.terms import FederationTerms, read_terms
from fedrec_client.coordinator_keys import CoordinatorKeys
from fedrec_client.coordinator_link import CoordinatorLink
from fedrec_client.settings import Node, PolicySettings

FORMAT = 1
_TERMS, _CATALOG = "terms.json", "catalog.parquet"


@dataclass(frozen=True)
class Agreement:
    """Terms and catalogue as they were agreed to; both are checked whenever they are read.

    Attributes:
        catalog: bytes of the public catalogue.
    """

    terms: FederationTerms
    catalog: bytes = field(repr=False)

    def hold_against(self, policy: PolicySettings) -> None:
        """A policy may have become stricter since. Raises PrivacyError: with every reason."""
        if problems := policy_problems(self.terms, policy):
            raise PrivacyError.of_all(problems, "ask the coordinator, or change client.toml", "terms")

    @classmethod
    def read(cls, node: Node) -> "Agreement":
        """Raises RunError: nothing was agreed to yet, or a file is damaged. ProtocolError: the signature is wrong."""
        path = node.state / _TERMS
        if not path.is_file():
            raise RunError(f"{node.folder}: no terms are agreed to yet", "flower-client agree")
        values, _ = read_json(path, FORMAT)
        terms = _signed_terms(values, CoordinatorKeys(node).known())
        catalog = (node.state / _CATALOG).read_bytes()
        if sha256(catalog) != values["catalog_sha256"]:
            raise RunError(f"{node.state / _CATALOG}: damaged", "flower-client agree")
        return cls(terms, catalog)


def agree(node: Node, link: CoordinatorLink, *, anew: bool = False) -> Agreement:
    """Fetch the terms, hold them against the policy, and keep them.

    Args:
        anew: take terms that differ from those agreed to before, and a new key that the old one vouches for.
    Raises:
        PrivacyError: the policy does not allow them: every reason at once; or they changed.
        ProtocolError, UnreachableError: as `CoordinatorLink`; a signature that is not the coordinator's.
    """
    told, keys = link.terms(), CoordinatorKeys(node)
    terms = keys.heard(lambda: _signed_terms(told, [keys.current()]), link, is_agreed=anew)
    Agreement(terms, b"").hold_against(node.settings.policy)
    path = node.state / _TERMS
    if path.is_file() and not anew and read_json(path, FORMAT)[0]["terms"] != told["terms"]:
        raise PrivacyError("the coordinator's terms have changed", "read them, then flower-client agree")
    catalog = link.catalog(str(told["catalog_sha256"]))
    kept = {name: told[name] for name in ("terms", "signature", "catalog_sha256")}
    with storage_errors(node.state):
        replace_file(node.state / _CATALOG, catalog)
        replace_file(path, json_bytes({"format": FORMAT, **kept}))
    return Agreement(terms, catalog)


def policy_problems(terms: FederationTerms, policy: PolicySettings) -> list[str]:
    """Everything in terms that a policy does not allow; in words, without private values."""
    problems = []
    if terms.mode not in policy.modes:
        problems.append(f"mode {terms.mode} is not among the allowed {', '.join(policy.modes)}")
    if policy.backbones and terms.model.backbone_hash not in policy.backbones:
        problems.append(f"backbone {terms.model.config.backbone} has a hash that is not allowed")
    if (plan := terms.plan) is not None:
        if (whole := epsilon_pld(plan.events(), policy.delta)) > policy.epsilon_total:
            problems.append(f"costs epsilon {whole:.2f} in all, {policy.epsilon_total:g} is allowed")
        if terms.mode == "secagg" and plan.dishonest < policy.min_dishonest:
            least = policy.min_dishonest
            problems.append(f"bears {plan.dishonest} dishonest partners, policy.min_dishonest is {least}")
        costs = {part.part: round_epsilon(part, policy.delta) for part in plan.parts}
        allowed = f"{policy.epsilon_round:g} is allowed"
        problems += [f"a round of {n} costs {c:.2f}, {allowed}" for n, c in costs.items() if c > policy.epsilon_round]
    return problems


def in_words(terms: FederationTerms, delta: float) -> str:
    """What is trained from a partner's rows by terms, and what it costs, to be read before a row is touched."""
    told = ["trains a recommender from who had what and when"]
    if (task := terms.task) is not None:
        asked = {"rating": "how many stars", "click": "who likes what: 4 stars or more"}[task.task]
        told = [
            f"trains a head for {asked}, from ratings of {task.low:g} to {task.high:g}",
            f"reads a user's latest {terms.work.max_history} ratings beside {terms.model.config.public_data}",
        ]
    if (plan := terms.plan) is None:
        return "; ".join([*told, "no privacy"])
    told += [f"part {part.part}, {part.total_steps} steps at clip norm {part.l2_clip_norm:g}" for part in plan.parts]
    return "; ".join([*told, f"epsilon {epsilon_pld(plan.events(), delta):.2f} in all at delta {delta:g}"])


def refuse_to_serve(node: Node, terms: FederationTerms) -> None:
    """Raises ConfigError: a task's head recommends nothing; or the rows are another node's, whose service owns them."""
    if terms.task is not None:
        raise ConfigError(
            f"{terms.name} trains a head for the {terms.task.task} task, which recommends nothing",
            "ask it with flower-client predict; set local.serve = false",
        )
    if node.owner is not node:
        raise ConfigError("a service deletes people from rows that are its own", "serve from the node that imported")


@lru_cache(maxsize=256)
def round_epsilon(part: PartPlan, delta: float, steps: int = 1) -> float:
    """Epsilon of a round of a part alone; seconds the first time, kept afterwards."""
    return epsilon_pld([(part.part, part.sampling_prob, part.noise_multiplier, steps)], delta)


def _signed_terms(told: dict[str, object], keys: list[bytes]) -> FederationTerms:
    """Signed by one of these; what is kept may be older than the key of now."""
    values, signature = told.get("terms"), told.get("signature")
    if not isinstance(values, dict) or not isinstance(signature, str):
        raise ProtocolError("the coordinator sent no signed terms")
    values = json.loads(json.dumps(values))
    for key in keys[:-1]:
        with suppress(ProtocolError):
            verify(key, "federation-terms", values, signature)
            break
    else:
        verify(keys[-1], "federation-terms", values, signature)
    return read_terms(values, "terms")
