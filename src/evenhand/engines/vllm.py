"""vLLM in this process as a sampler, its weights loaded from a folder. What it was tried with stands in docs/engines.md."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evenhand.engines.decode_batch import DecodeRow
from evenhand.engines.rows import vllm_parameters
from evenhand.engines.synced import EngineAnswer, EngineDied
from evenhand.errors import UserError
from evenhand.types import Finish, Sampling

ALWAYS = {"logprobs_mode": "processed_logprobs", "skip_tokenizer_init": True}
"""Processed: at the sampling temperature and over the kept tokens, which is what behaviour_logp means."""
DEFAULTS: Mapping[str, Any] = {"enable_prefix_caching": True, "gpu_memory_utilization": 0.3}
"""The trainer needs the rest of the memory."""
ON_CPU: Mapping[str, Any] = {
    "enable_prefix_caching": True, "enforce_eager": True, "distributed_executor_backend": "uni", "block_size": 32,
}  # fmt: skip
CPU_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1"}
ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
"""One process: a second one would outlive a stage that is killed."""
_DEAD = ("EngineDeadError", "EngineGenerateError")


@dataclass(kw_only=True)
class VLLMBackend:
    """See `evenhand.engines.synced.InferenceBackend`. `options` go to `vllm.LLM`. Raises: UserError where vLLM is not there."""

    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = field(default="vLLM", init=False)
    holds: str = field(default="", init=False)

    def __post_init__(self) -> None:
        for name in ALWAYS.keys() & self.options.keys():
            raise UserError(f"'{name}' is settled", where="engine.options", fix=f"remove `{name}`")
        self._llm: Any = None

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()

    def load(self, folder: Path, version: str) -> None:
        self.holds = ""
        if self._llm is None:
            self._llm = _opened(folder, self.options)
        else:
            self._living(lambda: self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)}))
        if self._llm.reset_prefix_cache() is False:
            raise EngineDied("its prefix cache is in use, though nothing is asked of it")
        self.holds = version

    def restart(self) -> None:
        self._llm, self.holds = None, ""

    def answers(
        self, prompts: Sequence[Sequence[int]], rows: Sequence[DecodeRow], stop_ids: Sequence[int], done: Callable[[int], None]
    ) -> list[EngineAnswer]:
        vllm = _vllm()
        requests = [{"prompt_token_ids": list(prompts[row.prompt])} for row in rows]
        parameters = [vllm.SamplingParams(n=1, detokenize=False, **vllm_parameters(row, stop_ids)) for row in rows]
        found = self._living(lambda: self._llm.generate(requests, parameters, use_tqdm=False))
        done(len(rows))
        return [_answer(a.outputs[0], row.sampling) for a, row in zip(found, rows, strict=True)]

    def _living(self, ask: Callable[[], Any]) -> Any:
        """What `ask` returns. Raises: EngineDied where vLLM has ended, UserError where it refuses a request."""
        try:
            return ask()
        except Exception as error:
            if isinstance(error, RuntimeError) or type(error).__name__ in _DEAD:
                raise EngineDied(_said(error)) from error
            fix = "check `engine.options`: `max_model_len` has to hold a prompt and its answer"
            raise UserError("vLLM refuses what it is asked", where="engine", why=_said(error), fix=fix) from error


def _answer(output: Any, sampling: Sampling) -> EngineAnswer:
    tokens = tuple(output.token_ids)
    # Looked up by token: the first entry of the dictionary is not always the sampled one.
    logp = tuple(float(at[token].logprob) for token, at in zip(tokens, output.logprobs, strict=True))
    finish = Finish.STOP if output.finish_reason == "stop" else Finish.LENGTH
    return EngineAnswer(finish=finish, tokens=tokens, logp=logp if sampling.temperature > 0 else (0.0,) * len(tokens))


def _opened(folder: Path, options: Mapping[str, Any]) -> Any:
    import torch

    on_cpu = not torch.cuda.is_available()
    for name, value in (ENVIRONMENT | CPU_ENVIRONMENT if on_cpu else ENVIRONMENT).items():
        os.environ.setdefault(name, value)  # read when vLLM is first imported
    opens = _vllm().LLM
    try:
        return opens(model=str(folder), **{**(ON_CPU if on_cpu else DEFAULTS), **options, **ALWAYS})
    except Exception as error:  # a wrong option, an architecture it lacks, too little memory: each has an error of its own
        fix = "see its log and `engine.options`, which are those of vllm.LLM; `engine: local` samples every model"
        raise UserError("vLLM does not open the policy", where="engine", why=_said(error), fix=fix) from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _vllm() -> Any:
    try:
        import vllm
    except ImportError as missing:
        raise UserError(
            "vLLM is not installed",
            where="engine",
            why=str(missing),
            fix="pip install vllm, or use `engine: local`, or a server (`engine: {kind: server}`)",
        ) from missing
    return vllm
