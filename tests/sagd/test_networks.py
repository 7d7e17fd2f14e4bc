"""Networks of our own: the U-Net is diffusers' to the bit, folders go both ways, nothing imports diffusers."""

import inspect
import json
import subprocess
import sys

import pytest
import torch
from diffusers import UNet2DModel as Theirs
from diffusers.models import embeddings
from diffusers.models.attention import FeedForward
from diffusers.models.modeling_outputs import Transformer2DModelOutput

from sagd.errors import InputError
from sagd.networks import weights
from sagd.networks.dit import DiTDH, dit
from sagd.networks.unet import FIXED, UNet2DModel, unet

SMALL = {"size": (8, 8), "channels": 1, "widths": [8, 16], "layers": 1, "attention": [False, False], "groups": 4}
UNETS = {
    "no attention": SMALL,
    "attention": SMALL | {"attention": [True, True]},
    "attention at the top only": SMALL | {"channels": 3, "attention": [True, False]},
    "classes": SMALL | {"classes": 5, "attention": [False, True]},
    "odd widths": {"size": (12, 12), "widths": [15, 25, 20], "groups": 5, "channels": 3, "layers": 2,
                   "attention": [False, True, True]},
    "two layers, oblong": SMALL | {"size": (8, 16), "channels": 2, "layers": 2, "attention": [False, True]},
    "one level": SMALL | {"size": (7, 7), "widths": [8], "attention": [True]},
}  # fmt: skip
PAPER = {"widths": [32, 64, 128, 256], "layers": 2, "attention": [False, True, True, True], "groups": 32}
TINY_DIT = {
    "size": (4, 4),
    "channels": 2,
    "classes": 3,
    "patch": 2,
    "widths": [16, 32],
    "depths": [2, 1],
    "heads": [2, 2],
}


def theirs_like(ours: UNet2DModel) -> Theirs:
    """diffusers' network of the same settings, built anew."""
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in ours.config.items() if k != "_class_name"}
    return Theirs(**settings)


def inputs(network, size, batch, layout=torch.contiguous_format):
    """A batch, its times and its labels."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn((batch, network.config["in_channels"], *size), generator=g).to(memory_format=layout)
    t = 1000 * torch.rand(batch, generator=g)
    classes = weights.classes_of(network)
    return x, t, torch.randint(0, classes + 1, (batch,), generator=g) if classes else None


def everything(network, x, t, labels):
    """Output, and the gradients of the input and of every weight."""
    x = x.clone().requires_grad_()
    found = weights.predictor(network, labels)(x, t)
    (found.square().mean() + found.sin().mean()).backward()
    return [found, x.grad, *(p.grad for p in network.parameters())]


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("case", UNETS.values(), ids=UNETS)
def test_unet_is_diffusers_to_the_bit(case, training):
    torch.manual_seed(1)
    ours = unet(**case).train(training)
    torch.manual_seed(1)
    theirs = theirs_like(ours).train(training)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
    given = inputs(ours, case["size"], batch=3)
    assert all(map(torch.equal, everything(ours, *given), everything(theirs, *given)))


@pytest.mark.parametrize("batch", [2, 64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["rows", "channels_last"])
def test_unet_is_diffusers_in_every_layout(layout, batch):
    ours = unet(**UNETS["attention"]).to(memory_format=layout)
    theirs = theirs_like(ours).to(memory_format=layout)
    theirs.load_state_dict(ours.state_dict())
    given = inputs(ours, (8, 8), batch, layout)
    a, b = everything(ours, *given), everything(theirs, *given)
    assert all(map(torch.equal, a, b))
    assert [v.stride() for v in a] == [v.stride() for v in b]


def test_unet_is_diffusers_in_bfloat16():
    ours = unet(**UNETS["classes"])
    theirs = theirs_like(ours)
    theirs.load_state_dict(ours.state_dict())
    given = inputs(ours, (8, 8), batch=3)
    with torch.autocast("cpu", torch.bfloat16):
        found = [weights.predictor(network, given[2])(*given[:2]) for network in (ours, theirs)]
    assert found[0].dtype == torch.bfloat16
    assert torch.equal(*found)


def test_one_time_serves_a_batch():
    network = unet(**SMALL)
    x, *_ = inputs(network, (8, 8), batch=3)
    assert torch.equal(network(x, 7), network(x, torch.full((3,), 7)))


@pytest.mark.parametrize("case", UNETS.values(), ids=UNETS)
def test_folders_go_to_diffusers_and_back(case, tmp_path):
    ours = unet(**case).eval()
    x, t, labels = inputs(ours, case["size"], batch=2)
    weights.save(tmp_path / "ours", ours)
    assert sorted(p.name for p in (tmp_path / "ours").iterdir()) == [weights.CONFIG, weights.WEIGHTS]
    theirs = Theirs.from_pretrained(tmp_path / "ours", use_safetensors=True)
    theirs.save_pretrained(tmp_path / "theirs")
    weights.save(tmp_path / "theirs, saved by us", theirs)
    expected = ours(x, t, labels)
    assert torch.equal(theirs(x, t, labels).sample, expected)
    # What is read back needs no gradients; for that some processors take another kernel, which rounds otherwise.
    expected = ours.requires_grad_(False)(x, t, labels)
    for folder in ("ours", "theirs", "theirs, saved by us"):
        assert torch.equal(weights.load(tmp_path / folder)(x, t, labels), expected)

    def config(folder):
        return json.loads((tmp_path / folder / weights.CONFIG).read_text())

    notes = {"_diffusers_version", "_name_or_path"}
    assert {k: v for k, v in config("theirs").items() if k not in notes} == config("ours")
    assert config("theirs, saved by us") == config("ours")


def test_every_setting_of_diffusers_has_its_default_here():
    """A setting that a release of diffusers adds or changes shows here."""

    def defaults(function):
        return {k: p.default for k, p in inspect.signature(function).parameters.items() if k != "self"}

    assert defaults(Theirs.__init__) == defaults(UNet2DModel.__init__) | FIXED


@pytest.mark.parametrize("make", [lambda: unet(**UNETS["classes"]), lambda: dit(**TINY_DIT)], ids=["unet", "dit"])
def test_a_folder_is_the_same_bytes_each_time(make, tmp_path):
    for name in ("a", "b"):
        torch.manual_seed(0)
        network = make()
        weights.save(tmp_path / name, network)
    for file in (weights.CONFIG, weights.WEIGHTS):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    config = json.loads((tmp_path / "a" / weights.CONFIG).read_text())
    assert list(config) == list(network.config) == sorted(config)


@pytest.mark.parametrize(("channels", "count"), [(1, 15_890_753), (3, 15_891_907)])
def test_the_papers_unet_has_as_many_parameters(channels, count):
    network = unet((32, 32), channels, **PAPER)
    assert sum(p.numel() for p in network.parameters()) == count


def test_dit_dh_s_has_196_million_parameters():
    with torch.device("meta"):
        network = dit((16, 16), 768, 1000, patch=1, widths=[384, 2048], depths=[12, 2], heads=[6, 16])
    assert sum(p.numel() for p in network.parameters()) == 196_455_764


def filled_dit():
    """A small DiT^DH whose output, unlike at first, depends on all that it is given."""
    network, g = dit(**TINY_DIT), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            if p.requires_grad:
                p.copy_(0.15 * torch.randn(p.shape, generator=g))
    return network


def test_a_seed_gives_a_dit_its_golden_weights():
    torch.manual_seed(0)
    weights_of = dit(**TINY_DIT).state_dict()
    golden = {
        "time_frequencies.weight": 216.43250,
        "body.1.qkv.weight": 96.49555,
        "head.0.mlp.net.2.weight": 148.92631,
        "label_embed.weight": 1.14633,
    }
    assert {name: weights_of[name].abs().sum().item() for name in golden} == pytest.approx(golden, rel=1e-5)


def test_a_dit_has_its_golden_output_and_gradients():
    torch.manual_seed(0)
    network = filled_dit()
    found, _, *gradients = everything(network, *inputs(network, (4, 4), batch=2))
    rows = [[0.5009, -0.3932, 0.5996, -0.4275], [0.8701, -0.0786, 0.8468, -0.1355]]
    torch.testing.assert_close(found[0, 1, [0, 3]].detach(), torch.tensor(rows), atol=2e-4, rtol=0)
    assert sum(v.abs().sum() for v in gradients if v is not None).item() == pytest.approx(238.212, rel=1e-4)


def test_a_dit_hears_time_and_label():
    network = filled_dit()
    x, t, _ = inputs(network, (4, 4), batch=2)
    first, second, none = (torch.full((2,), label) for label in (0, 1, 3))
    assert not torch.allclose(network(x, t, first), network(x, 0.5 * t, first), atol=1e-2)
    assert not torch.allclose(network(x, t, first), network(x, t, second), atol=1e-2)
    assert torch.equal(network(x, t), network(x, t, none))


def test_parts_of_a_dit_are_diffusers():
    """Positions, rotations, Fourier features, time embedding and SwiGLU: same names of weights, same bits."""
    side, width, heads = 6, 48, 2
    network = dit((side, side), 3, 0, patch=1, widths=[width, 2 * width], depths=[1, 1], heads=[heads, heads])
    assert torch.equal(network.position[0], embeddings.get_2d_sincos_pos_embed(width, side).float())
    cos, sin = embeddings.get_2d_rotary_pos_embed(width // heads, ((0, 0), (side, side)), (side, side))
    assert torch.equal(network.body_cos, cos)
    assert torch.equal(network.body_sin, sin)
    g = torch.Generator().manual_seed(0)
    frequencies = len(network.time_frequencies.weight)
    for part, theirs, given in (
        (network.time_frequencies, embeddings.GaussianFourierProjection(frequencies, log=False), (5,)),
        (network.time_embed, embeddings.TimestepEmbedding(2 * frequencies, width), (5, 2 * frequencies)),
        (network.body[0].mlp, FeedForward(width, inner_dim=128, activation_fn="swiglu"), (5, width)),
    ):
        theirs.load_state_dict(part.state_dict())
        x = torch.randn(given, generator=g)
        assert torch.equal(part(x), theirs(x))


def test_a_dit_is_read_back(tmp_path):
    network = filled_dit().eval().requires_grad_(False)
    weights.save(tmp_path, network)
    again = weights.load(tmp_path)
    given = inputs(network, (4, 4), batch=2)
    assert torch.equal(again(*given), network(*given))
    assert again.config == network.config
    assert not any(p.requires_grad for p in again.parameters())


def test_a_dit_without_labels_takes_none():
    network = dit(**TINY_DIT | {"classes": 0})
    x, t, labels = inputs(network, (4, 4), batch=2)
    assert labels is None
    assert network(x, t).shape == x.shape
    with pytest.raises(InputError, match="knows none"):
        network(x, t, torch.zeros(2, dtype=torch.int64))


MADE = {
    "unet": lambda: unet(**SMALL | {"attention": [True, True], "classes": 3}),
    "dit": lambda: awake(dit(**TINY_DIT)),
}


def awake(network):
    """A transformer whose modulations have left zero, so that all weights have gradients."""
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return network


@pytest.mark.parametrize("name", MADE)
def test_checkpointing_computes_blocks_again_and_changes_no_bit(name):
    torch.manual_seed(0)
    network = MADE[name]().train()
    given = inputs(network, (8, 8) if name == "unet" else (4, 4), 3)
    runs = []
    for module in network.modules():
        if type(module).__name__ in ("Block", "Residual", "Attention"):
            module.register_forward_pre_hook(lambda *_: runs.append(1))

    def counted():
        runs.clear()
        return everything(network, *given), len(runs)

    plain, once = counted()
    network.enable_gradient_checkpointing()
    checkpointed, twice = counted()
    network.disable_gradient_checkpointing()
    _, after = counted()
    assert (twice, after) == (2 * once, once)
    for found, expected in zip(checkpointed, plain, strict=True):
        assert found is expected is None or torch.equal(found, expected)  # places have no gradient


@pytest.mark.parametrize("name", MADE)
def test_a_network_saves_itself_and_is_read_back_ready_to_train(name, tmp_path):
    network = MADE[name]()
    network.save_pretrained(str(tmp_path))
    again = type(network).from_pretrained(tmp_path)
    assert not again.training and again.config == network.config
    for (key, p), (other, q) in zip(network.named_parameters(), again.named_parameters(), strict=True):
        assert (key, p.requires_grad) == (other, q.requires_grad) and torch.equal(p, q)
    wrong = DiTDH if name == "unet" else UNet2DModel
    with pytest.raises(InputError, match=f"holds a {type(network).__name__}, not a {wrong.__name__}"):
        wrong.from_pretrained(tmp_path)


@pytest.mark.parametrize("labels", [None, torch.tensor([1, 2])], ids=["no labels", "labels"])
def test_predictor_takes_the_answer_of_any_network(labels):
    class Network(torch.nn.Module):
        def __init__(self, wrap):
            super().__init__()
            self.wrap = wrap

        def forward(self, sample, timestep, class_labels=None):
            return self.wrap(sample + timestep + (0 if class_labels is None else class_labels))

    x, t = torch.zeros(2), torch.tensor([3.0, 4.0])
    expected = t if labels is None else t + labels
    for wrap in (lambda v: v, lambda v: (v,), lambda v: Transformer2DModelOutput(sample=v)):
        assert torch.equal(weights.predictor(Network(wrap), labels)(x, t), expected)


def test_classes_of_a_network():
    labelled = unet(**UNETS["classes"])
    networks = [unet(**SMALL), labelled, theirs_like(labelled), dit(**TINY_DIT), dit(**TINY_DIT | {"classes": 0})]
    assert [weights.classes_of(network) for network in networks] == [0, 5, 5, 3, 0]


def test_diffusers_is_not_imported():
    names = "sagd.networks.dit, sagd.networks.unet, sagd.networks.weights"
    program = f"import sys, {names}; sys.exit('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"act_fn": "gelu"}, "act_fn is 'gelu'; UNet2DModel allows only 'silu' here"),
        ({"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]}, "down_block_types .*SkipDownBlock2D.*AttnDown"),
        ({"up_block_types": ["UpBlock2D"]}, "up_block_types is .* for each of block_out_channels"),
        ({"mid_block_type": None}, "mid_block_type is None; .* 'UNetMidBlock2D'"),
        ({"attention_head_dim": None}, "attention_head_dim is None; allowed are whole numbers"),
        ({"block_out_channels": [8, "16"]}, "block_out_channels is .* whole numbers"),
        ({"block_out_channels": [4, 4]}, "attention needs a width of at least 8"),
        ({"colour": "red"}, "colour is no setting of UNet2DModel"),
        ({"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel.*UNet2DModel"),
        ({"norm_num_groups": 3}, "norm_num_groups is 3; it must divide"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_config_that_asks_for_more_is_refused(changed, says, tmp_path):
    network = unet(**SMALL)
    weights.save(tmp_path, network)
    (tmp_path / weights.CONFIG).write_text(json.dumps(network.config | changed))
    with pytest.raises(InputError, match=says) as refusal:
        weights.load(tmp_path)
    assert str(tmp_path / weights.CONFIG) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_notes_of_diffusers_and_missing_settings_are_accepted():
    config = unet(**SMALL).config | {"_diffusers_version": "0.42.1", "_use_default_values": ["dropout"]}
    del config["dropout"], config["attention_head_dim"], config["_class_name"]
    assert UNet2DModel.from_config(config).config == unet(**SMALL).config


def test_weights_that_do_not_fit_are_refused(tmp_path):
    weights.save(tmp_path, unet(**SMALL), unet(**SMALL | {"channels": 3}).state_dict() | {"more": torch.zeros(1)})
    with pytest.raises(InputError, match="does not fit"):
        weights.load(tmp_path)


@pytest.mark.parametrize(
    ("build", "changed", "says"),
    [
        (unet, {"size": (9, 8)}, "2 levels need a resolution that 2 divides; it is 9x8"),
        (unet, {"groups": 3}, r"groups is 3; it must divide every one of widths \[8, 16\]"),
        (unet, {"attention": [True]}, "attention has 1 entries; widths has 2"),
        (unet, {"widths": []}, r"widths is \[\]; allowed are whole numbers"),
        (dit, {"size": (4, 8)}, "square images; these are 4x8"),
        (dit, {"patch": 3}, "patch_size is 3; it must divide the resolution, 4"),
        (dit, {"widths": [18, 32]}, "a width of 18 is no multiple of 4 times its 2 heads"),
        (dit, {"depths": [1]}, r"depths is \[1\]; it must have two entries"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_networks_that_cannot_be_built_are_refused(build, changed, says):
    with pytest.raises(InputError, match=says):
        build(**({unet: SMALL, dit: TINY_DIT}[build] | changed))


@pytest.mark.parametrize(
    ("build", "changed", "says"),
    [
        (unet, {"attention": ["no", False]}, "an entry of attention is 'no'; it must be True or False"),
        (unet, {"attention": None}, "attention is None; it must be a list"),
        (unet, {"widths": 8}, "widths is 8; it must be a list"),
        (unet, {"size": 8}, r"size is 8; it must be \(H, W\)"),
        (dit, {"size": 8}, r"size is 8; it must be \(H, W\)"),
        (dit, {"size": None}, "size is None"),
        (dit, {"heads": 2}, "heads is 2; it must be a list"),
    ],
)
def test_the_kind_of_each_setting_is_checked(build, changed, says):
    with pytest.raises(InputError, match=says):
        build(**{unet: SMALL, dit: TINY_DIT}[build] | changed)


@pytest.mark.parametrize("make", [lambda: unet(**SMALL), lambda: dit(**TINY_DIT | {"channels": 1})])
def test_one_time_is_that_of_each_image_whatever_the_default_dtype(make, monkeypatch):
    """In bfloat16 300.993 is 300."""
    network, t = make().eval(), 300.993
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) / 10)
        x = torch.ones(2, 1, *(SMALL["size"] if hasattr(network, "conv_in") else TINY_DIT["size"]))
        wanted = network(x, torch.tensor([t, t]))
        assert torch.equal(network(x, torch.tensor(t)), wanted)
        torch.set_default_dtype(torch.bfloat16)
        try:
            assert torch.equal(network(x, t), wanted)
        finally:
            torch.set_default_dtype(torch.float32)


def test_a_folder_may_be_named_by_text(tmp_path):
    network = unet(**SMALL)
    weights.save(str(tmp_path), network)
    assert torch.equal(weights.load(str(tmp_path)).conv_in.weight, network.conv_in.weight)


@pytest.mark.parametrize("classes", [0, 5])
def test_labels_where_a_unet_wants_none_or_the_other_way_are_refused(classes):
    network = unet(**SMALL, classes=classes)
    x, t, _ = inputs(network, (8, 8), batch=2)
    with pytest.raises(InputError, match="class_labels"):
        network(x, t, None if classes else torch.zeros(2, dtype=torch.int64))
