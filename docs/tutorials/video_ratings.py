# %% [markdown]
# # Video: ratings as events, and rules
#
# Five video services have what people rated. At the end you will have read ratings as events with weights, trained
# the services together with and without differential privacy, and put rules over the lists: nothing frightening for
# minors, no list of dramas alone.
#
# The data are *real*: MovieLens-100K, what 943 people rated in 1997 and 1998, with the ages that they gave. They rated
# films and did not stream them: that a five means "watched to the end" is a reading, and it stands in the
# configuration for everybody to see.

# %%
import os
from pathlib import Path

import numpy as np

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

from fedrec.config import load_config
from fedrec.data.events import positives
from fedrec.data.scenes import load_scene
from fedrec_sim.cli_output import CONFIGS
from fedrec_sim.ladder import run_ladder
from fedrec_sim.run import hold_run, start_run
from fedrec_sim.scenarios.words import rule_words
from fedrec_sim.world import load_world, settle_hardware

QUICK = "FEDREC_TUTORIAL_QUICK" in os.environ  # for the tests: the same steps, smaller
folder = Path("tutorial-video-ratings")
folder.mkdir(exist_ok=True)

# %% [markdown]
# ## Ratings are events
#
# A scenario gives every type of event a weight. What comes to `positive_from` enters a viewer's history; a film that
# somebody left does not, though they have rated it.

# %%
video = CONFIGS / "video.toml"
scenario = load_config(video).scenario
scene = load_scene("ml-100k", 0, print)
for name, count in scene.log.counts().items():
    event = scenario.events[name]
    print(f"{name}: weight {event.weight:+g}, {count:6,d} events ({event.means})")

table = positives(scene.log, scenario.weights, scenario.positive_from)
print(f"{len(scene.log):,} ratings, of which {table.n_rows:,} are positive")
assert table.n_rows == scene.log.counts()["rated-4"] + scene.log.counts()["rated-5"]

# %% [markdown]
# Another reading is another federation: where threes count as well, histories are half as long again.

# %%
lenient = positives(scene.log, scenario.weights | {"rated-3": 1.0}, scenario.positive_from)
print(f"with threes: {lenient.n_rows:,}")
assert lenient.n_rows - table.n_rows == scene.log.counts()["rated-3"]

# %% [markdown]
# ## Services differ
#
# People are dealt to services in the order of their age: the first has the youngest two fifths, the last the oldest
# twelfth. No service could say from its own data what the others' people like.
#
# We take less of everything than `fedrec scenarios video` does: fewer people and rounds, no sentence encoder.

# %%
rounds = 2 if QUICK else 10
parts = (
    '[{part="prior", rounds=1, share=0.2, l2_clip_norm=1.0, optimizer="sgd", server_learning_rate=1.0},'
    f'{{part="head", rounds={rounds}, share=0.8, l2_clip_norm=0.15, optimizer="adam", server_learning_rate=0.05}}]'
)
overrides = [
    "jobs=1",
    f"data.users={120 if QUICK else 300}",
    f"data.max_history={10 if QUICK else 30}",
    f"private.max_history={10 if QUICK else 30}",
    'model.sentence_encoder="none"',
    "model.feature_dim=64",
    'model.public_data="none"',
    "private.shape.public_dim=0",
    "plain.shape.score_dim=64",
    f"plain.head_rounds={2 if QUICK else 6}",
    "plain.rounds=0",
    "scenario.lists=60",
    f"private.parts={parts}",
]
config = settle_hardware(load_config(video, tuple(overrides)))


def tell(event: dict) -> None:
    """Called with everything that happens."""
    if event["event"] == "row_done":
        print(f"{event['row']:14s} done")


with hold_run(folder / "runs", config.name, resume=False) as place:
    run = start_run(place, config, "docs/tutorials/video_ratings.py")
    world = load_world(config)
    summary = run_ladder(run, world, tell, stop=lambda: False)

ages = np.array([scene.labels[split.user]["age"] for split in world.corpus(1).splits])
for number, users in enumerate(world.shares(world.corpus(1), 1), start=1):
    print(f"service {number}: {len(users):3d} people, from {ages[users].min():.0f} to {ages[users].max():.0f} years")
assert [len(u) for u in world.shares(world.corpus(1), 1)] == summary["scenario"]["partners"]

# %% [markdown]
# ## What the rules did
#
# The rules have the form of a service's `rules.toml`, and the service's own code reads them. Each is told by leaving
# it out: the share of lists that would be another without it.

# %%
told = summary["scenario"]
private = told["rows"]["federated_dp"]
for rule in told["rules"]:
    acted = private["rules"][rule["name"]]
    print(f"{rule['name']}: {rule_words(rule)}")
    print(f"    {acted['lists']:.0%} of the lists, {acted['places']:.2f} places of ten")
assert private["rules"]["drama is not all"]["lists"] > 0

# %% [markdown]
# ## What they cost
#
# Hits by score alone and with the rules. `value` counts a film that was loved three times as much as one that was
# watched to the end. So few people and rounds say little of quality: docs/scenarios.md has the whole run.

# %%
for name, row in told["rows"].items():
    plain, ruled = row["plain"], row["ruled"]
    print(
        f"{name:14s} HR@10 {plain['hr@10']:.3f}, with rules {ruled['hr@10']:.3f}; "
        f"value {plain['value']:.3f}, with rules {ruled['value']:.3f}"
    )
assert summary["rows"]["federated_dp"]["epsilon"] <= 8.0
assert summary["rows"]["federated"]["epsilon"] is None

# %% [markdown]
# ## Go on
#
# - The page of this run: `tutorial-video-ratings/runs/video/report.html`, section "Scenario".
# - Every key: `simulations/configs/video.toml`; your own rules: `docs/serving.md`.
