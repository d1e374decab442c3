"""The tables of the README, from the records in `results/`."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lowland.records import Table

METHODS = ("SGD", "SWA", "SWAG", "Deep ensemble", "SWA ensemble", "MultiSWAG")
SETS = ("boston", "concrete", "energy", "yacht", "naval")
STAGES = {
    "papers": "At the papers' settings",
    "tuned": "At tuned settings",
    "falling": "At tuned settings, the walk at a rate that SGD has fallen to",
}
#: stages of posteriors in subspaces -> the stage that trained their networks, and a title
SUBSPACES = {
    "papers-subspaces": ("papers", "Subspaces, at the papers' settings"),
    "recommended": (None, "What this library recommends"),
}
#: the best published log-likelihood of a set that we know, and its method
BEST = {
    "boston": (-2.33, "deep GP"),
    "concrete": (-2.99, "PCA + VI"),
    "energy": (-1.01, "DVI"),
    "naval": (6.71, "PCA + VI, SWAG"),
    "yacht": (-0.22, "PCA + ESS"),
}
#: test log-likelihoods of Izmailov et al. 2019, table 2: mean over splits
PAPER = {
    "boston": {"SGD": -2.752, "SWAG": -2.761, "PCA + ESS": -2.719, "PCA + VI": -2.716},
    "concrete": {"SGD": -3.178, "SWAG": -3.013, "PCA + ESS": -3.007, "PCA + VI": -2.994},
    "energy": {"SGD": -1.736, "SWAG": -1.679, "PCA + ESS": -1.563, "PCA + VI": -1.715},
    "yacht": {"SGD": -0.418, "SWAG": -0.404, "PCA + ESS": -0.225, "PCA + VI": -0.396},
    "naval": {"SGD": 6.567, "SWAG": 6.708, "PCA + ESS": 6.541, "PCA + VI": 6.708},
}
#: test log-likelihoods by the code published with that paper, run by us over the same splits
CODE = {
    "boston": {"SGD": -2.713, "SWAG": -2.722, "PCA + ESS": -2.700, "PCA + VI": -2.681},
    "concrete": {"SGD": -3.093, "SWAG": -3.021, "PCA + ESS": -3.005, "PCA + VI": -3.018},
    "energy": {"SGD": -2.375, "SWAG": -2.407, "PCA + ESS": -2.376, "PCA + VI": -2.387},
    "yacht": {"SGD": -1.120, "SWAG": -1.214, "PCA + ESS": -0.613, "PCA + VI": -0.584},
}


def tables(results: Path) -> str:
    """Tables of all stages with records."""
    parts = []
    for stage, title in STAGES.items():
        records = _records(results, stage)
        if records:
            parts += [f"### {title}", "", *_stage(records), ""]
    for stage, (network_stage, title) in SUBSPACES.items():
        records = _records(results, stage)
        if records:
            parts += [
                f"### {title}",
                "",
                *_subspaces(records, _records(results, network_stage)),
                "",
            ]
    return "\n".join(parts).rstrip()


def _records(results: Path, stage: str | None) -> list[dict[str, Any]]:
    paths = (results / f"{name}-{stage}.json" for name in SETS)
    return [json.loads(path.read_text()) for path in paths if path.is_file()]


def _subspaces(records: list[dict[str, Any]], network_records: list[dict[str, Any]]) -> list[str]:
    """Log-likelihoods and their differences to SGD, which may be in the networks' records."""
    first = records[0]
    networks = {record["set"]: record for record in network_records}
    methods = list(first["methods"])
    methods = methods if "SGD" in methods else ["SGD", "SWAG", *methods]
    for record in records:
        if "SGD" not in record["methods"]:
            metrics, n = networks[record["set"]]["methods"], record["splits"]  # the first n splits
            record["methods"] |= {
                m: {name: values[:n] for name, values in metrics[m].items()}
                for m in ("SGD", "SWAG", "Deep ensemble")
            }
    columns = ("SGD", "PCA + ESS", "PCA + VI", "SWAG")

    def beside_paper(record: dict[str, Any]) -> dict[str, str]:
        name = record["set"]
        mean = {m: statistics.fmean(_ll(record, m)) for m in record["methods"]}
        top = max(mean, key=lambda m: mean[m] if math.isfinite(mean[m]) else -math.inf)
        code = CODE.get(name, {})
        cells = {
            f"{m}: here / paper / code": " / ".join(
                f"{values[m]:.3f}" if m in values else "-" for values in (mean, PAPER[name], code)
            )
            for m in columns
        }
        value, by = BEST[name]
        return cells | {"best printed": f"{value} ({by})", "best here": f"{mean[top]:.3f} ({top})"}

    return [
        *_metrics(
            records,
            methods,
            {m: (m, "SGD") for m in methods[1:]},
            "Difference to SGD, paired by split:",
        ),
        "",
        "Beside the paper's columns, and what its published code gives today:",
        "",
        table(records, beside_paper),
        "",
        *_settings(records),
    ]


def _metrics(
    records: list[dict[str, Any]],
    methods: Sequence[str],
    pairs: dict[str, tuple[str, str]],
    title: str,
) -> list[str]:
    """Tables of log-likelihoods, their paired differences, errors and coverage."""

    def difference(record: dict[str, Any], method: str, other: str) -> list[float]:
        return [a - b for a, b in zip(_ll(record, method), _ll(record, other), strict=True)]

    def coverage(record: dict[str, Any], method: str) -> float:
        return statistics.fmean(record["methods"][method]["coverage"])

    return [
        _origin(records),
        "",
        "Test log-likelihood (Gaussian moment match, the target's units), mean ± standard error "
        f"over {_splits(records)}:",
        "",
        table(records, lambda each: {m: cell(_ll(each, m)) for m in methods}),
        "",
        title,
        "",
        table(
            records,
            lambda each: {
                name: cell(difference(each, *pair), sign="+") for name, pair in pairs.items()
            },
        ),
        "",
        "RMSE in the target's units:",
        "",
        table(records, lambda each: {m: cell(each["methods"][m]["rmse"]) for m in methods}),
        "",
        "Rows inside of the 95% interval:",
        "",
        table(records, lambda each: {m: f"{coverage(each, m):.3f}" for m in methods}),
    ]


def _splits(records: list[dict[str, Any]]) -> str:
    """The number of splits, and the sets with fewer."""
    most = max(record["splits"] for record in records)
    fewer = [f"{record['set']} {record['splits']}" for record in records if record["splits"] < most]
    return f"{most} splits" + (f" ({', '.join(fewer)})" if fewer else "")


def _origin(records: list[dict[str, Any]]) -> str:
    """Dates, machine and command."""
    dates = sorted({record["date"] for record in records})
    first = records[0]
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    return f"{when}, {first['machine']}, torch {first['torch']}; `{first['command']}`."


def _stage(records: list[dict[str, Any]]) -> list[str]:
    pairs = {m: (m, "SGD") for m in METHODS[1:]}
    return [
        *_metrics(
            records,
            METHODS,
            pairs | {"MultiSWAG - deep ensemble": ("MultiSWAG", "Deep ensemble")},
            "Difference to SGD in log-likelihood, paired by split; last, MultiSWAG's to the "
            "ensemble:",
        ),
        "",
        "Mean log-likelihood less the paper's (per-split numbers of the paper are not known, so "
        "without an error), and less what its published code gives:",
        "",
        table(records, _less_paper),
        "",
        *_settings(records),
    ]


def _less_paper(record: dict[str, Any]) -> dict[str, str]:
    mean = {m: statistics.fmean(_ll(record, m)) for m in METHODS}
    best = max(mean, key=mean.__getitem__)
    paper, code = PAPER[record["set"]], CODE.get(record["set"], {})
    paper_best = max(value for method, value in paper.items() if method != "SGD")
    return {
        "SGD - paper's SGD": f"{mean['SGD'] - paper['SGD']:+.3f}",
        "SWAG - paper's SWAG": f"{mean['SWAG'] - paper['SWAG']:+.3f}",
        "best row here - paper's best subspace or SWAG": f"{mean[best] - paper_best:+.3f} ({best})",
        **{
            f"{m} - code's {m}": f"{mean[m] - code[m]:+.3f}" if m in code else "-"
            for m in ("SGD", "SWAG")
        },
    }


def _settings(records: list[dict[str, Any]]) -> list[str]:
    lines = []
    for record in records:
        seconds = sum(record["seconds"].values())
        networks = record["splits"] * record["modes"]
        text = f"- {record['set']}: {networks} networks, {seconds:.0f} s in all"
        if "walk" in record:
            text += f"; chosen for the trajectories: {_counts(record['walk'])}"
        if "sgd" in record:
            text += f"; for SGD: {_counts(record['sgd'])}"
        if record["lost"]:
            text += f"; diverged (split, seed): {record['lost']}"
        lines.append(text + ".")
    return lines


def _counts(settings: list[dict[str, Any]]) -> str:
    """The number of splits with each value of a setting."""
    parts = []
    for key in ("depth", "lr", "decay", "epochs", "factor", "scale", "temperature"):
        values = [setting[key] for setting in settings if key in setting]
        if values:
            counts = (f"{value:g} x{values.count(value)}" for value in sorted(set(values)))
            parts.append(f"{key} {', '.join(counts)}")
    return "; ".join(parts)


def _ll(record: dict[str, Any], method: str) -> list[float]:
    return [-value for value in record["methods"][method]["nll_gaussian"]]


def cell(values: Sequence[float], *, sign: str = "") -> str:
    """A mean, and its standard error where there is one."""
    if not all(map(math.isfinite, values)):
        return "not finite"
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:{sign}.3f}"
    error = statistics.stdev(values) / math.sqrt(len(values))
    small = max(abs(mean), error) < 0.02  # RMSEs of naval
    form = ".6f" if small and not sign else f"{sign}.3f"
    return f"{mean:{form}} ± {error:{form.removeprefix('+')}}"


def table(records: list[dict[str, Any]], cells: Callable[[dict[str, Any]], dict[str, str]]) -> str:
    """A row for each record: its set, and its cells by their headings."""
    rows = ({"set": record["set"]} | cells(record) for record in records)
    return Table.from_rows(rows).to_markdown()
