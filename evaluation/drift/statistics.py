"""Has a distribution moved? Population stability, Kolmogorov-Smirnov, unscored rates; whole and per source.

    PSI = sum_b (q_b - p_b) ln(q_b / p_b)      p, q: shares of reference and served in the reference's ten deciles

A value that holds several deciles is a bin of its own, and a bin that is empty on both sides is none: thumbs have two
bins. A bin that is empty on one side counts half an observation there. Without drift PSI is not zero but about
chi-squared with B - 1 degrees of freedom times (1/n + 1/m) for the B bins used (Yurdakul & Naranjo 2020), which gives
its p-value; 0.1 and 0.25 are the usual marks for some and for much drift. Completions of one prompt are not
independent, so n and m are the numbers of distinct prompts in every test: the p-values are then rather too large than
too small. p-values are corrected over all tests by Holm.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.drift.served import Observed

BINS = 10
PSI_MARK = 0.1
ALPHA = 0.01
MIN_PROMPTS = 30  # on both sides, for a slice to be told

Values = NDArray[np.float64]


def psi(reference: Values, current: Values, *, bins: int = BINS) -> tuple[float, int]:
    """Population stability index over the reference's quantile bins (0 is no difference), and the bins used."""
    counts = _counts(reference, current, bins)
    smooth = np.where(counts == 0, 0.5, counts)
    p, q = smooth / smooth.sum(axis=1, keepdims=True)
    return float(np.sum((q - p) * np.log(q / p))), counts.shape[1]


def _counts(reference: Values, current: Values, bins: int) -> Values:
    """[2, B] observations of both sides in every bin that holds any."""
    cuts = np.quantile(reference, np.linspace(0, 1, bins + 1)[1:-1], method="inverted_cdf")
    tied = cuts[:-1][cuts[1:] == cuts[:-1]]
    # A cut closes its bin from above. Without one below a tied value, all smaller values would share its bin, and
    # thumbs that were nearly all up could turn down unseen.
    edges = np.unique(np.concatenate([cuts, np.nextafter(tied, -np.inf)]))
    counts = np.array(
        [np.bincount(np.searchsorted(edges, x, side="left"), minlength=len(edges) + 1) for x in (reference, current)],
        dtype=float,
    )
    return counts[:, counts.sum(axis=0) > 0]


def psi_without_drift(n: int, m: int, *, bins_used: int) -> float:
    """The PSI to expect of n and m independent observations of one distribution."""
    return (bins_used - 1) * (1 / n + 1 / m)


def psi_p_value(value: float, n: int, m: int, *, bins_used: int) -> float:
    """Chance of a PSI at least so large without drift, for n and m independent observations; 1 in a single bin."""
    from scipy.stats import chi2

    return float(chi2.sf(value / (1 / n + 1 / m), bins_used - 1)) if bins_used > 1 else 1.0


def ks(reference: Values, current: Values, n: int, m: int) -> tuple[float, float]:
    """The largest distance of the two distribution functions, and its p-value for n and m observations."""
    from scipy.stats import ks_2samp, kstwobign

    distance = float(ks_2samp(reference, current).statistic)
    return distance, float(kstwobign.sf(distance * math.sqrt(n * m / (n + m))))


def compare(reference: Sequence[Observed], current: Sequence[Observed]) -> dict[str, Any]:
    """Scores, lengths and unscored rates of two sets, as JSON-ready numbers with their denominators."""
    n, m = (len({one.prompt for one in side}) for side in (reference, current))
    scored = [np.array([one.value for one in side if one.value is not None]) for side in (reference, current)]
    lengths = [np.log1p([one.chars for one in side]) for side in (reference, current)]
    return {
        "reference": {"completions": len(reference), "prompts": n},
        "served": {"completions": len(current), "prompts": m},
        "scores": _moved(scored[0], scored[1], n, m),
        "lengths": _moved(lengths[0], lengths[1], n, m),
        "unscored": _rates(reference, current, n, m),
        "fields": _fields(reference, current, n, m),
    }


def _fields(reference: Sequence[Observed], current: Sequence[Observed], n: int, m: int) -> dict[str, Any]:
    """What a signal and its trainer left in the log, where both sides have it: mix, shaped reward, components, columns,
    and the spread of the mix within groups."""
    sides = [_numbers(side) for side in (reference, current)]
    names = [name for name in sides[0] if name in sides[1]]
    return {name: _moved(np.array(sides[0][name]), np.array(sides[1][name]), n, m) for name in names}


def _numbers(observed: Sequence[Observed]) -> dict[str, list[float]]:
    """Finite numbers by field; a list counts as its mean."""
    numbers: dict[str, list[float]] = defaultdict(list)
    groups: dict[str, list[float]] = defaultdict(list)
    for one in observed:
        fields: dict[str, Any] = {"raw": one.raw, "reward": one.reward}
        fields |= {f"component {name}": value for name, value in one.components.items()}
        fields |= {f"column {name}": value for name, value in one.columns.items()}
        for name, value in fields.items():
            number = _number(value)
            if number is not None:
                numbers[name].append(number)
                if name == "raw" and one.group is not None:
                    groups[one.group].append(number)
    spreads = [float(np.std(values)) for values in groups.values() if len(values) > 1]
    return {**numbers, **({"spread of groups": spreads} if spreads else {})}


def _number(value: Any) -> float | None:
    if isinstance(value, list):
        values = [one for one in map(_number, value) if one is not None]
        return math.fsum(values) / len(values) if values and len(values) == len(value) else None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _moved(reference: Values, current: Values, n: int, m: int) -> dict[str, Any] | None:
    """None where either side has no number."""
    if not len(reference) or not len(current):
        return None
    (value, bins_used), (distance, p) = psi(reference, current), ks(reference, current, n, m)
    spread = float(np.std(reference)) or 1.0
    return {
        "psi": value,
        "psi_bins": bins_used,
        "psi_without_drift": psi_without_drift(n, m, bins_used=bins_used),
        "psi_p": psi_p_value(value, n, m, bins_used=bins_used),
        "ks": distance,
        "ks_p": p,
        "mean_reference": float(np.mean(reference)),
        "mean_served": float(np.mean(current)),
        "shift_in_sd": float((np.mean(current) - np.mean(reference)) / spread),
    }


def _rates(reference: Sequence[Observed], current: Sequence[Observed], n: int, m: int) -> dict[str, Any]:
    """Unscored counts and a two-sided test of equal rates, at the size of the distinct prompts."""
    from scipy.stats import fisher_exact

    failed = [sum(one.value is None for one in side) for side in (reference, current)]
    rates = [count / len(side) if side else 0.0 for count, side in zip(failed, (reference, current), strict=True)]
    table = [[round(rate * size), size - round(rate * size)] for rate, size in zip(rates, (n, m), strict=True)]
    return {
        "reference": {"numerator": failed[0], "denominator": len(reference), "rate": rates[0]},
        "served": {"numerator": failed[1], "denominator": len(current), "rate": rates[1]},
        "p": float(fisher_exact(table).pvalue),
    }


def slices(reference: Sequence[Observed], current: Sequence[Observed]) -> tuple[dict[str, Any], dict[str, str]]:
    """Per source of the served completions its comparison; and why a source has none."""
    compared: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for source in sorted({one.source for one in current if one.source is not None}):
        sides = [[one for one in side if one.source == source] for side in (reference, current)]
        prompts = [len({one.prompt for one in side}) for side in sides]
        if not prompts[0]:
            skipped[source] = "the reference has no such source"
        elif min(prompts) < MIN_PROMPTS:
            skipped[source] = f"{prompts[0]} prompts in the reference, {prompts[1]} served; {MIN_PROMPTS} are needed"
        else:
            compared[source] = compare(*sides)
    return compared, skipped


def verdicts(result: dict[str, Any]) -> list[str]:
    """What has drifted, in sentences; also writes the Holm-corrected p-values (`p_holm`) into the result.

    Scores, lengths and a signal's fields drift where PSI is above 0.1 and its corrected p below 0.01, unscored rates
    where the corrected p is below 0.01 and the rate has grown.
    """
    tests: list[tuple[str, dict[str, Any], float]] = []
    for where, part in [("all", result["whole"]), *result["slices"].items()]:
        tests += [
            (f"{what} of {where}", part[what], part[what]["psi_p"]) for what in ("scores", "lengths") if part[what]
        ]
        tests += [(f"{name} of {where}", field, field["psi_p"]) for name, field in part["fields"].items() if field]
        tests.append((f"unscored rate of {where}", part["unscored"], part["unscored"]["p"]))
    _holm(tests)
    return [_sentence(name, part) for name, part, _ in tests if _drifted(part)]


def _holm(tests: Sequence[tuple[str, dict[str, Any], float]]) -> None:
    worst = 0.0
    for rank, (_, part, p) in enumerate(sorted(tests, key=lambda test: test[2])):
        worst = max(worst, min(1.0, p * (len(tests) - rank)))
        part["p_holm"] = worst


def _drifted(part: dict[str, Any]) -> bool:
    if "psi" in part:
        return bool(part["psi"] > PSI_MARK and part["p_holm"] < ALPHA)
    return bool(part["p_holm"] < ALPHA and part["served"]["rate"] > part["reference"]["rate"])


def _sentence(name: str, part: dict[str, Any]) -> str:
    if "psi" in part:
        return (
            f"{name}: PSI {part['psi']:.2f} ({part['psi_without_drift']:.2f} expected without drift), "
            f"mean moved by {part['shift_in_sd']:+.2f} sd"
        )
    return (
        f"{name}: {100 * part['served']['rate']:.1f}% against {100 * part['reference']['rate']:.1f}% in the reference"
    )
