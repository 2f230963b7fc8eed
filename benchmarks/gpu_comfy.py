"""Rows of the GPU table inside of ComfyUI: its own text-to-image network and ours, and how it estimates memory.

Run by gpu.py with ComfyUI's Python in a process of its own: python benchmarks/gpu_comfy.py '{"size": 1024, ...}'
writes a line of JSON for each row.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gpu_clock as clock
import torch
from gpu_rows import Row, Task, evaluations, fill, make_model, name_of
from native import ROOT, start_host
from step import DTYPES

import pixeldit_core as pc

TINY_SIZES = (
    *("hidden_size", "num_groups", "patch_depth", "pixel_depth", "pixel_attn_hidden_size", "pixel_num_groups"),
    *("patch_size", "pixel_hidden_size", "txt_embed_dim", "txt_max_length"),
)
WEIGHTS = {"fp8": "fp8_e4m3fn"}  # of our loader, where its name is another


def load_native(path: Path, model: pc.Model, dtype: torch.dtype, tiny: bool) -> Any:
    """ComfyUI's own network with the weights of a file; a tiny one is not recognized, and built by its sizes."""
    import comfy.model_management
    import comfy.sd
    import comfy.utils

    if not tiny:
        return comfy.sd.load_diffusion_model(str(path), model_options={"dtype": dtype})
    import comfy.model_patcher
    import comfy.supported_models

    sizes = {name: getattr(model.params, name) for name in TINY_SIZES}
    config = comfy.supported_models.PixelDiTT2I({"image_model": "pixeldit_t2i", **sizes})
    device = comfy.model_management.get_torch_device()
    config.set_inference_dtype(dtype, torch.float32 if dtype.itemsize == 1 else None)
    made = config.get_model({}, "", device=device)
    tensors = {key.removeprefix("core."): value for key, value in comfy.utils.load_torch_file(str(path)).items()}
    made.diffusion_model.load_state_dict(tensors, strict=False)
    return comfy.model_patcher.ModelPatcher(made, load_device=device, offload_device=device)


def load_ours(path: Path, weights: str) -> Any:
    ending = ".nodes.host.load"
    ours = next(module for key, module in sys.modules.items() if key.endswith(ending) and str(ROOT) in module.__file__)
    return ours.load_model(str(path), weight_dtype=WEIGHTS.get(weights, weights))


def make_call(model: Any, params: Any, rows: int, size: int, device: str) -> Callable[[], torch.Tensor]:
    """What a step of a sampler asks of a MODEL."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, params.in_channels, size, size, generator=generator).to(device)
    text = torch.randn(rows, params.txt_max_length, params.txt_embed_dim, generator=generator).to(device)
    sigma = torch.full((rows,), 0.5, device=device)
    return lambda: model.apply_model(x, sigma, c_crossattn=text, transformer_options={})


def rows(task: Task, weights: list[str]) -> Iterator[Row]:
    """Both networks at every batch, by turns, with weights of each type."""
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        path = Path(folder) / "random.safetensors"
        on_cpu = make_model(replace(task, device="cpu"))
        pc.save_checkpoint(on_cpu, path, "comfyui")
        for kind in weights:
            dtype = torch.float8_e4m3fn if kind == "fp8" else DTYPES[kind]
            makers: dict[str, Callable[[], Any]] = {
                "native": lambda dtype=dtype: load_native(path, on_cpu, dtype, task.tiny),
                "in ComfyUI": lambda kind=kind: load_ours(path, kind),
            }
            yield from compare(replace(task, dtype=kind), on_cpu, makers)


def compare(task: Task, on_cpu: pc.Model, makers: dict[str, Callable[[], Any]]) -> Iterator[Row]:
    import comfy.model_management

    models, failed = {}, {}
    for form, make in makers.items():
        try:
            patcher = make()
            comfy.model_management.load_models_gpu([patcher])
            models[form] = patcher.model
        except Exception as error:  # whatever it raises is the result
            failed[form] = clock.describe(error)
    plain, product_operations = clock.product(task.device, DTYPES.get(task.dtype, torch.bfloat16), task.product)
    for batch in task.batches:
        found = {
            form: Row(name_of(task), task.size, task.dtype, form, batch, note=failed.get(form, "")) for form in makers
        }
        calls = {"product": plain}
        for form, model in models.items():
            try:
                guided = make_call(model, on_cpu.params, 2 * batch, task.size, task.device)
                shape = [2 * batch, on_cpu.params.in_channels, task.size, task.size]
                found[form].estimate = model.memory_required(shape) / clock.MIB
                guided()
                found[form].peak = clock.peak(guided, task.device)
                calls[form] = guided
            except Exception as error:
                found[form].note = clock.describe(error)
                clock.release(task.device)
        try:
            times = clock.medians(calls, task.device, task.rounds)
            work = count(on_cpu, task, batch)
            for form in set(models) & set(times):
                fill(found[form], times, form, work, product_operations, evaluations(on_cpu, task.size))
        except Exception as error:
            for row in found.values():
                row.note = row.note or clock.describe(error)
        clock.release(task.device)
        yield from found.values()


def count(model: pc.Model, task: Task, batch: int) -> int:
    """Operations of a step with guidance, counted on "meta"."""
    family, params = model.family, model.params
    shapes = pc.build_model(family, params, dtype=model.dtype)
    x = torch.empty(2 * batch, params.in_channels, task.size, task.size, device="meta")
    text = torch.empty(2 * batch, params.txt_max_length, params.txt_embed_dim, device="meta")
    return clock.operations(lambda: shapes.velocity(x, 0.5, text))


def main() -> None:
    given = json.loads(sys.argv[1])
    weights, task = given.pop("weights"), Task(**given)
    out = sys.stdout
    sys.stdout = sys.stderr  # ComfyUI prints
    start_host(task.device, "host")
    for row in rows(task, weights):
        out.write(json.dumps(asdict(row)) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
