"""Carries a build plan out in its work folder: weights, arguments, trials, the gate, and the manifest last.

The folder is nobody's bundle until the caller gives it its name in one step; whatever fails here, nothing is published.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from engine_build.answers import ANSWERS_FILE, Answers, read_answers
from engine_build.build_plan import BuildPlan, Step
from engine_build.caches import CACHES, cache_variables
from engine_build.checksums import files_below, record_files
from engine_build.errors import GateError
from engine_build.exercise import WarmUp
from engine_build.frozen_arguments import CHECKPOINT
from engine_build.gate import THRESHOLDS, GateResult, judge
from engine_build.manifest import MANIFEST, Manifest, Source, Start, Starts, write_manifest
from engine_build.prebuild import (
    REFERENCE,
    Site,
    freeze_arguments,
    make_reference,
    make_weights,
    remove_all,
    runtime_for,
)
from engine_build.questions import all_questions
from engine_build.trial import TrialJob
from engine_build.trial_process import Trial, remove_job_files, run_trial

_MAKING_STEPS: Final = (Step.CONVERT, Step.QUANTISE)
"""What a start without the bundle would have to do itself."""


def build_bundle(plan: BuildPlan, site: Site, builder: str) -> Manifest:
    """Build, and return the manifest that was written.

    Args:
        plan: what to do.
        site: where.
        builder: program and version, for the manifest.

    Raises:
        GateError: the bundle is less accurate than it must be.
        EngineBuildError: another of its subclasses: a step failed.
        OSError: the work folder cannot be written.
    """
    return _Build(plan, site, builder).run()


@dataclass(slots=True)
class _Build:
    """One build, and what is known so far."""

    plan: BuildPlan
    site: Site
    builder: str
    seconds: dict[str, float] = field(default_factory=dict)
    warm_up: WarmUp | None = None
    starts: Starts | None = None
    gate: GateResult | None = None

    def run(self) -> Manifest:
        with self._timed(next((step for step in self.plan.steps if step in _MAKING_STEPS), Step.REFER)):
            make_weights(self.plan, self.site)
        with self._timed(Step.ARGUMENTS):
            freeze_arguments(self.plan, self.site)
        if Step.COLD_START in self.plan.steps:
            self._try_out()
        remove_job_files(self.site.work)
        remove_all([self.site.work / REFERENCE])
        return self._seal()

    def _try_out(self) -> None:
        """Start the engine twice, and compare its answers with those of unquantised weights."""
        lead = self._lead()
        cold = self._trial(Step.COLD_START, self._weights, warm_up=True)
        warm = self._trial(Step.WARM_START, self._weights, answer=True, lead=lead)
        self.warm_up = cold.result.warm_up
        self.starts = Starts(
            preparation_s=sum(self.seconds.get(step, 0.0) for step in _MAKING_STEPS),
            without=_start(cold),
            with_bundle=_start(warm),
        )
        answers = warm.result.answers or ()
        own = Answers(model=self.plan.fingerprint.model, precision=self.plan.fingerprint.precision, answers=answers)
        (self.site.work / ANSWERS_FILE).write_text(own.model_dump_json(), encoding="utf-8")
        if lead is None:
            return
        self.site.tell(Step.GATE, "", 0, 0)
        reference, precision = read_answers(lead), self.plan.fingerprint.precision
        thresholds = THRESHOLDS[precision]
        self.gate = judge(all_questions(), reference.answers, answers, warm.result.followed or (), thresholds)
        if self.gate.failures:
            raise GateError(f"the accuracy gate refuses this {precision} bundle: {'; '.join(self.gate.failures)}")

    def _lead(self) -> Path | None:
        """Return the file with the answers of unquantised weights; None where the bundle's own weights are those."""
        if Step.REFERENCE not in self.plan.steps:
            return None
        given = self.site.reference
        if given is not None and given.is_file():
            return given
        with self._timed(Step.REFERENCE):
            weights = make_reference(self.plan, self.site)
        trial = self._trial(Step.REFERENCE, weights, answer=True)
        path = self.site.work / "reference.result.json"
        answers = Answers(
            model=self.plan.fingerprint.model, precision="unquantised", answers=trial.result.answers or ()
        )
        path.write_text(answers.model_dump_json(), encoding="utf-8")
        remove_all([self.site.work / REFERENCE])
        return path

    def _trial(
        self, step: Step, weights: Path, *, warm_up: bool = False, answer: bool = False, lead: Path | None = None
    ) -> Trial:
        is_reference = step is Step.REFERENCE
        runtime = runtime_for(self.plan, self.site, weights, bundle=None if is_reference else self.site.work)
        job = TrialJob(
            runtime=runtime,
            result=self.site.work / f"{step.name.lower()}.result.json",
            warm_up=warm_up,
            answer=answer,
            lead=lead,
        )
        with self._timed(step):
            return run_trial(
                job,
                {**self.site.devices, **self._cache_variables(step)},
                self.site.timeout_s,
                lambda text, done, total: self.site.tell(step, text, done, total),
            )

    def _cache_variables(self, step: Step) -> dict[str, str]:
        """Return where a trial's engine keeps what it compiles: only a first start writes into the bundle itself."""
        caches = self.site.work / CACHES
        place = caches if step is Step.COLD_START else self.site.work / REFERENCE / step.name.lower()
        variables = cache_variables(self.plan.request.engine, place)
        if variables:
            place.mkdir(parents=True, exist_ok=True)
            if step is Step.WARM_START:
                # As a server does it: engines write into their caches, and a bundle must stay as it was built.
                shutil.copytree(caches, place, dirs_exist_ok=True)
        return variables

    @property
    def _weights(self) -> Path:
        own = self.site.work / CHECKPOINT
        return own if own.is_dir() else self.site.checkpoint

    def _seal(self) -> Manifest:
        site, facts = self.site, self.plan.request.checkpoint
        self.site.tell(Step.SEAL, "", 0, 0)
        is_held = (site.work / CHECKPOINT).is_dir()
        with self._timed(Step.SEAL):
            files = record_files(site.work, (name for name in files_below(site.work) if name != MANIFEST))
        manifest = Manifest(
            stage="complete" if Step.COLD_START in self.plan.steps else "prebuilt",
            fingerprint=self.plan.fingerprint,
            source=Source(
                name=facts.name,
                digest=facts.digest,
                quantisation=facts.quantisation,
                files=dict(facts.files),
                path=None if is_held else _place(site),
            ),
            names=site.names,
            limits=site.limits,
            files=files,
            pending=tuple(self.plan.pending),
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            builder=self.builder,
            step_seconds={name: round(seconds, 3) for name, seconds in self.seconds.items()},
            starts=self.starts,
            warm_up=self.warm_up,
            gate=self.gate,
        )
        write_manifest(site.work, manifest)
        return manifest

    @contextmanager
    def _timed(self, step: Step) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - started


def _place(site: Site) -> str:
    checkpoint, home = Path(os.path.realpath(site.checkpoint)), site.home
    if home is None:
        return str(checkpoint)
    home = Path(os.path.realpath(home))
    # <cache>/bundles/<bundle> and something else below <cache>.
    return os.path.relpath(checkpoint, home) if checkpoint.is_relative_to(home.parent.parent) else str(checkpoint)


def _start(trial: Trial) -> Start:
    result = trial.result
    return Start(whole_s=trial.to_first_token_s, load_s=result.load_s, first_token_s=result.first_token_s)
