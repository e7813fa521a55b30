"""Builds a bundle into the store: plan, lock, work folder, build, and its name in one step at the end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from config.settings import Settings
from engine_build.answers import ANSWERS_FILE, read_answers
from engine_build.build import build_bundle as build_into
from engine_build.build_plan import PLAIN_PRECISIONS, BuildPlan, BuildRequest, Step, plan_build
from engine_build.checkpoint_facts import CheckpointFacts, checkpoint_size, inspect_checkpoint
from engine_build.errors import EngineBuildError, PlanError
from engine_build.frozen_arguments import engine_arguments
from engine_build.manifest import Manifest, is_bundle, read_manifest
from engine_build.prebuild import Site
from launcher.banner import PRODUCT, version
from launcher.bundle.lock import BuildLock, BuildProgress
from launcher.bundle.machine import engine_version
from launcher.bundle.order import Order, Wanted, chosen_precision, take_order
from launcher.bundle.store import BundleStore, bundle_store
from launcher.cache.store import storage_error
from launcher.commands.choice import Scenery
from launcher.commands.fetching import fetch_profile
from launcher.download.progress import DownloadState
from launcher.engine_devices import device_environment
from launcher.errors import ExitCode, LaunchError


@dataclass(frozen=True, slots=True)
class Built:
    """A bundle of the store; ``is_new`` tells whether it was built just now."""

    path: Path
    manifest: Manifest
    is_new: bool


def build_bundle(scenery: Scenery, wanted: Wanted, progress: BuildProgress, *, rebuild: bool = False) -> Built:
    """Build what is wanted, or return it if it is there.

    Raises:
        LaunchError: it cannot be built.
        ConfigError: a setting or a GPU is not known.
    """
    with _translated():
        order = take_order(scenery, wanted, _Downloading(progress))
        plan = _planned(order, wanted, progress)
        store = bundle_store(scenery.settings)
        return _Building(scenery, store, order, plan, wanted).run(progress, rebuild=rebuild)


@dataclass(frozen=True, slots=True)
class _Building:
    """One build, planned."""

    scenery: Scenery
    store: BundleStore
    order: Order
    plan: BuildPlan
    wanted: Wanted

    @property
    def settings(self) -> Settings:
        return self.scenery.settings

    def run(self, progress: BuildProgress, *, rebuild: bool) -> Built:
        name = self.plan.bundle_id
        known = None if rebuild else self._there()
        if known is not None:
            return known
        reference = self._reference(_Downloading(progress))
        with BuildLock(self.store, name, progress) as lock:
            # Whoever had the lock before may have built just this.
            known = None if rebuild else self._there()
            if known is not None:
                return known
            self.store.check_space(self.plan.room)
            work = self.store.work_folder(name)
            try:
                site = self._site(work, reference, lock.step)
                manifest = build_into(self.plan, site, f"{PRODUCT} {version()}")
                return Built(self.store.publish(work, name), manifest, is_new=True)
            except OSError as error:
                raise storage_error(error, work) from error
            finally:
                shutil.rmtree(work, ignore_errors=True)

    def _there(self) -> Built | None:
        if not self.store.holds(self.plan.bundle_id):
            return None
        path = self.store.path(self.plan.bundle_id)
        return Built(path, read_manifest(path), is_new=False)

    def _site(self, work: Path, reference: Path | None, tell: Callable[[Step, str, int, int], None]) -> Site:
        prebuilt = self.store.path(self.plan.fingerprint.anywhere().bundle_id)
        return Site(
            work=work,
            checkpoint=self.order.checkpoint,
            limits=self.order.limits,
            threads=self.settings.engine.threads or max(self.scenery.system.cores - 1, 1),
            timeout_s=self.settings.build.timeout_s,
            tell=tell,
            names=self.order.names,
            reference=reference,
            prebuilt=prebuilt if is_bundle(prebuilt) else None,
            home=self.store.path(self.plan.bundle_id),
            devices=device_environment(self.order.gpus),
        )

    def _reference(self, progress: _Downloading) -> Path | None:
        """Return what the gate compares with where the plan needs more than the checkpoint itself."""
        given = self.wanted.reference
        if given is not None:
            return reference_of(given.expanduser(), self.plan.request.checkpoint)
        if Step.REFERENCE not in self.plan.steps or self.plan.has_own_reference or self.order.unquantised is None:
            return None
        return fetch_profile(self.order.unquantised, self.settings, progress)


def reference_of(path: Path, built: CheckpointFacts) -> Path:
    """Return the answers, or the checkpoint, that ``--reference`` means.

    Raises:
        PlanError: it is neither, or its weights are quantised, or of another model.
    """
    if is_bundle(path):
        manifest = read_manifest(path)
        if manifest.fingerprint.precision not in PLAIN_PRECISIONS:
            raise PlanError(f"{path.name} is itself {manifest.fingerprint.precision}: a reference must be unquantised")
        if manifest.fingerprint.model != built.digest and built.quantisation == "none":
            raise PlanError(f"{path.name} was made from another checkpoint than {built.name}")
        read_answers(path / ANSWERS_FILE)
        return path / ANSWERS_FILE
    if path.is_dir():
        return path
    raise PlanError(f"--reference {path}: is neither a bundle nor a folder with a checkpoint")


def _planned(order: Order, wanted: Wanted, progress: BuildProgress) -> BuildPlan:
    facts = _inspected(order.checkpoint, progress)
    precision = chosen_precision(order, facts)
    request = BuildRequest(
        engine=order.engine,
        precision=precision,
        checkpoint=facts,
        engine_version=engine_version(order.engine),
        hardware=order.hardware,
        arguments=engine_arguments(order.engine, precision, order.limits),
        prebuild_only=wanted.prebuild_only,
        has_reference=wanted.reference is not None or order.unquantised is not None,
    )
    return plan_build(request)


def _inspected(checkpoint: Path, progress: BuildProgress) -> CheckpointFacts:
    total = checkpoint_size(checkpoint) if checkpoint.is_dir() else 0
    done, mutex = 0, Lock()

    def advance(count: int) -> None:
        nonlocal done
        with mutex:
            done += count
            progress.step(Step.CHECK, str(checkpoint), done, total)

    return inspect_checkpoint(checkpoint, advance)


@dataclass(frozen=True, slots=True)
class _Downloading:
    """Shows the download of a checkpoint as a part of the build."""

    progress: BuildProgress

    def update(self, state: DownloadState) -> None:
        note = f"{state.phase} files of the checkpoint"
        self.progress.step(Step.CHECK, note, state.bytes_done, state.bytes_total or 0)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what the build stage raises into what ends the process."""
    try:
        yield
    except PlanError as error:
        raise LaunchError(ExitCode.BAD_SETTINGS, error.message) from error
    except EngineBuildError as error:
        raise LaunchError(ExitCode.CANNOT_START, error.message) from error
