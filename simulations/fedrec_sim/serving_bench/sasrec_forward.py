"""For scale: a plain SASRec on the same machine, from a history of codes to the ten best, without any service."""

import statistics
import time

import numpy as np
import torch

from fedrec.config import SASRecConfig
from fedrec.evaluation.baselines.sasrec import SASRec


def sasrec_forward_ms(n_items: int, history: int, repeats: int = 200) -> float:
    """Median milliseconds of one user's forward pass, full scoring and top ten; one thread, weights as they begin."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        settings = SASRecConfig(max_history=history)
        model, random = SASRec([], n_items, settings, seed=0), np.random.default_rng(0)
        seconds = []
        for _ in range(repeats + 5):
            codes = random.integers(0, n_items, history, dtype=np.int32)
            began = time.perf_counter()
            scores = model.score([codes])[0]
            np.argpartition(-scores, 10)[:10]
            seconds.append(time.perf_counter() - began)
        return round(1000 * statistics.median(seconds[5:]), 3)
    finally:
        torch.set_num_threads(threads)
