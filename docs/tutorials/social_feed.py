# %% [markdown]
# # Social: fresh posts, authors, and a person who decides
#
# Posts grow old within days, authors are followed, and some things should not be shown at all. At the end you will
# have given a feed a sense of time by rules, seen whose posts are shown, and held back a post until a person decides.
#
# Members, authors and posts are *made*: no real feed is to be had here. The generator states what it does
# (`fedrec/data/made_social.py`), and every figure is about the machinery, not about people.

# %%
import os
from pathlib import Path

import numpy as np

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

from fedrec.config import load_config
from fedrec.data.scenes import load_scene
from fedrec.recommend.shelf import Item, Shelf
from fedrec.safety.screen import Screen
from fedrec.safety.wordlist import default_safety
from fedrec_sim.cli_output import CONFIGS
from fedrec_sim.ladder import run_ladder
from fedrec_sim.run import hold_run, start_run
from fedrec_sim.world import load_world, settle_hardware

QUICK = "FEDREC_TUTORIAL_QUICK" in os.environ  # for the tests: the same steps, smaller
folder = Path("tutorial-social-feed")
folder.mkdir(exist_ok=True)

# %% [markdown]
# ## How old is what people like?
#
# To be seen says nothing; a like, an answer, a share and a follow count, and hiding takes away.

# %%
n_members = 100 if QUICK else 400
scene = load_scene("made-social", n_members, print)
log = scene.log
liked = log.kind_codes == log.kinds.index("like")
age_days = (log.timestamps - scene.appeared[log.item_codes])[liked] / 86_400
print(f"{log.counts()}")
print(f"half of the likes go to posts younger than {np.median(age_days):.1f} days, the oldest to {age_days.max():.1f}")
assert age_days.max() < 7

# %% [markdown]
# ## Train four communities together

# %%
rounds = 2 if QUICK else 15
parts = (
    '[{part="prior", rounds=1, share=0.2, l2_clip_norm=1.0, optimizer="sgd", server_learning_rate=1.0},'
    f'{{part="head", rounds={rounds}, share=0.8, l2_clip_norm=0.15, optimizer="adam", server_learning_rate=0.05}}]'
)
overrides = [
    "jobs=1",
    f"data.users={n_members}",
    'rows=["popularity", "item_knn", "federated_dp"]',
    'model.sentence_encoder="none"',
    "model.feature_dim=64",
    f"data.max_history={10 if QUICK else 30}",
    f"private.max_history={10 if QUICK else 30}",
    "plain.shape.score_dim=64",
    "scenario.lists=60",
    f"private.parts={parts}",
]
config = settle_hardware(load_config(CONFIGS / "social.toml", tuple(overrides)))


def tell(event: dict) -> None:
    """Called with everything that happens."""
    if event["event"] == "row_done":
        print(f"{event['row']:14s} done")


with hold_run(folder / "runs", config.name, resume=False) as place:
    run = start_run(place, config, "docs/tutorials/social_feed.py")
    told = run_ladder(run, load_world(config), tell, stop=lambda: False)["scenario"]
assert told["made"]

# %% [markdown]
# ## Rules give a feed its time
#
# ItemKNN and popularity know which posts go together and which are liked, but not that a post of three weeks ago is
# read by nobody. One rule does: `now - timestamp < 518400.0` keeps what is younger than six days.

# %%
for name, row in told["rows"].items():
    plain, ruled = row["plain"], row["ruled"]
    print(
        f"{name:14s} by score: {plain['age_days']:4.1f} days old, HR@10 {plain['hr@10']:.3f}; "
        f"with rules: {ruled['age_days']:4.1f} days, HR@10 {ruled['hr@10']:.3f}"
    )
old, young = told["rows"]["popularity"]["plain"], told["rows"]["popularity"]["ruled"]
assert young["age_days"] < 6 < old["age_days"]
assert young["hr@10"] > old["hr@10"]

# %% [markdown]
# ## Whose posts are shown
#
# `provider_gini` is 0 if all authors are looked at alike, near 1 if one is looked at alone; `familiar` is the share of
# places whose author the member knows already. Neither says what is right; both say what a feed does.

# %%
for name, row in told["rows"].items():
    ruled = row["ruled"]
    print(f"{name:14s} authors' Gini {ruled['provider_gini']:.2f}, familiar {ruled['familiar']:.0%}")
    assert 0 <= ruled["provider_gini"] < 1

# %% [markdown]
# ## Held back until a person decides
#
# Reports are a number that a rule can read. What a text says is read by a screen; what it flags is on no list until a
# person has decided. In a service these are cases at `/operate/review`.

# %%
shelf = Shelf(
    Item(name, title, text, kinds)
    for name, title, text, kinds in zip(
        scene.catalog.ids[:20], scene.catalog.titles, scene.catalog.texts, scene.catalog.categories, strict=False
    )
)
shelf.put(Item("p-bad", "Buy cocaine here", "Buy cocaine here, cheap and fast.", ("chess",)))
screen = Screen(default_safety())
for item, flags in zip(shelf.items(), screen.flags(shelf.items()), strict=True):
    if flags:
        print(f"held back: {item.title!r}")
        shelf.hold(item.id)
is_open = shelf.recommendable()
assert not is_open[shelf.code_of("p-bad")]
assert is_open.sum() == 20, "nothing else was flagged"

# %%
shelf.let_go("p-bad")  # a person approves it, perhaps after an edit
assert shelf.recommendable().all()

# %% [markdown]
# ## Go on
#
# - Review, floors of exposure, the log of decisions: `docs/fairness.md`.
# - The whole run: `fedrec scenarios social`.
