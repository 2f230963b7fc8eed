"""One guided network step (batch 2), timed against a plain large matrix product in the same run.

    python benchmarks/step.py      the XL network at 256 x 256, float32 and bfloat16, on every device
    python benchmarks/step.py --preset PixelDiT-B --size 128 --dtype bf16 --profile
    python benchmarks/step.py --preset PixelDiT2-H --dtype bf16 --no-compile      its encoder and projection, too

The fraction is (floating-point operations of the step / its time) over (operations / time of the product): 1.0 would be
a step that is nothing but matrix products at full speed. Only ratios of one run mean something.

Of a network that looks at its input through a frozen encoder, a second table has the parts of the step, each timed
alone and by turns: encoder and projection on the one row that is grounded, the patches' way on both; and the step over
their sum.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import pixeldit_core as pc

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def build(preset: str, device: str, dtype: torch.dtype) -> pc.Model:
    """A network of random weights, of a size that keeps values moderate."""
    model = pc.build_model(pc.VARIANTS[preset].family, preset, device=device, dtype=dtype)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in model.network.named_parameters():
        if parameter.ndim == 1 and "norm" in name:
            parameter.fill_(1.0)
        else:
            parameter.normal_(0.0, 0.02, generator=generator)
    return model


def make_step(model: pc.Model, size: int, device: str) -> Callable[[], torch.Tensor]:
    """What a guided step asks of the network: one call, null row first."""
    x = torch.randn(1, model.params.in_channels, size, size, device=device).repeat(2, 1, 1, 1)
    if model.family.condition == "text":
        states = torch.randn(2, model.params.txt_max_length, model.params.txt_embed_dim, device=device)
        text = pc.text_condition(model, states, pooled=states[:, -1])
        return lambda: model.velocity(x, 0.5, text)
    condition = torch.cat([pc.null_condition(model, 1), pc.class_condition(model, [7])]).to(device)
    return lambda: model.velocity(x, 0.5, condition)


def make_parts(model: pc.Model, size: int, device: str) -> dict[str, Callable[[], torch.Tensor]]:
    """The parts of a guided step of a network with an encoder, on inputs like those in the step; {} for others."""
    if not model.family.encoder:
        return {}
    network: Any = model.network
    conditioner, params = network.dino_conditioner, model.params
    x = torch.randn(2, params.in_channels, size, size, device=device).to(model.dtype)
    time, labels = torch.full((2,), 0.5, device=device), torch.tensor([params.num_classes, 7], device=device)
    rope = network.grid_rope(x, params.proj_heads, None)
    features = conditioner.look(x[1:])
    y_emb = network.y_embedder(labels, model.dtype)
    c = conditioner.dino_proj(features, time[1:], rope).expand(2, -1, -1).contiguous() + y_emb[:, None]
    return {
        "encoder": lambda: conditioner.look(x[1:]),
        "projection": lambda: conditioner.dino_proj(features, time[1:], rope),
        "patches": lambda: network.final_layer(network.patch_pathway(x, c, y_emb, None), c),
    }


def describe_parts(parts: dict[str, float], step: float, device: str, name: str) -> str:
    """A row of the table of parts, from medians."""
    cells = [f"{time:.4f} s, {time / step:.1%}" for time in parts.values()]
    return f"| {' | '.join([device, name, *cells, f'{step / sum(parts.values()):.3f}'])} |\n"


def make_product(device: str, dtype: torch.dtype, side: int) -> Callable[[], torch.Tensor]:
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return lambda: a @ b


def seconds(function: Callable, device: str) -> float:
    begin = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def count_operations(step: Callable) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def peak_memory(step: Callable, device: str) -> float:
    """MiB that a step needs beyond the weights."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.profiler.profile(profile_memory=True) as record:
        step()
    # the process keeps memory that the step freed, so what it asked for is counted, not what the process holds
    events = sorted(record.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    held = peak = 0
    for event in events:
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / 2**20


def compiled_time(model: pc.Model, size: int, device: str, repeat: int) -> float | str:
    """Median of the compiled step, or why there is none."""
    try:
        model.network.compile()
        step = make_step(model, size, device)
        step()
        return statistics.median(seconds(step, device) for _ in range(repeat))
    except Exception as error:  # whatever a compiler raises is a result here
        return f"no: {type(error).__name__}"


@torch.inference_mode()
def measure(preset: str, size: int, device: str, name: str, options: argparse.Namespace) -> tuple[list[str], str]:
    """A row of the table, and one of the table of parts, if there are any."""
    dtype = DTYPES[name]
    model = build(preset, device, dtype)
    step = make_step(model, size, device)
    side = options.product or (8192 if device == "cuda" else 4096)
    product = make_product(device, dtype, side)
    operations = count_operations(step)
    memory = peak_memory(step, device)
    parts = make_parts(model, size, device)
    times, products, alone = [], [], {part: [] for part in parts}
    for _ in range(options.repeat + 1):  # by turns, so that all see the same machine
        products.append(seconds(product, device))
        times.append(seconds(step, device))
        for part, function in parts.items():
            alone[part].append(seconds(function, device))
    own, plain = statistics.median(times[1:]), statistics.median(products[1:])
    ceiling = 2 * side**3 / plain

    def fraction(duration: float) -> str:
        return f"{operations / duration / ceiling:.2f}"

    row = [device, name, f"{own:.3f} s", f"{memory:.0f} MiB", f"{operations / 1e9:.0f} G", f"{ceiling / 1e9:.0f} G/s"]
    row.append(fraction(own))
    if options.profile:
        profile(step, device)
    medians = {part: statistics.median(found[1:]) for part, found in alone.items()}
    second = describe_parts(medians, own, device, name) if parts else ""
    if options.no_compile:
        return [*row, "", ""], second
    fast = compiled_time(model, size, device, options.repeat)
    return [*row, *((fast, "") if isinstance(fast, str) else (f"{fast:.3f} s", fraction(fast)))], second


def profile(step: Callable, device: str) -> None:
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if device == "cuda" else []
    with torch.profiler.profile(activities=kinds) as record:
        step()
    sort = "self_cuda_time_total" if device == "cuda" else "self_cpu_time_total"
    sys.stdout.write(record.key_averages().table(sort_by=sort, row_limit=20) + "\n")


def evaluations() -> int:
    """Single network evaluations of a 100-step image with guidance from 0.1 to 0.9, counted."""
    model = build_tiny()
    rows = []
    model.network.register_forward_pre_hook(lambda module, arguments: rows.append(len(arguments[0])))
    pc.sample(model, pc.class_condition(model, [1]), size=(16, 16), steps=100, cfg=2.75, cfg_interval=(0.1, 0.9))
    return sum(rows)


def find_preset(text: str) -> str:
    """A variant by its name, or by the name without its patch size: the first of that name."""
    found = [name for name in pc.VARIANTS if name == text or name.startswith(f"{text}/")]
    if not found:
        raise argparse.ArgumentTypeError(f"{text} is none of {', '.join(pc.VARIANTS)}")
    return found[0]


def build_tiny() -> pc.Model:
    model = pc.build_model("pixeldit", pc.PixelDiTParams(16, 2, 1, 1, patch_size=8, pixel_hidden_size=4), device="cpu")
    for parameter in model.network.parameters():
        parameter.normal_(0.0, 0.02)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="PixelDiT-XL", type=find_preset, help="such as PixelDiT-B or PixelDiT2-H")
    parser.add_argument("--size", type=int, default=256, help="height and width in pixels (default: 256)")
    parser.add_argument("--dtype", nargs="+", default=["fp32", "bf16"], choices=list(DTYPES))
    parser.add_argument("--device", nargs="+", default=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
    parser.add_argument("--repeat", type=int, default=5, help="timed steps; the median counts (default: 5)")
    parser.add_argument("--product", type=int, default=0, help="side of the square matrices (default: by device)")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--profile", action="store_true", help="the operations that take the time")
    options = parser.parse_args()
    head = ["device", "dtype", "step", "peak memory", "operations", "product", "fraction", "compiled", "fraction"]
    sys.stdout.write(f"{options.preset}, {options.size} x {options.size}, batch 2, {torch.get_num_threads()} threads, ")
    sys.stdout.write(f"torch {torch.__version__}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}\n")
    parts = ""
    for device in options.device:
        for name in options.dtype:
            row, second = measure(options.preset, options.size, device, name, options)
            parts += second
            sys.stdout.write(f"| {' | '.join(row)} |\n")
            sys.stdout.flush()
    if parts:
        head = ["device", "dtype", "encoder", "projection", "patches", "step over their sum"]
        sys.stdout.write(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}\n{parts}")
    sys.stdout.write(f"\n100 steps, guidance from 0.1 to 0.9: {evaluations()} single network evaluations (not 200)\n")


if __name__ == "__main__":
    main()
