"""The course of a training: steps, validations, checkpoints, when to stop, and which state to keep."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, TrainerCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.sft_config import SFTConfig

from noria.training._plan import Plan, read_json, write_json

from ._checkpoints import DiskFull, Keeper, is_disk_full, resumable
from ._dpo import Preferences, preference_dataset
from ._model import load_model, load_tokenizer
from ._pace import Clock, paced
from ._reporting import Reporter
from ._scoring import general_digest
from ._sft import Supervised
from ._tokens import Tokens

__all__ = ["Course", "Diverged"]

SAVE_EVERY_S = 60.0
MOST_VALIDATION_ROWS = 500
"""Scored at each validation; the figures say how many rows they are of."""
MOST_SERVED = 20


class Diverged(Exception):
    """The loss is no number any more."""

    code = "diverged"


class Course:
    """`step` counts whole steps, over all tries."""

    def __init__(self, folder: Path, plan: Plan, checkpoint: Path, reporter: Reporter, stop: threading.Event) -> None:
        assert plan.hyper is not None
        self._folder, self._plan, self._hyper = folder, plan, plan.hyper
        self._reporter, self.stop, self._checkpoint = reporter, stop, checkpoint
        self._clock = Clock(plan.max_minutes * 60 if plan.max_minutes else None)
        self._resumed = resumable(folder)
        model = load_model(plan, plan.hyper, checkpoint)
        build = self._supervised if plan.method == "supervised" else self._preferences
        self._trainer = build(model, load_tokenizer(checkpoint))
        self._trainer.remove_callback(PrinterCallback)
        self._trainer.add_callback(_Watcher(self))
        self.keeper = Keeper(folder, self._trainer, self._clock)
        self._notes: dict[str, Any] = read_json(folder / "course.json") or {"valid": [], "served": []}
        self.stopped_early: str | None = None
        self.result_step = 0

    @property
    def model(self) -> Any:
        return self._trainer.model

    @property
    def known_scores(self) -> Path | None:
        """Where the base's own scores of the general set are kept for its next training; none for an adapter's."""
        if self._plan.start_adapter is not None:
            return None
        precision = self._hyper.precision if self._plan.kind == "lora" else "f32"
        return self._checkpoint.parent / f"general-{general_digest()}-{precision}.json"

    @property
    def step(self) -> int:
        return int(self._trainer.state.global_step)

    def _supervised(self, model: Any, tokenizer: Any) -> Any:
        train = Tokens.load(self._folder / "training_file.npz")
        self._validation = Tokens.load(self._folder / "validation_file.npz") if self._plan.validation else None
        config: Any = SFTConfig  # its sixty fields have types of their own
        args = config(**self._arguments(), max_length=None, dataset_kwargs={"skip_prepare_dataset": True})
        make = {
            "micro_tokens": self._hyper.micro_tokens,
            "packing": self._hyper.packing,
            "pad_id": tokenizer.pad_token_id or 0,
        }
        trainer = paced(Supervised, self._hyper, self._clock)
        return trainer(model=model, args=args, processing_class=tokenizer, train=train, stop=self.stop, make=make)

    def _preferences(self, model: Any, tokenizer: Any) -> Any:
        """TRL's own batches: as many pairs at once as fit, accumulated to a step."""
        hyper = self._hyper
        pairs = [
            (Tokens.load(self._folder / f"{name}.npz"), Tokens.load(self._folder / f"{name}_rejected.npz"))
            for name in self._files
        ]
        longest = max(int(tokens.lengths.max()) for pair in pairs for tokens in pair)
        most = max(1, hyper.micro_tokens // (2 * longest))
        size = max(n for n in range(1, hyper.batch_size + 1) if hyper.batch_size % n == 0 and n <= most)
        arguments = self._arguments() | {
            "per_device_train_batch_size": size,
            "per_device_eval_batch_size": size,
            "gradient_accumulation_steps": hyper.batch_size // size,
        }
        config: Any = DPOConfig
        args = config(**arguments, max_length=None, beta=hyper.beta or 0.1, precompute_ref_log_probs=hyper.n_epochs > 1)
        datasets = [preference_dataset(*pair) for pair in pairs]
        self._validation = datasets[1] if self._plan.validation else None
        return paced(Preferences, hyper, self._clock)(
            model=model,
            args=args,
            processing_class=tokenizer,
            train_dataset=datasets[0],
            eval_dataset=self._validation,
            stop=self.stop,
        )

    @property
    def _files(self) -> list[str]:
        return ["training_file", "validation_file"] if self._plan.validation else ["training_file"]

    def _arguments(self) -> dict[str, Any]:
        hyper = self._hyper
        return {
            "output_dir": str(self._folder / ".staging"),
            "per_device_train_batch_size": hyper.batch_size,
            "num_train_epochs": hyper.n_epochs,
            "learning_rate": hyper.learning_rate,
            "weight_decay": hyper.weight_decay,
            "gradient_checkpointing": hyper.gradient_checkpointing,
            "gradient_checkpointing_kwargs": {"use_reentrant": False} if hyper.gradient_checkpointing else None,
            "bf16": hyper.precision == "bf16",
            "use_cpu": hyper.device == "cpu",
            "seed": self._plan.seed,
            "logging_steps": 1,
            "logging_nan_inf_filter": False,
            "save_strategy": "no",
            "eval_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "remove_unused_columns": False,
            "dataloader_num_workers": 0,
            "dataloader_pin_memory": False,
        }

    def run(self) -> None:
        """Trains from where the last try was to the end. Raises Stopped, Diverged, DiskFull."""
        if self._resumed is not None:
            step, path = self._resumed
            self._trainer.learned_seen = self._clock.load(path)
            self._notes["valid"] = [entry for entry in self._notes["valid"] if entry["step"] <= step]
            self._trainer.train(resume_from_checkpoint=str(path))
        else:
            self._notes = {"valid": [], "served": []}
            self._trainer.train()

    def begin(self, steps: int) -> None:
        hyper = self._hyper
        self._reporter.send(type="started", step=self.step, steps=steps, device=hyper.device, precision=hyper.precision)
        self._begun, self._tokens_at_begin = time.monotonic(), self._trainer.tokens_seen
        self._saved_at = time.monotonic()

    def log(self, logs: dict[str, Any]) -> None:
        """One step's figures."""
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise Diverged(f"At step {self.step} the loss is {loss}. Try a lower learning_rate_multiplier.")
        data: dict[str, Any] = {"step": self.step, "train_loss": round(loss, 6), "learning_rate": logs.get("learning_rate")}
        trainer = self._trainer
        if getattr(trainer, "counted", 0):
            data["train_mean_token_accuracy"] = round(trainer.correct / trainer.counted, 6)
            trainer.correct = trainer.counted = 0
        for name, value in logs.items():
            if name.startswith("rewards/"):
                data[f"train_reward_{name.removeprefix('rewards/')}"] = round(float(value), 6)
        seconds = time.monotonic() - self._begun
        data["tokens_per_s"] = round((trainer.tokens_seen - self._tokens_at_begin) / seconds, 1) if seconds > 0 else None
        data["learned_tokens"] = trainer.learned_seen
        self._reporter.send(type="metrics", step=self.step, data=data)

    def after_step(self, total: int, steps_an_epoch: int) -> bool:
        """Validates and saves where it is time to. True: enough."""
        step, last = self.step, self.step >= total
        enough = last or self._out_of_time()
        validate = self._validation is not None and (step % self._hyper.eval_every == 0 or enough)
        if validate:
            enough = self._validate(step) or enough
        if validate or step % steps_an_epoch == 0 or enough:
            self._serve(step)
            self.keep()
        elif time.monotonic() - self._saved_at >= SAVE_EVERY_S:
            self.keep()
        return enough

    def _out_of_time(self) -> bool:
        if self._clock.max_s is None or self._clock.spent_s < self._clock.max_s:
            return False
        self.stopped_early = f"the budget of {self._clock.max_s / 60:g} minutes was spent"
        return True

    def _validate(self, step: int) -> bool:
        if self._plan.method == "supervised":
            loss, accuracy = self._trainer.score(self._validation, MOST_VALIDATION_ROWS)
            found = {"full_valid_loss": loss, "full_valid_mean_token_accuracy": accuracy}
        else:
            given = self._trainer.evaluate()
            found = {"full_valid_loss": given["eval_loss"]}
            found |= {f"full_valid_reward_{k[13:]}": v for k, v in given.items() if k.startswith("eval_rewards/")}
        figures = {name: round(float(value), 6) for name, value in found.items()}
        self._notes["valid"] = [*(e for e in self._notes["valid"] if e["step"] != step), {"step": step, **figures}]
        self._remember()
        self._reporter.send(type="metrics", step=step, data={"step": step, **figures})
        patience, best = self._hyper.early_stopping_patience, self.best_step
        since = sum(entry["step"] > best for entry in self._notes["valid"])
        if patience is None or since < patience:
            return False
        self.stopped_early = f"the validation loss has not fallen for {since} validations"
        return True

    @property
    def best_step(self) -> int:
        """The step with the lowest validation loss; 0 without any."""
        valid = self._notes["valid"]
        return min(valid, key=lambda entry: (entry["full_valid_loss"], entry["step"]))["step"] if valid else 0

    def _remember(self) -> None:
        """For the next try. On a full disk it goes on from what was written last."""
        try:
            write_json(self._folder / "course.json", self._notes)
        except OSError as error:
            if not is_disk_full(error, self._folder):
                raise

    def _serve(self, step: int) -> None:
        """A checkpoint that can be asked, for adapters: a full model's would take the disk."""
        if self._plan.kind != "lora" or (len(self._notes["served"]) >= MOST_SERVED and step != self.best_step):
            return
        try:
            place = self.keeper.serve(f"served/step-{step}")
        except DiskFull:
            self._reporter.note(f"The disk is full: step {step} cannot be served. The training goes on.", warn=True)
            return
        self._notes["served"] = sorted({*self._notes["served"], step})
        self._remember()
        metrics = next((entry for entry in self._notes["valid"] if entry["step"] == step), {"step": step})
        self._reporter.send(type="checkpoint", step=step, folder=str(place), metrics=metrics)

    def keep(self) -> None:
        """Saves what the next try would go on from."""
        self._saved_at = time.monotonic()
        if self.step and not self.keeper.save():
            earlier = f"the one of step {self.keeper.saved_step} stays" if self.keeper.saved_step else "there is none yet"
            text = f"The disk is full: no checkpoint of step {self.step}; {earlier}. The training goes on."
            self._reporter.note(text, warn=True)

    def take_best(self) -> None:
        """Goes back to the adapter of the lowest validation loss. A full model keeps its last weights: a copy of the best would
        take the disk."""
        self.result_step, best = self.step, self.best_step
        if best in {0, self.step}:
            return
        place = self._folder / f"served/step-{best}"
        if not place.exists():
            text = f"Step {best} has the lowest validation loss, but its weights were not kept: step {self.step} is the result."
            self._reporter.note(text, warn=True)
            return
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        set_peft_model_state_dict(self.model, load_file(place / "adapter_model.safetensors"))
        self.result_step = best
        self._reporter.note(f"Step {best} has the lowest validation loss: it is the result.")

    def summary(self) -> dict[str, Any]:
        """`best_step` is the step whose weights are the result."""
        return {
            "best_step": self.result_step,
            "stopped_early": self.stopped_early,
            "learned_tokens": self._trainer.learned_seen,
            "seconds": round(self._clock.spent_s, 1),
        }


class _Watcher(TrainerCallback):
    """Hands the trainer's events to the course."""

    def __init__(self, course: Course) -> None:
        self._course = course

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._course.begin(state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> Any:
        if logs is None or "loss" not in logs:  # the summary at the end
            return control
        self._course.log(logs)
        steps_an_epoch = math.ceil(state.max_steps / max(1, state.num_train_epochs))
        if self._course.after_step(state.max_steps, steps_an_epoch):
            control.should_training_stop = True
        return control
