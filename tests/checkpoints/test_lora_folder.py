"""LoRAs in folders as trainers leave them, and the other half of a training: text encoders, learned embeddings."""

import json
import logging
import time

import pytest
import torch
from checkpoints.lora_files import (
    PATHS,
    PEFT,
    UP_DOWN,
    agree,
    expected,
    fails,
    pairs_for,
    random_pair,
    saved,
    shapes_of,
    written,
)
from safetensors.torch import save, save_file

import pixeldit_core as pc
from pixeldit_core.checkpoints.lora import find_lora_file, read_lora
from pixeldit_core.checkpoints.lora_folder import is_embedding_name, is_text_name

LANGUAGE = "base_model.model.layers.3.self_attn.v_proj"


def network_half(model):
    return written(pairs_for(shapes_of(model)), "base_model.model.model.", **PEFT)


def text_half(module=LANGUAGE, style=PEFT):
    return written({module: random_pair(12, 12)}, "", alpha=None, **style)


def put(path, tensors):
    path.parent.mkdir(parents=True, exist_ok=True)
    return saved(path, tensors)


PLACES = [
    "adapter_model.pt", "best/transformer/adapter_model.safetensors", "transformer/adapter_model.bin",
    "unet/pytorch_lora_weights.safetensors", "transformer_lora/pytorch_lora_weights.bin",
    "checkpoint-500/pytorch_lora_weights.safetensors", "ink-wash/adapter_model.safetensors",
    "transformer/ink wash/adapter_model.pt", "checkpoint-500/transformer/default/adapter_model.safetensors",
    "my-ink.safetensors", "lora.pth",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_the_lora_of_a_folder_is_found(tiny_t2i, tmp_path, place):
    model = tiny_t2i()
    state = expected(model, pairs_for(shapes_of(model)))
    folder = tmp_path / "ink"
    put(folder / place, network_half(model))
    for name in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl", "learnable_embs.pt", "training_args.bin"):
        put(folder / name, {"embs": torch.zeros(2, 6)})
    put(folder / "text_encoder" / "adapter_model.safetensors", text_half())
    assert find_lora_file(folder) == (folder / place, f"ink/{place}")
    assert pc.apply_lora(model, folder) == len(PATHS)
    agree(model, state)


def test_the_nearest_of_a_folder_counts(tiny_t2i, tmp_path):
    tensors = network_half(tiny_t2i())
    for place in ("checkpoint-500/pytorch_lora_weights.safetensors", "checkpoint-900/pytorch_lora_weights.safetensors"):
        put(tmp_path / "ink" / place, tensors)
    with pytest.raises(ValueError) as error:
        find_lora_file(tmp_path / "ink")
    for text in ("ink is a folder with 2 LoRAs", "checkpoint-500/pytorch", "checkpoint-900/pytorch", "Choose one"):
        assert text in str(error.value)
    put(tmp_path / "ink" / "transformer" / "adapter_model.bin", tensors)
    assert find_lora_file(tmp_path / "ink")[1] == "ink/transformer/adapter_model.bin"
    put(tmp_path / "ink" / "pytorch_lora_weights.safetensors", tensors)
    assert find_lora_file(tmp_path / "ink")[1] == "ink/pytorch_lora_weights.safetensors"


@pytest.mark.parametrize("names", [
    ("a.safetensors", "b.safetensors"), ("transformer/adapter_model.bin", "unet/adapter_model.bin"),
    ("best/transformer/adapter_model.safetensors", "last/transformer/adapter_model.safetensors"),
])  # fmt: skip
def test_of_several_one_is_to_be_chosen(tiny_t2i, tmp_path, names):
    model = tiny_t2i()
    for name in names:
        put(tmp_path / "ink" / name, network_half(model))
    fails(model, tmp_path / "ink", "ink is a folder with 2 LoRAs", *names, "Choose one of these files")


@pytest.mark.parametrize(
    "folder", ["text_encoder", "text_encoder_2", "text_encoder_lora", "gemma-2-2b-it", "te1", "t5"]
)
def test_a_folder_with_a_text_encoders_half_alone(tiny_t2i, tmp_path, folder):
    put(tmp_path / "best" / folder / "adapter_model.safetensors", text_half())
    where = f"{folder}/adapter_model.safetensors"
    fails(tiny_t2i(), tmp_path / "best", "has only the LoRA of a text encoder", where, "called transformer")


def test_a_folder_with_learned_embeddings_alone(tiny_t2i, tmp_path):
    put(tmp_path / "best" / "learnable_embs.pt", {"embs": torch.zeros(2, 6)})
    fails(tiny_t2i(), tmp_path / "best", "best has only learned embeddings (learnable_embs.pt)", "Choose")


HALVES = [
    "text_encoder/adapter_model.safetensors", "text_encoder_2/pytorch_lora_weights.bin",
    "text_encoder_lora/adapter_model.bin", "gemma/adapter_model.pt", "text_encoder_lora.safetensors",
]  # fmt: skip


@pytest.mark.parametrize("chosen", ["folder", "file"])
@pytest.mark.parametrize("own", ["transformer/adapter_model.safetensors", "pytorch_lora_weights.safetensors"])
@pytest.mark.parametrize("half", HALVES)
def test_a_text_encoders_half_beside_it_is_said(tiny_t2i, tmp_path, caplog, half, own, chosen):
    best, model = tmp_path / "ink" / "best", tiny_t2i()
    path = put(best / own, network_half(model))
    put(best / half, text_half())
    with caplog.at_level(logging.WARNING):
        assert pc.apply_lora(model, best if chosen == "folder" else path) == len(PATHS)
    assert f"changed the text encoder, too ({half})" in caplog.text and "not applied" in caplog.text
    (note,) = read_lora(path, shapes_of(model)).notes
    assert half in note and not note.endswith(".")


@pytest.mark.parametrize("name", ["learnable_embs.pt", "learned_embeds-steps-500.safetensors", "ink_emb.safetensors"])
def test_learned_embeddings_beside_it_are_said(tiny_t2i, tmp_path, name):
    path = put(tmp_path / "best" / "transformer" / "adapter_model.safetensors", network_half(tiny_t2i()))
    put(tmp_path / "best" / name, {"embs": torch.zeros(2, 6)})
    put(tmp_path / "best" / "text_encoder" / "adapter_model.safetensors", text_half())
    text, learned = read_lora(path, shapes_of(tiny_t2i())).notes
    assert "changed the text encoder" in text and f"learned embeddings, too ({name})" in learned


@pytest.mark.parametrize("module, style", [
    ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", UP_DOWN), ("lora_te1_layers_0_mlp_up_proj", UP_DOWN),
    ("text_encoder.layers.3.self_attn.v_proj", PEFT), ("text_encoders.gemma.model.layers.3.mlp.gate_proj", UP_DOWN),
    ("base_model.model.model.layers.3.self_attn.o_proj", PEFT),
])  # fmt: skip
def test_a_text_encoders_half_in_the_same_file_is_said(tiny_t2i, tmp_path, module, style):
    path = saved(tmp_path / "lora.safetensors", network_half(tiny_t2i()) | text_half(module, style))
    lora = read_lora(path, shapes_of(tiny_t2i()))
    assert lora.applied == len(PATHS) and lora.unknown == (module,)
    assert f"changed the text encoder, too ({module} in this file)" in lora.notes[0]


def test_embeddings_in_the_same_file_are_said(tiny_t2i, tmp_path):
    name = "bundle_emb.ink.emb_params"
    path = saved(tmp_path / "lora.safetensors", network_half(tiny_t2i()) | {name: torch.zeros(2, 6)})
    assert f"learned embeddings, too ({name} in this file)" in read_lora(path, shapes_of(tiny_t2i())).notes[0]


def test_nothing_is_said_of_what_others_keep_beside_it(tiny_t2i, tmp_path):
    """A folder of many LoRAs, a pipeline with its whole text encoder."""
    put(tmp_path / "loras" / "text_encoder" / "adapter_model.safetensors", text_half())
    path = put(tmp_path / "loras" / "ink.safetensors", network_half(tiny_t2i()))
    assert read_lora(path, shapes_of(tiny_t2i())).notes == ()
    put(tmp_path / "pipe" / "text_encoder" / "model.safetensors", text_half())
    path = put(tmp_path / "pipe" / "transformer" / "adapter_model.safetensors", network_half(tiny_t2i()))
    assert read_lora(path, shapes_of(tiny_t2i())).notes == ()


TEXT_MODULES = [
    LANGUAGE, "base_model.model.model.layers.25.mlp.gate_proj", "model.language_model.layers.0.self_attn.k_proj",
    "lora_te_layers_3_self_attn_q_proj", "lora_te3_encoder_block_0_layer_0_SelfAttention_q",
    "text_encoder.text_model.encoder.layers.0.self_attn.out_proj", "encoder.block.7.layer.1.DenseReluDense.wi_0",
    "base_model.model.encoder.layer.3.attention.self.query", "transformer.resblocks.3.attn.out_proj",
]  # fmt: skip


@pytest.mark.parametrize("module", TEXT_MODULES)
@pytest.mark.parametrize("end, style", [(".safetensors", PEFT), (".bin", PEFT), (".pt", UP_DOWN)])
def test_a_text_encoders_half_is_refused_as_one(tiny_t2i, tmp_path, module, end, style):
    path = put(tmp_path / f"half{end}", text_half(module, style))
    fails(
        tiny_t2i(), path, module, "It was made for a text encoder (a language model)", "Choose the transformer's half"
    )


def test_the_network_s_half_is_named_where_it_is_there(tiny_t2i, tmp_path):
    best = tmp_path / "best"
    path = put(best / "text_encoder" / "adapter_model.safetensors", text_half())
    own = "best/transformer/adapter_model.safetensors"
    put(tmp_path / own, network_half(tiny_t2i()))
    fails(tiny_t2i(), path, f"the transformer's half of that training: {own}")
    fails(tiny_t2i(), put(best / "learnable_embs.pt", {"embs": torch.zeros(2, 6)}), own)
    path = put(best / "text_encoder" / "adapter_model.safetensors", text_half("wholly.unknown"))
    fails(tiny_t2i(), path, "made for a text encoder", own)  # by its folder


@pytest.mark.parametrize("modules", [
    ["blocks.0.self_attn.q_proj", "blocks.0.cross_attn.k_proj"], ["blocks.0.self_attn.q", "blocks.0.ffn.0"],
    ["llm.layers.0.self_attn.o_proj", "llm.layers.0.self_attn.qkv_proj"], ["layers.0.attention.to_q"],
    ["layers.0.self_attn.q_proj", "layers.0.adaLN_modulation.1"], ["layers.0.self_attn.q_proj", "x_embedder"],
    ["language_model.model.layers.0.self_attn.q_proj_moe_gen", "language_model.model.layers.0.self_attn.q_proj"],
    ["vision_model.encoder.layers.0.self_attn.q_proj"], ["layers.0.self_attn.q_proj_moe_gen"],
])  # fmt: skip
def test_other_transformers_are_no_text_encoders(tiny_t2i, tmp_path, modules):
    path = saved(tmp_path / "lora.pt", written(dict.fromkeys(modules, random_pair(4, 4)), "base_model.model.", **PEFT))
    fails(tiny_t2i(), path, "made for another model. Choose")


EMBEDDINGS = [
    {"embs": (2, 6, 12)}, {"emb_params": (3, 12)}, {"clip_l": (3, 8), "clip_g": (3, 12)}, {"<ink>": (12,)},
    {"prompt_embeddings": (8, 12)}, {"soft_prompt.weight": (8, 12)}, {"embedding": (2, 12)}, {"ink-wash": (2304,)},
    {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": (2, 12)},
]  # fmt: skip


@pytest.mark.parametrize("end", [".safetensors", ".pt", ".bin"])
@pytest.mark.parametrize("shapes", EMBEDDINGS, ids=lambda shapes: next(iter(shapes)))
def test_learned_embeddings_are_refused_as_such(tiny_t2i, tmp_path, shapes, end):
    path = saved(tmp_path / f"file{end}", {name: torch.ones(shape) for name, shape in shapes.items()})
    fails(tiny_t2i(), path, f"file{end} holds learned embeddings", min(shapes), "Choose the transformer's half")


def test_embeddings_in_dictionaries_or_alone(tiny_t2i, tmp_path):
    table = torch.ones(2, 12)
    inversion = {"string_to_token": {"*": 265}, "string_to_param": {"*": table}, "name": "ink", "step": 500}
    fails(tiny_t2i(), saved(tmp_path / "a.pt", inversion), "holds learned embeddings")
    fails(tiny_t2i(), saved(tmp_path / "b.pt", {"state_dict": {"embs": table}, "step": 3}), "holds learned embeddings")
    fails(tiny_t2i(), saved(tmp_path / "learned_embeds.bin", {"ink": table}), "holds learned embeddings")
    fails(tiny_t2i(), saved(tmp_path / "learnable_embs.pt", table), "learned embeddings")


def test_other_files_of_a_training(tiny_t2i, tmp_path):
    model = tiny_t2i()
    state = model.network.state_dict()
    wrapped = {key.replace(f"{PATHS[0]}.", f"{PATHS[0]}.base_layer."): value for key, value in state.items()}
    named = {"up": "lora_B.default.weight", "down": "lora_A.default.weight"}
    wrapped |= written(pairs_for(shapes_of(model), PATHS[:1]), "", alpha=None, **named)
    fails(
        model, saved(tmp_path / "step.pt", {"model": wrapped}), "not merged", f"{PATHS[0]}.base_layer.weight", "alone"
    )
    one = torch.ones(2, 2)
    moments = {"state": {PATHS[0]: {"exp_avg": one, "exp_avg_sq": one, "step": torch.tensor(1.0)}}}
    fails(model, saved(tmp_path / "a.pt", moments), "state of an optimizer")
    numbered = {"state": {0: {"exp_avg": one}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    fails(model, saved(tmp_path / "optimizer.bin", numbered), "state of an optimizer")
    lambdas = {f"base_model.model.{PATHS[0]}.vera_lambda_b": one[0]}
    fails(model, saved(tmp_path / "v.safetensors", lambdas), "is VeRA", "merge it into its model")
    bare = {f"base_model.model.{PATHS[0]}.lora_{part}": one.clone() for part in "ABE"}
    fails(model, saved(tmp_path / "ada.safetensors", bare), "is AdaLoRA")


def test_names_of_halves():
    names = [
        "text_encoder",
        "text_encoder_2",
        "TextEncoder-lora",
        "te",
        "te2",
        "gemma-2-2b-it",
        "t5xxl",
        "clip_l",
        "llm",
    ]
    assert all(map(is_text_name, names))
    assert not any(
        map(is_text_name, ["transformer", "best", "ink", "t", "tea", "clipart", "te-amo", "default", "lora"])
    )
    names = ["embs", "learnable_embs", "ink_emb", "learned_embeds-steps-500", "embeddings", "Emb", "prompt_embeddings"]
    assert all(map(is_embedding_name, names))
    assert not any(
        map(is_embedding_name, ["pos_embed", "x_embedder", "member", "ember", "adapter_model", "my_pos_emb"])
    )


def test_settings_lie_in_the_folder_of_the_file(tiny_t2i, tmp_path):
    shapes = shapes_of(tiny_t2i())
    tensors = written(pairs_for(shapes), "base_model.model.", alpha=None, **PEFT)
    path = put(tmp_path / "best" / "transformer" / "adapter_model.safetensors", tensors)
    (tmp_path / "best" / "adapter_config.json").write_text('{"lora_alpha": 300}')
    (path.parent / "adapter_config.json").write_text(json.dumps({"lora_alpha": 6}))
    assert {pair.scale for pair in read_lora(tmp_path / "best", shapes).pairs.values()} == {2.0}


def test_a_folder_of_everything_takes_no_time(tmp_path):
    for outer in range(20):
        for inner in range(20):
            (tmp_path / f"{outer}" / f"{inner}" / "deep").mkdir(parents=True)
    begin = time.process_time()
    with pytest.raises(ValueError, match="is a folder without"):
        find_lora_file(tmp_path)
    assert time.process_time() - begin < 2


@pytest.mark.parametrize("place", [
    "lora/lora.safetensors", "checkpoint-5/my_style.safetensors", "lora.sft", "LoRA.SAFETENSORS", "lora/style.pt",
])  # fmt: skip
def test_the_only_lora_in_a_folder_of_any_trainer(tiny_t2i, tmp_path, place):
    pairs = pairs_for(shapes_of(tiny_t2i()))
    path = tmp_path / "run" / place
    path.parent.mkdir(parents=True)
    tensors = written(pairs, before="lora_unet_", flat=True, **UP_DOWN)
    path.write_bytes(save(tensors)) if path.suffix != ".pt" else torch.save(tensors, path)
    for other in ("optimizer/optimizer.pt", "ema/ema.pt", "._lora.safetensors", "lora/._lora.safetensors"):
        (tmp_path / "run" / other).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / other).write_bytes(b"x")
    model = tiny_t2i()
    assert pc.apply_lora(model, tmp_path / "run") == len(pairs)
    agree(model, expected(tiny_t2i(), pairs))


@pytest.mark.parametrize("name, texts", [
    ("adapter_model.safetensors.part", ("download has not finished", "adapter_model.safetensors.part")),
    ("adapter_config.json", ("only the settings of a LoRA", "Download adapter_model.safetensors")),
    ("__0_0.distcp", ("distributed checkpoint",)), ("optimizer.bin", ("without a LoRA: in it is optimizer.bin",)),
    ("zero_pp_rank_0_mp_rank_00_optim_states.pt", ("DeepSpeed",)),
])  # fmt: skip
def test_folders_without_a_lora(tiny_t2i, tmp_path, name, texts):
    (tmp_path / "style").mkdir()
    (tmp_path / "style" / name).write_bytes(b"x")
    fails(tiny_t2i(), tmp_path / "style", "style", *texts)


def test_a_folder_with_a_checkpoint_is_no_lora(tiny_t2i, tmp_path):
    (tmp_path / "style" / "transformer").mkdir(parents=True)
    save_file(
        tiny_t2i().network.state_dict(), tmp_path / "style" / "transformer" / "diffusion_pytorch_model.safetensors"
    )
    fails(tiny_t2i(), tmp_path / "style", "style/transformer/diffusion_pytorch_model.safetensors", "whole checkpoint")
