"""Data made by machines: judged labels, critique and revision by principles, new instructions from seeds, tasks in many words."""

from evenhand.synthesis.annotation import AnnotatedPairs, flip_labels, label
from evenhand.synthesis.constitution import Principle, Revised, critique_and_revise, first_answers, principles
from evenhand.synthesis.generation import Ask, asker, chat_asker
from evenhand.synthesis.instructions import Invented, invent
from evenhand.synthesis.tasks import SynthesisTask, phrased, split_by_task, tasks

__all__ = [
    "AnnotatedPairs", "Ask", "Invented", "Principle", "Revised", "SynthesisTask", "asker", "chat_asker", "critique_and_revise",
    "first_answers", "flip_labels", "invent", "label", "phrased", "principles", "split_by_task", "tasks",
]  # fmt: skip
