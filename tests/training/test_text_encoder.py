"""Text encoders as the published networks were trained with them."""

import pytest
import tiny_encoders
import torch
from helpers import close, find_golden, relative_l2
from transformers import AutoModel

from pixeldit_core.families import find_family
from pixeldit_core.training.text_encoder import (
    caption_positions,
    load_text_encoder,
    masked_states,
    null_state,
    padded_states,
)

T2I, HDM = find_family("pixeldit_t2i"), find_family("pixelhdm")


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    return tiny_encoders.write_gemma(tmp_path_factory.mktemp("gemma"), 12)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return tiny_encoders.write_qwen(tmp_path_factory.mktemp("qwen"), 16)


def load(folder, family, **options):
    return load_text_encoder(str(folder), family, dtype=torch.float32, **options)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_states_of_qwen_are_the_recorded_ones(attention):
    case = find_golden("70_text_encoder_tiny", "pixelhdm")
    model = AutoModel.from_pretrained(case.folder / "qwen3_tiny", attn_implementation=attention).eval()
    tolerance, pad = case.case["recommended_tolerance"]["rel_l2"], case.case["pad_id"]
    ids = [row[:length].tolist() for row, length in zip(case.inputs["input_ids"], case.case["lens"], strict=True)]
    states, hidden = masked_states(model, ids, pad), case.outputs["hidden_states"]
    assert [len(state.embeds) for state in states] == case.case["lens"]
    for state, row, pooled in zip(states, hidden, case.outputs["pooled"], strict=True):
        assert relative_l2(state.pooled, pooled) < tolerance
        assert not len(state.embeds) or relative_l2(state.embeds, row[: len(state.embeds)]) < tolerance
    with torch.no_grad():  # padding, too
        assert relative_l2(padded_states(model, ids[:3], 8, pad), hidden[:3]) < tolerance
        assert relative_l2(null_state(model, pad).expand(8, -1), hidden[3]) < tolerance


def test_positions_of_captions_are_the_recorded_ones(golden):
    for row in golden("tables_prompt").case["select_index"]:
        positions = caption_positions(row["n_chi"], row["model_max_length"])
        assert (positions[:2], len(positions)) == (row["index_first"], row["count"])
        assert positions[-1] + 1 == row["total_length"]


def test_a_caption_after_an_instruction_starts_with_its_first_word(gemma):
    encoder = load(gemma, T2I, instruction=tiny_encoders.INSTRUCTION, max_tokens=6)
    ids = encoder.tokenizer(tiny_encoders.INSTRUCTION + "red square")["input_ids"]
    prefix = len(encoder.tokenizer(tiny_encoders.INSTRUCTION)["input_ids"])
    words = encoder.tokenizer.convert_ids_to_tokens(ids)
    assert [words[0], *words[prefix - 1 :]] == ["<bos>", "\u2581red", "\u2581square"]

    padded = torch.tensor([ids + [0] * (prefix + 4 - len(ids))])
    mask = (torch.arange(padded.shape[1]) < len(ids)).long()[None]
    with torch.no_grad():
        expected = encoder.model(input_ids=padded, attention_mask=mask).last_hidden_state[0]
    (state,) = encoder(["red square"])
    close(state.embeds, torch.cat([expected[:1], expected[prefix - 1 :]]), 1e-6)
    assert state.embeds.shape == (6, 12)
    assert state.pooled is None


def test_the_empty_caption_has_no_instruction(gemma):
    with_it = load(gemma, T2I, instruction=tiny_encoders.INSTRUCTION, max_tokens=6)
    without = load(gemma, T2I, max_tokens=6)
    empty, caption = with_it(["", "red square"])
    close(empty.embeds, without([""])[0].embeds, 1e-6)
    assert (caption.embeds - without(["red square"])[0].embeds).abs().max() > 1e-3


def test_long_captions_are_cut(gemma, qwen):
    long = "a red square on white a red square on white"
    assert load(gemma, T2I, max_tokens=5)([long])[0].embeds.shape == (5, 12)
    encoder = load(qwen, HDM, max_tokens=4)
    cut, short = encoder([long, "a red square on"])
    close(cut.embeds, short.embeds, 1e-6)
    close(cut.pooled, cut.embeds[-1], 0)


def test_other_captions_of_a_batch_change_nothing(qwen):
    encoder = load(qwen, HDM)
    together = encoder(["", "a red square on white", "blue circle"])
    for state, caption in zip(together, ["", "a red square on white", "blue circle"], strict=True):
        (alone,) = encoder([caption])
        close(state.embeds, alone.embeds, 1e-6)
        close(state.pooled, alone.pooled, 1e-6)
    assert together[0].embeds.shape == (0, 16)


def test_published_lengths_are_the_default(gemma, qwen):
    assert (load(gemma, T2I).max_tokens, load(qwen, HDM).max_tokens) == (300, 511)


def test_an_encoder_that_does_not_fit_is_refused(gemma, tmp_path, caplog):
    with pytest.raises(ValueError, match="is a gemma2, and PixelHDM.*trained with a qwen3.*Qwen/Qwen3-0.6B"):
        load(gemma, HDM)
    with pytest.raises(ValueError, match="missing cannot be used"):
        load(tmp_path / "missing", HDM)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match="is a file"):
        load(tmp_path / "model.safetensors", HDM)
    with pytest.raises(ValueError, match="has no text encoder"):
        load(gemma, find_family("pixeldit"))
    load(gemma, T2I)
    assert "states of width 12" in caplog.text and "2304" in caplog.text
