"""``check-cache-env``: whether the cache folder can be used, and if not, the command that repairs it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from config.environment import load_settings
from launcher.cache.report import CacheReport, inspect_cache, report_lines
from launcher.commands.options import AsJson
from launcher.commands.storage import cache_of, is_offline


def check_cache_env(*, as_json: AsJson = False) -> None:
    """Check that the cache folder answers, can be read and written, and say how much room it has.

    The status is 0 when models can be downloaded into it, or when it is only read because NIM_OFFLINE or
    NIM_DISABLE_MODEL_DOWNLOAD is set; else 73 or 74, with the command that helps.
    """
    settings = load_settings().settings
    report = inspect_cache(cache_of(settings))
    if as_json:
        sys.stdout.write(json.dumps(_record(report), indent=2) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in report_lines(report)))
    if report.problems and not is_offline(settings):
        raise report.problems[0]


def _record(report: CacheReport) -> dict[str, object]:
    problems = [{"what": problem.message, "remedy": problem.remedy} for problem in report.problems]
    return asdict(report) | {"root": str(report.root), "problems": problems, "ok": not report.problems}
