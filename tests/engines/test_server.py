"""A completions server as a sampler, against a stand-in with a real tiny model: what it samples, and every fault it may have."""

from __future__ import annotations

import json
import logging
import math
import threading

import pytest
import torch

from evenhand.engines import synced
from evenhand.engines.registry import open_engine
from evenhand.engines.server import ServerBackend, parsed
from evenhand.engines.synced import SyncedEngine
from evenhand.engines.weights import export, tied_head, version
from evenhand.errors import UserError
from evenhand.models.adapter_config import Adapter
from evenhand.models.adapters import attach
from evenhand.types import Finish, Prompt, Sampling
from tests.engines.completions_server import CompletionsServer, policy, renderer, serving_completions

PROMPTS = [Prompt(content=text, id=text) for text in ("red cat", "small dog", "sun", "blue sky tree")]
SAMPLING = Sampling(max_tokens=6, seed=1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EVENHAND_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def student():
    return policy(seed=0)


def engine_on(server, student, *, key_env="", attempts=3, **named):
    backend = ServerBackend(model="tiny", url=server.url, key_env=key_env, attempts=attempts, sleep=lambda seconds: None)
    return SyncedEngine(policy=student, renderer=renderer(), backend=backend, **named)


def own_log_probs(student, group, completion, temperature=1.0):
    """By a plain forward pass, token by token."""
    prompt = list(renderer().prompt_ids(group.prompt))
    found = []
    for n, token in enumerate(completion.tokens):
        with torch.no_grad():
            logits = student.hf(input_ids=torch.tensor([[*prompt, *completion.tokens[:n]]])).logits[0, -1]
        found.append(float((logits / temperature).log_softmax(-1)[token]))
    return found


def test_tokens_and_log_probs_are_those_of_the_policy_at_the_moment_of_the_call(student):
    with serving_completions(CompletionsServer()) as server:
        engine = engine_on(server, student)
        for change in (0.0, 0.05):
            with torch.no_grad():
                student.hf.model.embed_tokens.weight.add_(change * torch.randn_like(student.hf.model.embed_tokens.weight))
            groups = engine.generate(PROMPTS, 2, Sampling(max_tokens=6, seed=1, temperature=0.7))
            assert [g.prompt.id for g in groups] == [p.id for p in PROMPTS]
            assert engine.backend.holds == version(student.hf)
            for group in groups:
                for completion in group.completions:
                    want = own_log_probs(student, group, completion, temperature=0.7)
                    assert completion.behaviour_logp == pytest.approx(want, abs=1e-4)
        assert (server.loads, server.resets) == (2, 2)
        again = engine.generate(PROMPTS, 2, Sampling(max_tokens=6, seed=1, temperature=0.7))
        assert [g.completions for g in again] == [g.completions for g in groups]
        assert server.loads == 2, "weights that it holds are not sent again"


def test_what_a_request_says(student):
    with serving_completions(CompletionsServer(usage={"total_tokens": "many", "prompt_tokens": -1})) as server:
        engine = engine_on(server, student)
        (group,) = engine.generate(PROMPTS[:1], 2, Sampling(max_tokens=5, seed=3, temperature=0.9, top_k=4))
    one, two = server.bodies[-2:]
    assert one["prompt"] == list(renderer().prompt_ids(PROMPTS[0]))
    assert (one["model"], one["max_tokens"], one["temperature"], one["top_k"]) == ("tiny", 5, 0.9, 4)
    assert (one["stop_token_ids"], one["ignore_eos"], one["return_token_ids"]) == (sorted(renderer().stop_ids), True, True)
    assert one["seed"] != two["seed"]
    assert all(c.finish in (Finish.STOP, Finish.LENGTH) for c in group.completions)


def test_greedy_answers_are_the_policys_likeliest_tokens_with_log_prob_zero(student):
    with serving_completions(CompletionsServer()) as server:
        groups = engine_on(server, student).generate(PROMPTS, 1, Sampling(max_tokens=5, temperature=0.0))
    for group in groups:
        (answer,) = group.completions
        prompt = renderer().prompt_ids(group.prompt)
        with torch.no_grad():
            logits = student.hf(input_ids=torch.tensor([[*prompt, *answer.tokens]])).logits[0, len(prompt) - 1 : -1]
        assert answer.tokens == tuple(logits.argmax(-1).tolist())
        assert set(answer.behaviour_logp) == {0.0}


@pytest.mark.parametrize("fault", ["stale_head", "keeps_weights"])
def test_other_weights_than_those_that_were_sent_are_refused(student, fault):
    with (
        serving_completions(CompletionsServer(fault=fault)) as server,
        pytest.raises(UserError, match="does not sample from the policy"),
    ):
        engine_on(server, student).generate(PROMPTS, 2, SAMPLING)
    assert server.loads == 1


def test_what_was_refused_once_is_not_taken_for_held(student):
    with serving_completions(CompletionsServer(fault="keeps_weights")) as server:
        for _ in range(2):
            with pytest.raises(UserError, match="does not sample from the policy"):
                engine_on(server, student).generate(PROMPTS, 2, SAMPLING)
    assert server.loads == 2


def test_log_probs_of_before_the_temperature_are_refused_and_named(student):
    with (
        serving_completions(CompletionsServer(fault="raw")) as server,
        pytest.raises(UserError, match="does not sample") as refused,
    ):
        engine_on(server, student).generate(PROMPTS, 2, SAMPLING)
    assert "processed_logprobs" in refused.value.fix


def test_a_tolerance_lets_another_precision_pass(student):
    with serving_completions(CompletionsServer(fault="stale_head")) as server:
        assert len(engine_on(server, student, tolerance=100.0).generate(PROMPTS, 1, SAMPLING)) == len(PROMPTS)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("lost_token", "token ids and"), ("wrong_stop", "is no stop token"), ("no_logprobs", "and no log-probs"),
        ("other_prompt", "the prompt that was answered"), ("odd_prompt", "the prompt that was answered, 5, is not"),
        ("goes_on", "goes on after a stop token"), ("cut", "was cut after 1 tokens, 6 were asked for"),
        ("packed", "what came back is no completion: DecodingError"),
    ],
)  # fmt: skip
def test_tokens_that_are_not_what_was_sampled_are_refused(student, fault, message):
    with serving_completions(CompletionsServer(fault=fault)) as server, pytest.raises(UserError, match=message):
        engine_on(server, student).generate(PROMPTS, 2, SAMPLING)


@pytest.mark.parametrize("logp", [float("nan"), -math.inf, 0.5, -(10**400), "-1", None, True])
def test_log_probs_that_are_none_are_refused(logp):
    said = {"token_ids": [4], "finish_reason": "length", "logprobs": {"token_logprobs": [logp]}}
    with pytest.raises(UserError, match="the log-probs are"):
        parsed(json.dumps({"choices": [said]}).encode(), [3], "here", greedy=False)


def test_weights_that_have_diverged_are_not_handed_over(student):
    with torch.no_grad():
        student.hf.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    with serving_completions(CompletionsServer()) as server, pytest.raises(UserError, match="not a number"):
        engine_on(server, student).generate(PROMPTS, 1, SAMPLING)
    assert (server.loads, server.completions) == (0, 0)


def test_nothing_asked_is_nothing_answered(student):
    with serving_completions(CompletionsServer()) as server:
        engine = engine_on(server, student)
        assert engine.generate([], 2, SAMPLING) == engine.sample([], []) == []
    assert server.completions == 0


def test_two_names_of_this_machine_are_one_server():
    one, other = (ServerBackend(model="m", url=f"http://{host}:8000/v1") for host in ("localhost", "127.0.0.1"))
    assert one._note == other._note
    assert one._note != ServerBackend(model="m", url="http://127.0.0.1:8001/v1")._note


def test_who_waits_for_another_arm_says_so(caplog):
    one, other = (ServerBackend(model="m") for _ in range(2))
    done = threading.Event()

    def wait() -> None:
        with other.alone():
            done.set()

    with caplog.at_level(logging.INFO):
        with one.alone():
            (thread := threading.Thread(target=wait)).start()
            assert not done.wait(0.2)
        assert done.wait(10)
        thread.join()
    assert "waiting for the server at http://127.0.0.1:8000/v1" in caplog.text


def test_a_server_without_the_routes_for_weights_is_told_what_it_lacks(student):
    with serving_completions(CompletionsServer(fault="no_routes")) as server, pytest.raises(UserError) as refused:
        engine_on(server, student).generate(PROMPTS, 2, SAMPLING)
    assert "VLLM_SERVER_DEV_MODE=1" in refused.value.fix


def test_a_server_whose_weights_are_the_policys_needs_no_routes(student):
    with serving_completions(CompletionsServer(lambda: policy(seed=0), fault="no_routes")) as server:
        settings = {"kind": "server", "model": "tiny", "url": server.url, "load_by": "nothing"}
        engine = open_engine(settings, student, renderer())
        assert len(engine.generate(PROMPTS, 2, SAMPLING)) == len(PROMPTS)
        with torch.no_grad():
            student.hf.lm_head.weight.mul_(1.5)
        with pytest.raises(UserError, match="does not sample from the policy"):
            engine.generate(PROMPTS, 2, SAMPLING)


def test_text_alone_is_checked_and_answers_but_has_no_tokens(student):
    with serving_completions(CompletionsServer(fault="text_only")) as server:
        engine = engine_on(server, student)
        groups = engine.generate(PROMPTS, 2, SAMPLING)
        assert all(c.tokens is None and c.behaviour_logp is None for g in groups for c in g.completions)
        with pytest.raises(UserError, match="not their token ids"):
            engine.sample([[3, 4]], [engine._probe(0, 1.0, 4)])


def test_text_of_other_weights_is_refused(student):
    server = CompletionsServer(fault="text_only")
    server.load = lambda folder: None
    with serving_completions(server), pytest.raises(UserError, match="does not sample from the policy"):
        engine_on(server, student).generate(PROMPTS, 2, SAMPLING)


def test_a_server_that_dies_in_the_middle_is_given_the_weights_again(student, caplog):
    with serving_completions(CompletionsServer()) as server:
        whole = engine_on(server, student).generate(PROMPTS, 2, SAMPLING)
    for dies_at in (2, 7, 12):  # in the check, among the answers, at the last of them
        with serving_completions(CompletionsServer(dies_at=dies_at)) as server, caplog.at_level(logging.WARNING):
            engine = engine_on(server, student)
            assert [g.completions for g in engine.generate(PROMPTS, 2, SAMPLING)] == [g.completions for g in whole]
        assert server.loads == 2
        assert "given the current weights" in caplog.text


def test_a_server_that_was_started_again_between_two_calls_is_given_the_weights_again(student, caplog):
    with serving_completions(CompletionsServer()) as server, caplog.at_level(logging.WARNING):
        engine = engine_on(server, student)
        first = engine.generate(PROMPTS, 2, SAMPLING)
        server.policy = server.opens()  # nothing of it is seen from outside: no request failed
        assert [g.completions for g in engine.generate(PROMPTS, 2, SAMPLING)] == [g.completions for g in first]
        assert (engine.syncs, server.loads) == (2, 2)
        assert "no longer has the weights that it was given" in caplog.text
        server.policy, server.fault = server.opens(), "keeps_weights"
        with pytest.raises(UserError, match="does not sample from the policy"):
            engine.generate(PROMPTS, 2, SAMPLING)


def test_a_server_whose_weights_somebody_changes_while_it_answers_is_found_out(student, caplog):
    """The check before the call, of four completions, saw the right weights; the last six of the call's eight are another's."""
    asked = PROMPTS, 2, Sampling(max_tokens=16, seed=1)
    with serving_completions(CompletionsServer()) as server:
        whole = engine_on(server, student).generate(*asked)
    with serving_completions(CompletionsServer(taken_at=7)) as server, caplog.at_level(logging.WARNING):
        assert [g.completions for g in engine_on(server, student).generate(*asked)] == [g.completions for g in whole]
    assert server.loads == 2
    assert "with other weights than it was given" in caplog.text


def test_a_server_that_stays_away_ends_the_call_with_a_message(student):
    pauses = []
    backend = ServerBackend(model="tiny", url="http://127.0.0.1:9/v1", attempts=3, sleep=pauses.append)
    engine = SyncedEngine(policy=student, renderer=renderer(), backend=backend, restarts=1)
    with pytest.raises(UserError, match="died: no answer after 3 attempts") as refused:
        engine.generate(PROMPTS, 1, SAMPLING)
    assert [round(p) for p in pauses] == [1, 2, 1, 2]
    assert "goes on from the last checkpoint" in refused.value.fix


def test_a_busy_server_is_asked_again(student):
    with serving_completions(CompletionsServer(busy=2)) as server:
        assert len(engine_on(server, student, restarts=2).generate(PROMPTS, 1, SAMPLING)) == len(PROMPTS)


def test_a_server_whose_weights_somebody_else_changed_is_given_them_again(student, monkeypatch):
    other = policy(seed=3)
    with serving_completions(CompletionsServer()) as server:
        mine, theirs = engine_on(server, student), engine_on(server, other)
        first = mine.generate(PROMPTS, 1, SAMPLING)
        theirs.generate(PROMPTS, 1, SAMPLING)
        monkeypatch.setattr("evenhand.engines.server.this_process", lambda: "another process")
        assert theirs.backend.holds == "", "what another process gave it is not taken for known"
        monkeypatch.undo()
        assert [g.completions for g in mine.generate(PROMPTS, 1, SAMPLING)] == [g.completions for g in first]
        assert server.loads == 3


def test_a_cache_that_others_use_is_emptied_when_they_are_done(student):
    with serving_completions(CompletionsServer()) as server:
        server.in_use = 2
        assert len(engine_on(server, student).generate(PROMPTS, 1, SAMPLING)) == len(PROMPTS)
        assert server.resets == 3


def test_the_key_is_sent_and_never_shown(student, monkeypatch, caplog):
    monkeypatch.setenv("MY_ENGINE_KEY", "sk-0123456789abcdef")
    with serving_completions(CompletionsServer(key="sk-0123456789abcdef")) as server, caplog.at_level(logging.DEBUG):
        engine_on(server, student, key_env="MY_ENGINE_KEY").generate(PROMPTS, 1, SAMPLING)
        server.key = "another"
        with pytest.raises(UserError, match="HTTP 401") as refused:
            engine_on(server, policy(seed=5), key_env="MY_ENGINE_KEY").generate(PROMPTS, 1, SAMPLING)
    assert "sk-0123456789" not in caplog.text + str(refused.value)


def test_every_weight_is_handed_over_a_tied_head_too(student, tmp_path):
    with serving_completions(CompletionsServer()) as server:
        engine_on(server, student).generate(PROMPTS, 1, SAMPLING)
    assert server.given == {name: tuple(p.shape) for name, p in student.hf.named_parameters()} | {"lm_head.weight": (20, 32)}
    assert tied_head(policy(seed=0, tie_word_embeddings=False).hf) is None
    export(student, tmp_path / "out")
    assert (tmp_path / "out" / "config.json").exists()


def test_an_adapter_is_handed_over_merged(student):
    attach(student, Adapter(rank=2), seed=0)
    with torch.no_grad():
        for name, weight in student.hf.named_parameters():
            if "lora_B" in name:
                weight.normal_(0.0, 0.3)
    with serving_completions(CompletionsServer()) as server:
        (group,) = engine_on(server, student).generate(PROMPTS[:1], 1, SAMPLING)
    (answer,) = group.completions
    assert answer.behaviour_logp == pytest.approx(own_log_probs(student, group, answer), abs=1e-4)
    assert not any("lora" in name for name in server.given)


def test_the_version_follows_every_weight(student):
    before = version(student.hf)
    assert version(policy(seed=0).hf) == before
    with torch.no_grad():
        row = student.hf.model.layers[1].mlp.up_proj.weight
        row[[0, 1]] = row[[1, 0]]  # the same numbers in other places
    assert version(student.hf) != before
    assert version(policy(seed=0).hf.bfloat16()) != before
    packed = [policy(seed=seed) for seed in (0, 1)]
    for one in packed:
        attach(one, Adapter(rank=2, targets=("q_proj",), quantize="nf4"), seed=0)
    packed[1].load_state_dict(dict(packed[1].named_parameters()) | dict(packed[0].named_parameters()), strict=False)
    assert version(packed[0].hf) != version(packed[1].hf), "weights in four bits count too"


def test_settings_that_cannot_be():
    with pytest.raises(UserError, match="not http://HOST"):
        ServerBackend(model="m", url="ftp://host")
    with pytest.raises(UserError, match="secret is written out"):
        ServerBackend(model="m", url="http://host/v1?api_key=abc")
    with pytest.raises(UserError, match="attempts is 0"):
        ServerBackend(model="m", attempts=0)
    with pytest.raises(UserError, match="tolerance is -1"):
        open_engine({"kind": "server", "model": "m", "tolerance": -1.0}, policy(), renderer())
    with pytest.raises(UserError, match="no folder /nowhere"):
        open_engine({"kind": "server", "model": "m", "folder": "/nowhere"}, policy(), renderer())
    assert synced.PROBE_TEMPERATURES == (1.0, 0.5)
