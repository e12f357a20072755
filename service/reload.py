"""Loading a model while others serve: read, build, warm, compare, and only then a change of one reference.

Everything slow happens on one thread of its own, so that two loads never need memory for two more models. Whatever
goes wrong, the version that serves goes on.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from torch import Tensor

from model.artifact import ArtifactError, load_artifact
from model.artifact_checks import DOCUMENT, WEIGHTS
from model.scorer import Scorer
from service.errors import (
    AugurError,
    DrainingError,
    InvalidInputError,
    LoadInProgressError,
    ModelRejectedError,
    shorten,
)
from service.models import Models, Served
from service.probe import Comparison, compare, probes, sound
from service.replay import Recent, Replay
from service.settings import ConfigError, Settings

log = logging.getLogger("augur.models")

Result = TypeVar("Result")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a load that was not refused."""

    served: Served
    previous: str | None  # the version that served before; None for a new name
    changed: bool  # False: it is the same version
    seconds: dict[str, float]  # of each step that there was
    comparison: Comparison | None = None  # None for a new name and for the same version
    overruled: list[str] = field(default_factory=list)  # what it would have been refused for without force


class Loader:
    """Brings new versions in; called from the event loop, and the only one that changes its models."""

    def __init__(
        self,
        settings: Settings,
        models: Models,
        recent: Recent,
        warm: Callable[[Served], None],
        draining: Callable[[], bool],
    ) -> None:
        self._settings, self._models, self._recent = settings, models, recent
        self._warm, self._draining = warm, draining
        self._roots = roots(settings)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="augur-load")
        self._loading: set[str] = set()
        self._turn = asyncio.Lock()
        self._reload: asyncio.Task[None] | None = None
        self._again = False
        self._let_go: SimpleQueue[list[Tensor] | None] = SimpleQueue()
        self._freeing: threading.Thread | None = None

    async def load(self, name: str, path: str | None = None, *, force: bool = False) -> Loaded:
        """Loads a model and lets it serve; loads of other names take turns.

        Args:
            name: of a served model, or with `path` a new one.
            path: the artifact's folder; None for the one that the model was loaded from.
            force: also where scores shift, or where requests that are valid now would not be.

        Raises:
            NotFoundError: a new name without a path.
            LoadInProgressError: this model is being loaded already.
            ModelRejectedError: the artifact cannot be used, or should not be; the message says why.
            DrainingError: the server is stopping.
        """
        before = self._models.get(name) if path is None else self._models.find(name)
        if before is None and not NAME.match(name):
            raise InvalidInputError(
                f"{shorten(name)}: a new name has 1 to 64 of letters, digits and '._-', and begins with none of these"
            )
        if name in self._loading:
            raise LoadInProgressError(f"model {shorten(name)} is being loaded already; ask again when that has ended")
        self._loading.add(name)
        try:
            async with self._turn:
                return await self._load(name, path, force)
        except ModelRejectedError as error:
            if before is not None:
                error.message += f"; {name} stays at version {before.version}"
            raise
        finally:
            self._loading.discard(name)

    async def _load(self, name: str, path: str | None, force: bool) -> Loaded:
        before = self._models.find(name)
        folder = self._folder(before, path)
        work = _Load(self._settings, name, folder, before, self._recent.of(name), force, self._warm, self._check)
        loaded = await asyncio.get_running_loop().run_in_executor(self._thread, work.run)
        self._check()
        self._models.put(loaded.served)
        if before is not None and loaded.changed:
            self._free_later(before.scorer)
        return loaded

    def _free_later(self, scorer: Scorer) -> None:
        """Gives a scorer's memory back on a thread of its own once its last job has ended.

        The event loop would stand still for it: tens of milliseconds for half a gigabyte.
        """
        if self._freeing is None:
            self._freeing = threading.Thread(target=_free, args=(self._let_go,), name="augur-free", daemon=True)
            self._freeing.start()
        # The collector may run anywhere, within any lock: of all ways to another thread this queue alone allows for it.
        weakref.finalize(scorer, self._let_go.put, scorer.tensors).atexit = False

    def _folder(self, before: Served | None, path: str | None) -> Path:
        """Where to load from: a path is checked when it is first named."""
        own = before.path if before is not None else None
        if path is None:
            if own is None:
                raise ModelRejectedError("the path it was loaded from is not known; name one", field="path")
            return own
        return own if own is not None and own.absolute() == Path(path).absolute() else allowed(path, self._roots)

    def _check(self) -> None:
        if self._draining():
            raise DrainingError("the server is stopping and loads nothing")

    def request_reload(self) -> None:
        """Reloads every model from its path, one after the other, and logs what came of each.

        Asked again meanwhile, it begins again when it is through: what changed on disk since is not missed.
        """
        self._again = True
        if self._reload is None or self._reload.done():
            self._reload = asyncio.get_running_loop().create_task(self._reload_all())

    async def _reload_all(self) -> None:
        while self._again:
            self._again = False
            for served in self._models:
                await self._reload_one(served)

    async def _reload_one(self, before: Served) -> None:
        try:
            loaded = await self.load(before.name)
        except AugurError as error:
            log.error("model %s: kept %s because %s", before.name, before.version, error.message)
        else:
            if loaded.changed:
                log.info("model %s: loaded %s -> %s", before.name, before.version, loaded.served.version)
            else:
                log.info("model %s: kept %s because it is the version on disk", before.name, before.version)

    async def close(self) -> None:
        """Waits for the step that a load is at; it goes no further once the server drains."""
        if self._reload is not None:
            await asyncio.wait([self._reload])
        await asyncio.to_thread(self._thread.shutdown)
        self._let_go.put(None)


@dataclass
class _Load:
    """The part of a load that happens on the loader's thread."""

    settings: Settings
    name: str
    folder: Path
    before: Served | None
    recent: list[Replay]
    force: bool
    warm: Callable[[Served], None]
    stopping: Callable[[], None]
    seconds: dict[str, float] = field(default_factory=dict)
    overruled: list[str] = field(default_factory=list)

    def run(self) -> Loaded:
        """All steps. Nothing but an AugurError leaves here."""
        try:
            return self._run()
        except AugurError:
            raise
        except (ArtifactError, ConfigError) as error:
            raise ModelRejectedError(str(error), field="path") from None
        except OSError as error:
            raise ModelRejectedError(f"{self.folder}: {error.strerror or error}", field="path") from None
        except Exception as error:
            log.exception("model %s: the artifact in %s cannot be served", self.name, self.folder)
            kind = type(error).__name__
            raise ModelRejectedError(f"it cannot be served: {kind}: {error}", field="path") from None

    def _run(self) -> Loaded:
        artifact = self._timed("read", lambda: load_artifact(real_folder(self.folder)))
        before, previous = self.before, None if self.before is None else self.before.version
        if before is not None and artifact.version == previous:
            same = Served(self.name, before.scorer, self.folder, before.loaded_at)
            return Loaded(same, previous, False, self.seconds)
        precision, threads = self.settings.precision, self.settings.threads
        scorer = self._timed("build", lambda: Scorer(artifact, precision=precision, threads=threads))
        after = Served(self.name, scorer, self.folder)
        if before is not None:
            self._refuse(_lost(before, after))
        self._timed("warm", lambda: self.warm(after))
        comparison = self._timed("compare", lambda: self._compare(after))
        return Loaded(after, previous, True, self.seconds, comparison, self.overruled)

    def _compare(self, after: Served) -> Comparison | None:
        if self.before is None:
            sound(after, probes([], after.scorer)[0], self.stopping)
            return None
        found = compare(self.before, after, self.recent, self.stopping)
        most = self.settings.reload_max_shift
        if found.mean_difference > most:
            shift = f"version {after.version} shifts probabilities by {found.mean_difference:.4f} on average"
            self._refuse([f"{shift}: at most {most:g} (AUGUR_RELOAD_MAX_SHIFT)"])
        return found

    def _refuse(self, reasons: list[str]) -> None:
        """Raises ModelRejectedError for reasons that nobody overrules."""
        if reasons and not self.force:
            raise ModelRejectedError(f"{'; '.join(reasons)}; force loads it all the same")
        self.overruled += reasons

    def _timed(self, step: str, work: Callable[[], Result]) -> Result:
        self.stopping()
        begun = time.perf_counter()
        result = work()
        self.seconds[step] = round(time.perf_counter() - begun, 6)
        return result


def _free(let_go: SimpleQueue[list[Tensor] | None]) -> None:
    while (tensors := let_go.get()) is not None:
        tensors.clear()


def _lost(before: Served, after: Served) -> list[str]:
    """Why requests that are valid for one version are not for the other."""
    reasons = []
    for what, old, new in (
        ("context fields", before.scorer.context_fields, after.scorer.context_fields),
        ("actions", before.scorer.actions, after.scorer.actions),
    ):
        lost = [name for name in old if name not in new]
        if lost:
            reasons.append(f"version {after.version} has no {what} {', '.join(lost)}, which requests may state now")
    return reasons


def roots(settings: Settings) -> list[Path]:
    """The folders below which a path may be named."""
    if settings.model_root:
        return [Path(settings.model_root).resolve()]
    folders = [path.absolute() for _, path in settings.model_paths]
    # A model right below the root of the file system opens itself alone, and not all there is.
    return [(path if path.parent == path.parent.parent else path.parent).resolve() for path in folders]


def allowed(path: str, within: list[Path]) -> Path:
    """A folder that may be read: it, and the files in it, lie below one of `within` when all links are followed.

    Raises:
        ModelRejectedError: it does not; nothing is said of what is there.
    """
    folder = Path(path).absolute()
    try:
        real = [(folder / part).resolve() for part in ("", DOCUMENT, WEIGHTS)]
    except (OSError, RuntimeError, ValueError):
        raise ModelRejectedError(f"path={shorten(path)}: no path that can be followed", field="path") from None
    if not all(any(each.is_relative_to(root) for root in within) for each in real):
        raise ModelRejectedError(f"path={shorten(path)}: not below the folder of the models", field="path")
    return folder


def real_folder(folder: Path) -> Path:
    """Where a link leads now, so that all files are read from the same place."""
    try:
        return folder.resolve()
    except RuntimeError:  # a loop of links
        raise ArtifactError(f"{folder}: no path that can be followed") from None
