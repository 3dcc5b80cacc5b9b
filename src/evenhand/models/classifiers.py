"""A sequence classifier for architectures that transformers has none for: the backbone of the language model and a score head.

Its folder has transformers' layout: the backbone under its name in the language model, and `score.weight` [1, H]. It loads again
here, and `AutoModel.from_pretrained` gives the backbone anywhere. `AutoModelForSequenceClassification` in a plain transformers
does not know it: there, read `score.weight` from the folder's safetensors and apply it to the last state.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

from evenhand.errors import UserError
from evenhand.models.hidden_states import backbone


def known_to_transformers(config: Any) -> bool:
    """Whether AutoModelForSequenceClassification has a class for this architecture by itself."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    return config.model_type in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES


def auto_for(config: Any) -> Any:
    """What loads a sequence classifier with this config: AutoModelForSequenceClassification, or a class made here.

    Raises UserError for a config without a language model whose backbone could be scored.
    """
    from transformers import AutoModelForSequenceClassification
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as KNOWN

    return AutoModelForSequenceClassification if type(config) in KNOWN else _classifier(config)


def _classifier(config: Any) -> type:
    from transformers import AutoModelForCausalLM, PreTrainedModel
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        fix = "train the reward model from a language model: llama, qwen2, mistral and gpt_neox are among them"
        raise UserError(f"transformers has no language model of the kind {config.model_type}", where="reward model", fix=fix)
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config)
    body = backbone(network)
    place = next((name for name, module in network.named_children() if module is body), None)
    if place is None:
        fix = "train the reward model from another base: llama, qwen2, mistral and gpt_neox are among those that work"
        raise UserError(f"{type(network).__name__} has no backbone apart from its head", where="reward model", fix=fix)
    family = next(c for c in type(body).__mro__ if issubclass(c, PreTrainedModel) and c is not type(body))
    kind = type(network).__name__.removesuffix("ForCausalLM").removesuffix("LMHeadModel")
    parts = {
        "base_model_prefix": place, "config_class": type(config), "body_class": type(body), "__doc__": _Scored.__doc__,
        "__module__": type(body).__module__,  # of another module, it would load without its family's buffers
    }  # fmt: skip
    return type(f"{kind}ForSequenceClassification", (_Scored, family), parts)


class _Scored:
    """Scores the last token that is not padding, as transformers' own classifiers do."""

    base_model_prefix: str
    body_class: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        self.num_labels = config.num_labels
        setattr(self, self.base_model_prefix, self.body_class(config))
        self.score = torch.nn.Linear(config.get_text_config().hidden_size, config.num_labels, bias=False)
        self.post_init()  # type: ignore[attr-defined]

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **named: Any) -> Any:
        from transformers.modeling_outputs import SequenceClassifierOutputWithPast

        body = getattr(self, self.base_model_prefix)
        takes = inspect.signature(body.forward).parameters
        given = {"attention_mask": attention_mask, **named}
        hidden = body(input_ids=input_ids, **{k: v for k, v in given.items() if k in takes}).last_hidden_state
        pad = getattr(self.config.get_text_config(), "pad_token_id", None)  # type: ignore[attr-defined]
        if pad is None and len(input_ids) > 1:
            raise ValueError("Cannot handle batch sizes > 1 if no padding token is defined.")
        columns = torch.arange(input_ids.shape[1], device=input_ids.device)
        last = (columns * (input_ids != pad)).argmax(-1) if pad is not None else columns[-1:]
        return SequenceClassifierOutputWithPast(logits=self.score(hidden[torch.arange(len(input_ids)), last]))
