"""The training loop: one objective, seeded batches, best on dev, exact resumption, data parallel.

Everything random is drawn from (seed, epoch, step), so that a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from model import strict_json
from model.batches import Batch, Batcher
from model.checkpoint import read_checkpoint, write_checkpoint
from model.config import ConfigError
from model.metrics import measure
from model.objective import Objective
from model.regularization import REGULARIZATIONS, BatchAware
from model.workers import Workers, stop_signals
from model.zoo import Network

LARGEST_SEED = 2**63 - 1
UNBOUND = ("checkpoint_seconds",)  # settings that may differ where a run goes on


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How to train."""

    epochs: int = field(default=1, metadata={"help": "passes over the training split"})
    batch_size: int = field(
        default=64, metadata={"help": "impressions a step, over all workers; drawn negatives come on top"}
    )
    learning_rate: float = field(default=2e-3, metadata={"help": "Adam's, falling linearly to 0"})
    regularization: str = field(
        default="l2",
        metadata={
            "help": "of embeddings: coupled decay of all rows, or of those in the batch",
            "choices": REGULARIZATIONS,
        },
    )
    embedding_decay: float = field(default=1e-4, metadata={"help": "strength of that regularization, λ"})
    auxiliary_weight: float = field(default=0.25, metadata={"help": "α of DIEN eq. 8"})
    negatives: str = field(
        default="shown",
        metadata={"help": "of the auxiliary loss: shown (drawn where none is known)", "choices": ("shown", "sampled")},
    )
    unknown_rate: float = field(default=0.01, metadata={"help": "share of ids made unknown, to train their rows"})
    evaluations: int = field(default=4, metadata={"help": "evaluations on dev per epoch"})
    patience: int = field(default=8, metadata={"help": "stop after this many evaluations without a better dev AUC"})
    seed: int = field(default=0, metadata={"help": "of initial weights, batches and negatives"})
    mixed_precision: bool = field(default=False, metadata={"help": "bfloat16 products; the recurrences stay float32"})
    checkpoint_seconds: float = field(default=60.0, metadata={"help": "at most so much work is lost by a kill"})

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "evaluations", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: at least 1")
        for name in ("learning_rate", "embedding_decay", "auxiliary_weight", "checkpoint_seconds"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}={getattr(self, name)}: finite and not negative")
        if not 0 <= self.unknown_rate < 1:
            raise ConfigError(f"unknown_rate={self.unknown_rate}: from 0 to below 1")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise ConfigError(f"seed={self.seed}: from 0 to {LARGEST_SEED}")
        for name, allowed in (("negatives", ("sampled", "shown")), ("regularization", REGULARIZATIONS)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name}={getattr(self, name)!r}: {' or '.join(allowed)}")


@contextmanager
def without_denormals() -> Iterator[None]:
    """Numbers too small for float32's full precision are 0, in this thread and in those that torch starts meanwhile.

    Rows of embeddings decay to such numbers between two batches that have their ids, and a product of these takes a
    hundred times as long as any other.
    """
    tiny = torch.tensor(torch.finfo(torch.float32).tiny)
    before = bool(tiny / 2 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def predict(model: Network, batcher: Batcher, device: torch.device, size: int = 512) -> npt.NDArray[np.float32]:
    """Click probabilities of every impression of a split, in its order: `[M]`."""
    scores = np.empty(len(batcher), dtype=np.float32)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for rows, batch in batcher.chunks(size):
            scores[rows] = torch.sigmoid(model(batch.to(device).inputs)).cpu().numpy()
    model.train(was_training)
    return scores


def evaluate(model: Network, batcher: Batcher, device: torch.device) -> dict[str, float]:
    """The metrics of one split."""
    shown = batcher.impressions
    return measure(shown.user_ids, shown.clicks, predict(model, batcher, device))


class Trainer:
    """One run: steps, evaluations, checkpoints in `folder`. `run` leaves the best weights in the objective.

    `settings` are all that the run depends on; a checkpoint is taken up only where they are the same.
    """

    def __init__(
        self,
        objective: Objective,
        train: Batcher,
        dev: Batcher,
        config: TrainConfig,
        folder: Path,
        *,
        settings: Mapping[str, Any],
        workers: Workers | None = None,
    ) -> None:
        self.objective, self.train, self.dev, self.config = objective, train, dev, config
        self.folder, self.workers = folder, workers or Workers()
        self.settings = {name: value for name, value in settings.items() if name not in UNBOUND}
        self.settings["data_digest"] = _digest(train, dev)
        self.device = next(objective.parameters()).device
        self.regularization: BatchAware | None = None
        self.optimizers = self._optimizers()
        self.per_epoch = train.steps(config.batch_size)
        self.total = self.per_epoch * config.epochs
        self.every = -(-self.per_epoch // config.evaluations)
        self.step, self.seconds, self.cpu_seconds = 0, 0.0, 0.0
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Any] = {"auc": float("-inf"), "step": 0, "weights": {}}
        self.stale = False

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        config = self.config
        groups = self.objective.parameter_groups(config.embedding_decay if config.regularization == "l2" else 0.0)
        if config.regularization != "batch_aware":
            return [torch.optim.Adam(groups, lr=config.learning_rate, fused=True)]
        if self.workers.count > 1:
            # Of the whole batch's rows each worker knows its own share alone.
            raise ConfigError(f"regularization=batch_aware: one worker, not {self.workers.count}")
        self.regularization = BatchAware(self.objective, self.train, config.embedding_decay, config.unknown_rate)
        return self.regularization.optimizers(groups, config.learning_rate)

    def run(self) -> Mapping[str, Any]:
        """Train to the end or until dev AUC stops rising; returns the facts of the run.

        Its `seconds` are by the clock, its `cpu_seconds` those of this process on all cores, which what runs beside it
        changes little; both without reading data and without the metrics at the end.
        Raises KeyboardInterrupt, with a checkpoint saved, where a signal asked to stop.
        """
        module = DistributedDataParallel(self.objective) if self.workers.count > 1 else self.objective
        with without_denormals(), stop_signals() as stopping, self._shown() as shown, self._writer() as writer:
            began, saved = time.monotonic() - self.seconds, time.monotonic()
            cpu_began = time.process_time() - self.cpu_seconds
            for batch in self._batches():
                losses, stop = self._train_step(module, batch, stopping())
                self.seconds, self.cpu_seconds = time.monotonic() - began, time.process_time() - cpu_began
                if writer and self.step % 20 == 0:
                    _write(writer, "train", losses, self.step)
                if self.step % self.every == 0 or self.step == self.total:
                    self._evaluate(writer)
                shown.set_postfix({"loss": f"{losses['loss']:.4f}", "dev AUC": self._shown_auc()}, refresh=False)
                shown.update()
                if stop:
                    self.save()
                    raise KeyboardInterrupt(f"stopped at step {self.step} of {self.total}; --resume goes on from there")
                if time.monotonic() - saved > self.config.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
        self.save()
        if self.workers.first:
            self.objective.load_state_dict(self.best["weights"])
        took = {"seconds": round(self.seconds, 1), "cpu_seconds": round(self.cpu_seconds, 2)}
        return {"steps": self.step, "best_step": self.best["step"], **took}

    def _shown(self) -> tqdm[Any]:
        return tqdm(total=self.total, initial=self.step, unit="step", disable=not self.workers.first, smoothing=0.05)

    @contextmanager
    def _writer(self) -> Iterator[SummaryWriter | None]:
        if not self.workers.first:
            yield None
            return
        with SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.step) as writer:
            yield writer

    def _batches(self) -> Iterator[Batch]:
        for epoch in range(self.step // self.per_epoch, self.config.epochs):
            for batch in self.train.epoch(
                self.config.batch_size,
                self.config.seed,
                epoch,
                unknown_rate=self.config.unknown_rate,
                first_step=self.step % self.per_epoch,
                rank=self.workers.rank,
                ranks=self.workers.count,
            ):
                if self.stale:
                    return
                yield batch

    def _train_step(self, module: nn.Module, batch: Batch, stopping: bool) -> tuple[dict[str, float], bool]:
        """One step; its losses, and whether any worker was asked to stop."""
        rows, stop = self.workers.total([len(batch.clicks), stopping])
        # Workers' shares may differ by a row; DDP averages them, so each is weighted by its size.
        share = len(batch.clicks) * self.workers.count / rows
        self.objective.train()
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = self.config.learning_rate * (1 - self.step / self.total)
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.mixed_precision):
            losses = module(batch)
        if self.regularization is not None:
            losses["regularization"] = self.regularization(batch.inputs)
            losses["loss"] = losses["loss"] + losses["regularization"]
        self.objective.zero_grad()
        (losses["loss"] * share).backward()
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        values = {name: value.item() for name, value in losses.items() if value.ndim == 0}
        if not math.isfinite(values["loss"]):
            rate = f"learning_rate={self.config.learning_rate}"
            raise ConfigError(f"{rate}: the loss is {values['loss']} after step {self.step}; a lower rate may help")
        return values, stop > 0

    def _shown_auc(self) -> str:
        return f"{self.history[-1]['auc']:.4f}" if self.history else "-"

    def _evaluate(self, writer: SummaryWriter | None) -> None:
        if writer:
            self._evaluate_first(writer)
        self.stale = self.workers.of_first(self._is_stale())

    def _evaluate_first(self, writer: SummaryWriter) -> None:
        metrics = evaluate(self.objective.served, self.dev, self.device)
        self.history.append({"step": self.step, **metrics})
        _write(writer, "dev", metrics, self.step)
        if metrics["auc"] > self.best["auc"]:
            weights = {name: value.detach().cpu().clone() for name, value in self.objective.state_dict().items()}
            self.best = {"auc": metrics["auc"], "step": self.step, "weights": weights}
        strict_json.write(self.folder / "metrics.json", {"dev": self.history})

    def _is_stale(self) -> bool:
        """Whether dev AUC has not risen for too long."""
        since = [entry for entry in self.history if entry["step"] > self.best["step"]]
        return len(since) >= self.config.patience

    def save(self) -> None:
        """Write the checkpoint; the first worker's is everyone's."""
        if not self.workers.first:
            return
        write_checkpoint(
            self.folder,
            {
                "settings": self.settings,
                "step": self.step,
                "seconds": self.seconds,
                "cpu_seconds": self.cpu_seconds,
                "objective": self.objective.state_dict(),
                "optimizer": [optimizer.state_dict() for optimizer in self.optimizers],
                "history": self.history,
                "best": self.best,
            },
        )

    def resume(self) -> None:
        """Go on from the folder's checkpoint. Raises ConfigError where it is damaged or of another run."""
        state = read_checkpoint(self.folder, self.settings, self.device)
        self.objective.load_state_dict(state["objective"])
        for optimizer, kept in zip(self.optimizers, state["optimizer"], strict=True):
            optimizer.load_state_dict(kept)
        self.step, self.seconds, self.cpu_seconds = state["step"], state["seconds"], state["cpu_seconds"]
        self.history, self.best = state["history"], state["best"]
        self.stale = self._is_stale()


def _digest(*batchers: Batcher) -> str:
    """SHA-256 of what batches are made of."""
    total = hashlib.sha256()
    for one in batchers:
        for part in (one.start, one.end, one.target, one.impressions.clicks, one.context, one.history, one.actions):
            total.update(np.ascontiguousarray(part).data)
    return total.hexdigest()


def _write(writer: SummaryWriter, group: str, values: Mapping[str, float], step: int) -> None:
    for name, value in values.items():
        writer.add_scalar(f"{group}/{name}", value, step)
