"""The statement as a page for people: `PRIVACY.md`, beside `privacy.json` in every adapter's folder."""

import math
from collections.abc import Mapping
from typing import Any


def statement_page(statement: Mapping[str, Any], adapter: str) -> str:
    """What `privacy_statement` says, in plain words, as Markdown; every figure is that of the statement.

    Args:
        adapter: its version or hash, as the folder's `fedrec.json` names it.
    """
    if statement["mode"] == "none":
        return _UNPROTECTED.format(adapter=adapter)
    return "\n\n".join(
        [
            _opening(statement, adapter),
            _by_how_much(statement),
            _when(statement),
            _how(statement),
            _check(statement),
            "",
        ]
    )


_UNPROTECTED = """# Privacy of adapter {adapter}

**This adapter protects nobody.** It was trained without differential privacy. Whoever holds it, or saw how it came about, may find out who was in the training data and what they did. Use it to compare, not to hand on.
"""

# Where a statement does not say it otherwise (`ledger_covers`): a partner has one ledger.
_LEDGER_COVERS = "in this training and all others"


def _check(statement: Mapping[str, Any]) -> str:
    return f"""## How to check

- `privacy.json` beside this page holds the same figures for programs, and the hash of the plan that every message carried.
- `fedrec privacy plan` computes what a plan costs; `fedrec privacy audit` attacks the code that adds the noise.
- Each partner's ledger (`fedrec privacy ledger show`, `verify`) says what its data have paid, {statement.get("ledger_covers", _LEDGER_COVERS)}.
- docs/threat-model.md says who could attack, what stops them, and what is open."""


def _opening(statement: Mapping[str, Any], adapter: str) -> str:
    seeded = ""
    if statement["noise_source"] == "seeded":
        seeded = (
            "\n\n**Simulation.** The noise came from a seed, so that the run can be repeated. Whoever knows the seed can "
            "take it off: the figures below say what the same run would promise with secret noise."
        )
    return f"""# Privacy of adapter {adapter}

What was protected: **{_protected(statement)}, at one organisation**. The adapter would have come out nearly the same without any one of them. How nearly is what the figures say.{seeded}"""


def _protected(statement: Mapping[str, Any]) -> str:
    if "user_is" in statement:
        return f"{statement['user_is']} at a time, and not all that one person may have written"
    return "each person, with everything they did"


def _by_how_much(statement: Mapping[str, Any]) -> str:
    unmasked = statement["mode"] == "secagg" and not statement.get("masked", False)
    holder = "whoever holds the adapter" if unmasked else "whoever holds the adapter, and the coordinator"
    opener = "somebody who opens one partner's own answers"
    rows = [
        (holder, statement["epsilon"], statement["found_rate_at_most"]),
        (
            "another partner who took part",
            statement["other_partner_epsilon"],
            statement["other_partner_found_rate_at_most"],
        ),
        (
            f"{opener}: the coordinator can, as nothing is masked in a simulation" if unmasked else opener,
            statement["partner_alone_epsilon"],
            statement["partner_alone_found_rate_at_most"],
        ),
    ]
    wrong = 100 * statement["false_alarm_rate"]
    table = "\n".join(f"| {who} | {_figure(epsilon)} | {_percent(found)} |" for who, epsilon, found in rows)
    return f"""## Against whom, and by how much

| against | epsilon | of 100 people who took part, found on average at most |
| --- | --- | --- |
{table}

The last column is about an attacker who knows everything else, everybody else's data included, and who wrongly accuses no more than {wrong:g} in 100 people who did not take part. Pure guessing would find {wrong:g}. Epsilon is the same promise as experts write it: whatever anybody concludes from the adapter is at most e^epsilon times as likely with the person as without, plus delta = {statement["delta"]:g}."""


def _when(statement: Mapping[str, Any]) -> str:
    listed = "\n".join(f"- {item}" for item in statement["does_not_cover"])
    return f"""## Under which assumption

Mode `{statement["mode"]}`. {_sentence(statement["assumption"])}

## What it does not cover

{listed}"""


def _how(statement: Mapping[str, Any]) -> str:
    rows = "\n".join(
        f"| {p['part']} | {p['steps']} | {p['sampling_prob']:g} | {p['l2_clip_norm']:g} | {p['noise_multiplier']:.3f} |"
        for p in statement["parts"]
    )
    return f"""## How

In every step each person's contribution is cut to a fixed length, the contributions are added up, and random noise is added in proportion to that length. Only that sum leaves a partner. Cost is added up over all steps by privacy loss distributions, and a second accountant must agree.

| part | steps | each person taken with probability | length (l2_clip_norm) | noise / length |
| --- | --- | --- | --- | --- |
{rows}

{_first_weights(statement)}"""


def _first_weights(statement: Mapping[str, Any]) -> str:
    """Where they come from; statements of an older fedrec name no start."""
    data, start = statement.get("public_data"), statement.get("start", "nothing")
    sources = []
    if start == "catalog":
        sources.append("from made walks over the public catalogue, which no person took (`start` in `privacy.json`)")
    if data:
        sources.append(f"from {data}, published data of other people (`public_data`)")
    if not sources:
        return "The adapter's first weights were learnt from nobody."
    return f"Before any partner's person was read, the model had learnt {' and '.join(sources)}: no epsilon was spent."


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _figure(epsilon: float) -> str:
    return f"{epsilon:.2f}"


def _percent(rate: float) -> str:
    """Of 100, rounded up: a promise is not rounded in its own favour."""
    return f"{min(100.0, math.ceil(1000 * rate) / 10):.1f}"
