"""Writes ranking_golden.json: AUC, log loss and NDCG of small cases by scikit-learn.

scikit-learn is not a dependency of this repository: install it in an environment of its own.
Run from the repository root:

    python tests/metrics/golden/make_ranking_golden.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score

FILE = Path(__file__).with_name("ranking_golden.json")
CUTS = (1, 3, 10)


def case(seed: int, rows: int, users: int, centre: float, decimals: int) -> dict[str, Any]:
    """Scores one case; few decimals of the logit make many ties."""
    rng = np.random.default_rng(seed)
    logits = np.round(centre + rng.normal(size=rows), decimals)
    labels = (rng.random(rows) < 1 / (1 + np.exp(-logits))).astype(int)
    labels[0], labels[1] = 1, 0  # both classes in every case
    weights = np.round(rng.uniform(0.1, 3, rows), 2)
    groups = rng.integers(0, users, rows)
    chances = 1 / (1 + np.exp(-logits))
    own = {user: groups == user for user in range(users)}
    some = [mask for mask in own.values() if labels[mask].any() and mask.sum() > 1]
    return {
        "logits": logits.tolist(),
        "labels": labels.tolist(),
        "weights": weights.tolist(),
        "groups": groups.tolist(),
        "auc": roc_auc_score(labels, logits),
        "weighted_auc": roc_auc_score(labels, logits, sample_weight=weights),
        "logloss": log_loss(labels, chances),
        "weighted_logloss": log_loss(labels, chances, sample_weight=weights),
        "user_auc": [
            roc_auc_score(labels[mask], logits[mask]) if 0 < labels[mask].mean() < 1 else None
            for mask in own.values()
            if mask.any()
        ],
        # scikit-learn refuses a user of one row: whole cases have none with a positive.
        "ndcg": {
            k: float(np.mean([ndcg_score([labels[m]], [logits[m]], k=k) for m in some]))
            for k in CUTS
        },
        "ndcg_users": len(some),
    }


def main() -> None:
    """Writes the file."""
    cases = [
        case(0, rows=40, users=5, centre=0.0, decimals=0),
        case(1, rows=60, users=6, centre=-1.0, decimals=1),
        case(2, rows=60, users=4, centre=-2.5, decimals=3),
    ]
    lines = ",\n".join(json.dumps(one) for one in cases)
    FILE.write_text(f'{{"scikit-learn": "{sklearn.__version__}", "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
