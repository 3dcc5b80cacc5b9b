"""TRL's side: its own trainers, driven step by step from a callback; and transformers' `generate`.

Not `tuned`, it is TRL as it comes: gradient checkpointing, 8 rows per forward pass, reference log-probs in every step; its own
precision is bf16 autocast over float32 weights. `tuned` is the fastest setting that we know of for these sizes: no
checkpointing, all rows in one forward pass, reference log-probs computed once, no logging, bf16 weights on an accelerator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import corpus
from benchmarks.ours import score
from benchmarks.shapes import Training
from benchmarks.worker import Gate

ENDLESS = 1_000_000
"""Steps a trainer is told to do; it is stopped from outside."""


def train(gate: Gate, case: Training, folder: Path, tuned: bool = False, precision: str = "float32", ranks: int = 1) -> None:
    """Optimizer steps of `case` as ordered; of several `ranks` this process has its share of the rows."""
    import torch  # noqa: F401
    import trl
    from datasets import Dataset

    trainer_class, config_class = {
        "sft": (trl.SFTTrainer, trl.SFTConfig),
        "dpo": (trl.DPOTrainer, trl.DPOConfig),
        "reward": (trl.RewardTrainer, trl.RewardConfig),
        "grpo": (trl.GRPOTrainer, trl.GRPOConfig),
    }[case.kind]
    gate.loaded()
    name = "reward" if case.kind == "reward" else "policy"
    copies = 1 if gate.device == "cpu" else 16  # an epoch ends rarely where steps are short
    options = settings(case, gate.device, tuned, precision, ranks)
    trainer = trainer_class(
        model=str(folder / name),
        args=config_class(output_dir=str(folder / f"out-{tuned}-{precision}"), **options),
        train_dataset=Dataset.from_list(corpus.rows(case) * copies),
        processing_class=corpus.tokenizer(case.model.vocab),
        **({"reward_funcs": reward} if case.kind == "grpo" else {}),
    )
    if case.kind != "grpo":
        check_lengths(case, trainer.train_dataset)
    trainer.add_callback(stepper(gate, watched(trainer)))
    trainer.train()


def settings(case: Training, device: str, tuned: bool, precision: str, ranks: int = 1) -> dict[str, Any]:
    """TRL's defaults but for what the comparison needs: one batch per step in a fixed order, no files."""
    batch = case.rows * case.group // ranks
    rows = batch if tuned else min(batch, 8)  # 8 is TRL's default
    options: dict[str, Any] = {
        "per_device_train_batch_size": rows, "gradient_accumulation_steps": batch // rows, "max_steps": ENDLESS,
        "learning_rate": 1e-6, "train_sampling_strategy": "sequential", "save_strategy": "no", "report_to": "none",
        "disable_tqdm": True, "use_cpu": device == "cpu", "bf16": precision == "bfloat16",
    }  # fmt: skip
    if case.kind == "grpo":
        options |= {
            "num_generations": case.group, "max_completion_length": case.completion, "beta": 0.0, "loss_type": "grpo",
            "shuffle_dataset": False, "generation_kwargs": {"min_new_tokens": case.completion},
        }  # fmt: skip
        options.pop("train_sampling_strategy")
    else:
        options |= {"max_length": None}  # of 1,024, which would cut rows, or leave them out
    if tuned:
        options |= {"gradient_checkpointing": False, "logging_strategy": "no"}
        if device != "cpu":
            options |= {"model_init_kwargs": {"dtype": precision}}
        if case.kind == "dpo":
            options |= {"precompute_ref_log_probs": True}
        if ranks > 1:
            options |= {"ddp_find_unused_parameters": False}
    return options


def check_lengths(case: Training, dataset: Any) -> None:
    """Both sides see the same number of tokens in every row."""
    expected_rows = corpus.lengths(case)
    assert len(dataset) >= len(expected_rows), "both sides must train on the same rows"
    columns = {"sft": ["labels"], "dpo": ["chosen_ids", "rejected_ids"], "reward": ["chosen_ids", "rejected_ids"]}
    prompt = case.prompt if case.kind == "reward" else 0  # its columns hold prompt and answer together
    for row, expected in zip(dataset, expected_rows, strict=False):
        counted = [row[c] if case.kind != "sft" else [i for i in row[c] if i >= 0] for c in columns[case.kind]]
        assert [len(ids) - prompt for ids in counted] == expected, "both sides must train on the same tokens"


def reward(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """The reward of our side."""
    return [score(ids) for ids in completion_ids]


def watched(trainer: Any) -> dict[str, Any]:
    """The loss and the gradient norm of the last step, taken where the trainer computes them; read when the step is over."""
    last: dict[str, Any] = {}
    training_step, clip = trainer.training_step, trainer._clip_grad_norm

    def step(*args: Any, **named: Any) -> Any:
        last["loss"] = training_step(*args, **named)
        return last["loss"]

    def norm(*args: Any, **named: Any) -> Any:
        last["grad_norm"] = clip(*args, **named)
        return last["grad_norm"]

    trainer.training_step, trainer._clip_grad_norm = step, norm
    return last


def stepper(gate: Gate, last: Mapping[str, Any]) -> Any:
    """A callback that holds the trainer between steps. A step lasts from the order to the trainer's own end of step, so
    fetching and collating the batch, the update and clearing the gradients belong to it, as they do on our side."""
    from transformers import TrainerCallback

    class Stepper(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._next(control)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            gate.done(**({k: float(v) for k, v in last.items()} if state.global_step == 1 else {}))
            self._next(control)

        def _next(self, control: Any) -> None:
            control.should_training_stop = gate.wait() is None

    return Stepper()


def sample(gate: Gate, vocab: int, folder: Path) -> None:
    """transformers' `generate` on rows of equal length, so that it has no padding to compute, without detokenising."""
    import torch
    from transformers import AutoModelForCausalLM

    gate.loaded()
    dtype = torch.float32 if gate.device == "cpu" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=dtype).to(gate.device).eval()
    model.generation_config.eos_token_id = None
    tokenizer = corpus.tokenizer(vocab)
    while (order := gate.wait()) is not None:
        texts = corpus.prompts(vocab, order["rows"] // order["group"], order["prompt"])
        ids = torch.tensor(tokenizer(texts)["input_ids"], device=gate.device).repeat_interleave(order["group"], 0)
        drawn = {"do_sample": True, "top_k": 0} if order["temperature"] else {"do_sample": False}
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=order["new"], **drawn)
        new = out[:, ids.shape[1] :].cpu()
        gate.done(tokens=new.numel(), rows=None if order["temperature"] else [tuple(r) for r in new.tolist()])
