"""The sampler against transformers: greedy token for token, log-probs against a plain forward, and independence of neighbours."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from evenhand.engines import decode_batch
from evenhand.engines.decode_batch import DecodeRow, RowQueue
from evenhand.engines.local import LocalEngine
from evenhand.errors import UserError
from evenhand.models.decode import SharedPrefixDecoder, decoder_for, held_bytes, problem_with
from evenhand.models.decode_plain import PlainDecoder
from evenhand.types import Finish, Prompt, Sampling

VOCABULARY = 61
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
GROUPED = SMALL | {"num_key_value_heads": 2, "max_position_embeddings": 128}
ARCHITECTURES = {
    "llama": GROUPED,
    "qwen2": GROUPED | {"tie_word_embeddings": True},
    # A window shorter than the prompts, on every layer; with a cap that bites (scores reach it because weights are large).
    "mistral": GROUPED | {"sliding_window": 5},
    "gemma2": GROUPED | {"head_dim": 8, "sliding_window": 6, "attn_logit_softcapping": 0.5, "final_logit_softcapping": 3.0},
    "gpt_neox": SMALL | {"max_position_embeddings": 128},
    "gpt2": {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128},
}
PLAIN = {
    "falcon": {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "bloom": {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4},
}


def new_model(name: str) -> AutoModelForCausalLM:
    torch.manual_seed(1)
    config = AutoConfig.for_model(name, **(ARCHITECTURES | PLAIN)[name])
    config.bos_token_id = config.eos_token_id = config.pad_token_id = None
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():  # fresh weights give nearly uniform answers: sharpen them, so that an error changes the argmax
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(6.0)
    return model


@dataclass
class Letters:
    """A renderer whose token ids are given: prompt content "3 5 8" is the ids 3, 5, 8."""

    stop_ids: frozenset[int] = field(default_factory=frozenset)

    def prompt_ids(self, prompt: Prompt, max_prompt: int | None = None) -> tuple[int, ...]:
        return tuple(int(w) for w in prompt.text.split())[-(max_prompt or 0) :]

    def decode(self, ids) -> str:
        return " ".join(str(i) for i in ids if i not in self.stop_ids)


def engine_of(model, stop=(), **options) -> LocalEngine:
    return LocalEngine(SimpleNamespace(hf=model, device=model.device), Letters(frozenset(stop)), **options)


def prompts_of(*lengths: int) -> list[Prompt]:
    draw = torch.Generator().manual_seed(5)
    ids = [torch.randint(VOCABULARY, (n,), generator=draw).tolist() for n in lengths]
    return [Prompt(content=" ".join(map(str, row)), id=f"p{i}") for i, row in enumerate(ids)]


def ids_of(prompt: Prompt) -> list[int]:
    return [int(w) for w in prompt.text.split()]


def tokens_of(groups) -> list[list[tuple[int, ...]]]:
    return [[c.tokens for c in g.completions] for g in groups]


@pytest.fixture(scope="module")
def llama():
    return new_model("llama")


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("name", [*ARCHITECTURES, *PLAIN])
def test_greedy_equals_transformers_generate(name, n):
    model = new_model(name)
    prompts = prompts_of(9, 3, 12, 1, 9)
    got = engine_of(model).generate(prompts, n, Sampling(temperature=0, max_tokens=11))
    with torch.inference_mode():
        for prompt, group in zip(prompts, got, strict=True):
            ids = torch.tensor([ids_of(prompt)])
            want = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=11, do_sample=False, pad_token_id=0)
            assert [c.tokens for c in group.completions] == [tuple(want[0, ids.shape[1] :].tolist())] * n
    assert len({t for g in got for c in g.completions for t in c.tokens}) > 3  # the model does not just repeat one token


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_with_an_attention_interface_share_prefixes(name):
    assert isinstance(decoder_for(new_model(name)), SharedPrefixDecoder)


@pytest.mark.parametrize("name", PLAIN)
def test_other_architectures_say_once_that_they_are_slower(name, caplog):
    model = new_model(name)
    assert isinstance(decoder_for(model), PlainDecoder)
    assert isinstance(decoder_for(model), PlainDecoder)
    assert len([r for r in caplog.records if "slower" in r.message]) == 1


def test_a_model_whose_steps_disagree_with_its_forward_pass_is_refused(monkeypatch):
    """One that answers differently every time it is asked, whatever its cache."""
    config = AutoConfig.for_model("mamba", vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4)
    model = AutoModelForCausalLM.from_config(config).eval()
    calm = model.forward

    def restless(**named):
        out = calm(**named)
        out.logits = out.logits + torch.randn_like(out.logits)
        return out

    monkeypatch.setattr(model, "forward", restless)
    with pytest.raises(UserError, match="MambaForCausalLM cannot be sampled"):
        decoder_for(model)


def test_a_window_that_only_the_masks_know_keeps_a_model_off_shared_prefixes(monkeypatch):
    from transformers.models.mistral import modeling_mistral

    model = new_model("mistral")
    original = modeling_mistral.ALL_ATTENTION_FUNCTIONS.get_interface

    def without_window(name, default):
        found = original(name, default)
        return lambda *args, sliding_window=None, **named: found(*args, **named)

    monkeypatch.setattr(modeling_mistral.ALL_ATTENTION_FUNCTIONS, "get_interface", without_window)
    assert "not told its windows" in problem_with(SharedPrefixDecoder(model))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.3])
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_behaviour_logp_is_that_of_a_plain_forward_at_the_temperature(name, temperature):
    model = new_model(name)
    prompts = prompts_of(9, 3, 12)
    groups = engine_of(model).generate(prompts, 3, Sampling(temperature=temperature, max_tokens=20, seed=4))
    model.config._attn_implementation = "eager"
    with torch.inference_mode():
        for prompt, group in zip(prompts, groups, strict=True):
            for completion in group.completions:
                ids = [*ids_of(prompt), *completion.tokens]
                logits = model(torch.tensor([ids])).logits[0, -21:-1] / temperature
                want = logits.log_softmax(-1).gather(1, torch.tensor(completion.tokens)[:, None])[:, 0]
                torch.testing.assert_close(torch.tensor(completion.behaviour_logp), want, atol=1e-4, rtol=0)


def test_a_row_does_not_depend_on_its_neighbours(llama):
    prompts = prompts_of(9, 3, 12, 5)
    sampling = Sampling(max_tokens=16, seed=3)
    together = engine_of(llama, stop=[7]).generate(prompts, 4, sampling)
    alone = [engine_of(llama, stop=[7]).generate([p], 4, sampling)[0] for p in prompts]
    backwards = engine_of(llama, stop=[7]).generate(prompts[::-1], 4, sampling)[::-1]
    fewer = engine_of(llama, stop=[7]).generate(prompts, 2, sampling)
    narrow = engine_of(llama, stop=[7], max_rows=3).generate(prompts, 4, sampling)
    tight = engine_of(llama, stop=[7], cache_bytes=1).generate(prompts, 4, sampling)
    assert tokens_of(together) == tokens_of(alone) == tokens_of(backwards) == tokens_of(narrow) == tokens_of(tight)
    assert tokens_of(fewer) == [g[:2] for g in tokens_of(together)]
    assert len({t for g in tokens_of(together) for t in g}) == 16


@pytest.mark.parametrize("name", [*ARCHITECTURES, "falcon"])
def test_rows_that_wait_begin_beside_those_that_run(name, monkeypatch):
    """Four at once, of 15 that end at their own limits: the tokens of each alone, the log-probs of a plain forward."""
    model, beside = new_model(name), []
    step = decode_batch.step_together
    monkeypatch.setattr(decode_batch, "step_together", lambda s, t: (beside.append(len(s)), step(s, t))[1])
    prompts = prompts_of(9, 3, 12, 1, 9)
    each = [Sampling(max_tokens=2, seed=4), Sampling(max_tokens=7, seed=4), Sampling(max_tokens=17, seed=4)]
    groups = engine_of(model, max_rows=4).generate(prompts, 3, each)
    assert (max(beside) > 1) == (name in ARCHITECTURES)  # what a model keeps in its own cache runs a wave at a time
    assert tokens_of(groups) == [tokens_of(engine_of(model).generate([p], 3, each))[0] for p in prompts]
    model.config._attn_implementation = "eager"
    with torch.inference_mode():
        for prompt, group in zip(prompts, groups, strict=True):
            for completion in group.completions:
                ids = torch.tensor([[*ids_of(prompt), *completion.tokens]])
                want = (
                    model(ids)
                    .logits[0, len(ids_of(prompt)) - 1 : -1]
                    .log_softmax(-1)
                    .gather(1, ids[0, -len(completion.tokens) :, None])
                )
                torch.testing.assert_close(torch.tensor(completion.behaviour_logp), want[:, 0], atol=1e-4, rtol=0)


def test_waiting_rows_save_steps(llama, monkeypatch):
    """Two at once of three that take 4, 20 and 16 tokens: 19 steps after the prompts, where two waves would take 19 and 15."""
    steps, step = [], decode_batch.step_together
    monkeypatch.setattr(decode_batch, "step_together", lambda s, t: (steps.append(1) if s else None, step(s, t))[1])
    each = [Sampling(max_tokens=4), Sampling(max_tokens=20), Sampling(max_tokens=16)]
    engine_of(llama, max_rows=2).generate(prompts_of(5), 3, each)
    assert len(steps) == 19


def test_seeds_and_repeated_prompts_give_new_samples(llama):
    first, again = prompts_of(6)[0], prompts_of(6)[0]
    engine = engine_of(llama)
    twice = engine.generate([first, again], 2, Sampling(max_tokens=12))
    four = engine.generate([first], 4, Sampling(max_tokens=12))
    assert tokens_of(twice)[0] + tokens_of(twice)[1] == tokens_of(four)[0]
    assert tokens_of(engine.generate([first], 4, Sampling(max_tokens=12, seed=1))) != tokens_of(four)


@pytest.mark.parametrize("n", [1, 3])
def test_logp_stays_exact_past_the_first_buffer(llama, n):
    (group,) = engine_of(llama).generate(prompts_of(5), n, Sampling(max_tokens=100))
    for completion in group.completions:
        ids = torch.tensor([[*ids_of(prompts_of(5)[0]), *completion.tokens]])
        want = llama(ids).logits[0, 4:-1].log_softmax(-1).gather(1, ids[0, 5:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(completion.behaviour_logp), want, atol=1e-4, rtol=0)


def test_a_row_ends_with_its_first_stop_token_or_at_its_limit(llama):
    stop = frozenset(range(12))
    groups = engine_of(llama, stop=stop).generate(prompts_of(9, 3, 12, 5), 8, Sampling(max_tokens=10))
    completions = [c for g in groups for c in g.completions]
    free = [c for g in engine_of(llama).generate(prompts_of(9, 3, 12, 5), 8, Sampling(max_tokens=10)) for c in g.completions]
    assert {c.finish for c in completions} == {Finish.STOP, Finish.LENGTH}
    for cut, whole in zip(completions, free, strict=True):
        end = next((i + 1 for i, t in enumerate(whole.tokens) if t in stop), 10)
        assert cut.tokens == whole.tokens[:end]
        assert len(cut.behaviour_logp) == end
        assert cut.finish is (Finish.STOP if cut.tokens[-1] in stop else Finish.LENGTH)
        assert cut.content == " ".join(str(t) for t in cut.tokens if t not in stop)


def test_a_stop_token_at_the_last_position_is_a_stop(llama):
    engine = engine_of(llama, stop=range(VOCABULARY))
    (group,) = engine.generate(prompts_of(4), 2, Sampling(max_tokens=1))
    assert [c.finish for c in group.completions] == [Finish.STOP, Finish.STOP]


def test_each_completion_index_may_have_its_own_sampling(llama):
    each = [Sampling(temperature=0, max_tokens=3), Sampling(max_tokens=9, seed=2), Sampling(top_k=1, max_tokens=5)]
    groups = engine_of(llama).generate(prompts_of(9, 3), 3, each)
    greedy = engine_of(llama).generate(prompts_of(9, 3), 1, Sampling(temperature=0, max_tokens=5))
    free = engine_of(llama).generate(prompts_of(9, 3), 2, Sampling(max_tokens=9, seed=2))
    for got, best, sampled in zip(groups, greedy, free, strict=True):
        assert got.completions[0].tokens == best.completions[0].tokens[:3]
        assert got.completions[0].behaviour_logp == (0.0, 0.0, 0.0)
        assert got.completions[1].tokens == sampled.completions[1].tokens
        assert got.completions[2].tokens == best.completions[0].tokens
        assert got.completions[2].behaviour_logp == pytest.approx([0.0] * 5)


def test_prompts_longer_than_max_prompt_keep_their_end(llama):
    long, short = Prompt(content="9 8 7 6 5 4", id="x"), Prompt(content="6 5 4", id="x")
    assert tokens_of(engine_of(llama).generate([long], 2, Sampling(max_tokens=5), max_prompt=3)) == tokens_of(
        engine_of(llama).generate([short], 2, Sampling(max_tokens=5))
    )


def test_progress_counts_completions(llama):
    calls = []
    engine_of(llama, max_rows=4).generate(prompts_of(3, 5), 5, Sampling(max_tokens=2), progress=lambda *c: calls.append(c))
    assert calls == [(4, 10), (8, 10), (10, 10)]
    calls.clear()
    engine_of(llama, stop=range(20)).generate(prompts_of(3, 5), 5, Sampling(max_tokens=50), progress=lambda *c: calls.append(c))
    assert len(calls) > 3  # rows are counted as they end
    assert calls == sorted(calls)
    assert calls[-1] == (10, 10)


def test_nothing_asked_nothing_given(llama):
    assert engine_of(llama).generate([], 2, Sampling()) == []


def test_the_model_is_left_as_it_was(llama):
    model = new_model("llama").train()
    model.model.layers[0].eval()
    before = model.config._attn_implementation
    engine_of(model).generate(prompts_of(3), 1, Sampling(max_tokens=2))
    assert model.training
    assert not model.model.layers[0].mlp.training
    assert model.model.layers[1].mlp.training
    assert model.config._attn_implementation == before
    model(torch.tensor([[1, 2, 3]])).logits.sum().backward()  # no inference tensor was left behind


def test_dropout_is_off_while_sampling():
    torch.manual_seed(0)
    config = AutoConfig.for_model("gpt2", **ARCHITECTURES["gpt2"], resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    engine = engine_of(AutoModelForCausalLM.from_config(config).train())
    first, second = (engine.generate(prompts_of(4), 3, Sampling(max_tokens=20)) for _ in range(2))
    assert first == second


def test_weights_are_read_at_the_call():
    model = new_model("llama")
    engine = engine_of(model)
    before = engine.generate(prompts_of(4), 2, Sampling(max_tokens=6))
    with torch.no_grad():
        model.lm_head.weight.mul_(-1)
    assert engine.generate(prompts_of(4), 2, Sampling(max_tokens=6)) != before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n": 0}, "n is 0"),
        ({"sampling": Sampling(temperature=-1.0)}, "temperature is -1.0"),
        ({"sampling": Sampling(temperature=float("nan"))}, "temperature is nan"),
        ({"sampling": Sampling(top_p=0.0)}, "top_p is 0.0"),
        ({"sampling": Sampling(top_k=-1)}, "top_k is -1"),
        ({"sampling": Sampling(max_tokens=0)}, "max_tokens is 0"),
        ({"sampling": [Sampling(), Sampling()]}, "2 sampling parameters for 1"),
        ({"sampling": ["hot"]}, "'hot' is not a Sampling"),
        ({"prompts": [Prompt(content="", id="empty")]}, "prompt empty: the prompt has no tokens"),
        ({"sampling": Sampling(max_tokens=127)}, "max_prompt to 1"),
        ({"sampling": Sampling(max_tokens=500)}, "lower max_tokens below 128"),
    ],
)
def test_bad_requests_are_named(llama, arguments, words):
    good = {"prompts": prompts_of(4), "n": 1, "sampling": Sampling(max_tokens=2)}
    with pytest.raises(UserError, match=words):
        engine_of(llama).generate(**good | arguments)


def test_diverged_weights_are_named_at_the_first_call_and_later():
    model = new_model("llama")
    used = engine_of(model)
    used.generate(prompts_of(4), 1, Sampling(max_tokens=2))
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    for engine in (used, engine_of(copy.deepcopy(model))):
        for temperature in (1.0, 0.0):
            with pytest.raises(UserError, match="not a number"):
                engine.generate(prompts_of(4), 1, Sampling(max_tokens=2, temperature=temperature))
            with pytest.raises(UserError, match="not a number"):
                list(engine.stream(prompts_of(4)[0], Sampling(max_tokens=2, temperature=temperature)))


def test_half_precision_stays_close_to_its_plain_forward():
    model = new_model("llama").to(torch.bfloat16)
    assert isinstance(decoder_for(model), SharedPrefixDecoder)
    (group,) = engine_of(model).generate(prompts_of(5), 4, Sampling(max_tokens=20))
    for completion in group.completions:
        ids = torch.tensor([[*ids_of(prompts_of(5)[0]), *completion.tokens]])
        want = model(ids).logits[0, 4:-1].float().log_softmax(-1).gather(1, ids[0, 5:, None])[:, 0]
        assert (torch.tensor(completion.behaviour_logp) - want).abs().mean() < 0.05


def test_token_level_rows_may_be_in_any_order(llama):
    engine, sampling = engine_of(llama), Sampling(max_tokens=6)
    rows = [DecodeRow(prompt=p, key=(f"p{p}", i), sampling=sampling) for p, i in [(1, 0), (0, 1), (1, 1), (0, 0)]]
    prompts = prompts_of(9, 3)
    got = [s.tokens for s in engine.sample([ids_of(p) for p in prompts], rows)]
    (zero, one) = tokens_of(engine.generate(prompts, 2, sampling))
    assert got == [one[0], zero[1], one[1], zero[0]]


TINY = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32, "head_dim": 8}


def waiting_rows(cache_bytes: int, *, max_rows: int = 9, prompts=((1, 2, 3), (1, 2, 3)), **options) -> RowQueue:
    """Four rows, two to a prompt, of 2 new tokens each. float32, 2 layers, 2 key heads of 8: 256 bytes a token, and 120 for a
    row's logits; so a row takes 632, and its prompt 768."""
    config = AutoConfig.for_model("llama", vocab_size=10, **TINY, **options)
    hf = SimpleNamespace(config=config, dtype=torch.float32, device=torch.device("cpu"))
    rows = [DecodeRow(prompt=i // 2, key=("", i), sampling=Sampling(max_tokens=2)) for i in range(4)]
    return RowQueue(hf, prompts, rows, max_rows=max_rows, cache_bytes=cache_bytes)


@pytest.mark.parametrize(("budget", "waves"), [(3432, [[0, 1, 2], [3]]), (3431, [[0, 1], [2, 3]]), (1, [[0], [1], [2], [3]])])
def test_a_wave_holds_what_fits_the_budget(budget, waves):
    waiting = waiting_rows(budget)
    assert [waiting.take() for _ in waves] == waves
    assert not waiting


def test_rows_begin_once_half_of_the_room_is_free():
    waiting = waiting_rows(2032)  # two rows and their prompt
    assert waiting.take() == [0, 1]
    assert waiting.take([0, 1]) == []
    assert waiting.take([1], held=1017) == []  # by estimate 1400
    assert waiting.take([]) == [2, 3]


def test_rows_wait_for_what_is_held_and_for_places():
    waiting = waiting_rows(4000, max_rows=3)
    assert waiting.take() == [0, 1, 2]
    assert waiting.take([0, 1], held=2601) == []  # the last one takes 1400
    assert waiting.take([0, 1], held=2600) == [3]  # no more wait: no need for half of the room
    waiting = waiting_rows(4000, max_rows=2)
    assert [waiting.take(), waiting.take([0, 1]), waiting.take([1])] == [[0, 1], [], [2]]


def test_rows_with_other_rotary_frequencies_never_begin_beside_others():
    scaling = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    long = {"max_position_embeddings": 3, "rope_parameters": scaling, "prompts": ([1] * 5, [1] * 4)}
    waiting = waiting_rows(10**6, **long)
    assert [waiting.take(), waiting.take([0]), waiting.take()] == [[0, 1], [], [2, 3]]


def test_what_keys_and_values_take_is_counted(llama):
    """3 layers x keys and values x 2 heads of 8 x 4 bytes: 384 a token; a row grows by 64 tokens at its first step."""
    decoder = decoder_for(llama)
    with decoder.ready():
        session = decoder.open([[1] * 9, [2] * 3], [0, 0, 1])
        assert held_bytes([session]) == 384 * 2 * 9
        session.step(torch.tensor([1, 2, 3]))
        assert held_bytes([session]) == 384 * (2 * 9 + 3 * 64)
        session.compact(torch.tensor([True, False, True]))
        assert held_bytes([session]) == 384 * (2 * 9 + 3 * 64)  # given back when the rest grows
