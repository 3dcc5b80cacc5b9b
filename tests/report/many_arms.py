"""The fake run with 33 arms, to look at and to test with. `python -m tests.report.many_arms FOLDER` makes one."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np

from tests.report import fake_run

COUNT = 33
_NAMES = (
    *(
        "more_sft",
        "cdpo",
        "robust_dpo",
        "ipo",
        "ipo_mean",
        "rso_hinge",
        "slic",
        "simpo2",
        "aot",
        "aot_paired",
        "orpo_odds",
        "kto",
    ),
    *("topr", "rpo", "r_dpo", "reinforce", "rank_advantage", "dr_grpo", "dapo", "gspo", "cispo", "topr_online", "online_dpo"),
    *("batched_online_dpo", "iterative_dpo", "raft", "best_of_8"),
)


def write_many(folder: Path, *, seed: int = 11) -> Path:
    """A complete run of `COUNT` arms in `folder`."""
    rng = np.random.default_rng(seed)
    more = _NAMES[: COUNT - len(fake_run.ARMS)]
    rates = fake_run.TRUE_RATE | {name: float(rng.uniform(0.4, 0.75)) for name in more}
    kl = fake_run.KL | {name: float(rng.uniform(1, 15)) for name in more}
    online = fake_run.ONLINE | {name: (float(rng.uniform(0.6, 1.3)), kl[name]) for name in more[15:]}
    arms = ("sft", *rates)
    assert len(arms) == COUNT
    with patch.multiple(fake_run, ARMS=arms, TRUE_RATE=rates, KL=kl, ONLINE=online, STEPS=40):
        return fake_run.write_run(folder, seed=seed)


if __name__ == "__main__":
    print(write_many(Path(sys.argv[1])))
