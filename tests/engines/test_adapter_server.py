"""Arms as adapters on one base behind a server: side by side, each with its own weights, against a stand-in."""

from __future__ import annotations

import pytest
import torch

from evenhand.engines.adapter_server import AdapterServer, export_adapter
from evenhand.engines.registry import open_engine
from evenhand.engines.synced import SyncedEngine
from evenhand.errors import UserError
from evenhand.models.adapter_config import Adapter
from evenhand.models.adapter_models import save_adapted
from evenhand.models.adapters import attach
from evenhand.models.load import load_policy, save
from evenhand.spec.read import read_experiment
from evenhand.types import Prompt, Sampling
from tests.engines.completions_server import CompletionsServer, policy, renderer, serving_completions
from tests.engines.test_server import own_log_probs
from tests.models.test_adapters import moved
from tests.stages.performed import SMALL

PROMPTS = [Prompt(content=text, id=text) for text in ("red cat", "small dog", "sun", "blue sky tree")]
SAMPLING = Sampling(max_tokens=6, seed=1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EVENHAND_CACHE", str(tmp_path / "cache"))


def arm(seed: int = 0, **named):
    """The server's base with an adapter that is not zero."""
    student = policy()
    attach(student, Adapter(**{"rank": 4, **named}), seed=seed)
    return moved(student, 0.2)


def engine_on(server, student, folder, **named):
    backend = AdapterServer(model="tiny", url=server.url, attempts=3, sleep=lambda seconds: None)
    return SyncedEngine(
        policy=student, renderer=renderer(), backend=backend, hand_over=export_adapter, folder=str(folder), **named
    )


def assert_its_own(student, groups):
    for group in groups:
        for completion in group.completions:
            assert completion.behaviour_logp == pytest.approx(own_log_probs(student, group, completion), abs=1e-4)


def test_arms_sample_side_by_side_and_none_gives_its_weights_twice(tmp_path):
    one, two = arm(), arm(seed=1)
    with serving_completions(CompletionsServer()) as server:
        first, second = engine_on(server, one, tmp_path), engine_on(server, two, tmp_path)
        for _ in range(2):
            for student, engine in ((one, first), (two, second)):
                assert_its_own(student, engine.generate(PROMPTS, 2, SAMPLING))
        assert (server.loads, server.resets) == (2, 0)
        moved(one, 0.2)
        assert_its_own(one, first.generate(PROMPTS, 2, SAMPLING))
        assert (server.loads, len(server.adapters)) == (3, 2), "the old one is taken off"
        assert len(list(tmp_path.glob("adapter-*"))) == 2
        assert {body["model"] for body in server.bodies[-8:]} == {first.backend._named}


def test_the_base_itself_is_asked_by_its_own_name(tmp_path):
    with serving_completions(CompletionsServer()) as server:
        engine = engine_on(server, student := policy(), tmp_path)
        assert_its_own(student, engine.generate(PROMPTS, 1, SAMPLING))
        assert server.loads == 0
        assert {body["model"] for body in server.bodies} == {"tiny"}


def test_an_arm_that_was_read_from_its_folder_is_handed_over_as_its_adapter(tmp_path):
    tokenizer, student = renderer().tokenizer, arm()
    save(policy(), tokenizer, tmp_path / "start")
    save_adapted(student, tokenizer, tmp_path / "adapter", start=tmp_path / "start")
    with serving_completions(CompletionsServer()) as server:
        again = load_policy(tmp_path / "adapter", device="cpu")
        assert_its_own(student, engine_on(server, again, tmp_path).generate(PROMPTS, 1, SAMPLING))
        assert server.loads == 1


@pytest.mark.parametrize("at", [3, 9])
def test_a_server_that_was_started_again_is_given_the_adapter_anew(at, tmp_path):
    """Between two checks of one call, and in its middle."""
    student = arm()
    with serving_completions(CompletionsServer(dies_at=at)) as server:
        assert_its_own(student, engine_on(server, student, tmp_path).generate(PROMPTS, 2, SAMPLING))
        assert server.loads == 2


def test_one_that_was_started_again_between_two_calls_too(tmp_path):
    student = arm()
    with serving_completions(CompletionsServer()) as server:
        engine = engine_on(server, student, tmp_path)
        before = engine.generate(PROMPTS, 1, SAMPLING)
        server.adapters.clear()
        assert [g.completions for g in engine.generate(PROMPTS, 1, SAMPLING)] == [g.completions for g in before]
        assert server.loads == 2


def test_an_adapter_that_is_not_applied_is_refused(tmp_path):
    with (
        serving_completions(CompletionsServer(fault="keeps_weights")) as server,
        pytest.raises(UserError, match="does not sample from the policy"),
    ):
        engine_on(server, arm(), tmp_path).generate(PROMPTS, 1, SAMPLING)


def test_what_the_server_says_of_an_adapter_is_said_at_once(tmp_path):
    with serving_completions(CompletionsServer()) as server, pytest.raises(UserError, match="rank 32 is greater") as refused:
        engine_on(server, arm(rank=32), tmp_path).generate(PROMPTS, 1, SAMPLING)
    assert "--max-lora-rank" in refused.value.fix
    assert server.loads == 1
    with serving_completions(CompletionsServer(fault="no_routes")) as server, pytest.raises(UserError, match="404") as refused:
        engine_on(server, arm(), tmp_path).generate(PROMPTS, 1, SAMPLING)
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in refused.value.fix


def test_weights_that_are_no_numbers_are_not_handed_over(tmp_path):
    student = arm()
    with torch.no_grad():
        next(p for n, p in student.named_parameters() if "lora_B" in n).fill_(float("nan"))
    with serving_completions(CompletionsServer()) as server, pytest.raises(UserError, match="diverged"):
        engine_on(server, student, tmp_path).generate(PROMPTS, 1, SAMPLING)
    assert server.loads == 0


def test_the_engine_of_an_experiment():
    engine = open_engine({"kind": "server", "model": "tiny", "load_by": "adapter"}, policy(), renderer())
    assert isinstance(engine.backend, AdapterServer)
    with pytest.raises(UserError, match="did you mean 'adapter'"):
        open_engine({"kind": "server", "model": "tiny", "load_by": "adapters"}, policy(), renderer())


ARMS = """
sft: {train: {steps: 2}}
engine: {kind: server, model: tiny, load_by: adapter}
train: {steps: 2, prompts_per_step: 2, adapter: {rank: 2}}
arms:
  start: {method: start}
  rloo: {method: rloo, reward: gold}
  dpo: {method: dpo}
judge: {reward: gold, self_test: 0}
"""


def served(*overrides: str):
    return read_experiment(f"{SMALL}name: served\n{ARMS}", ["initial_policy=sft", *overrides]).value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("arms.dpo.train.adapter=null", "this arm trains all weights"),
        ("arms.dpo.train.adapter.form=dora", "`form` changes more than that"),
        ("train.adapter.quantize=nf4", "`quantize` changes more than that"),
        ("arms.rloo.train.adapter.modules_to_save=[norm]", "`modules_to_save` changes more than that"),
        ("arms.dpo.initial_policy=base", "rloo starts from sft, dpo from base"),
        ("sft.train.adapter.rank=2", "the arms' start is an adapter itself"),
    ],
)
def test_arms_that_are_no_adapters_of_one_base_are_refused(override, message):
    assert served().engine["load_by"] == "adapter"
    with pytest.raises(UserError, match=message):
        served(override)
