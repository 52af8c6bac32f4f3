"""Preference training: TRL's DPO with the order and the token ids that Noria gives it.

Source of the loss: https://arxiv.org/abs/2305.18290. The reference is what the training began with: the base where the adapter is
new, a frozen copy of the adapter where one is trained further.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from trl.trainer.dpo_trainer import DPOTrainer

from ._batches import EpochOrder
from ._sft import Stopped
from ._tokens import Tokens

__all__ = ["Preferences", "preference_dataset"]


def preference_dataset(chosen: Tokens, rejected: Tokens) -> Dataset:
    """TRL's columns: what both share, and the two answers."""
    rows: dict[str, list[list[int]]] = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
    for i in range(len(chosen)):
        (ids, learned), (other, _) = chosen[i], rejected[i]
        start = int(np.flatnonzero(learned)[0])
        rows["prompt_ids"].append(ids[:start].tolist())
        rows["chosen_ids"].append(ids[start:].tolist())
        rows["rejected_ids"].append(other[start:].tolist())
    return Dataset.from_dict(rows)


class Preferences(DPOTrainer):
    def __init__(self, *, stop: threading.Event, **options: Any) -> None:
        self._stop = stop
        self._order = EpochOrder(len(options["train_dataset"]), options["args"].seed)
        self.tokens_seen = self.learned_seen = 0
        super().__init__(**options)

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset  # tokenised already, as the engine does it

    def get_train_dataloader(self) -> Any:
        size = self.args.per_device_train_batch_size
        rows: Any = self.train_dataset
        loader: Any = DataLoader(rows, batch_size=size, sampler=self._order, collate_fn=self.data_collator)
        return self.accelerator.prepare(loader)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        if self._stop.is_set():
            raise Stopped
        torch.manual_seed((self.args.seed * 1_000_003 + self.state.global_step) % 2**63)
        self.tokens_seen += int(inputs["attention_mask"].sum())
        self.learned_seen += int(inputs["completion_mask"].sum())
        return super().training_step(model, inputs, num_items_in_batch)
