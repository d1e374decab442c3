"""The tables of the README, from the records in `results/`."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

METHODS = ("SGD", "SWA", "SWAG", "Deep ensemble", "SWA ensemble", "MultiSWAG")
SETS = ("boston", "concrete", "energy", "yacht", "naval")
STAGES = {
    "papers": "At the papers' settings",
    "tuned": "At tuned settings",
    "falling": "At tuned settings, the walk at a rate that SGD has fallen to",
}
#: test log-likelihoods of Izmailov et al. 2019, table 2: mean over splits
PAPER = {
    "boston": {"SGD": -2.752, "SWAG": -2.761, "best": -2.716},
    "concrete": {"SGD": -3.178, "SWAG": -3.013, "best": -2.994},
    "energy": {"SGD": -1.736, "SWAG": -1.679, "best": -1.563},
    "yacht": {"SGD": -0.418, "SWAG": -0.404, "best": -0.225},
    "naval": {"SGD": 6.567, "SWAG": 6.708, "best": 6.708},
}
#: what the code published with that paper gives when it is run today, over the same splits
CODE = {
    "boston": {"SGD": -2.713, "SWAG": -2.722},
    "concrete": {"SGD": -3.093, "SWAG": -3.021},
    "energy": {"SGD": -2.375, "SWAG": -2.407},
    "yacht": {"SGD": -1.120, "SWAG": -1.214},
}


def tables(results: Path) -> str:
    """All that there are records for."""
    parts = []
    for stage, title in STAGES.items():
        found = [
            json.loads(path.read_text())
            for path in (results / f"{name}-{stage}.json" for name in SETS)
            if path.is_file()
        ]
        if found:
            parts += [f"### {title}", "", *_stage(found), ""]
    return "\n".join(parts).rstrip()


def _stage(records: list[dict[str, Any]]) -> list[str]:
    dates = sorted({record["date"] for record in records})
    first = records[0]
    lines = [
        f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}, {first['machine']}, torch "
        f"{first['torch']}; `{first['command']}`.",
        "",
        "Test log-likelihood (Gaussian moment match, the target's units), mean ± standard error "
        f"over {first['splits']} splits:",
        "",
        _row("set", *METHODS),
        _row(*["---"] * (len(METHODS) + 1)),
    ]
    lines += [_row(one["set"], *(_cell(_ll(one, m)) for m in METHODS)) for one in records]
    lines += [
        "",
        "Difference to SGD in log-likelihood, paired by split; last, MultiSWAG's to the ensemble:",
        "",
        _row("set", *METHODS[1:], "MultiSWAG - deep ensemble"),
        _row(*["---"] * (len(METHODS) + 1)),
    ]
    for one in records:
        pairs = [
            [a - b for a, b in zip(_ll(one, method), _ll(one, other), strict=True)]
            for method, other in (*((m, "SGD") for m in METHODS[1:]), ("MultiSWAG", METHODS[3]))
        ]
        lines.append(_row(one["set"], *(_cell(pair, sign="+") for pair in pairs)))
    lines += ["", "RMSE in the target's units:", "", _row("set", *METHODS)]
    lines.append(_row(*["---"] * (len(METHODS) + 1)))
    for one in records:
        lines.append(_row(one["set"], *(_cell(one["methods"][m]["rmse"]) for m in METHODS)))
    lines += ["", "Rows inside of the 95% interval:", "", _row("set", *METHODS)]
    lines.append(_row(*["---"] * (len(METHODS) + 1)))
    for one in records:
        covered = (statistics.fmean(one["methods"][m]["coverage"]) for m in METHODS)
        lines.append(_row(one["set"], *(f"{c:.3f}" for c in covered)))
    lines += ["", *_against_paper(records)]
    lines += ["", *_settings(records)]
    return lines


def _against_paper(records: list[dict[str, Any]]) -> list[str]:
    lines = [
        "Mean log-likelihood less the paper's (per-split numbers of the paper are not known, so "
        "without an error), and less what its published code gives:",
        "",
        _row(
            "set",
            "SGD - paper's SGD",
            "SWAG - paper's SWAG",
            "best row here - paper's best subspace or SWAG",
            "SGD - code's SGD",
            "SWAG - code's SWAG",
        ),
        _row(*["---"] * 6),
    ]
    for one in records:
        name, mean = one["set"], {m: statistics.fmean(_ll(one, m)) for m in METHODS}
        best = max(mean, key=mean.__getitem__)
        paper, code = PAPER[name], CODE.get(name, {})
        lines.append(
            _row(
                name,
                f"{mean['SGD'] - paper['SGD']:+.3f}",
                f"{mean['SWAG'] - paper['SWAG']:+.3f}",
                f"{mean[best] - paper['best']:+.3f} ({best})",
                *(f"{mean[m] - code[m]:+.3f}" if m in code else "-" for m in ("SGD", "SWAG")),
            )
        )
    return lines


def _settings(records: list[dict[str, Any]]) -> list[str]:
    lines = []
    for one in records:
        seconds = sum(one["seconds"].values())
        networks = one["splits"] * one["modes"]
        text = f"- {one['set']}: {networks} networks, {seconds:.0f} s in all"
        if "walk" in one:
            text += f"; chosen for the walks: {_counts(one['walk'])}"
        if "sgd" in one:
            text += f"; for SGD: {_counts(one['sgd'])}"
        if one["lost"]:
            text += f"; diverged (split, seed): {one['lost']}"
        lines.append(text + ".")
    return lines


def _counts(chosen: list[dict[str, Any]]) -> str:
    """How often each value of a setting was chosen."""
    parts = []
    for key in ("lr", "decay", "epochs", "factor", "scale"):
        values = [one[key] for one in chosen if key in one]
        if values:
            counts = (f"{value:g} x{values.count(value)}" for value in sorted(set(values)))
            parts.append(f"{key} {', '.join(counts)}")
    return "; ".join(parts)


def _ll(record: dict[str, Any], method: str) -> list[float]:
    return [-value for value in record["methods"][method]["nll_gaussian"]]


def _cell(values: Sequence[float], *, sign: str = "") -> str:
    if not all(map(math.isfinite, values)):
        return "not finite"
    mean, error = statistics.fmean(values), math.nan
    if len(values) > 1:
        error = statistics.stdev(values) / math.sqrt(len(values))
    form = f"{sign}.3f" if abs(mean) >= 0.05 or sign else ".6f"
    return f"{mean:{form}} ± {error:{form.removeprefix('+')}}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
