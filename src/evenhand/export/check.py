"""Does the exported folder say what the run's model says? Plain transformers on one side, evenhand on the run's own on the other.

The exported model is opened as anyone would open it; nothing of evenhand's forward pass, sampler or renderer takes part on that
side, so that whatever evenhand does differently would show. The run's model always computes in float32. One model is in memory
at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from evenhand.data.dates import told_today
from evenhand.data.jsonl import read_groups
from evenhand.data.template import Renderer
from evenhand.errors import UserError
from evenhand.export.subject import Subject
from evenhand.types import Completion, Group, Head, Prompt, Sampling, TokenGroup, Tokens

if TYPE_CHECKING:
    from evenhand.models.policy import Policy
    from evenhand.protocols import Engine

TOKENS_PER_MICROBATCH = 4096


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a precision may move: log-probs of the worst and of the mean token, in nats; a score, in standard deviations."""

    worst: float
    mean: float
    score: float


TOLERANCE = {
    "float32": Tolerance(worst=1e-3, mean=1e-4, score=1e-3),
    "float16": Tolerance(worst=0.1, mean=0.01, score=0.02),
    "bfloat16": Tolerance(worst=1.0, mean=0.05, score=0.1),
}
"""By the precision the exported model computes in: rounding errors are about 2^-24, 2^-11 and 2^-8 of a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was compared and found. `lines` are sentences for people; `numbers` are for files."""

    lines: tuple[str, ...]
    numbers: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Heard:
    """What plain transformers made of the exported folder: log-probs [tokens] of each given answer, and greedy answers."""

    logp: list[torch.Tensor]
    greedy: list[tuple[int, ...]]


def check_policy(
    subject: Subject,
    renderer: Renderer,
    folder: Path,
    *,
    prompts: int,
    computes: str,
    device: str,
    opened: Callable[[Path, str, str], Any] | None = None,
) -> Checked:
    """Compare an exported policy with the run's on `prompts` of the run's held-out prompts; UserError where they differ.

    Compared: the log-probs of the answers that the run sampled, greedy answers, the rendered prompts' ids, the stop ids.
    `computes` is the precision that the exported model computes in. Greedy answers may part only where the run's own model nearly
    ties: where its log-probs of the two tokens are no further apart than twice the tolerance. `opened` (folder, computes, device)
    gives the exported model where it is not a folder for AutoModelForCausalLM.
    """
    groups = sampled_answers(subject, prompts)
    same_rendering(renderer, folder, [g.prompt for g in groups])
    tokens = [renderer.tokenise(g, max_prompt=subject.lengths["prompt"], max_completion=None) for g in groups]
    limit, allowed = subject.lengths["completion"], TOLERANCE[computes]
    heard = listen((opened or plain_model)(folder, computes, device), tokens, max_tokens=limit)
    policy = _run_policy(subject, device)
    apart = [(o - t).abs() for o, t in zip(_logps(policy, tokens, device), heard.logp, strict=True)]
    each = torch.cat(apart)
    worst, mean = float(each.max()), float(each.mean())
    if not (worst <= allowed.worst and mean <= allowed.mean):  # a NaN differs too
        at = max(range(len(apart)), key=lambda i: float(apart[i].nan_to_num(nan=torch.inf).max()))
        raise differs(
            f"log-probs differ by up to {worst:.3g} nats a token (mean {mean:.3g}), most on prompt {groups[at].prompt.id}",
            f"{computes} allows {allowed.worst:g} (mean {allowed.mean:g})",
        )
    gaps = greedy_gaps(policy, renderer, subject, tokens, heard.greedy, 2 * allowed.worst, device)
    return Checked(
        lines=(
            f"{len(each)} tokens of {len(groups)} answers: log-probs differ by at most {worst:.2g} nats (mean {mean:.2g}; "
            f"{computes} may differ by {allowed.worst:g}, mean {allowed.mean:g})",
            f"greedy answers: {len(groups) - len(gaps)} of {len(groups)} are the same token by token" + parted(gaps, allowed),
            "prompts render to the same ids, with the same stop tokens",
        ),
        numbers={
            "prompts": len(groups), "tokens": len(each), "max_dlogp": worst, "mean_dlogp": mean, "computes": computes,
            "tolerance": {"max": allowed.worst, "mean": allowed.mean}, "greedy_same": len(groups) - len(gaps),
            "greedy_largest_gap": max(gaps, default=0.0),
        },
    )  # fmt: skip


def sampled_answers(subject: Subject, prompts: int) -> list[Group]:
    """The run's own answers to its first held-out prompts: of this arm and seed, else of any that has some."""
    root = subject.run.folder / "generations"
    own = root / subject.name / f"seed-{subject.seed or 0}" / "generations.jsonl"
    found = [own] if own.is_file() else sorted(root.glob("*/seed-*/generations.jsonl"))
    if not found:
        raise UserError("has no answers to check with", where=str(subject.run.folder), fix="finish the run: `evenhand run DIR`")
    return read_groups(found[0])[:prompts]


def same_rendering(renderer: Renderer, folder: Path, prompts: Sequence[Prompt]) -> None:
    """Prompts as the exported tokenizer renders them by itself, and the generation config's stop ids, against the run's."""
    from transformers import AutoTokenizer, GenerationConfig

    plain = AutoTokenizer.from_pretrained(folder)
    if template_hash(plain) != template_hash(renderer.tokenizer):
        raise differs("the chat template differs", f"{template_hash(plain)} is not {template_hash(renderer.tokenizer)}")
    for prompt in prompts:
        if isinstance(prompt.content, str):
            ids = plain(prompt.content)["input_ids"]
        else:
            told = {**prompt.options, **told_today(plain.chat_template, tools=bool(prompt.options.get("tools")))}
            begun: dict[str, Any] = (
                {"continue_final_message": True} if prompt.content[-1].prefill else {"add_generation_prompt": True}
            )
            turns = [m.as_dict() for m in prompt.content]
            rendered: Any = plain.apply_chat_template(turns, return_dict=True, **begun, **told)
            ids = rendered["input_ids"]
        if tuple(ids) != renderer.prompt_ids(prompt):
            raise differs(f"prompt {prompt.id} has other ids", "the tokenizer or its template changed on the way")
    if (folder / "generation_config.json").is_file():  # a classifier has none
        eos = GenerationConfig.from_pretrained(folder).eos_token_id
        stops = {eos} if isinstance(eos, int) else set(eos or ())
        if stops != renderer.stop_ids:
            raise differs(
                f"stop ids are {sorted(stops)}, not {sorted(renderer.stop_ids)}", "answers would not end where they did"
            )
    if Renderer(plain).fingerprint != renderer.fingerprint:
        raise differs("the tokenizer or its special tokens differ", "its fingerprint is another")


def template_hash(tokenizer: Any) -> str:
    """16 hex digits of the chat template; "none" without one."""
    template = tokenizer.chat_template
    return hashlib.sha256(str(template).encode()).hexdigest()[:16] if template else "none"


def plain_model(folder: Path, computes: str, device: str) -> Any:
    """The exported folder as anyone would open it."""
    from transformers import AutoModelForCausalLM

    from evenhand.models.library_logging import quietly
    from evenhand.models.load import DTYPES, resolve_device

    with quietly():
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[computes])
        return model.to(resolve_device(device)).eval()


@torch.no_grad()
def listen(model: Any, tokens: Sequence[TokenGroup], *, max_tokens: int) -> Heard:
    """What a plain transformers model says, one unpadded row at a time."""
    from evenhand.models.library_logging import quietly

    logp, greedy = [], []
    for t in tokens:
        prompt = torch.tensor([t.prompt], device=model.device)
        answer = torch.tensor(t.completions[0].ids, device=model.device)
        logits = model(torch.cat([prompt, answer[None]], dim=1)).logits[0, prompt.shape[1] - 1 : -1]  # each predicts the next
        logp.append(logits.float().log_softmax(-1).gather(1, answer[:, None])[:, 0].cpu())
        with quietly():
            said = model.generate(
                input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=max_tokens
            )
        greedy.append(tuple(said[0, prompt.shape[1] :].tolist()))
    return Heard(logp, greedy)


def greedy_gaps(
    policy: Policy,
    renderer: Renderer,
    subject: Subject,
    tokens: Sequence[TokenGroup],
    heard: Sequence[tuple[int, ...]],
    near: float,
    device: str,
) -> list[float]:
    """Where greedy answers part, by how many nats the run's model prefers its own token; UserError beyond `near`."""
    greedy = Sampling(temperature=0.0, max_tokens=subject.lengths["completion"])
    prompts = [t.group.prompt for t in tokens]
    said = _run_engine(subject, policy, renderer).generate(prompts, 1, greedy, max_prompt=subject.lengths["prompt"])
    gaps = []
    for t, own, other in zip(tokens, said, heard, strict=True):
        mine, name = own.completions[0].tokens or (), t.group.prompt.id
        if mine == other:
            continue
        at = next((i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), None)
        if at is None:  # one goes on where the other ended
            raise differs(f"greedy answers to prompt {name} have {len(other)} tokens, not {len(mine)}", "one does not stop alike")
        gap = _gap(policy, t, mine[: at + 1], other[: at + 1], device)
        if not abs(gap) <= near:
            raise differs(f"greedy answers to prompt {name} part at token {at}", f"the run's prefers its own by {gap:.3g} nats")
        gaps.append(abs(gap))
    return gaps


def parted(gaps: Sequence[float], allowed: Tolerance) -> str:
    """The end of a sentence about greedy answers that are not the same."""
    if not gaps:
        return ""
    return (
        f"; {len(gaps)} part where the run's model prefers its own token by at most {max(gaps):.2g} nats "
        f"({2 * allowed.worst:g} allowed)"
    )


def differs(what: str, why: str) -> UserError:
    """The check's one error: the export is not kept."""
    return UserError(what, where="the exported model", why=f"{why}; nothing was written", fix="report this with `evenhand env`")


def _run_policy(subject: Subject, device: str) -> Policy:
    from evenhand.models.load import load_policy

    policy = load_policy(subject.model, dtype="float32", device=device)
    policy.eval()
    return policy


def _run_engine(subject: Subject, policy: Policy, renderer: Renderer) -> Engine:
    """The engine that sampled the run's answers, from its plugins where it is the user's; the local one for a copy elsewhere."""
    from evenhand.engines.registry import DEFAULT, for_other_models, open_engine
    from evenhand.plugins import activate, resolve

    if subject.engine != DEFAULT:
        activate(resolve(subject.effective.get("plugins") or (), subject.run.folder))
    return open_engine(for_other_models(subject.engine), policy, renderer)


def _logps(policy: Policy, tokens: Sequence[TokenGroup], device: str) -> list[torch.Tensor]:
    """Log-probs [tokens] of each group's first completion by evenhand's own packed forward pass."""
    from evenhand.models.load import resolve_device
    from evenhand.train.examples import Example
    from evenhand.train.logprobs import read

    items = [Example(tokens=t) for t in tokens]
    rows = read(
        policy, items, frozenset({Head.LOGP}), tokens_per_microbatch=TOKENS_PER_MICROBATCH, temperature=1.0,
        device=resolve_device(device),
    )  # fmt: skip
    return [row[0] for row in rows[Head.LOGP]]


def _gap(policy: Policy, t: TokenGroup, mine: tuple[int, ...], other: tuple[int, ...], device: str) -> float:
    """log pi(my token) - log pi(the other token) where the two answers part, nats."""
    both = [
        TokenGroup(
            prompt=t.prompt,
            completions=(Tokens(ids=ids, mask=(True,) * len(ids)),),
            group=Group(prompt=t.group.prompt, completions=(Completion(content="", tokens=ids),)),
        )
        for ids in (mine, other)
    ]
    first, second = _logps(policy, both, device)
    return float(first[-1] - second[-1])
