"""A reward model that exists, as checks look at it: its files, its tokenizer, and only where asked for its weights."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from evenhand.data.template import Renderer
from evenhand.doctor.opened import OpenedPart
from evenhand.errors import UserError
from evenhand.models.load import guarded, resolve_device
from evenhand.protocols import Reward
from evenhand.run_experiment import Run
from evenhand.spec.experiment import Experiment
from evenhand.spec.pretrained import Adopted
from evenhand.stages import pretrained_reward_model as stage
from evenhand.stages.common import open_model_reward, renderer_of
from evenhand.stages.context import StageContext
from evenhand.stages.pretrained_reward_model import reading
from evenhand.store.pointer import POINTER
from evenhand.store.whole import write_json


class Beside(Protocol):
    """What a reward model is opened beside: the run, its experiment, the model's folder and its renderer."""

    run: Run
    experiment: Experiment

    @property
    def folder(self) -> Path | str: ...

    @property
    def renderer(self) -> Renderer: ...


class Existing:
    """Parts that cannot be opened raise `Unavailable`: see `OpenedPart`."""

    def __init__(self, settings: Adopted, patient: Beside) -> None:
        self.settings, self._patient = settings, patient

    @property
    def folder(self) -> Path | str:
        """Its folder, or its name on the Hub."""
        local = Path(self.settings.path).expanduser()
        return local if local.is_dir() else self.settings.path

    @OpenedPart
    def renderer(self) -> Renderer:
        return renderer_of(self.folder, self.settings.template)

    @OpenedPart
    def config(self) -> Any:
        from transformers import AutoConfig

        return guarded(AutoConfig.from_pretrained, self.folder)

    @property
    def reads(self) -> str:
        """What it is given: "tokens" as they were sampled, or "text" that is rendered anew for it."""
        folder = self.folder if isinstance(self.folder, Path) else Path()
        return reading(folder)

    @OpenedPart
    def reward(self) -> Reward:
        """What the run itself would open: its own stage, in a folder that is thrown away."""
        specs = (n.spec for n in self._patient.run.plan.nodes if isinstance(n.spec, stage.PretrainedRewardModelSpec))
        spec = next(s for s in specs if s.model.path == self.settings.path)
        with tempfile.TemporaryDirectory(prefix="evenhand-doctor-") as scratch:
            folder = Path(scratch)
            if self._patient.experiment.model.path is None:
                self._patient.renderer.tokenizer.save_pretrained(folder / "model")
            else:
                write_json(folder / POINTER, {"path": str(self._patient.folder)})
            out = folder / "adopted"
            out.mkdir()
            stage.run(replace(spec, normalise=False), StageContext(seed=0, inputs={"start": folder}, out=out))
            return open_model_reward(out, spec.setup, resolve_device(spec.setup.compute.device))


def named(error: UserError, name: str) -> UserError:
    """The error with the place in the experiment file in front."""
    where = f"reward_models.{name}" + (f", {error.where}" if error.where else "")
    return error.placed(where)
