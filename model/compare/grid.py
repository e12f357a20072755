"""What is compared: studies, each a named list of variants, and the recipe that all variants of a data set share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import ModuleType
from typing import Any

from model import distill, train
from model.cli import DataConfig, settings
from model.config import MODELS, RELEASED, ConfigError, ModelConfig
from model.data import DataSet
from model.training import TrainConfig

Value = str | int | float | bool
SHOWN, SEQUENCES, ACTIONS = "shown", "sequences", "actions"  # what a study may need of a data set

# Of sequences without impressions a user's last item is told from a drawn one, and each seed splits the users anew.
RECIPES: Mapping[str, tuple[str, ...]] = {
    "impressions": (),
    SEQUENCES: (
        *("--no-user-id", "--epochs", "4", "--unknown-rate", "0"),
        *("--initial-deviation", "0.05", "--auxiliary-weight", "1"),
    ),
}


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of a study: options that differ from the recipe, and which other row it is compared with."""

    name: str
    options: Mapping[str, Value] = field(default_factory=dict)
    reference: str | None = None  # the study's first variant by default
    distilled: bool = False

    @property
    def module(self) -> str:
        """What trains it."""
        return "model.distill" if self.distilled else "model.train"

    @property
    def model(self) -> str:
        """Its model in the zoo."""
        return str(self.options.get("model", "dien"))

    @property
    def words(self) -> list[str]:
        """Its options as the command line has them."""
        return [word for name, value in self.options.items() for word in _words(name, value)]


def _words(name: str, value: Value) -> list[str]:
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", str(value)]


@dataclass(frozen=True, slots=True)
class Study:
    """A question and the variants that answer it. With an `axis` the variants are values of that one setting."""

    name: str
    question: str
    variants: tuple[Variant, ...]
    needs: str | None = None
    axis: str | None = None

    def reference_of(self, variant: Variant) -> str:
        """The name of the variant that another is compared with; its own for a reference."""
        return variant.reference or self.variants[0].name


def _values(axis: str, title: str, *values: Value) -> tuple[Variant, ...]:
    """DIEN with each value of a setting; the recipe's own is the reference, if it is among them."""
    return tuple(Variant(f"{title} {value}", {axis: value}) for value in values)


def _auxiliary_everywhere() -> Iterable[Variant]:
    # GRU + AUGRU with the auxiliary loss is DIEN.
    for name in [name for name in MODELS if name != "dien"]:
        title = MODELS[name].title
        yield Variant(title, {"model": name}, title)
        with_loss: Mapping[str, Value] = {"model": "dien"} if name == "augru" else {"model": name, "auxiliary": "net"}
        yield Variant(f"{title}, auxiliary loss", with_loss, title)


def _behaviors() -> Iterable[Variant]:
    kinds = ("all", "exposures with actions"), ("chosen", "chosen alone"), ("without_actions", "exposures, no actions")
    for kind, title in kinds:
        for name in ("base", "din", "augru", "dien"):
            options: dict[str, Value] = {"model": name}
            if kind != "all":
                options["behaviors"] = kind
            yield Variant(f"{MODELS[name].title}, {title}", options, f"{MODELS['base'].title}, {title}")


BRIEF = ("base", "augru", "dien")  # pooling, evolution, evolution with the auxiliary loss


def _lengths() -> Iterable[Variant]:
    for length in (10, 50, 100):
        for name in BRIEF:
            reference = f"{MODELS['base'].title}, {length}"
            yield Variant(f"{MODELS[name].title}, {length}", {"model": name, "max_history": length}, reference)


def _prefixes() -> Iterable[Variant]:
    for name in MODELS:
        title = MODELS[name].title
        yield Variant(f"{title}, last item", {"model": name}, f"{title}, last item")
        yield Variant(f"{title}, every prefix", {"model": name, "prefixes": True}, f"{title}, last item")


def _prefix_models() -> Iterable[Variant]:
    for name in MODELS:
        yield Variant(MODELS[name].title, {"model": name, "prefixes": True})


def _prefix_alpha() -> Iterable[Variant]:
    yield Variant("no auxiliary loss", {"model": "augru", "prefixes": True})
    for weight in (0.03, 0.1, 1.0):
        yield Variant(f"α {weight:g}", {"prefixes": True, "auxiliary_weight": weight})


def _distillation() -> Iterable[Variant]:
    yield Variant("light net alone")
    for shared in (True, False):
        kind = "shared" if shared else "separate"
        for weight in (0.03, 0.1, 0.3):
            options: Mapping[str, Value] = {"hint_weight": weight, "share": shared}
            yield Variant(f"distilled, {kind} embeddings, λ {weight:g}", options, distilled=True)
    yield Variant("hidden 108 alone", {"hidden": 108})


STUDIES: Mapping[str, Study] = {
    study.name: study
    for study in (
        Study(
            "models",
            "The models of the papers",
            tuple(Variant(definition.title, {"model": name}) for name, definition in MODELS.items()),
        ),
        Study(
            "auxiliary-everywhere",
            "What the auxiliary loss gives to every model: each with it against itself without",
            tuple(_auxiliary_everywhere()),
        ),
        Study(
            "auxiliary",
            "The form of DIEN's auxiliary loss",
            (
                Variant("small net"),
                Variant("inner product", {"auxiliary": "inner"}),
                Variant("no auxiliary loss", {"model": "augru"}),
            ),
        ),
        Study(
            "negatives",
            "Negatives of the auxiliary loss: shown and not chosen, or drawn by popularity",
            (Variant("shown"), Variant("sampled", {"negatives": "sampled"})),
            needs=SHOWN,
        ),
        Study(
            "alpha",
            "The weight α of the auxiliary loss",
            _values("auxiliary_weight", "α", 0.03, 0.1, 0.25, 0.5, 1.0, 2.0),
            axis="auxiliary_weight",
        ),
        Study(
            "attention",
            "Attention: a bilinear product or the activation unit",
            (
                Variant("DIEN, bilinear"),
                Variant("DIEN, activation unit", {"attention": "unit"}, "DIEN, bilinear"),
                Variant("DIN, activation unit", {"model": "din"}, "DIN, activation unit"),
                Variant("DIN, bilinear", {"model": "din", "attention": "bilinear"}, "DIN, activation unit"),
            ),
        ),
        Study(
            "cell",
            "The cell of interest evolution, with the auxiliary loss; AUGRU as in the paper and in the authors' code",
            (
                Variant("AUGRU, paper"),
                Variant("AUGRU, released code", {"cell": RELEASED}),
                Variant("AGRU", {"model": "agru", "auxiliary": "net"}),
                Variant("AIGRU", {"model": "aigru", "auxiliary": "net"}),
            ),
        ),
        Study(
            "hidden",
            "The size of DIEN's interest states",
            _values("hidden", "hidden", 8, 16, 32, 64, 108),
            axis="hidden",
        ),
        Study(
            "history",
            "How many of the newest behaviours count",
            _values("max_history", "history", 5, 10, 20, 50, 100),
            axis="max_history",
        ),
        Study(
            "history-models",
            "Models by how many of the newest behaviours count",
            tuple(_lengths()),
        ),
        Study(
            "behaviors",
            "What the history tells: exposures with what was done, what was chosen alone, exposures without actions",
            tuple(_behaviors()),
            needs=ACTIONS,
        ),
        Study(
            "activation",
            "The activation of DIEN's head",
            (Variant("Dice"), Variant("PReLU", {"activation": "prelu"})),
        ),
        Study(
            "regularization",
            "Regularisation of embeddings: coupled decay of all rows, of a batch's rows alone (mini-batch aware), none",
            (
                Variant("L2"),
                Variant("mini-batch aware", {"regularization": "batch_aware"}),
                Variant("none", {"regularization": "none"}),
            ),
        ),
        Study(
            "prefixes",
            "Training on every prefix of a sequence, against its last item alone",
            tuple(_prefixes()),
            needs=SEQUENCES,
        ),
        Study(
            "prefix-models",
            "Models trained on every prefix of a sequence",
            tuple(_prefix_models()),
            needs=SEQUENCES,
        ),
        Study(
            "prefix-alpha",
            "The weight α of the auxiliary loss where models are trained on every prefix of a sequence",
            tuple(_prefix_alpha()),
            needs=SEQUENCES,
        ),
        Study(
            "distillation",
            "Rocket Launching, 108 to 32, against the light net alone",
            tuple(_distillation()),
        ),
    )
}
OF_MODELS = ("models", "auxiliary-everywhere", "prefixes", "prefix-models")  # studies whose rows can be picked by model


def chosen_studies(names: Sequence[str], models: Sequence[str], data: DataSet, words: Sequence[str]) -> list[Study]:
    """The studies of these names (`all` for every one that fits the data), with the rows of these models.

    `words` are the options that all variants share. Raises ConfigError for an unknown name and for a study that the
    data cannot answer.
    """
    _check("studies", names, STUDIES)
    _check("models", models, MODELS)
    studies = []
    for study in STUDIES.values():
        if study.name not in names and "all" not in names:
            continue
        if not _fits(study, data):
            if study.name in names:
                raise ConfigError(f"studies={study.name}: {data.name} has no {study.needs} to ask of")
            continue
        studies.append(_against_recipe(_of_models(study, models), words))
    return studies


def _check(what: str, names: Sequence[str], known: Iterable[str]) -> None:
    choices = ["all", *known]
    for name in names:
        if name not in choices:
            raise ConfigError(f"{what}={name}: one of {', '.join(choices)}")
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"{what}={','.join(names)}: at least one, none twice")


def _fits(study: Study, data: DataSet) -> bool:
    given = data.shown_action is not None or data.behaviors.negatives is not None
    fits = {SHOWN: given, SEQUENCES: data.sampled_negatives, ACTIONS: data.shown_action is not None}
    return study.needs is None or fits[study.needs]


def _of_models(study: Study, models: Sequence[str]) -> Study:
    """Only the rows of these models, and those that they are compared with."""
    if "all" in models or study.name not in OF_MODELS:
        return study
    own = {one.name for one in study.variants if one.model in models}
    kept = own | {one.name for one in study.variants if one.reference in own}
    kept |= {study.reference_of(one) for one in study.variants if one.name in kept}
    return replace(study, variants=tuple(one for one in study.variants if one.name in kept))


def _against_recipe(study: Study, words: Sequence[str]) -> Study:
    """A study of one setting with the recipe's own value as its reference."""
    names = {key_of(one, words): one.name for one in study.variants} if study.axis else {}
    reference = names.get(key_of(Variant("recipe"), words))
    if reference is None:
        return study
    return replace(study, variants=tuple(replace(one, reference=reference) for one in study.variants))


def recipe_of(data: DataSet) -> tuple[str, ...]:
    """The options that all variants share on such data."""
    return RECIPES[SEQUENCES if data.sampled_negatives else "impressions"]


def seed_words(seed: int) -> list[str]:
    """Seed and split of users go together; where the data has splits of its own the second changes nothing."""
    return ["--seed", str(seed), "--split-seed", str(seed)]


def resolved(variant: Variant, words: Sequence[str]) -> dict[str, Any]:
    """All settings that the command line of a variant's training comes to. Raises ConfigError for a bad one."""
    module: ModuleType = distill if variant.distilled else train
    kinds: list[type] = [DataConfig, ModelConfig, TrainConfig, *([distill.RocketConfig] if variant.distilled else [])]
    args = module.parser().parse_args(["--out", "model", *words])
    found: dict[str, Any] = {}
    for kind in kinds:
        found |= asdict(settings(args, kind))
    return found


def key_of(variant: Variant, words: Sequence[str]) -> str:
    """A name for what a variant comes to: its model and what differs from the recipe of `words`.

    Variants of different studies that come to the same have the same name, and are trained once.
    """
    own, plain = (resolved(variant, [*words, *more]) for more in (variant.words, ["--model", variant.model]))
    differing = [f"-{name}-{value}" for name, value in own.items() if value != plain[name]]
    return f"{'rocket-' if variant.distilled else ''}{variant.model}{''.join(differing)}"
