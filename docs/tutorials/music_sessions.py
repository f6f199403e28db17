# %% [markdown]
# # Music: sessions, skips and calibration
#
# People who listen to music say little and do much: they finish, skip, play again. At the end you will have turned
# sessions into histories by weights, seen what a skip takes out, and made lists that hold as much of the unknown as a
# listener is used to.
#
# Listeners, artists and tracks are *made*: no real listening log is to be had here. The generator states what it does
# (`fedrec/data/made_music.py`), and every figure is about the machinery, not about people.

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
from fedrec_sim.world import load_world, settle_hardware

QUICK = "FEDREC_TUTORIAL_QUICK" in os.environ  # for the tests: the same steps, smaller
folder = Path("tutorial-music-sessions")
folder.mkdir(exist_ok=True)

# %% [markdown]
# ## One listener's session
#
# Events in the order of time, with the minutes between them: longer than half an hour is another session.

# %%
n_listeners = 80 if QUICK else 400
scenario = load_config(CONFIGS / "music.toml").scenario
scene = load_scene("made-music", n_listeners, print)
log = scene.log
own = np.flatnonzero(log.user_codes == 0)
own = own[np.argsort(log.timestamps[own], kind="stable")]
for row, later in zip(own[:10], np.diff(log.timestamps[own])[:10], strict=True):
    kind = log.kinds[log.kind_codes[row]]
    session = "  (end of the session)" if later > 1800 else ""
    print(f"{kind:9s} {scene.catalog.titles[log.item_codes[row]]}{session}")

# %% [markdown]
# ## A skip takes away
#
# The strongest event of a listener with a track decides, and the most negative one takes from it. A track that was
# finished once and skipped once is no positive; one in a playlist survives a skip.

# %%
table = positives(log, scenario.weights, scenario.positive_from)
deaf = positives(log, scenario.weights | {"skip": 0.0}, scenario.positive_from)
print(f"{len(log):,} events, {log.counts()['skip']:,} of them skips; {table.n_rows:,} positive tracks of listeners")
print(f"if skips said nothing: {deaf.n_rows:,}")
assert table.n_rows <= deaf.n_rows

again = float((table.rating >= 2).mean())
print(f"{again:.0%} count more than once: played again, liked, or in a playlist")
assert 0.05 < again < 0.9

# %% [markdown]
# ## Train five services together
#
# Each service has its own market's taste, and its size: the largest has four of ten listeners.

# %%
rounds = 2 if QUICK else 15
parts = (
    '[{part="prior", rounds=1, share=0.2, l2_clip_norm=1.0, optimizer="sgd", server_learning_rate=1.0},'
    f'{{part="head", rounds={rounds}, share=0.8, l2_clip_norm=0.15, optimizer="adam", server_learning_rate=0.05}}]'
)
overrides = [
    "jobs=1",
    f"data.users={n_listeners}",
    'rows=["popularity", "federated_dp"]',
    'model.sentence_encoder="none"',
    "model.feature_dim=64",
    f"data.max_history={10 if QUICK else 30}",
    f"private.max_history={10 if QUICK else 30}",
    "plain.shape.score_dim=64",
    "scenario.lists=60",
    f"private.parts={parts}",
]


def tell(event: dict) -> None:
    """Called with everything that happens."""
    if event["event"] == "row_done":
        print(f"{event['row']:14s} done")


def trained(name: str, *more: str) -> dict:
    """A run of its own; the same training with the same seed, whatever the lists are."""
    config = settle_hardware(load_config(CONFIGS / "music.toml", (*overrides, f'name="{name}"', *more)))
    with hold_run(folder / "runs", config.name, resume=False) as place:
        run = start_run(place, config, "docs/tutorials/music_sessions.py")
        return run_ladder(run, load_world(config), tell, stop=lambda: False)["scenario"]


told = trained("music")
print(f"listeners of each service: {told['partners']}")
assert told["made"]

# %% [markdown]
# ## Explicit tracks and families
#
# A quarter of the listeners have a family plan. What is explicit never reaches their lists, whatever the model says.

# %%
rule = told["rows"]["federated_dp"]["rules"]["nothing explicit in a family plan"]
print(f"{rule['lists']:.0%} of the lists would have had an explicit track for a family")

# %% [markdown]
# ## Calibration
#
# A recommender likes what is popular more than its listeners do, most of all one that offers everybody the same.
# Calibration pulls the share of popular tracks in a list to that of the listener's own history; `novelty` (bits: one
# more is half as popular) tells what that does. Rules are left away here, so that nothing else differs.

# %%
strengths = (0.0, 0.8)
floor = ('rows=["popularity"]', "scenario.rules=[]")
found = {s: trained(f"music-{int(10 * s)}", f"scenario.calibration={s}", *floor) for s in strengths}
for strength, one in found.items():
    row = one["rows"]["popularity"]["ruled"]
    print(f"popularity, calibration {strength}: HR@10 {row['hr@10']:.3f}, novelty {row['novelty']:.2f} bits")
novelty = {s: one["rows"]["popularity"]["ruled"]["novelty"] for s, one in found.items()}
assert novelty[0.8] > novelty[0.0], "calibrated lists hold more of what is not popular"

# %% [markdown]
# ## Go on
#
# - `familiar` in the report: how much of a list is by artists whom the listener knows.
# - The whole run: `fedrec scenarios music`. Calibration in a service: `docs/serving.md`.
