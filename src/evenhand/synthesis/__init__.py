"""Data made by machines: judged labels, critique and revision by principles, new instructions from seeds, tasks in many words."""

from evenhand.synthesis.asking import Ask, asker
from evenhand.synthesis.constitution import Principle, Revised, critique_and_revise, principles
from evenhand.synthesis.instructions import Invented, invent
from evenhand.synthesis.labelling import flip_labels, label
from evenhand.synthesis.tasks import Task, phrased, split_by_task, tasks

__all__ = [
    "Ask", "Invented", "Principle", "Revised", "Task", "asker", "critique_and_revise", "flip_labels", "invent", "label",
    "phrased", "principles", "split_by_task", "tasks",
]  # fmt: skip
