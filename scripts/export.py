"""`shoal export RUN_DIR`: the policy of a checkpoint as a file that runs without shoal, in ONNX or TorchScript.

What is written has been run on random observations beside shoal's own policy; how far they were apart is told.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

import shoal
from shoal.rllib.policies import export as exporting
from shoal.rllib.training import checkpoints, saved_state
from shoal.scripts import run_directory
from shoal.scripts.command_line import DONE, FAILED, UsageError, parse, run_command
from shoal.scripts.standard_streams import leave, printing, say

PROG = "shoal export"
#: The largest difference between the file and shoal's own policy that is rounding; more is an error of ours.
TOLERANCE = 1e-4
_SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `shoal export` can be told."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_DIR")]
    """Run directory, whose newest checkpoint is taken; or a checkpoint, RUN_DIR/checkpoints/best for instance."""

    format: Literal["onnx", "torchscript"] = "onnx"
    """Of the file: onnx runs in any ONNX runtime, torchscript in libtorch."""

    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The file to write; by default policy.onnx or policy.pt in the run directory or checkpoint."""


def main(arguments: Sequence[str]) -> int:
    """Run `shoal export` with these arguments and return its exit code."""
    return run_command(PROG, lambda: export(arguments))


def export(arguments: Sequence[str]) -> int:
    """Load, export, compare, write.

    Raises:
      UsageError, CheckpointError: what is wrong, in one line.
    """
    about = "Write the policy of a training run as a file that runs without shoal."
    options = parse(Options, arguments, prog=PROG, description=about)
    lacking = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if options.format == "onnx" and lacking:
        raise UsageError(f"an ONNX file needs {' and '.join(lacking)}: pip install 'shoal[onnx]'")
    place = run_directory.find_checkpoint(options.run)
    output = options.output or options.run / f"policy{_SUFFIXES[options.format]}"
    if not output.parent.is_dir():
        raise UsageError(f"--output {output}: its folder does not exist")
    checkpoint = checkpoints.load(place)
    weights = saved_state.weights_from(checkpoint)
    has_masks = "action_masks" in checkpoint.tensors.get("environments", {})
    told = {
        "environment": str(checkpoint.config.get("env")),
        "steps": str(checkpoint.counter("steps")),
        "shoal_version": shoal.__version__,
    }
    exported = exporting.export(weights, options.format, has_masks=has_masks, about=told)
    apart = exporting.difference(exported, options.format, weights, has_masks=has_masks)
    if not apart <= TOLERANCE:
        say(f"{PROG}: the file gives other numbers than shoal's own policy, {apart:g} apart: nothing was written")
        return FAILED
    try:
        _write(output.resolve(), exported.content)
    except OSError as error:
        raise UsageError(f"--output {output} cannot be written: {error.strerror}") from error
    with printing():
        print(f"{output}: {checkpoint.algorithm} on {told['environment']} after {checkpoint.counter('steps'):,} steps")
        print(f"inputs {', '.join(exported.inputs)}; outputs {', '.join(exported.outputs)}")
        print(f"at most {apart:.1e} from shoal's own policy on random observations")
    return DONE


def _write(output: Path, content: bytes) -> None:
    """Write a file as a whole: if the disk is full, one that was there stays as it was.

    Raises:
      OSError: it cannot be written.
    """
    if output.exists() and not output.is_file():  # a pipe, /dev/null; or a folder, which raises
        output.write_bytes(content)
        return
    beside = output.with_name(f"{output.name}.part")
    try:
        beside.write_bytes(content)
        beside.replace(output)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
