"""A stand-in for vLLM's server: its routes over a policy, with the faults that servers have."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from evenhand.data.template import Renderer
from evenhand.engines.decode_batch import DecodeRow
from evenhand.engines.local import LocalEngine
from evenhand.models.load import new_policy
from evenhand.models.policy import Policy
from evenhand.types import Finish, Sampling
from evenhand.worlds.tokenizer import word_tokenizer

WORDS = "red green blue white small large cat dog sun moon tree sky"
SHAPE = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "max_position_embeddings": 512, "initializer_range": 0.3,
         "tie_word_embeddings": True}  # fmt: skip


def renderer() -> Renderer:
    return Renderer(word_tokenizer([WORDS, " " + WORDS]))


def policy(seed: int = 7, **shape: Any) -> Policy:
    return new_policy(SHAPE | shape, renderer().tokenizer, seed=seed, device="cpu")


class CompletionsServer:
    """Begins with the policy that `opens` gives.

    `fault`: "" or one of stale_head, keeps_weights, text_only, raw, lost_token, wrong_stop, goes_on, cut, no_logprobs,
    other_prompt, odd_prompt, no_routes, noisy, packed.

    `dies_at`: after so many completions one request is answered by closing the connection, and the weights are those of the
    beginning again. `taken_at`: from that completion on it has those without a word, as if another run had loaded them.
    `busy`: so many requests are answered by 503 first. `usage` is what it says of usage.
    """

    def __init__(
        self,
        opens: Callable[[], Policy] = policy,
        *,
        reads: Renderer | None = None,
        fault: str = "",
        dies_at: int = 0,
        taken_at: int = 0,
        busy: int = 0,
        usage: Any = None,
        key: str = "",
    ) -> None:
        self.renderer, self.opens, self.fault = reads or renderer(), opens, fault
        self.policy = opens()
        self.dies_at, self.taken_at, self.busy, self.usage, self.key = dies_at, taken_at, busy, usage, key
        self.adapters: dict[str, Policy] = {}
        self.names, self.max_lora_rank = ("tiny", "world", "m"), 16
        self.completions, self.loads, self.resets, self.bodies = 0, 0, 0, []
        self.url, self.in_use = "", 0
        self._lock = threading.Lock()

    def respond(self, path: str, body: dict[str, Any], authorization: str) -> tuple[int, Any]:
        """Status and body; a status of 0 closes the connection without a word."""
        if self.key and authorization != f"Bearer {self.key}":
            return 401, {"error": f"not the key: {authorization}"}
        if self.busy:
            self.busy -= 1
            return 503, {"error": "busy"}
        if path == "/v1/completions":
            with self._lock:
                self.completions += 1
                self.bodies.append(body)
                dies, taken = (self.completions == at for at in (self.dies_at, self.taken_at))
            if dies:
                self.policy, self.adapters = self.opens(), {}
                return 0, None
            if taken:
                self.policy = self.opens()
            if body["model"] not in (*self.adapters, *self.names):
                return 404, {"error": f"The model {body['model']} does not exist."}
            return 200, {"choices": [self.choice(body)], "usage": self.usage}
        if self.fault == "no_routes":
            return 404, {"detail": "Not Found"}
        if path == "/v1/load_lora_adapter":
            return self.load_adapter(body["lora_name"], Path(body["lora_path"]))
        if path == "/v1/unload_lora_adapter":
            return (404, {}) if self.adapters.pop(body["lora_name"], None) is None else (200, {})
        if path == "/collective_rpc":
            assert body["method"] == "reload_weights"
            self.load(Path(body["kwargs"]["weights_path"]))
            return 200, {"results": [None]}
        assert path == "/reset_prefix_cache", path
        self.resets += 1
        self.in_use -= 1
        return 200, {"success": self.in_use < 0}

    def load_adapter(self, name: str, folder: Path) -> tuple[int, Any]:
        """`W + alpha / r B A` on a copy of its base, beside the adapters that it has."""
        self.loads += 1
        config = json.loads((folder / "adapter_config.json").read_text())
        if config["r"] > self.max_lora_rank:
            return 500, {"error": f"LoRA rank {config['r']} is greater than max_lora_rank {self.max_lora_rank}"}
        made, given = copy.deepcopy(self.policy), load_file(folder / "adapter_model.safetensors")
        for key, a in given.items() if self.fault != "keeps_weights" else ():
            if key.endswith(".lora_A.weight"):
                layer = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
                b = given[key.replace("lora_A", "lora_B")]
                with torch.no_grad():
                    made.hf.get_submodule(layer).weight.add_(config["lora_alpha"] / config["r"] * b @ a)
        self.adapters[name] = made
        return 200, "Success"

    def load(self, folder: Path) -> None:
        self.loads += 1
        if self.fault == "keeps_weights":
            return
        hf = self.policy.hf
        given = {name: weight for file in sorted(folder.glob("*.safetensors")) for name, weight in load_file(file).items()}
        if self.fault == "stale_head":
            hf.lm_head.weight = torch.nn.Parameter(hf.lm_head.weight.detach().clone())  # no longer the embedding's
            given.pop("lm_head.weight")
        self.given = {name: tuple(weight.shape) for name, weight in given.items()}
        with torch.no_grad():
            for name, weight in given.items():
                hf.get_parameter(name).copy_(weight)
            for weight in hf.parameters() if self.fault == "noisy" else ():
                weight.mul_(1 + 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))

    def choice(self, body: dict[str, Any]) -> dict[str, Any]:
        sampling = Sampling(
            temperature=body["temperature"], top_p=body["top_p"], top_k=max(0, body["top_k"]), max_tokens=body["max_tokens"]
        )
        row = DecodeRow(prompt=0, key=(str(body["seed"]), 0), sampling=sampling)
        with self._lock:
            answers = self.adapters.get(body["model"], self.policy)
            (found,) = LocalEngine(answers, self.renderer).sample([body["prompt"]], [row])
            logp = self.raw(body["prompt"], found.tokens) if self.fault == "raw" else list(found.logp)
        tokens, finish = list(found.tokens), "stop" if found.finish is Finish.STOP else "length"
        if self.fault == "text_only":
            return {"text": self.renderer.decode(tokens), "finish_reason": finish, "logprobs": None}
        if self.fault == "lost_token":
            tokens = tokens[:-1] or [3, 4]
        if self.fault == "wrong_stop":
            tokens, finish = [*tokens[:-1], 5], "stop"
        if self.fault == "goes_on":
            tokens, logp, finish = [min(self.renderer.stop_ids), *tokens[1:], 5][: body["max_tokens"]], logp[:1], "length"
            logp = logp * len(tokens)
        if self.fault == "cut":
            tokens, logp, finish = tokens[:1], logp[:1], "length"
        told = None if self.fault == "no_logprobs" else {"token_logprobs": logp}
        seen = {"other_prompt": [3, *body["prompt"]], "odd_prompt": 5}.get(self.fault, body["prompt"])
        return {"text": "", "token_ids": tokens, "prompt_token_ids": seen, "finish_reason": finish, "logprobs": told}

    def raw(self, prompt: list[int], tokens: tuple[int, ...]) -> list[float]:
        """Log-probs of before the temperature."""
        with torch.no_grad():
            logits = self.policy.hf(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
        return logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).squeeze(1).tolist()


@contextmanager
def serving_completions(server: CompletionsServer) -> Iterator[CompletionsServer]:
    """The server on a free port of the loopback address; its `url` is set."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            status, said = server.respond(self.path, body, self.headers.get("authorization", ""))
            if status == 0:
                self.close_connection = True
                return
            answer = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            if server.fault == "packed":
                self.send_header("content-encoding", "gzip")
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
