"""The architecture is exactly the one the tutorial states."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from cvae_support.config import Config
from cvae_support.latents import blend, class_grid
from cvae_support.layers import AdaLNResnetBlock, AdaptiveGroupNorm, ResnetBlock, SelfAttention
from cvae_support.models import VAE, count_parameters


@pytest.mark.parametrize(
    ("kind", "total", "decoder"), [("spatial", 3_099_273, 1_596_043), ("adaln", 3_804_195, 1_997_089)]
)
def test_parameter_counts_of_the_full_models(kind, total, decoder):
    model = VAE(Config(kind))
    assert count_parameters(model) == total
    assert count_parameters(model.decoder) == decoder


SIZES = [("spatial", 0), ("adaln", 4)]
ENCODER_SHAPES = [(32, 28), *[(64, 28)] * 2, (64, 14), *[(128, 14)] * 2, *[(128, 7)] * 6]
DECODER_SHAPES = [*[(128, 7)] * 6, (64, 7), *[(64, 14)] * 3, (32, 14), *[(32, 28)] * 3, *[(1, 28)] * 2]


@pytest.mark.parametrize("kind", ["unconditional", "spatial", "adaln"])
def test_every_intermediate_shape(kind):
    model = VAE(Config(kind))
    shapes = {"encoder": [], "decoder": [], "to_latent": []}
    for part in ("encoder", "decoder"):
        for layer in getattr(model, part).trunk:
            layer.register_forward_hook(lambda m, i, out, part=part: shapes[part].append(tuple(out.shape[1:3])))
    model.encoder.to_latent.register_forward_hook(lambda m, i, out: shapes["to_latent"].append(tuple(i[0].shape[1:])))
    recon, mu, log_var, z = model(torch.rand(2, 1, 28, 28), torch.tensor([0, 9]))
    assert shapes["encoder"] == ENCODER_SHAPES
    assert shapes["decoder"] == DECODER_SHAPES
    assert shapes["to_latent"] == [(129 if kind == "spatial" else 128, 7, 7)]
    assert recon.shape == (2, 1, 28, 28)
    assert mu.shape == log_var.shape == z.shape == (2, 1, 7, 7)
    assert model.decoder.trunk[0].in_channels == (2 if kind == "spatial" else 1)


def test_28_of_32_normalizations_are_modulated():
    modules = list(VAE(Config("adaln")).modules())
    modulated = [m for m in modules if isinstance(m, AdaptiveGroupNorm)]
    norms = [m for m in modules if isinstance(m, torch.nn.GroupNorm)]
    assert (len(modulated), len(norms)) == (28, 32)
    assert all(m.norm.num_groups == 8 and not m.norm.affine for m in modulated)
    assert sum(isinstance(m, AdaLNResnetBlock) for m in modules) == 14


def test_adaln_starts_as_plain_group_norm_and_not_as_the_identity():
    layer = AdaptiveGroupNorm(32, 16)
    h, cond = torch.randn(3, 32, 5, 5), torch.randn(3, 16)
    assert torch.equal(layer(h, cond), torch.nn.functional.group_norm(h, 8))
    block = AdaLNResnetBlock(32, 32, 16)
    assert torch.equal(block(h, cond), block(h, -cond))  # blind to the class at the start
    assert not torch.allclose(block(h, cond), h)


def test_adaln_formula():
    layer = AdaptiveGroupNorm(8, 4)
    torch.nn.init.normal_(layer.proj.weight)
    h, cond = torch.randn(2, 8, 3, 3), torch.randn(2, 4)
    gamma, beta = layer.proj(torch.nn.functional.silu(cond)).chunk(2, dim=1)
    normal = torch.nn.functional.group_norm(h, 2)
    expected = (1 + gamma)[..., None, None] * normal + beta[..., None, None]
    torch.testing.assert_close(layer(h, cond), expected)


@pytest.mark.parametrize("kind", ["spatial", "added", "adaln"])
def test_each_side_owns_its_embedding_and_the_encoder_can_be_blind(kind):
    seeing, blind = VAE(Config(kind, width=0.25)), VAE(Config(kind, width=0.25, encoder_sees_y=False))
    assert seeing.encoder.embed is not seeing.decoder.embed
    x = torch.rand(2, 1, 28, 28)
    for name, parameter in seeing.encoder.named_parameters():
        if "proj.weight" in name and "attention" not in name and parameter.ndim == 2:
            torch.nn.init.normal_(parameter)  # adaLN starts blind; a trained one is not
    one, other = torch.tensor([0, 0]), torch.tensor([1, 1])
    assert not torch.equal(seeing.encode(x, one)[0], seeing.encode(x, other)[0])
    assert torch.equal(blind.encode(x, one)[0], blind.encode(x, other)[0])


def test_the_sides_can_be_fed_in_two_ways():
    crossed = VAE(Config("spatial", width=0.25, encoder="adaln"))
    for own, other in ((crossed.encoder, VAE(Config("adaln", width=0.25)).encoder),
                       (crossed.decoder, VAE(Config("spatial", width=0.25)).decoder)):  # fmt: skip
        shapes = [{name: tensor.shape for name, tensor in side.state_dict().items()} for side in (own, other)]
        assert shapes[0] == shapes[1]
    recon, mu, _, _ = crossed(torch.rand(2, 1, 28, 28), torch.tensor([0, 9]))
    assert recon.shape == (2, 1, 28, 28) and mu.shape == (2, 1, 7, 7)


@pytest.mark.parametrize("kind", ["spatial", "added", "adaln", "mlp", "label-channel"])
def test_decode_takes_an_embedding_so_that_classes_can_be_blended(kind):
    model = VAE(Config(kind))
    half = model.embed(torch.tensor([3, 4])).mean(dim=0, keepdim=True)
    assert model.decode(torch.randn(1, 1, 7, 7), half).shape == (1, 1, 28, 28)


@pytest.mark.parametrize("kind", ["added", "mlp", "label-channel"])
def test_what_is_compared_sees_y_on_both_sides_and_keeps_the_shapes(kind):
    model = VAE(Config(kind)).eval()
    x, one, other = torch.rand(2, 1, 28, 28), torch.tensor([0, 0]), torch.tensor([1, 1])
    recon, mu, log_var, z = model(x, one)
    assert recon.shape == x.shape and mu.shape == log_var.shape == z.shape == (2, 1, 7, 7)
    assert not torch.equal(mu, model.encode(x, other)[0])
    assert not torch.equal(model.decode(z, model.embed(one)), model.decode(z, model.embed(other)))


def test_a_short_class_vector_brings_adaln_to_the_size_of_the_spatial_model():
    spatial, matched = (count_parameters(VAE(Config(kind, width=0.25, class_dim=dim))) for kind, dim in SIZES)
    assert 1 < matched / spatial < 1.03


def test_without_the_zero_start_the_label_has_a_way_in_from_the_first_step():
    one, other = torch.tensor([0]), torch.tensor([1])
    z = torch.randn(1, 1, 7, 7)
    for zero_init in (True, False):
        model = VAE(Config("adaln", width=0.125, zero_init=zero_init))
        assert torch.equal(model.decode(z, model.embed(one)), model.decode(z, model.embed(other))) == zero_init


def test_attention_can_run_in_a_fused_kernel():
    """Which on a large map saves the memory of all scores; torch has none for inputs without a dimension of heads.

    In the layout of training: of channels first the last stride is not one, and torch falls back.
    """
    attention, x = SelfAttention(32), torch.randn(2, 32, 7, 7).to(memory_format=torch.channels_last)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        fused = attention(x)
    with sdpa_kernel(SDPBackend.MATH):
        torch.testing.assert_close(fused, attention(x))


@pytest.mark.parametrize("width", [0.13, 0.3, 0.7, 1.1])
def test_the_width_multiplies_the_channels(width):
    assert Config(width=width).channels == tuple(int(channels * width) for channels in (32, 64, 128))


@pytest.mark.parametrize("width", [0.13, 0.3, 0.7, 1.1])
def test_any_width_leaves_four_channels_in_a_group(width):
    norms = [norm for norm in VAE(Config("adaln", width=width)).modules() if isinstance(norm, torch.nn.GroupNorm)]
    assert norms and all(norm.num_channels >= 4 * norm.num_groups and norm.num_groups <= 8 for norm in norms)


def test_a_block_of_fewer_than_four_channels_is_one_group():
    assert ResnetBlock(2, 3)(torch.randn(1, 2, 7, 7)).shape == (1, 3, 7, 7)


@pytest.mark.parametrize("side", [4, 8, 32, 36])
def test_any_image_side_that_is_a_multiple_of_four(side):
    model = VAE(Config("spatial", width=0.125, image_size=side))
    recon, mu, *_ = model(torch.rand(2, 1, side, side), torch.tensor([1, 2]))
    assert recon.shape == (2, 1, side, side)
    assert mu.shape == (2, 1, side // 4, side // 4)


@pytest.mark.filterwarnings("error")
def test_an_image_may_ask_for_a_gradient():
    x = torch.rand(1, 1, 28, 28, requires_grad=True)
    VAE(Config("unconditional", width=0.125)).encode(x)[0].sum().backward()
    assert x.grad.any()


def test_sampling_is_decided_by_the_generator():
    model = VAE(Config("adaln", width=0.125)).eval()
    y = torch.arange(10)
    first, again, other = (model.sample(y, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0 <= first.min() and first.max() <= 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.encode(torch.rand(2, 1, 27, 28), torch.tensor([0, 1])), r"x must be a \(B, 1, 28, 28\)"),
        (lambda m: m.encode(torch.zeros(2, 1, 28, 28, dtype=torch.uint8), torch.tensor([0, 1])), "uint8"),
        (lambda m: m.encode(torch.rand(2, 1, 28, 28)), "needs the labels"),
        (lambda m: m.encode(255 * torch.ones(1, 1, 28, 28), torch.tensor([0])), r"in \[0, 1\], got 255 .. 255"),
        (lambda m: m(torch.rand(2, 1, 28, 28), torch.tensor([0, 1]), torch.randn(1, 1, 7, 7)), "eps must have shape"),
        (lambda m: m.embed(torch.tensor([0, 10])), r"y must lie in 0 \.\. 9, got 0 \.\. 10"),
        (lambda m: m.sample(3), r"y must be a \(B,\) tensor"),
        (lambda m: m.embed(torch.tensor([0.0])), "int64 or int32, got torch.float32"),
        (lambda m: m.decode(torch.randn(1, 49), m.embed(torch.tensor([0]))), "z must have shape"),
        (lambda m: m.decode(torch.randn(1, 2, 7, 7), m.embed(torch.tensor([0]))), "z must have shape"),
        (lambda m: m.decode(torch.randn(1, 1, 7, 7)), "class embedding"),
        (
            lambda m: m.decode(torch.randn(1, 1, 7, 7), torch.tensor([3])),
            r"class embedding: decode\(z, model.embed\(y\)\)",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(VAE(Config("spatial", width=0.125)))


@pytest.mark.parametrize("kind", ["spatial", "added", "adaln", "mlp", "label-channel"])
def test_one_label_is_not_taken_for_all_images_of_a_batch(kind):
    model = VAE(Config(kind))
    with pytest.raises(ValueError, match="images and labels must be as many, got 3 and 1"):
        model(torch.rand(3, 1, 28, 28), torch.tensor([0]))
    with pytest.raises(ValueError, match="z and class embeddings must be as many, got 3 and 1"):
        model.decode(torch.randn(3, 1, 7, 7), model.embed(torch.tensor([0])))


@pytest.mark.parametrize("kind", ["spatial", "adaln", "label-channel"])
def test_a_wrong_class_is_caught_wherever_the_model_is(kind):
    """Labels on the CPU are looked at before they move to the model's device; meta stands for a GPU."""
    with torch.device("meta"):
        model = VAE(Config(kind, width=0.125)).eval()
    z = torch.empty(1, 1, 7, 7, device="meta")
    for call in (
        lambda y: model.embed(torch.tensor([y])),
        lambda y: model.sample(torch.tensor([y])),
        lambda y: blend(model, 0, y, torch.ones(1), z),
    ):
        assert call(9).device.type == "meta"
        with pytest.raises(ValueError, match=r"y must lie in 0 \.\. 9, got 10"):
            call(10)
    assert class_grid(model, 1, seed=0).device.type == "meta"


@pytest.mark.parametrize("kind", ["unconditional", "spatial", "adaln"])
def test_a_pass_is_one_graph_for_the_compiler(kind):
    model = VAE(Config(kind, width=0.125)).eval()
    inputs = torch.rand(2, 1, 28, 28), torch.tensor([0, 9]), torch.randn(2, 1, 7, 7)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(*inputs)[0], model(*inputs)[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(model="concat"), "model must be one of"),
        (dict(recipe="slow"), "recipe must be one of"),
        (dict(schedule="steps"), "schedule must be one of"),
        (dict(ema_decay=1.0), "ema_decay must be 0 or more and below 1, got 1.0"),
        (dict(learning_rate=float("inf")), "learning_rate must be positive and finite, got inf"),
        (dict(image_size=30), "multiple of 4"),
        (dict(width=0.05), "width must lie in 0.125 .. 64"),
        (dict(epochs=0), "epochs must be positive"),
        (dict(epochs=20.0), "epochs must be a whole number, got 20.0"),
        (dict(width="wide"), "width must be a number, got 'wide'"),
        (dict(width=True), "width must be a number, got True"),
        (dict(encoder_sees_y="no"), "encoder_sees_y must be True or False, got 'no'"),
        (dict(model="unconditional", encoder_sees_y=False), "no blind encoder"),
        (dict(batch_size="32"), "batch_size must be a whole number, got '32'"),
        (dict(seed=True), "seed must be a whole number, got True"),
        (dict(kl_weight=-1), "kl_weight must be finite and not negative, got -1"),
        (dict(kl_weight=float("nan")), "kl_weight must be finite and not negative, got nan"),
        (dict(class_dim=4), "belong to the model"),
        (dict(zero_init=False), "belong to the model"),
        (dict(model="adaln", class_dim=-1), "class_dim must lie in 0 .. 8192, got -1"),
        (dict(model="adaln", class_dim=10**30), "class_dim must lie in 0 .. 8192"),
        (dict(model="mlp", encoder_sees_y=False), "no blind encoder"),
        (dict(encoder="concat"), "encoder and model must be two of spatial, added, adaln, got 'concat', 'spatial'"),
        (dict(encoder="spatial"), "encoder and model must be two of"),
        (dict(model="mlp", encoder="adaln"), "encoder and model must be two of"),
        (
            dict(encoder="adaln", encoder_sees_y=False),
            "encoder must be \"\" where encoder_sees_y is False, got 'adaln'",
        ),
        (dict(model="mlp", width=0.25), "no channels to multiply: width must be 1, got 0.25"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Config(**changes)


def test_a_whole_number_of_numpys_is_one():
    assert Config(epochs=np.int64(3), width=np.float32(0.5)) == Config(epochs=3, width=0.5)


def test_a_recipe_fills_in_what_is_left_out_and_nothing_else():
    plain, fast, mixed = Config(), Config(recipe="fast"), Config(recipe="fast", epochs=7, ema_decay=0.0)
    assert (plain.epochs, plain.batch_size, plain.learning_rate) == (100, 256, 1e-3)
    assert plain.schedule == "constant" and plain.ema_decay == 0
    assert (mixed.epochs, mixed.ema_decay) == (7, 0) and mixed.batch_size == fast.batch_size != plain.batch_size
    assert Config(recipe="fast", epochs=fast.epochs).fingerprint == fast.fingerprint
