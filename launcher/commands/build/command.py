"""``gemma4-nim build``: makes an engine bundle, or says that it is there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from config.environment import load_settings
from launcher.bundle.building import Built, build_bundle
from launcher.bundle.order import Wanted
from launcher.commands.build.page import bundle_record, bundle_rows, show
from launcher.commands.build.screen import BuildScreen
from launcher.commands.choice import look_around
from launcher.commands.options import AsJson

Name: TypeAlias = Annotated[
    str | None,
    typer.Argument(metavar="PROFILE", help="Id, the beginning of one, or name, of a profile or a demo model."),
]
Folder: TypeAlias = Annotated[
    Path | None, typer.Option("--from", metavar="FOLDER", help="A checkpoint in Hugging Face layout instead.")
]
EngineName: TypeAlias = Annotated[
    str | None, typer.Option("--engine", "-e", metavar="NAME", help="tensorrt_llm, vllm or llama_cpp.")
]
Precision: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        show_default="as the checkpoint is",
        help="f32, f16, bf16, q8_0 or q4_k_m for llama_cpp; bf16, fp8 or nvfp4 for the others.",
    ),
]
TensorParallel: TypeAlias = Annotated[
    int | None, typer.Option("--tp", min=1, max=8, metavar="N", help="GPUs that share every layer.")
]
Gpus: TypeAlias = Annotated[
    str, typer.Option("--gpu", "-g", metavar="GPUS", help='With --prebuild-only: the target\'s, such as "2xB200".')
]
Reference: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="What the gate compares with: a bundle of unquantised weights, or a checkpoint."),
]


def build(  # noqa: PLR0913 - each is an option of the command line
    profile: Name = None,
    *,
    folder: Folder = None,
    engine: EngineName = None,
    precision: Precision = None,
    tensor_parallel: TensorParallel = None,
    gpu: Gpus = "",
    reference: Reference = None,
    prebuild_only: Annotated[
        bool, typer.Option("--prebuild-only", help="Do only what needs no GPU; a later build goes on from there.")
    ] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build although the bundle is there, and replace it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Build an engine bundle: weights in their precision, frozen arguments, warm caches, checksums, and its accuracy.

    Without PROFILE and --from it is what a start would serve here. The engine is started twice, does real requests, and
    answers a fixed set of questions; quantised weights are compared with the unquantised ones, and a bundle that
    differs too much is thrown away. What is there already is not built again, and of several that build the same
    bundle on one volume one works while the others wait.

    `gemma4-nim serve /path/of/the/bundle` serves it. The status says what went wrong: 64 what cannot be built, 65 a
    damaged checkpoint, an engine that failed or a bundle that is not accurate enough, 69 nothing suits this machine,
    73 and 74 the folder and its disk; others as for download-to-cache.
    """
    wanted = Wanted(profile, folder, engine, precision, tensor_parallel, gpu, reference, prebuild_only)
    scenery = look_around(load_settings())
    with BuildScreen() as screen:
        built = build_bundle(scenery, wanted, screen, rebuild=rebuild)
    if as_json:
        sys.stdout.write(json.dumps(_record(built), indent=2) + "\n")
    else:
        show(f"{built.path}" + ("" if built.is_new else "  (was there)"), bundle_rows(built.manifest))


def _record(built: Built) -> dict[str, Any]:
    return {"path": str(built.path), "new": built.is_new, **bundle_record(built.manifest)}
