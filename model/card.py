"""The model card's figures: `python -m model.card --artifact DIR --metrics FILE --page FILE`.

Fills in the marked blocks of a page from an artifact and the metrics.json that `model.evaluate` wrote of it: `model`,
`data`, `quality`, `calibration`, `slices`. What stands between them is by hand. A page that is not there yet begins
with all of these blocks and headings for what is to be said beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from model import strict_json
from model.artifact import Artifact, load_artifact
from model.cli import CommandLine, check_writable, main
from model.config import ConfigError
from model.evaluate import BUNDLED
from model.metrics import METRICS
from model.pages import Maker, fill
from model.slices import interval

TITLES = dict(zip(METRICS, ("AUC", "GAUC", "log loss", "calibration error"), strict=True))
SLICES = ("by", "slice", "impressions", "users", "click rate", "mean prediction", "AUC with 95 % interval")
SKELETON = """\
# Model card

<!-- begin: model -->
<!-- end -->

## Data and licence

<!-- begin: data -->
<!-- end -->

Where the data is from, under which licence, and what was changed: to be written.

## Intended use and limits

To be written.

## Quality

<!-- begin: quality -->
<!-- end -->

## Calibration

<!-- begin: calibration -->
<!-- end -->

## Slices

<!-- begin: slices -->
<!-- end -->
"""


def card(artifact: Artifact, results: Mapping[str, Any]) -> Maker:
    """What makes the blocks of a card."""
    blocks = {
        "model": _model(artifact),
        "data": _data(artifact, results),
        "quality": _quality(artifact, results),
        "calibration": _calibration(results),
        "slices": _slices(results["slices"]),
    }

    def block(words: Sequence[str]) -> str:
        name = " ".join(words)
        if name not in blocks:
            raise ConfigError(f"block {name!r}: one of {', '.join(blocks)}")
        return blocks[name]

    return block


def read_metrics(file: Path, artifact: Artifact) -> dict[str, Any]:
    """A metrics.json. Raises ConfigError for one that is not of this artifact, or not whole."""
    try:
        found: dict[str, Any] = strict_json.loads(file.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{file}: not JSON: {error}") from None
    parts = ("artifact", "data", "metrics", "intervals", "slices", "click_rate", "mean_prediction", "unknown_items")
    missing = [name for name in parts if not isinstance(found, dict) or name not in found]
    if missing:
        raise ConfigError(f"{file}: has no {missing[0]!r}; model.evaluate writes it")
    version = found["artifact"]["version"]
    if version != artifact.version:
        raise ConfigError(f"{file}: of version {version}, not {artifact.version}; run model.evaluate again")
    return found


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def _told(about: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of what an artifact tells of itself; nothing where another program wrote it in another way."""
    part = about.get(name)
    return part if isinstance(part, Mapping) else {}


def _model(artifact: Artifact) -> str:
    schema, training = artifact.schema, artifact.training
    history = f"the newest {schema.max_history} behaviours"
    done = f", each with what was done ({', '.join(schema.actions)})" if schema.actions else ""
    rows = [
        ("name, version", f"`{artifact.name}`, `{artifact.version}`"),
        ("network", artifact.title),
        ("reads of an item", ", ".join(schema.item_fields)),
        ("reads of a user", f"{'user_id, ' if schema.uses_user_id else ''}{history}{done}"),
        ("reads of a request", ", ".join(schema.context_fields) or "nothing more"),
    ]
    settings, run = (_told(training, name) for name in ("settings", "run"))
    if settings:
        rows.append(("training", ", ".join(f"{name} {value}" for name, value in settings.items())))
    if "steps" in run:
        rows.append(("its run", f"{run['steps']:,} steps, of which the weights of step {run['best_step']:,} are kept"))
    return _table(("", ""), rows)


def _data(artifact: Artifact, results: Mapping[str, Any]) -> str:
    data, source = results["data"], _told(artifact.training, "data").get("data")
    trained = f"Trained on `{source}`: {artifact.training.get('description', '')}. " if source else ""
    return (
        f"{trained}Judged here on the split {data['split']} of `{data['name']}`: {data['impressions']:,} impressions, "
        f"of which {results['unknown_items']:.1%} are of items that the model does not know."
    )


def _quality(artifact: Artifact, results: Mapping[str, Any]) -> str:
    booster = _told(artifact.metrics, "booster").get(results["data"]["split"])
    head = ["", "with 95 % interval", *(["its booster"] if booster else [])]
    return _table(
        head,
        [
            [title, interval(results, name), *([_with_ends(booster, name)] if booster else [])]
            for name, title in TITLES.items()
        ],
    )


def _with_ends(found: Mapping[str, Any], name: str) -> str:
    ends = found.get("intervals", {}).get(name)
    return f"{found[name]:.4f}" + (f" ({ends[0]:.4f} to {ends[1]:.4f})" if ends else "")


def _calibration(results: Mapping[str, Any]) -> str:
    return (
        f"Mean prediction {results['mean_prediction']:.4f} where {results['click_rate']:.4f} were clicked; calibration "
        f"error {interval(results, 'calibration_error')}, in 20 bins of equally many impressions."
    )


def _slices(slices: Sequence[Mapping[str, Any]]) -> str:
    if not slices:
        return "The split has no slices: everything in it is alike."
    rows = []
    for one in slices:
        about = [one["by"], one["slice"], f"{one['impressions']:,}", f"{one['users']:,}"]
        about += [f"{one['click_rate']:.4f}", f"{one['mean_prediction']:.4f}"]
        if "left_out" in one:
            rows.append([*about, f"none: {one['left_out']}", *["-"] * (len(METRICS) - 1)])
        else:
            others = (one["metrics"][name] for name in METRICS[1:])
            rows.append([*about, interval(one, "auc"), *("-" if value is None else f"{value:.4f}" for value in others)])
    return _table((*SLICES, *list(TITLES.values())[1:]), rows)


def run() -> None:
    """Make the card from the command line."""
    line = CommandLine("python -m model.card", __doc__, "--metrics FILE --page FILE")
    option = line.add_argument
    option("--artifact", type=Path, default=BUNDLED, metavar="DIR", help="(default: the bundled one, %(default)s)")
    option("--metrics", type=Path, required=True, metavar="FILE", help="metrics.json that model.evaluate wrote")
    option("--page", type=Path, required=True, metavar="FILE", help="the page to fill in, begun where there is none")
    args = line.parse_args()
    artifact = load_artifact(args.artifact)
    maker = card(artifact, read_metrics(args.metrics, artifact))
    check_writable(args.page.parent)
    if not args.page.exists():
        args.page.write_text(SKELETON, encoding="utf-8")
    fill(args.page, maker)
    print(f"{args.page}: filled in with {artifact.name} {artifact.version}")


if __name__ == "__main__":
    main(run)
