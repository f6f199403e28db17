"""The support example's figures for people: table, page, and where to look."""

from typing import Any

from fedrec_sim.example_page import Page, Section, interval

WORDS = {
    "bm25": "shared words (BM25)",
    "question_only": "sentence encoder, question alone",
    "encoder": "sentence encoder, question and answer",
    "adapter": "and an adapter trained together, no privacy",
    "adapter_private": "and an adapter trained together, private",
}
_FIGURES = ("recall@1", "recall@3", "recall@5", "refusal_balanced", "auroc", "right_where_answered")
HEAD = ("way", *_FIGURES)


def table(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line a way to match; cells as in `HEAD`."""
    return [(WORDS[name], *(interval(row[figure]) for figure in _FIGURES)) for name, row in result["rows"].items()]


def page(result: dict[str, Any]) -> Page:
    """The report."""
    best, promise = result["rows"]["encoder"], result["privacy"]
    misses = [(one["desk"], one["request"], one["found"], one["right"], str(one["rank"])) for one in result["misses"]]
    spread = result["rows"]["adapter_private"]["over_seeds"]["recall@1"]
    return Page(
        title="Support answers: an example of fedrec",
        lead="Six desks with the real FAQs of six products. Requests in other words, and requests that no desk can "
        "answer, were written for fedrec; thresholds were chosen on validation requests, figures are of test requests.",
        tiles=[
            ("recall@1", f"{best['recall@1'][0]:.3f}"),
            ("recall@5", f"{best['recall@5'][0]:.3f}"),
            ("accuracy of refusal", f"{best['refusal_balanced'][0]:.3f}"),
            ("epsilon of the adapter", f"{promise['epsilon']:.2f}"),
        ],
        sections=[
            Section(
                "Ways to match",
                HEAD,
                table(result),
                (
                    f"{best['known']} requests with an answer and {best['unknown']} without; value and 95% interval of "
                    "a bootstrap over requests. Accuracy of refusal is balanced: the mean of known requests answered "
                    "and unknown ones refused.",
                    f"The private adapter over seeds {result['seeds']}: recall@1 {spread['mean']:.3f} ± "
                    f"{spread['std']:.3f}.",
                ),
            ),
            Section("What is missed", ("desk", "request", "found", "right", "rank of the right one"), misses),
        ],
        facts=f"{result['command']}; commit {result['commit']}; {result['seconds']} s",
    )
