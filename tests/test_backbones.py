"""Every backbone maps (N, C, H, W) to (N, num_outputs), or says before a trial why it cannot."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from tunekit.backbones import backbone_names, backbones, build_model, check_backbone, register_backbone
from tunekit.datasets.base import Dataset
from tunekit.errors import ConfigError, UnknownNameError
from tunekit.layers import describe
from tunekit.small_cnns import SMALL

SMALLEST_PX = {"mlp": 8, "cnn": 8, "cnn_small": 8, "lenet": 12, "cifar_net": 16}
FAMILIES = {  # one member each, and the smallest image it takes, in px
    "alexnet": 63, "convnext_tiny": 32, "densenet121": 29, "efficientnet_b0": 8, "efficientnet_v2_s": 8,
    "googlenet": 15, "inception_v3": 75, "maxvit_t": 221, "mnasnet0_5": 8, "mobilenet_v2": 8,
    "mobilenet_v3_small": 8, "regnet_y_400mf": 8, "resnet18": 8, "resnext50_32x4d": 8, "shufflenet_v2_x0_5": 8,
    "squeezenet1_1": 17, "swin_t": 8, "swin_v2_t": 8, "vgg11_bn": 32, "vit_b_16": 16, "wide_resnet50_2": 8,
}  # fmt: skip


def make_config(backbone, **changed):
    return {"backbone": backbone, "image_size": None, "dropout": None, "pretrained": False, "freeze": None, **changed}


def make_dataset(size=28, channels=1, outputs=10, mean=5.5):
    """A description without data; one output means regression."""
    regression = outputs == 1
    return Dataset(
        name="none", task="regression" if regression else "classification", image_shape=(channels, size, size),
        classes=() if regression else tuple(map(str, range(outputs))), mean=(0.5,) * channels, std=(0.25,) * channels,
        target_mean=mean if regression else 0.0, target_std=1.0, num_images={}, fingerprint="",
    )  # fmt: skip


@pytest.mark.parametrize("name", [function.__name__ for function in SMALL])
@pytest.mark.parametrize("channels", [1, 3])
def test_registered_backbones_map_images_to_outputs(name, channels):
    for size in (8, 28, 32, 64):
        dataset = make_dataset(size, channels)
        if size < SMALLEST_PX[name]:
            with pytest.raises(ConfigError, match=f"cannot take images of {size} x {size} px.* {SMALLEST_PX[name]} px"):
                check_backbone(make_config(name), dataset)
            continue
        for outputs in (1, 2, 10):
            check_backbone(make_config(name), make_dataset(size, channels, outputs))
        images = torch.randn(3, channels, size, size).contiguous(memory_format=torch.channels_last)
        assert build_model(make_config(name), make_dataset(size, channels))(images).shape == (3, 10)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_torchvision_family_takes_its_smallest_image(name):
    check_backbone(make_config(name), make_dataset(FAMILIES[name], channels=1, outputs=1))
    check_backbone(make_config(name, dropout=0.3, image_size=FAMILIES[name]), make_dataset(8, channels=3, outputs=7))


@pytest.mark.parametrize("name", ["alexnet", "squeezenet1_1", "vgg11_bn", "vit_b_16"])
def test_a_smaller_image_is_refused_with_the_size_to_take(name):
    smallest = FAMILIES[name]
    with pytest.raises(ConfigError, match=f"{name}.* cannot take images of .* {smallest} px: set image_size"):
        check_backbone(make_config(name), make_dataset(smallest - 1))


@pytest.mark.parametrize("name", ["squeezenet1_1", "shufflenet_v2_x0_5"])
def test_torchvision_models_give_a_plain_tensor_in_training(name):
    model = build_model(make_config(name, dropout=0.1), make_dataset(32, outputs=3)).train()
    output = model(torch.randn(2, 1, 32, 32).contiguous(memory_format=torch.channels_last))
    output.sum().backward()
    assert output.shape == (2, 3)
    assert all(value.grad is not None for value in model.parameters())


TEXTBOOK = [
    ("lenet", 28, 1, 61_706),
    ("mlp", 28, 1, 101_770),
    ("cifar_net", 32, 3, 62_006),
    ("cnn", 28, 1, 320 + 64 + 18_496 + 128 + 3136 * 512 + 512 + 5130),
    ("cnn_small", 28, 1, 160 + 4640 + 1568 * 512 + 512 + 5130),
]


@pytest.mark.parametrize(("name", "size", "channels", "count"), TEXTBOOK)
def test_small_models_are_those_of_the_textbooks(name, size, channels, count):
    assert describe(make_config(name), make_dataset(size, channels))[-1].num_parameters == count


@pytest.mark.parametrize("name", ["cnn", "cnn_small", "cifar_net"])
def test_pooling_before_relu_changes_no_bit(name):
    """The textbooks have them the other way round; the outputs and all gradients are to be the same."""
    torch.manual_seed(0)
    model = build_model(make_config(name), make_dataset(32, 3))
    textbook = copy.deepcopy(model)
    layers = list(textbook.backbone)
    for at, layer in enumerate(layers[:-1]):
        if isinstance(layer, nn.MaxPool2d):
            assert isinstance(layers[at + 1], nn.ReLU)
            layers[at : at + 2] = [nn.ReLU(), nn.MaxPool2d(2)]
    textbook.backbone = nn.Sequential(*layers)
    images = torch.randint(0, 3, (16, 3, 32, 32)).float() - 1  # few values: many windows hold their maximum twice
    outputs = [each(images) for each in (model, textbook)]
    for output in outputs:
        output.square().sum().backward()
    assert torch.equal(*outputs)
    assert all(
        torch.equal(one.grad, other.grad) for one, other in zip(model.parameters(), textbook.parameters(), strict=True)
    )


@pytest.mark.parametrize("name", ["cnn", "cnn_small", "lenet"])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_gradients_come_back_in_the_layout_of_the_images_and_are_those_of_torchs_flatten(name, layout):
    torch.manual_seed(0)
    model = build_model(make_config(name, dropout=0.0), make_dataset(32, 3)).to(memory_format=layout)
    usual = copy.deepcopy(model)
    usual.backbone[-1] = nn.Flatten()
    images = torch.randn(16, 3, 32, 32).contiguous(memory_format=layout)
    layouts = []
    for each in (model, usual):
        each.backbone[-2].register_full_backward_hook(
            lambda layer, inputs, outputs: layouts.append(outputs[0].is_contiguous(memory_format=layout))
        )
        each(images).square().sum().backward()
    assert layouts == [True, layout == torch.contiguous_format]
    for one, other in zip(model.parameters(), usual.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_resnet18_gets_a_new_head_and_one_channel():
    model = build_model(make_config("resnet18"), make_dataset(32))
    assert sum(value.numel() for value in model.parameters()) == 11_689_512 - 513_000 + 5_130 - 2 * 64 * 49
    assert model.conv1.weight.shape == (64, 1, 7, 7)


def test_regression_starts_from_the_mean_of_the_targets():
    for name in ("mlp", "lenet", "squeezenet1_1", "resnet18"):
        bias = [value for key, value in build_model(make_config(name), make_dataset(32, outputs=1)).named_parameters()][
            -1
        ]
        assert bias.tolist() == [5.5]


def test_dropout_is_that_of_the_config_or_the_backbones_own():
    def rates(name, dropout):
        model = build_model(make_config(name, dropout=dropout), make_dataset(32))
        return [part.p for part in model.modules() if isinstance(part, nn.Dropout)]

    assert rates("mlp", None) == [0.5] and rates("mlp", 0.2) == [0.2]
    assert rates("cnn", None) == [0.0] and rates("cnn", 0.2) == [0.2]
    assert rates("resnet18", None) == [] and rates("resnet18", 0.2) == [0.2]
    assert rates("squeezenet1_1", None) == [0.5] and rates("squeezenet1_1", 0.1) == [0.1]


@pytest.mark.parametrize(("name", "head"), [("cnn", "head."), ("resnet18", "fc."), ("googlenet", "fc.")])
def test_freezing_leaves_only_the_head_to_train(name, head):
    model = build_model(make_config(name, freeze="backbone", dropout=0.5), make_dataset(32))
    model = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert {key for key, value in model.named_parameters() if value.requires_grad} == {
        key for key, _ in model.named_parameters() if key.startswith(head)
    }
    before = copy.deepcopy(model.state_dict())
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(4, 1, 32, 32)).square().sum().backward()
    assert any(part.training for part in model.modules() if isinstance(part, nn.Dropout))
    optimizer.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and all(key.startswith(head) for key in changed)
    assert torch.equal(*(model.eval()(torch.ones(4, 1, 32, 32)) for _ in range(2)))


def test_freezing_needs_something_to_freeze():
    with pytest.raises(ConfigError, match="leaves nothing frozen"):
        build_model(make_config(lambda config, dataset: nn.Linear(4, 2), freeze="backbone"), make_dataset())


def test_a_model_of_the_users_own_by_function_and_by_name():
    def own(config, dataset):
        return nn.Sequential(
            nn.Flatten(), nn.LazyLinear(config["width"]), nn.Linear(config["width"], dataset.num_outputs)
        )

    config = make_config(own, width=16, image_size=12)
    check_backbone(config, make_dataset())
    assert build_model(config, make_dataset())(torch.zeros(2, 1, 12, 12)).shape == (2, 10)
    assert describe(config, make_dataset())[-1].num_parameters == 144 * 16 + 16 + 170

    register_backbone("test_own")(own)
    assert "test_own" in backbone_names()
    check_backbone(make_config("test_own", width=4), make_dataset())
    with pytest.raises(ConfigError, match="registered already"):
        register_backbone("mlp")(own)
    del backbones._things["test_own"]


def test_a_faulty_model_is_told_before_any_trial():
    def fails(config, dataset):
        raise KeyError("width")

    with pytest.raises(ConfigError, match=r"'fails' failed on images of \(1, 28, 28\): KeyError: 'width'"):
        check_backbone(make_config(fails), make_dataset())
    with pytest.raises(ConfigError, match=r"must return a tensor \(N, 10\), but gave \(2, 784\)"):
        check_backbone(make_config(lambda config, dataset: nn.Flatten()), make_dataset())
    with pytest.raises(UnknownNameError, match="unknown backbone 'resnet19': did you mean 'resnet1"):
        check_backbone(make_config("resnet19"), make_dataset())
    with pytest.raises(UnknownNameError, match="unknown backbone 'lennet': did you mean 'lenet'"):
        build_model(make_config("lennet"), make_dataset())
    with pytest.raises(ConfigError, match="'cnn' has no pretrained weights"):
        check_backbone(make_config("cnn", pretrained=True), make_dataset())


def test_images_that_are_not_square():
    dataset = Dataset(**{**vars(make_dataset()), "image_shape": (1, 24, 40)})
    for name in ("mlp", "cnn", "cnn_small", "lenet", "cifar_net", "resnet18"):
        assert build_model(make_config(name), dataset)(torch.zeros(2, 1, 24, 40)).shape == (2, 10)
    with pytest.raises(ConfigError, match="'vit_b_16' takes square images only"):
        check_backbone(make_config("vit_b_16"), dataset)


def test_describe_lists_layers_as_they_run():
    rows = describe(make_config("lenet", image_size=28), make_dataset(8))
    assert [(row.type, row.output_shape, row.num_parameters) for row in rows if row.num_parameters] == [
        ("Conv2d", (6, 28, 28), 156),
        ("Conv2d", (16, 10, 10), 2416),
        ("Linear", (120,), 48_120),
        ("Linear", (84,), 10_164),
        ("Linear", (10,), 850),
        ("Sequential", (10,), 61_706),
    ]
    for name in ("vit_b_16", "swin_t", "convnext_tiny"):  # parameters that lie outside the layers are counted too
        rows = describe(make_config(name), make_dataset(32, channels=3))
        assert sum(row.num_parameters for row in rows[:-1]) == rows[-1].num_parameters


@pytest.fixture
def hub(tmp_path):
    """An empty cache for pretrained weights."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    yield tmp_path / "checkpoints"
    torch.hub.set_dir(before)


def test_pretrained_weights_for_grey_images(hub):
    from torchvision.models import squeezenet1_1

    trained = squeezenet1_1().eval()
    torch.save(trained.state_dict(), hub / "squeezenet1_1-b8a52dc0.pth")  # the name torchvision looks for
    grey, colour = make_dataset(64), make_dataset(64, channels=3)
    config = make_config("squeezenet1_1", pretrained=True)
    check_backbone(config, grey)
    images = torch.randn(2, 1, 64, 64)
    features = [build_model(config, dataset).eval().features for dataset in (grey, colour)]
    want = trained.features(images.expand(2, 3, 64, 64))
    assert torch.allclose(features[0](images), want, rtol=1e-3, atol=1e-4 * want.abs().max().item())
    assert torch.equal(features[1](images.expand(2, 3, 64, 64)), want)


@pytest.mark.long  # writes 350 MB
def test_pretrained_vit_at_another_image_size(hub):
    from torchvision.models import vit_b_32

    torch.save(vit_b_32().state_dict(), hub / "vit_b_32-d86f8d99.pth")
    model = build_model(make_config("vit_b_32", pretrained=True, image_size=64), make_dataset(28, channels=3))
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 10)


def test_pretrained_weights_that_cannot_be_downloaded(hub, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(ConfigError, match=r"'resnet18' could not be downloaded .*checkpoints/resnet18-f37072fd\.pth"):
        check_backbone(make_config("resnet18", pretrained=True), make_dataset(32))


def test_a_small_backbone_is_checked_without_torchs_algebra_of_shapes():
    """Which takes longer to import than all else that a check does."""
    script = (
        "import sys, numpy, tunekit.backbones as backbones; from tunekit.datasets.base import Dataset\n"
        "dataset = Dataset.from_arrays(train=(numpy.zeros((100, 28, 28), 'u1'), numpy.arange(100) % 10))\n"
        f"backbones.check_backbone({make_config('cnn')}, dataset); sys.exit('sympy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("size", [28, 224])
def test_a_check_takes_none_of_the_callers_random_numbers(size):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    check_backbone(make_config("cnn"), make_dataset(size))
    assert torch.equal(torch.rand(1), expected)


def test_torchvision_is_imported_only_when_asked_for():
    code = "import sys, tunekit.backbones; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_model_of_ones_own_with_lazy_layers():
    def lazy(config, dataset):
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, dataset.num_outputs))

    model = build_model(make_config(lazy), make_dataset(size=8))
    assert model(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
