# %% [markdown]
# # A first federation
#
# Four bookshops want to recommend books, and none of them may hand on what its customers read. At the end you will
# have trained one recommender with all four under differential privacy, read what that promises and what it has cost
# each shop, and asked for recommendations.
#
# The shops and their customers are *made up* here, so that everything is small. `make setup` has fetched the language
# model that reads the books' texts; nothing else is needed, and nothing is sent anywhere.

# %%
import os
from pathlib import Path

import numpy as np

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

from fedrec.config import load_config
from fedrec.data.catalog import ItemCatalog, write_catalog
from fedrec.data.interactions import Interaction, InteractionTable, write_interactions
from fedrec.privacy.ledger import PrivacyLedger
from fedrec_sim.cli_output import DEMO
from fedrec_sim.federation import private_plan
from fedrec_sim.ladder import run_ladder
from fedrec_sim.run import hold_run, start_run
from fedrec_sim.serving import load_adapter, recommend, titles_history
from fedrec_sim.world import load_world, settle_hardware

QUICK = "FEDREC_TUTORIAL_QUICK" in os.environ  # for the tests: the same steps, smaller
folder = Path("tutorial-first-federation")
folder.mkdir(exist_ok=True)

# %% [markdown]
# ## The catalogue is public
#
# Every shop sells the same 48 books. What a book is about is no secret: the language model makes a vector of each
# book's text, and all shops get the same ones.

# %%
genres = ["crime", "cookery", "space travel", "poetry"]
kinds = ["Beginner's Book", "Short History", "Great Mystery", "Handbook", "Letters", "Last Word"]
titles = [f"{kind} of {genre.title()}, Volume {volume}" for volume in (1, 2) for kind in kinds for genre in genres]
catalog = ItemCatalog(
    ids=tuple(f"book-{number:02d}" for number in range(len(titles))),
    titles=tuple(titles),
    texts=tuple(f"{title}. A book about {genres[number % 4]}." for number, title in enumerate(titles)),
    categories=tuple((genres[number % 4],) for number in range(len(titles))),
    years=(None,) * len(titles),
)
write_catalog(catalog, folder / "catalog.parquet")

# %% [markdown]
# ## Who read what is private
#
# Made customers: each likes one genre, and now and then takes up something else. In earnest every shop has a file of
# its own, which never leaves it. A simulation has one file, and deals the customers out to the shops.

# %%
rng = np.random.default_rng(7)
n_customers = 120 if QUICK else 400
rows = []
for customer in range(n_customers):
    liked = np.flatnonzero(np.arange(len(titles)) % 4 == customer % 4)
    read = [*rng.permutation(liked)[: rng.integers(4, 10)], rng.integers(len(titles))]
    for day, book in enumerate(dict.fromkeys(rng.permutation(read).tolist())):
        rows.append(Interaction(f"customer-{customer}", catalog.ids[book], None, 86_400.0 * day, line=0))
write_interactions(InteractionTable.from_rows(rows, catalog), folder / "interactions.parquet")
print(f"{len(rows)} made purchases of {n_customers} made customers")

# %% [markdown]
# ## What is trained
#
# We start from the demo's configuration, which explains every key (`simulations/configs/demo.toml`), and change what
# is different here. `popularity` is what we compare with: everybody is offered what sells best.

# %%
rounds = 4 if QUICK else 12
parts = f"""[
    {{part="prior", rounds=1, share=0.2, l2_clip_norm=1.0, optimizer="sgd", server_learning_rate=1.0}},
    {{part="head", rounds={rounds}, share=0.8, l2_clip_norm=0.15, optimizer="adam", server_learning_rate=0.05}},
]"""
overrides = [
    'name="books"',
    f"data.source={str(folder)!r}",
    "partners=4",
    "rounds.quorum=4",
    'rows=["popularity", "federated_dp"]',
    'model.sentence_encoder="none"',
    "model.feature_dim=24",
    'model.public_data="none"',
    "private.shape.public_dim=0",
    "private.shape.summary_dim=16",
    "private.shape.score_dim=16",
    "private.tuned=[]",
    "plain.shape.summary_dim=16",
    "plain.shape.score_dim=24",
    "private.epsilon=8.0",
    "private.delta=1e-4",
    f"private.parts={parts.replace(chr(10), '')}",
]
config = settle_hardware(load_config(DEMO, tuple(overrides)))

# %% [markdown]
# ## What it will promise, before anybody trains
#
# In each round every shop clips what one customer can contribute, adds the contributions up, and adds its share of
# noise. The plan says how much noise that takes, so that *all rounds together* stay below epsilon 8.

# %%
plan = private_plan(config, "secagg")
for part in plan.parts:
    print(f"{part.part}: {part.total_steps} rounds, noise {part.noise_multiplier:.1f} times what one customer may move")
print(f"all together: epsilon {plan.epsilon():.2f} at delta {plan.delta:g}")
assert plan.epsilon() <= config.private.epsilon

# %% [markdown]
# ## Train together
#
# Each shop trains on its own customers. The coordinator sees the noised sum of the four answers, added up under masks
# so that it sees no single one, and makes the next adapter of it.

# %%


def tell(event: dict) -> None:
    """Called with everything that happens; we print what each round has cost so far."""
    if event["event"] == "round_committed":
        print(f"round {event['round']:2d}, {event['part']}: epsilon {event['epsilon']:.2f} spent")


with hold_run(folder / "runs", config.name, resume=False) as place:
    run = start_run(place, config, "docs/tutorials/first_federation.py")
    world = load_world(config)
    summary = run_ladder(run, world, tell, stop=lambda: False)

# %% [markdown]
# ## Is it any good?
#
# For each customer the last book was held back; HR@10 is how often it is among the first ten of all books that the
# customer has not bought. Made customers are easy to please: the text of a book says which of the four tastes it is
# for, so that little needs to be learnt through the noise. Real ones are not; `simulations/LEADERBOARD.md` has them.

# %%
for name, row in summary["rows"].items():
    promised = "nothing promised" if row["epsilon"] is None else f"epsilon {row['epsilon']:.2f}"
    print(f"{name:14s} HR@10 {row['hr@10']:.3f}, {promised}")
assert summary["rows"]["federated_dp"]["hr@10"] > summary["rows"]["popularity"]["hr@10"]

# %% [markdown]
# ## What it promises
#
# The adapter is a folder that says of itself what it gives away: `privacy.json` for programs, `PRIVACY.md` for
# people. `runs/books/report.html` shows the whole run.

# %%
page = (run.folder / "adapter" / "PRIVACY.md").read_text(encoding="utf-8")
print(page.partition("\n## Under which")[0])
statement = summary["privacy"]
assert statement["epsilon"] <= 8.0
assert f"{statement['epsilon']:.2f}" in page

# %% [markdown]
# Noise that is derived from a seed can be repeated, which is good for a tutorial and protects nobody: the statement
# says so. `private.noise_source="secret"` draws it in earnest.

# %%
assert statement["noise_source"] == "seeded"

# %% [markdown]
# ## What each shop has paid
#
# Every shop keeps a ledger. A round is written there before a single purchase is read for it, and once the budget is
# spent the shop's own machine refuses, whatever the coordinator asks for.

# %%
for path in sorted((run.folder / "ledger" / "federated_dp-1").glob("*.sqlite")):
    ledger = PrivacyLedger(path)
    epsilon, delta = ledger.spent()
    print(f"{path.stem}: epsilon {epsilon:.2f} of {ledger.budget.epsilon:g} spent, {ledger.remaining():.2f} left")
    assert abs(epsilon - statement["epsilon"]) < 1e-6

# %% [markdown]
# ## Recommend
#
# Somebody new comes in and names two books. Nothing about them is in the model; they are read as a history.

# %%
adapter = load_adapter(run, world)
history = titles_history(world, ["Handbook of Space Travel, Volume 1", "Great Mystery of Space Travel, Volume 2"])
offered = recommend(adapter, world, history, k=5)
for place_, book in enumerate(offered, start=1):
    print(f"{place_}. {book['title']}  ({book['reason']})")
assert len(offered) == 5

# %% [markdown]
# ## Go on
#
# - Your own data: `fedrec data import --help`. Real machines: `docs/operations.md`.
# - Everything that can be compared: `simulations/LEADERBOARD.md`; what an attacker could do: `docs/threat-model.md`.
# - How one purchase travels through the code: `docs/tour.md`.
