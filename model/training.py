"""The training loop: one objective, seeded batches, best on dev, exact resumption, data parallel.

Everything random is drawn from (seed, epoch, step), so that a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from model.batches import Batch, Batcher
from model.dien import ConfigError, Dien
from model.metrics import measure

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How to train; what to train is the objective's."""

    epochs: int = field(default=1, metadata={"help": "passes over the training split"})
    batch_size: int = field(default=256, metadata={"help": "impressions a step, over all workers"})
    learning_rate: float = field(default=2e-3, metadata={"help": "Adam's, falling linearly to 0"})
    embedding_decay: float = field(default=1e-4, metadata={"help": "coupled weight decay of the embeddings"})
    negatives: str = field(
        default="sampled", metadata={"help": "of the auxiliary loss", "choices": ("sampled", "shown")}
    )
    evaluations: int = field(default=4, metadata={"help": "evaluations on dev per epoch"})
    patience: int = field(default=8, metadata={"help": "stop after this many evaluations without a better dev AUC"})
    seed: int = field(default=0, metadata={"help": "of initial weights, batches and negatives"})
    mixed_precision: bool = field(default=False, metadata={"help": "bfloat16 products; the recurrences stay float32"})
    checkpoint_seconds: float = field(default=60.0, metadata={"help": "at most so much work is lost by a kill"})

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "evaluations", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: at least 1")
        for name in ("learning_rate", "embedding_decay", "checkpoint_seconds", "seed"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}={getattr(self, name)}: finite and not negative")
        if self.negatives not in ("sampled", "shown"):
            raise ConfigError(f"negatives={self.negatives!r}: sampled or shown")


class Objective(nn.Module):
    """What is minimised. `served` is the model whose dev AUC decides which weights are kept."""

    served: Dien

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses by name; `loss` is their weighted sum."""
        raise TypeError(f"{type(self).__name__} must say what it minimises")

    def parameter_groups(self, embedding_decay: float) -> list[dict[str, Any]]:
        """Parameters for the optimiser."""
        return self.served.parameter_groups(embedding_decay)


class ClickObjective(Objective):
    """L = L_target + α·L_aux (DIEN eq. 8)."""

    def __init__(self, model: Dien, auxiliary_weight: float) -> None:
        super().__init__()
        self.served, self.auxiliary_weight = model, auxiliary_weight

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`target` and, where the model has one, `auxiliary`."""
        return weighted(self.served.losses(batch.inputs, batch.following, batch.clicks), self.auxiliary_weight)


def weighted(losses: dict[str, Tensor], auxiliary_weight: float) -> dict[str, Tensor]:
    """Adds `loss` (DIEN eq. 8) to a model's losses."""
    total = losses["target"]
    if "auxiliary" in losses:
        total = total + auxiliary_weight * losses["auxiliary"]
    return losses | {"loss": total}


@dataclass(frozen=True, slots=True)
class Workers:
    """This process among those of a data-parallel run (`torchrun`); alone without one."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this one evaluates, writes and speaks."""
        return self.rank == 0


@contextmanager
def workers(device: torch.device) -> Iterator[Workers]:
    """Join the group that torchrun's environment names, if any, and leave it at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Workers()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Workers(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def predict(model: Dien, batcher: Batcher, device: torch.device, size: int = 2048) -> npt.NDArray[np.float32]:
    """Click probabilities of every impression of a split, in its order: `[M]`."""
    scores = np.empty(len(batcher), dtype=np.float32)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for rows, batch in batcher.chunks(size):
            scores[rows] = torch.sigmoid(model(batch.to(device).inputs)).cpu().numpy()
    model.train(was_training)
    return scores


def evaluate(model: Dien, batcher: Batcher, device: torch.device) -> dict[str, float]:
    """The metrics of one split."""
    shown = batcher.impressions
    return measure(shown.user_ids, shown.clicks, predict(model, batcher, device))


class Trainer:
    """One run: steps, evaluations, checkpoints in `folder`. `run` leaves the best weights in the objective."""

    def __init__(
        self, objective: Objective, train: Batcher, dev: Batcher, config: TrainConfig, folder: Path, workers: Workers
    ) -> None:
        self.objective, self.train, self.dev, self.config = objective, train, dev, config
        self.folder, self.workers = folder, workers
        self.device = next(objective.parameters()).device
        groups = objective.parameter_groups(config.embedding_decay)
        self.optimizer = torch.optim.Adam(groups, lr=config.learning_rate, fused=True)
        self.per_epoch = train.steps(config.batch_size)
        self.total = self.per_epoch * config.epochs
        self.step = 0
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Any] = {"auc": float("-inf"), "step": 0, "weights": {}}
        self.seconds = 0.0

    def run(self) -> Mapping[str, Any]:
        """Train to the end or until dev AUC stops rising; returns the facts of the run."""
        module = DistributedDataParallel(self.objective) if self.workers.count > 1 else self.objective
        shown = tqdm(total=self.total, initial=self.step, unit="step", disable=not self.workers.first, smoothing=0.05)
        writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.step) if self.workers.first else None
        began, saved = time.monotonic() - self.seconds, time.monotonic()
        every = max(self.per_epoch // self.config.evaluations, 1)
        with shown:
            for batch in self._batches():
                losses = self._train_step(module, batch)
                shown.set_postfix({"loss": f"{losses['loss']:.4f}", "dev AUC": self._shown_auc()}, refresh=False)
                shown.update()
                self.seconds = time.monotonic() - began
                if writer and self.step % 20 == 0:
                    _write(writer, "train", losses, self.step)
                if self.step % every == 0 or self.step == self.total:
                    self._evaluate(writer)
                    if self._stopped():
                        break
                if self.workers.first and time.monotonic() - saved > self.config.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
        if writer:
            writer.close()
        if self.workers.first:
            self.save()
        self.objective.load_state_dict(self.best["weights"])
        return {"steps": self.step, "best_step": self.best["step"], "seconds": round(self.seconds, 1)}

    def _batches(self) -> Iterator[Batch]:
        for epoch in range(self.step // self.per_epoch, self.config.epochs):
            yield from self.train.epoch(
                self.config.batch_size,
                self.config.seed,
                epoch,
                first_step=self.step % self.per_epoch,
                rank=self.workers.rank,
                ranks=self.workers.count,
            )

    def _train_step(self, module: nn.Module, batch: Batch) -> dict[str, float]:
        self.objective.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * (1 - self.step / self.total)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.mixed_precision):
            losses = module(batch.to(self.device))
        self.optimizer.zero_grad()
        # Workers' shares may differ by a row; DDP averages them, so each is weighted by its size.
        (losses["loss"] * self._share(len(batch.clicks))).backward()
        self.optimizer.step()
        self.step += 1
        return {name: value.item() for name, value in losses.items() if value.ndim == 0}

    def _share(self, rows: int) -> float:
        if self.workers.count == 1:
            return 1.0
        total = torch.tensor(float(rows))
        dist.all_reduce(total)
        return rows * self.workers.count / total.item()

    def _shown_auc(self) -> str:
        return f"{self.history[-1]['auc']:.4f}" if self.history else "-"

    def _evaluate(self, writer: SummaryWriter | None) -> None:
        if not self.workers.first:
            return
        metrics = evaluate(self.objective.served, self.dev, self.device)
        self.history.append({"step": self.step, **metrics})
        if writer:
            _write(writer, "dev", metrics, self.step)
        if metrics["auc"] > self.best["auc"]:
            weights = {name: value.detach().cpu().clone() for name, value in self.objective.state_dict().items()}
            self.best = {"auc": metrics["auc"], "step": self.step, "weights": weights}
        (self.folder / "metrics.json").write_text(json.dumps({"dev": self.history}, indent=1) + "\n")

    def _stopped(self) -> bool:
        since = sum(entry["step"] > self.best["step"] for entry in self.history)
        stop = torch.tensor(int(since >= self.config.patience))
        if self.workers.count > 1:
            dist.broadcast(stop, 0)
        return bool(stop)

    def save(self) -> None:
        """Write the checkpoint whole or not at all."""
        state = {
            "config": asdict(self.config),
            "step": self.step,
            "seconds": self.seconds,
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "best": self.best,
        }
        writing = self.folder / f"{CHECKPOINT}.new"
        torch.save(state, writing)
        os.replace(writing, self.folder / CHECKPOINT)

    def resume(self) -> None:
        """Go on from the folder's checkpoint. Raises ConfigError where it is of a run with other settings."""
        file = self.folder / CHECKPOINT
        state = torch.load(file, map_location=self.device, weights_only=True)
        for name, value in asdict(self.config).items():
            if name != "checkpoint_seconds" and state["config"][name] != value:
                raise ConfigError(f"{name}={value!r}: {file} is of a run with {state['config'][name]!r}")
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.history, self.best = state["history"], state["best"]


def _write(writer: SummaryWriter, group: str, values: Mapping[str, float], step: int) -> None:
    for name, value in values.items():
        writer.add_scalar(f"{group}/{name}", value, step)
