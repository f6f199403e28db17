"""`python -m fedrec_sim.serving_bench.server RUN PLACE PORT`: what `fedrec serve` runs, on a store filled before."""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

if __name__ == "__main__":
    from fedrec.logs import log_json
    from fedrec_sim.serve_run import serve_run

    log_json()
    run, place, port = sys.argv[1:]
    serve_run(Path(run), int(port), place=Path(place), with_events=False, say=lambda line: print(line, file=sys.stderr))
