"""The tolerance of the golden data separates a network from its likely faults (spec: official, section 8).

Each fault is put into a loaded network, by its published keys where that is possible, and the comparison that
`test_golden_pixeldit.py` and `test_golden_t2i.py` make has to fail by it, on every case that the fault touches.
"""

import dataclasses

import pytest
import torch

import pixeldit_core as pc
from pixeldit_core.families.pixeldit import pixel_pathway  # holds sincos_2d(columns, rows, patch_size)
from pixeldit_core.layers import rope as rope_layers  # holds apply_rope(x [..., L, heads, e], rope)

pytestmark = [pytest.mark.golden, pytest.mark.usefixtures("reference_processor")]

TOLERANCE = 2e-5
CLASSES = ("c2i_forward_p16_48x32", "c2i_forward_p8_32x32", "c2i_forward_postmod_p4_16x24")
TEXTS = ("t2i_forward_p4_16x12_longtext", "t2i_forward_p8_24x32_ddp", "t2i_forward_p16_32x32_fsdp")


def rewrite(network, part, change):
    """Each weight and bias whose key contains `part`, changed."""
    parameters = [parameter for key, parameter in network.named_parameters() if part in key]
    assert parameters, part
    for parameter in parameters:
        parameter.data = change(parameter.data).contiguous()


def other_eps(network, monkeypatch):
    norms = [module for module in network.modules() if hasattr(module, "eps")]
    assert norms and {module.eps for module in norms} == {1e-6}
    for module in norms:
        module.eps = 1e-5


def tanh_gelu(network, monkeypatch):
    exact = torch.nn.functional.gelu
    monkeypatch.setattr(torch.nn.functional, "gelu", lambda x: exact(x, approximate="tanh"))


def change_rope(network, change):
    """The tables of the grid of patches, as `change(rope, x, head)` has them."""
    original = network.grid_rope
    network.grid_rope = lambda x, head, move: change(original(x, head, move), x, head)


def rows_for_columns(network, monkeypatch):
    def change(rope, x, head):
        return rope.unflatten(-2, (-1, 2)).flip(-2).flatten(-3, -2)

    change_rope(network, change)


def halves_for_pairs(network, monkeypatch):
    """Channel j turns with j + e/2 in the place of 2j with 2j + 1."""
    original = rope_layers.apply_rope

    def halves(x, rope):
        pairs = x.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)
        return original(pairs, rope).unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)

    monkeypatch.setattr(rope_layers, "apply_rope", halves)


def whole_positions(network, monkeypatch):
    """The patch's number in its row and column in the place of 0 to 16."""

    def change(rope, x, head):
        p = network.params.patch_size
        rows, columns = torch.meshgrid(*(torch.arange(float(size // p)) for size in x.shape[2:]), indexing="ij")
        frequencies = 10000.0 ** (-torch.arange(0, head, 4) / head)
        angles = torch.stack([columns.flatten()[:, None] * frequencies, rows.flatten()[:, None] * frequencies], dim=-1)
        return rope_layers.from_angles(angles.flatten(-2))

    change_rope(network, change)


def change_modulation(network, part, change):
    """Maps of a patch block as [maps, D], of a pixel block as [pixels, maps, C]: changed, and flat again."""
    params = network.params
    pixels = params.patch_size**2 if part == "pixel_blocks" else None
    for key, parameter in network.named_parameters():
        if part in key and "adaLN_modulation" in key:
            rows, *others = parameter.shape
            if pixels:
                shape = (pixels, rows // (pixels * params.pixel_hidden_size), params.pixel_hidden_size)
            else:
                shape = (6, rows // 6)
            parameter.data = change(parameter.data.view(*shape, *others)).reshape(rows, *others).contiguous()


def scale_before_shift(network, monkeypatch):
    change_modulation(network, "patch_blocks", lambda maps: maps[[1, 0, 2, 4, 3, 5]])


def gate_first(network, monkeypatch):
    change_modulation(network, "patch_blocks", lambda maps: maps[[2, 0, 1, 5, 3, 4]])


def mlp_before_attention(network, monkeypatch):
    change_modulation(network, "patch_blocks", lambda maps: maps[[3, 4, 5, 0, 1, 2]])


def other_order_for_pixels(network, monkeypatch):
    """The first two maps of each branch exchanged: shift and scale."""

    def change(maps):
        branch = maps.shape[1] // 2
        order = list(range(2 * branch))
        for start in (0, branch):
            order[start], order[start + 1] = start + 1, start
        return maps[:, order]

    change_modulation(network, "pixel_blocks", change)


def maps_before_pixels(network, monkeypatch):
    """Read as [maps, pixels, C]."""
    change_modulation(
        network, "pixel_blocks", lambda maps: maps.reshape(maps.shape[1], -1, *maps.shape[2:]).transpose(0, 1)
    )


def channels_before_maps(network, monkeypatch):
    """Read as [pixels, C, maps]."""
    change_modulation(
        network,
        "pixel_blocks",
        lambda maps: maps.reshape(len(maps), maps.shape[2], -1, *maps.shape[3:]).transpose(1, 2),
    )


def without_silu(number):
    """The SiLU of that number in a forward pass is left out: 1 is the condition's, after the one of the time."""

    def mutate(network, monkeypatch):
        exact, seen = torch.nn.functional.silu, []

        def silu(x, **options):
            seen.append(x)
            return x if len(seen) == number else exact(x, **options)

        monkeypatch.setattr(torch.nn.functional, "silu", silu)

    return mutate


def number_of_the_last_silu(network):
    """One of the time, one of the condition, one for each MLP (the last block has none of text), and the last one."""
    blocks = network.params.patch_depth
    return 3 + (2 * blocks - 1 if hasattr(network, "y_pos_embedding") else blocks)


def no_silu_of_the_condition(network, monkeypatch):
    without_silu(2)(network, monkeypatch)


def no_silu_of_the_pixels_condition(network, monkeypatch):
    without_silu(number_of_the_last_silu(network))(network, monkeypatch)


def sine_before_cosine(network, monkeypatch):
    rewrite(network, "t_embedder.mlp.0.weight", lambda weight: weight.roll(weight.shape[1] // 2, dims=1))


def row_before_column(network, monkeypatch):
    original = pixel_pathway.sincos_2d
    monkeypatch.setattr(
        pixel_pathway,
        "sincos_2d",
        lambda columns, rows, p: original(columns, rows, p).roll(columns.shape[1], dims=-1),
    )


def channel_last_patches(network, monkeypatch):
    channels = network.params.in_channels
    rewrite(
        network,
        "s_embedder.proj.weight",
        lambda weight: weight.unflatten(1, (-1, channels)).transpose(1, 2).flatten(1),
    )


def interleaved_qkv(network, monkeypatch):
    """Rows read as (head, 3, e) in the place of (3, head, e)."""
    params = network.params
    for part, heads in (("patch_blocks", params.num_groups), ("pixel_blocks", params.attention_heads)):
        for key, parameter in network.named_parameters():
            if part in key and ".qkv" in key:
                rows = parameter.data.unflatten(0, (heads, 3, -1))
                parameter.data = rows.transpose(0, 1).flatten(0, 2).contiguous()


def no_norm(part):
    def mutate(network, monkeypatch):
        modules = [module for name, module in network.named_modules() if part in name]
        assert modules
        for module in modules:
            module.forward = lambda x: x

    return mutate


def no_text_rope(network, monkeypatch):
    assert network.params.use_text_rope
    network.params = dataclasses.replace(network.params, use_text_rope=False)


def no_text_position(network, monkeypatch):
    network.y_pos_embedding.data.zero_()


MUTATIONS = {
    "eps 1e-5": other_eps,
    "GELU by tanh": tanh_gelu,
    "RoPE: rows for columns": rows_for_columns,
    "RoPE: halves for pairs": halves_for_pairs,
    "RoPE: whole numbers for the grid": whole_positions,
    "modulation: scale before shift": scale_before_shift,
    "modulation: gate first": gate_first,
    "modulation: MLP before attention": mlp_before_attention,
    "pixel modulation: scale before shift": other_order_for_pixels,
    "pixel modulation: maps before pixels": maps_before_pixels,
    "pixel modulation: channels before maps": channels_before_maps,
    "no SiLU of the condition": no_silu_of_the_condition,
    "no SiLU of the pixels' condition": no_silu_of_the_pixels_condition,
    "time: sine before cosine": sine_before_cosine,
    "pixel positions: row before column": row_before_column,
    "patches: channels last": channel_last_patches,
    "qkv: interleaved": interleaved_qkv,
    "no norm of queries": no_norm("q_norm"),
    "no norm of keys": no_norm("k_norm"),
}
# Measured: eps from 4.4e-5, GELU from 3.4e-4, all others from 4.7e-2 on.
LEAST = {"eps 1e-5": 1.5 * TOLERANCE, "GELU by tanh": 10 * TOLERANCE}
OF_TEXT = {"no RoPE of the text": no_text_rope, "no position of the text": no_text_position}


def error(golden, name, mutate, monkeypatch):
    """How far the output is from the recorded one."""
    case = golden(name)
    network = pc.load_checkpoint(case.checkpoint).network
    mutate(network, monkeypatch)
    output = network(case.inputs["x"], case.inputs["t"], case.inputs["labels" if name in CLASSES else "y"])
    assert output.isfinite().all()
    return (output - case.outputs["output"]).abs().max().item()


@pytest.mark.parametrize("name", CLASSES + TEXTS)
def test_without_a_fault_it_is_the_network(golden, monkeypatch, name):
    assert error(golden, name, lambda network, monkeypatch: None, monkeypatch) < TOLERANCE


@pytest.mark.parametrize("fault, name", [
    *((fault, name) for fault in MUTATIONS for name in CLASSES + TEXTS),
    *((fault, name) for fault in OF_TEXT for name in TEXTS),
])  # fmt: skip
def test_each_fault_is_seen(golden, monkeypatch, fault, name):
    distance = error(golden, name, (MUTATIONS | OF_TEXT)[fault], monkeypatch)
    assert distance > LEAST.get(fault, 2e-2), distance
