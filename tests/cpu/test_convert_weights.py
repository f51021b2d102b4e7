"""HF weights to Megatron shards and back, bit-exact."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from doubles.ranks import SIZES, actor_args, make_checkpoint, new_store, run_ranks
from safetensors.torch import load_file, save_file

from rubric_rl.common.errors import UserError
from rubric_rl.common.model_shape import read_trainable_network
from rubric_rl.cpu.actor import Actor
from rubric_rl.cpu.convert_weights import (
    HEAD,
    hf_shapes,
    name_map,
    read_hf,
    shard,
    unshard,
    write_hf,
)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    made = {}

    def get(tied=True, dtype="float32"):
        if (tied, dtype) not in made:
            made[tied, dtype] = make_checkpoint(tmp_path_factory.mktemp("hf"), tied, dtype)
        return made[tied, dtype]

    return get


@pytest.fixture
def broken(checkpoints, tmp_path):
    """A copy of the tied checkpoint whose tensors may be changed."""

    def make(change):
        directory = shutil.copytree(checkpoints(), tmp_path / "broken")
        tensors = load_file(directory / "model.safetensors")
        change(tensors)
        save_file(tensors, directory / "model.safetensors")
        return directory

    return make


def same(left, right):
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert tensor.dtype == right[name].dtype and torch.equal(tensor, right[name]), name


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("tp", [1, 2])
def test_shards_put_together_again_are_the_checkpoint(checkpoints, tied, tp):
    shape = read_trainable_network(checkpoints(tied))
    tensors = read_hf(checkpoints(tied), shape)
    back = {}
    for name, parts in name_map(shape).items():
        pieces = [
            shard(name, [tensors[part] for part in parts], shape, tp, rank) for rank in range(tp)
        ]
        assert len({piece.shape for piece in pieces}) == 1, name
        back |= dict(zip(parts, unshard(name, pieces, shape), strict=True))
    same(back, tensors)


def test_padding_rows_are_zero_and_only_at_the_end(checkpoints):
    shape = read_trainable_network(checkpoints())
    table = torch.arange(1.0, 1 + shape.vocab)[:, None].expand(shape.vocab, shape.hidden)
    pieces = [
        shard("embedding.word_embeddings.weight", [table], shape, 2, rank) for rank in range(2)
    ]
    assert [len(piece) for piece in pieces] == [51, 51]  # 101 tokens
    assert pieces[1][-1].abs().sum() == 0 and pieces[1][-2, 0] == 101


def test_query_key_value_of_a_group_stand_together(checkpoints):
    shape = read_trainable_network(checkpoints())  # 4 query heads, 2 key/value heads, head_dim 16
    parts = [
        torch.arange(rows).float()[:, None] + base
        for rows, base in ((64, 0), (32, 1000), (32, 2000))
    ]
    rows = shard("decoder.layers.0.self_attention.linear_qkv.weight", parts, shape, 2, 1)[:, 0]
    assert rows.tolist() == [*range(32, 64), *range(1016, 1032), *range(2016, 2032)]


def convert(rank, world, store, hf_dir, target):
    actor = Actor(actor_args(tensor_model_parallel_size=world), rank, world, store)
    try:
        actor.load(hf_dir)
        actor.export_hf(target)
        return {name: tuple(parameter.shape) for name, parameter in actor.model.named_parameters()}
    finally:
        actor.close()


@pytest.mark.parametrize(
    "tied,dtype,tp",
    [
        (True, "float32", 1),
        (False, "bfloat16", 1),
        pytest.param(False, "float32", 2, marks=pytest.mark.stack),
        pytest.param(True, "bfloat16", 2, marks=pytest.mark.stack),
    ],
)
def test_a_round_trip_through_the_model_is_bit_exact(checkpoints, tmp_path, tied, dtype, tp):
    source, out = checkpoints(tied, dtype), str(tmp_path / "out")
    shapes = (
        [convert(0, 1, new_store(), source, out)]
        if tp == 1
        else run_ranks(tp, convert, source, out)
    )
    assert shapes[0]["embedding.word_embeddings.weight"] == (-(-101 // tp), 32)
    assert ("output_layer.weight" in shapes[0]) == (not tied)
    same(
        load_file(tmp_path / "out" / "model.safetensors"), load_file(source + "/model.safetensors")
    )
    for name in ("config.json", "tokenizer.json", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == Path(source, name).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # no temporary directory is left


def test_a_tied_checkpoint_may_carry_its_head_and_keeps_it(broken, tmp_path):
    source = broken(
        lambda tensors: tensors.update({HEAD: tensors["model.embed_tokens.weight"].clone()})
    )
    result = convert(0, 1, new_store(), str(source), str(tmp_path / "out"))
    assert "output_layer.weight" not in result
    same(load_file(tmp_path / "out" / "model.safetensors"), load_file(source / "model.safetensors"))


@pytest.mark.parametrize(
    "change,message",
    [
        (
            lambda t: t.update({"model.layers.0.mlp.extra": torch.zeros(2)}),
            "model.layers.0.mlp.extra is not part of",
        ),
        (
            lambda t: t.pop("model.layers.1.self_attn.k_norm.weight"),
            "layers.1.self_attn.k_norm.weight is missing",
        ),
        (
            lambda t: t.update({"model.norm.weight": torch.zeros(7)}),
            r"model.norm.weight is torch.float32 \(7,\)",
        ),
        (
            lambda t: t.update({"model.norm.weight": torch.zeros(32).int()}),
            "model.norm.weight is torch.int32",
        ),
        (
            lambda t: t.update({HEAD: torch.zeros(101, 32)}),
            "lm_head.weight differs from model.embed_tokens.weight",
        ),
    ],
)
def test_every_tensor_is_accounted_for(broken, change, message):
    directory = broken(change)
    with pytest.raises(UserError, match=message) as error:
        read_hf(directory, read_trainable_network(directory))
    assert "\n" not in str(error.value)


def test_missing_and_broken_files_are_named(checkpoints, tmp_path):
    shape = read_trainable_network(checkpoints())
    with pytest.raises(UserError, match=r"holds no .*safetensors"):
        read_hf(tmp_path, shape)
    (tmp_path / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(UserError, match=r"model.safetensors: cannot be read"):
        read_hf(tmp_path, shape)


def test_the_sizes_are_those_of_transformers(checkpoints):
    for tied in (True, False):
        shape = read_trainable_network(checkpoints(tied))
        tensors = load_file(checkpoints(tied) + "/model.safetensors")
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        assert {
            name: size for name, size in hf_shapes(shape).items() if name != HEAD or not tied
        } == found


def test_a_failed_export_leaves_the_old_one(checkpoints, tmp_path, monkeypatch):
    tensors = load_file(checkpoints() + "/model.safetensors")
    write_hf(tensors, checkpoints(), tmp_path / "out")
    before = (tmp_path / "out" / "model.safetensors").read_bytes()

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr("rubric_rl.cpu.convert_weights.save_file", full)
    with pytest.raises(OSError, match="no space"):
        write_hf(tensors, checkpoints(), tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_new_export_replaces_the_old_one(checkpoints, tmp_path):
    tensors = load_file(checkpoints() + "/model.safetensors")
    write_hf(tensors, checkpoints(), tmp_path / "out")
    tensors["model.norm.weight"] = torch.full((32,), 3.0)
    write_hf(tensors, checkpoints(), tmp_path / "out")
    assert load_file(tmp_path / "out" / "model.safetensors")["model.norm.weight"][0] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "change,name",
    [
        ({"model_type": "llama"}, "not a Qwen3ForCausalLM"),
        ({"architectures": ["Qwen3MoeForCausalLM"]}, "not a Qwen3ForCausalLM"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling"),
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}},
            "rope_parameters.rope_type",
        ),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"num_key_value_heads": None}, "num_key_value_heads"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(checkpoints, tmp_path, change, name):
    config = json.loads(Path(checkpoints(), "config.json").read_text()) | change
    if change == {"num_key_value_heads": None}:
        del config["num_key_value_heads"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=name) as error:
        read_trainable_network(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_rope_theta_is_read_where_either_transformers_puts_it(checkpoints, tmp_path):
    config = json.loads(Path(checkpoints(), "config.json").read_text())
    new = {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    for place in (new, {"rope_theta": 5e5, "rope_scaling": None}):
        bare = {key: value for key, value in config.items() if not key.startswith("rope_")}
        (tmp_path / "config.json").write_text(json.dumps(bare | place))
        assert read_trainable_network(tmp_path).rope_theta == 5e5
    assert read_trainable_network(tmp_path).vocab == SIZES["vocab_size"]


def test_a_directory_that_is_none(tmp_path):
    with pytest.raises(UserError, match=r"config.json: no Qwen3 configuration"):
        read_trainable_network(tmp_path / "nowhere")
