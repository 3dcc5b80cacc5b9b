"""How to load an exported model, and how to make it again: the code and commands on its card."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from evenhand.configfile.text_file import json_object
from evenhand.data.dates import TODAY, told_today
from evenhand.export import origin
from evenhand.export.folder import sampling
from evenhand.export.markdown import Markdown, code
from evenhand.export.subject import Subject
from evenhand.models.adapter_files import quantized
from evenhand.models.artifacts import GATE_FOLDER
from evenhand.store.pointer import ADAPTER
from evenhand.train.config import SamplingConfig

if TYPE_CHECKING:
    from evenhand.export.about import About

_CHAT = """from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder, or its name on the Hub
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
{ids}
answer = model.generate(**inputs, max_new_tokens={limit}{how})
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))"""
_TURNS = """inputs = tokenizer.apply_chat_template(
    [{"role": "user", "content": "..."}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)"""
_TEXT = 'inputs = tokenizer("...", return_tensors="pt")'
_SCORE = """from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "."  # this folder, or its name on the Hub
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="auto")
{ids}
score = model(**inputs).logits[0, 0]  # higher is better"""
_ONE = _SCORE.splitlines()[-1]
_SEVERAL = "scores = dict(zip(model.config.id2label.values(), model(**inputs).logits[0].tolist()))"
_SCORED_TURNS = """turns = [{{"role": "user", "content": "..."}}, {{"role": "assistant", "content": "..."}}]
text = tokenizer.apply_chat_template(turns, tokenize=False)
text = text[: text.rindex({stop!r}) + len({stop!r})]  # the score is read at the token that ends the answer
inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")"""
_SCORED_TEXT = """inputs = tokenizer("prompt and answer" + {stop!r}, return_tensors="pt")"""
_ADAPTED = """from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder, or its name on the Hub
tokenizer = AutoTokenizer.from_pretrained(folder)
base = AutoModelForCausalLM.from_pretrained({base!r})  # the very model it was trained from
model = PeftModel.from_pretrained(base, folder)"""
_IN_FOUR_BITS = _ADAPTED.replace("AutoTokenizer\n", "AutoTokenizer, BitsAndBytesConfig\n").replace(
    "base = AutoModelForCausalLM.from_pretrained({base!r})  # the very model it was trained from",
    """held = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")  # as it was in training
base = AutoModelForCausalLM.from_pretrained({base!r}, quantization_config=held)  # the very model it was trained from""",
)


def snippet(about: About) -> str:
    """Python that loads the folder, and answers or scores as the run did."""
    subject = about.subject
    if about.adapter:
        named = origin.base_model(subject.run) if origin.starts_from_base(subject) else None
        held = quantized(subject.folder / ADAPTER)
        return (_IN_FOUR_BITS if held else _ADAPTED).format(base=named or "...")
    chat = about.record["template"] != "none"
    if subject.is_reward_model:
        ids = (_SCORED_TURNS if chat else _SCORED_TEXT).format(stop=about.stops[0] if about.stops else "")
        made = _SCORE.format(ids=ids)
        return made if len(outputs(subject)) < 2 else made.replace(_ONE, _SEVERAL)
    judged = sampling(subject)
    drawn = ", ".join(f"{k}={v}" for k, v in judged.items())
    how = f", do_sample=True, {drawn}" if judged["temperature"] > 0 else ", do_sample=False"
    return _CHAT.format(ids=_TURNS if chat else _TEXT, limit=subject.lengths["completion"], how=how)


def outputs(subject: Subject) -> list[str]:
    """What a reward model's labels are called."""
    found = json_object(subject.model / "config.json").get("id2label") or {}
    return [str(name) for _, name in sorted(found.items(), key=lambda item: int(item[0]))]


def notes(about: About) -> list[Markdown]:
    """What a user must know before using it."""
    limits, judged = about.subject.lengths, sampling(about.subject)
    stops = ", ".join(map(code, about.stops)) or "none"
    if about.subject.is_reward_model:
        end = code(about.stops[0]) if about.stops else "none"
        found = [f"The score is read at the last token, which in training was the one that ends an answer: {end}."]
        if len(named := outputs(about.subject)) > 1:
            mixed = ", which the network in `gate/` mixes by the prompt" if (about.subject.model / GATE_FOLDER).is_dir() else ""
            found.append(f"It has {len(named)} outputs, {', '.join(map(code, named))}{mixed}; what they come to is evenhand's.")
        if (about.subject.model / "reward_normalisation.json").is_file():
            found.append(
                "`reward_normalisation.json` holds the shift and scale that give scores of training answers mean 0 and "
                "deviation 1: the run used `(score - shift) / scale`."
            )
        return [Markdown(line) for line in found]
    greedy = "greedy" if judged["temperature"] == 0 else f"temperature {judged['temperature']:g}"
    truncated = f", {cuts}" if (cuts := SamplingConfig(**judged).cuts) else ""
    start = origin.start_in_words(about.subject.run, str(about.subject.meta.get("name") or ""))
    belongs = [f"It belongs on {start or 'the model it was trained from'}, and on no other."] if about.adapter else []
    return [
        Markdown(line)
        for line in (
            *belongs,
            *_told_today(about.subject),
            f"An answer ends at any of these tokens, all of them in `generation_config.json`: {stops}.",
            f"It was judged at {greedy}{truncated}, on prompts of at most {limits['prompt']} tokens (longer ones lost their "
            f"beginning) and answers of at most {limits['completion']}; nothing is known of it beyond.",
        )
    ]


def _told_today(subject: Subject) -> list[str]:
    """A template that asks for the date was told the same one all through the run, and tells today's elsewhere."""
    path = subject.model / "chat_template.jinja"
    if not path.is_file() or not told_today(path.read_text(encoding="utf-8")):
        return []
    return [f"Its chat template asks for today's date. In the run it was always told {TODAY:%d %B %Y}, elsewhere the real one."]


def command(subject: Subject) -> str:
    """The two commands that make this folder again, given the configuration on the card."""
    what = f"--reward-model {shlex.quote(subject.name)}" if subject.is_reward_model else f"--arm {shlex.quote(subject.name)}"
    seed = "" if subject.seed is None else f" --seed {subject.seed}"
    return f"evenhand run experiment.yaml --out run\nevenhand export run {what}{seed} --out model"
