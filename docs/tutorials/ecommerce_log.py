# %% [markdown]
# # E-commerce: a log without names
#
# A fashion shop has published what it showed to whom and what was clicked. At the end you will have made histories of
# a log in which nobody has an id, seen how weights decide what is in them, and estimated, from rows that no history
# holds, what a recommender's lists would have earned.
#
# The data are *real*: the Open Bandit Dataset, 60,000 impressions of three campaigns under two policies. They have no
# carts, purchases or prices, and no text: items are codes.

# %%
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

from fedrec.config import load_config
from fedrec.data.events import positives
from fedrec_sim.cli_output import CONFIGS
from fedrec_sim.ladder import run_ladder
from fedrec_sim.run import hold_run, start_run
from fedrec_sim.scenarios.figures import policy_value
from fedrec_sim.world import load_world, settle_hardware

QUICK = "FEDREC_TUTORIAL_QUICK" in os.environ  # for the tests: the same steps, smaller
folder = Path("tutorial-ecommerce-log")
folder.mkdir(exist_ok=True)

# %% [markdown]
# ## What stands for a user
#
# Nobody: the log has four hashed features of a visitor and how often they had clicked each item before. All visitors
# of one campaign with the same features stand for one user, so that differential privacy protects such a *group* here
# and says nothing of a person in it. That is a weaker promise than elsewhere in fedrec, and the report says so.
#
# We take the scenario's configuration and make it smaller; `load_world` reads the log and the language model.

# %%
rounds = 2 if QUICK else 20
parts = (
    '[{part="prior", rounds=1, share=0.3, l2_clip_norm=1.0, optimizer="sgd", server_learning_rate=1.0},'
    f'{{part="head", rounds={rounds}, share=0.7, l2_clip_norm=0.15, optimizer="adam", server_learning_rate=0.03}}]'
)
overrides = [
    "jobs=1",
    'rows=["popularity", "federated_dp"]',
    'model.sentence_encoder="none"',
    f"private.parts={parts}",
]
config = settle_hardware(load_config(CONFIGS / "ecommerce.toml", tuple(overrides)))
world = load_world(config, print)
scenario, scene = config.scenario, world.scene
print(f"{len(scene.log.user_ids)} groups of visitors, {len(scene.catalog)} items, events {scene.log.counts()}")
assert scene.made is None

# %% [markdown]
# ## Weights decide
#
# To be shown something says nothing of taste: the policy chose it. A click counts three times an earlier one, of which
# the log does not say where it happened. If showing counted, histories would be the policy's and not the visitors'.

# %%
table = positives(scene.log, scenario.weights, scenario.positive_from)
shown = positives(scene.log, scenario.weights | {"shown": 1.0}, scenario.positive_from)
print(f"positive pairs of group and item: {table.n_rows:,}; if showing counted: {shown.n_rows:,}")
print(f"groups with a click in their history: {table.n_users} of {len(scene.log.user_ids)}")
assert shown.n_rows > 5 * table.n_rows
strong = float((table.rating >= 3).mean())
print(f"{strong:.0%} of the positive pairs have a click where the item was shown")

# %% [markdown]
# ## Three shops
#
# Each campaign stands for a shop with items of its own. A rule, for each shop's visitors, lists its own items alone.

# %%


def tell(event: dict) -> None:
    """Called with everything that happens."""
    if event["event"] == "row_done":
        print(f"{event['row']:14s} done")


with hold_run(folder / "runs", config.name, resume=False) as place:
    run = start_run(place, config, "docs/tutorials/ecommerce_log.py")
    summary = run_ladder(run, world, tell, stop=lambda: False)

told = summary["scenario"]
for name, row in told["rows"].items():
    print(f"{name:14s} HR@10 by score {row['plain']['hr@10']:.3f}, with the shops' rules {row['ruled']['hr@10']:.3f}")

# %% [markdown]
# Popularity over all shops offers what no shop would: other shops' items. With the rule it is each shop's own
# popularity, the floor that a recommender has to beat. On a log this small it is a high one.

# %%
popular = told["rows"]["popularity"]
assert popular["ruled"]["hr@10"] > popular["plain"]["hr@10"]

# %% [markdown]
# ## What would it have earned?
#
# A hit is a click that Thompson sampling's choice made possible. The other half of the log was shown uniformly, and no
# history holds a row of it. What lists would have earned there is estimated by the rows that happen to show one of
# their items, weighted by one over the probability of that (SNIPS).

# %%
shows = scene.shows
print(f"the uniform policy itself: {shows.rewards.mean():.2%} of {len(shows.items):,} rows were clicked")
for name, row in told["rows"].items():
    earned = row["ruled"]
    print(f"{name:14s} {earned['policy_value']:.2%} ± {earned['policy_value_se']:.2%} clicks a showing")

# %% [markdown]
# The errors are as large as the differences: about a tenth of the rows counts, with a dozen or two of clicks. A shop
# that wants to know needs more rows, not another estimator. The machinery itself can be checked: lists of everything
# earn what the uniform policy earned.

# %%
everything = replace(shows, propensities=np.full(len(shows.items), 1 / len(scene.catalog)))
of_all = policy_value(np.arange(len(scene.catalog))[None], np.zeros(len(shows.items), np.int64), everything)
print(f"lists of everything: {of_all['policy_value']:.2%}")
assert abs(of_all["policy_value"] - shows.rewards.mean()) < 1e-9
assert all(row["ruled"]["policy_value_se"] > 0 for row in told["rows"].values())

# %% [markdown]
# ## Go on
#
# - All estimators, and how near they come to published click rates: `docs/causal.md`.
# - The whole run: `fedrec scenarios ecommerce`; your own rows: `fedrec data import --help`.
