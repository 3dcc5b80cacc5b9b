"""Learning from a teacher (`teacher: {path: ...}` of an arm): its log-probs are the signal, and no reward is asked for.

The teacher must have the policy's tokenizer, token for token; what compares whole distributions also its vocabulary's size.
"""

from __future__ import annotations

from evenhand.errors import UserError
from evenhand.methods.gradients import limited
from evenhand.objectives import Distillation, PolicyGradient
from evenhand.train.config import ReferenceUpdate
from evenhand.train.method import DEMONSTRATIONS, PROMPTS, Method, method
from evenhand.train.policies import INITIAL_POLICY, TEACHER
from evenhand.train.rollouts import Exploration, Rollouts, Schedule
from evenhand.train.rollouts.teacher_credits import SelfTeacherAdvantage, ShownGood, TeacherAdvantage, Uncredited


def by_tokens(updates: int, importance: float, reduce: str) -> PolicyGradient:
    """A policy gradient of sampled tokens, clipped where a rollout is learned from several times."""
    surrogate = limited("clipped", 0.2, 0.2) if updates > 1 else {"surrogate": "reinforce"}
    return PolicyGradient(**surrogate, reduce=reduce, importance=importance)


@method(
    space={"beta": (0.0, 0.1, 0.5, 0.9, 1.0)},
    of="sft",
    differs="a teacher's whole distribution, partly on its own samples",
    elsewhere={"TRL": "GKDTrainer"},
)
def gkd(*, beta: float = 0.5, on_policy: float = 0.5, temperature: float = 1.0, reduce: str = "token_mean") -> Method:
    """Generalised knowledge distillation: the Jensen-Shannon divergence from a teacher over the whole vocabulary, at every
    token of answers of which a share is the policy's own and the rest the data's (Agarwal et al. 2023, arXiv:2306.13649).

    `beta` 0 is KL(teacher, student), 1 KL(student, teacher); in between the loss is at most log 2, so that its size jumps at the
    ends. `on_policy` is the share of every step's prompts that the policy answers itself; the others are learned on the answers
    of the demonstrations. `temperature` divides both networks' logits.
    Reduces to maximum likelihood at beta = 0 and on_policy = 0, with a teacher that says what the data say."""
    if not 0 <= on_policy <= 1 or not 0 <= beta <= 1:
        raise UserError(f"beta is {beta:g}, on_policy {on_policy:g}", where="gkd", why="both are shares", fix="use 0 to 1")
    rollouts = Rollouts(completions_per_prompt=1, credit=Uncredited(), exploration=Exploration(given=1 - on_policy))
    return Method(
        objective=Distillation(reduce=reduce), data=DEMONSTRATIONS, rollouts=rollouts, reference=TEACHER, divergence=beta,
        temperature=temperature, learning_rate=1e-5,
    )  # fmt: skip


@method(of="reinforce", differs="a teacher's log-ratio as advantage",
        elsewhere={"TRL": "DistillationTrainer, IWOPDTrainer", "verl": "opd"})  # fmt: skip
def on_policy_distillation(
    *, completions_per_prompt: int = 4, early: float = 0.0, updates: int = 1, importance: float = 0.0, reduce: str = "token_mean"
) -> Method:
    """On-policy distillation by sampled tokens: the teacher's log-prob less the policy's own is each token's advantage, on the
    policy's own answers (Thinking Machines 2025; arXiv:2601.02780, eq. 8).

    Unbiased for the gradient of KL(student, teacher) at every state, prefixes held fixed: a token is not blamed for what
    follows it. Costs a log-prob of the teacher per token, where `exact_distillation` reads its whole vocabulary. `early` lets the
    first tokens weigh up to 1 + `early` times as much, by the share of an answer's advantage that is still to come (IW-OPD,
    arXiv:2606.22600, by TRL's code). Reduces to `exact_distillation` in expectation, at early = 0."""
    credit = TeacherAdvantage(early=early)
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit=credit, schedule=Schedule(updates))
    objective = by_tokens(updates, importance, reduce)
    return Method(objective=objective, data=PROMPTS, rollouts=rollouts, reference=TEACHER, learning_rate=1e-6)


@method(of="gkd", differs="the reverse KL on its own samples alone")
def exact_distillation(*, completions_per_prompt: int = 4, beta: float = 1.0, reduce: str = "token_mean") -> Method:
    """On-policy distillation over the whole vocabulary: KL(student, teacher) at every token of the policy's own answers
    (reference: Agarwal et al. 2023, arXiv:2306.13649, with lambda = 1); another `beta` is their divergence.

    No noise from the sampled token; a pass of the teacher with every update. The prefix is held fixed.
    Reduces to `gkd` at on_policy = 1 and beta = 1, on prompts of its own."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit=Uncredited())
    return Method(
        objective=Distillation(reduce=reduce), data=PROMPTS, rollouts=rollouts, reference=TEACHER, divergence=beta,
        learning_rate=1e-6,
    )  # fmt: skip


WORDS = "{prompt}\n\nA good answer to this is:\n\n{answer}\n\nNow give an answer of your own."


def complete(words: str) -> str:
    """The words, if they have a place for the prompt and one for the answer."""
    if missing := [name for name in ("{prompt}", "{answer}") if name not in words]:
        raise UserError(f"the words lack {missing[0]}", where="words", fix=f"say where it belongs, as in {WORDS!r}")
    return words


@method(of="on_policy_distillation", differs="the teacher is the policy itself, which was shown a good answer",
        elsewhere={"TRL": "~SDPOTrainer: sampled_token, a moving teacher"})  # fmt: skip
def self_distillation(
    *, completions_per_prompt: int = 8, success: float = 1.0, words: str = WORDS, updates: int = 1, importance: float = 0.0,
    reduce: str = "token_mean",
) -> Method:  # fmt: skip
    """Self-distillation policy optimisation, SDPO, by sampled tokens: the policy is its own teacher once it is shown a good
    answer to the prompt, the best other one of its group; what its log-prob of each token then is, less what it was, is that
    token's advantage (Hübotter et al. 2026, arXiv:2601.20802). `success` is the least reward of an answer that is shown; where no
    other answer of the group has it, nothing is learned of one. `words` put prompt and answer to the policy. The teacher has the
    rollout's weights; `exact_self_distillation` is the paper's own form. Words of an environment's feedback are not shown.
    Reduces to `on_policy_distillation` by a teacher that says what the policy says with the answer before it."""
    credit = SelfTeacherAdvantage(success=success, words=complete(words))
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit=credit, schedule=Schedule(updates))
    objective = by_tokens(updates, importance, reduce)
    return Method(objective=objective, data=PROMPTS, rollouts=rollouts, learning_rate=1e-6)


@method(space={"mix": (0.01, 0.05, 1.0)}, of="exact_distillation",
        differs="the teacher is an average of the policy, which was shown a good answer",
        elsewhere={"TRL": "SDPOTrainer: full_logits"})  # fmt: skip
def exact_self_distillation(
    *, completions_per_prompt: int = 8, success: float = 1.0, words: str = WORDS, beta: float = 0.5, mix: float = 0.05,
    reduce: str = "token_mean",
) -> Method:  # fmt: skip
    """Self-distillation policy optimisation, SDPO, over the whole vocabulary: the Jensen-Shannon divergence, at every token of
    the policy's own answers, to what a moving average of the policy says once it is shown a good answer to the prompt
    (Hübotter et al. 2026, arXiv:2601.20802). `mix` is how much of the policy goes into the average before every step; 1 is the
    policy itself. `success` and `words` as in `self_distillation`. The paper sums over the policy's likeliest 100 tokens and one
    more for all the others; here no token is left out. All weights must learn: an adapter has no average.
    Reduces to `exact_distillation` at the same beta, by a teacher that says what the average says with the answer before it."""
    credit = ShownGood(success=success, words=complete(words))
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit=credit)
    made = Method(
        objective=Distillation(reduce=reduce), data=PROMPTS, rollouts=rollouts, reference=INITIAL_POLICY, divergence=beta,
        learning_rate=1e-6,
    )  # fmt: skip
    return made.following(ReferenceUpdate(every=1, mix=mix))
