"""Sampling with vLLM, for a GPU and a model that stays as it is during the call (evaluation, data generation, iterative methods).

Written against vLLM's documented offline interface (`LLM.generate` on token ids, `logprobs_mode="processed_logprobs"`); it was
tested against a stand-in with that interface, NOT run with vLLM itself. Its tokens differ from `LocalEngine`'s for the same
seed, because random numbers are drawn inside vLLM. It loads weights from a folder once: a policy in training is sampled by
`LocalEngine`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evenhand.engines.checks import Renders, per_completion, prompt_ids
from evenhand.errors import UserError
from evenhand.seeding import keyed
from evenhand.types import Completion, Finish, Group, Prompt, Sampling


class VLLMEngine:
    """Samples from the model in `folder`. See `evenhand.protocols.Engine`; `behaviour_logp` as in `evenhand.engines.draw.Draw`.

    `options` go to `vllm.LLM` (`dtype`, `tensor_parallel_size`, `gpu_memory_utilization`, `max_model_len`, ...).
    Raises UserError when vLLM is not installed.
    """

    def __init__(self, folder: str | Path, renderer: Renders, **options: Any) -> None:
        vllm = _vllm()
        self._renderer, self._parameters = renderer, vllm.SamplingParams
        # Processed: at the sampling temperature and over the kept tokens, which is what behaviour_logp means.
        self._llm = vllm.LLM(model=str(folder), logprobs_mode="processed_logprobs", **{"enable_prefix_caching": True} | options)

    def generate(
        self,
        prompts: Sequence[Prompt],
        n: int,
        sampling: Sampling | Sequence[Sampling],
        *,
        max_prompt: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Group]:
        """One group of `n` completions per prompt, in order. One request per completion: each has its own seed."""
        each = per_completion(n, sampling)
        if not prompts:
            return []
        ids = [prompt_ids(self._renderer, p, max_prompt) for p in prompts]
        requests = [{"prompt_token_ids": row} for row in ids for _ in each]
        parameters = [self._translate(s, p.id, i) for p in prompts for i, s in enumerate(each)]
        answers = self._llm.generate(requests, parameters, use_tqdm=False)
        completions = [self._completion(a.outputs[0], s) for a, s in zip(answers, each * len(prompts), strict=True)]
        if progress is not None:
            progress(len(completions), len(completions))
        return [Group(prompt=p, completions=tuple(completions[i * n : (i + 1) * n])) for i, p in enumerate(prompts)]

    def _translate(self, sampling: Sampling, prompt_id: str, completion: int) -> Any:
        return self._parameters(
            n=1,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or -1,
            min_p=sampling.min_p,
            max_tokens=sampling.max_tokens,
            seed=keyed(sampling.seed, "sample", prompt_id, completion) % 2**31,
            stop_token_ids=sorted(self._renderer.stop_ids),
            ignore_eos=True,  # the renderer's stop ids are the whole truth, and include eos
            logprobs=0,  # of the sampled token alone
            detokenize=False,
        )

    def _completion(self, output: Any, sampling: Sampling) -> Completion:
        tokens = tuple(output.token_ids)
        # Looked up by token: the first entry of the dictionary is not always the sampled one.
        logp = tuple(float(at[token].logprob) for token, at in zip(tokens, output.logprobs, strict=True))
        return Completion(
            content=self._renderer.decode(tokens),
            tokens=tokens,
            behaviour_logp=logp if sampling.temperature > 0 else (0.0,) * len(tokens),
            finish=Finish.STOP if output.finish_reason == "stop" else Finish.LENGTH,
        )


def _vllm() -> Any:
    try:
        import vllm
    except ImportError as missing:
        raise UserError(
            "vLLM is not installed",
            where="engine",
            why=str(missing),
            fix="pip install vllm (needs a GPU), or use the local engine",
        ) from missing
    return vllm
