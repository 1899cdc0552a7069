"""Length: does the model prefer the longer reply, and what would a rule that only looks at length score here?

`evaluation.probes.comparisons` turned into `rmkit.metrics.length_bias`, intervals clustered by prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.probes.comparisons import Compared, in_percent
from rmkit.metrics import length_bias


def length_probe(compared: Sequence[Compared]) -> dict[str, object] | None:
    """Correlations of margin and length difference, how often the longer reply is the better one (what a length rule
    would score on replies of unequal length), accuracy by which reply is longer; None without texts."""
    known = [(one, texts) for one in compared if (texts := one.texts) is not None]
    if not known:
        return None
    lengths = np.array([[len(text) for text in texts] for _, texts in known], dtype=np.float64)
    # Which reply is called first is the row's own order, by content hash, or arbitrary; alternating keeps the
    # correlations from being about the label alone.
    turned = np.array([index % 2 == 1 if one.turned is None else one.turned for index, (one, _) in enumerate(known)])
    sign = np.where(turned, -1.0, 1.0)
    first = np.where(turned, lengths[:, 1], lengths[:, 0])
    second = np.where(turned, lengths[:, 0], lengths[:, 1])
    result = length_bias(
        sign * np.array([one.margin for one, _ in known]),
        np.where(turned, 0.0, 1.0),
        length_first=first,
        length_second=second,
        clusters=np.array([one.item.cluster for one, _ in known]),
    )
    longer, unequal = int((lengths[:, 0] > lengths[:, 1]).sum()), int((lengths[:, 0] != lengths[:, 1]).sum())
    return {
        "n": result.n,
        "pearson": result.pearson,
        "spearman": result.spearman,
        "longer_is_better": {
            "percent": 100 * longer / unequal if unequal else None,
            "numerator": longer,
            "denominator": unequal,
        },
        "accuracy": {name: in_percent(one) for name, one in result.accuracy.items()},
    }
