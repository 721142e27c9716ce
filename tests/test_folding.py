"""Batch norm folded into convolutions while a model is evaluated: the same outputs, and the model as it was."""

import pytest
import torch
from torch import nn

from tunekit import training
from tunekit.backbones import build_model
from tunekit.config import complete
from tunekit.datasets.base import Dataset
from tunekit.folding import folded

CHANNELS = 3


class Residual(nn.Module):
    """A model with a `forward` of its own: what comes between its layers, nobody knows."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS)

    def forward(self, images):
        between = self.conv(images)
        return self.norm(between) + between


def pair(**options):
    return [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, **options), nn.BatchNorm2d(CHANNELS)]


def shared():
    conv, norm = pair()
    return nn.Sequential(conv, norm, conv)


def hooked():
    model = nn.Sequential(*pair())
    model[0].register_forward_hook(lambda layer, inputs, output: output + 1)
    return model


def of_each_batch():
    return nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3), nn.BatchNorm2d(CHANNELS, track_running_stats=False))


def compiled_in_place():
    model = nn.Sequential(*pair())
    model.compile(backend="eager")
    return model


MODELS = {
    "plain": (lambda: nn.Sequential(*pair(), nn.ReLU(), *pair(bias=False)), 2),
    "grouped": (lambda: nn.Sequential(*pair(groups=CHANNELS)), 1),
    "nested": (lambda: nn.Sequential(nn.Sequential(*pair()), Residual()), 1),
    "without an affine part": (lambda: nn.Sequential(pair()[0], nn.BatchNorm2d(CHANNELS, affine=False)), 1),
    "own forward": (Residual, 0),
    "norm of something else": (lambda: nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), nn.ReLU(), pair()[1]), 0),
    "used twice": (shared, 0),
    "with a hook": (hooked, 0),
    "averages of each batch": (of_each_batch, 0),
    "compiled": (lambda: torch.compile(nn.Sequential(*pair()), backend="eager"), 0),
    "compiled in place": (compiled_in_place, 0),
}


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_the_same_and_the_model_is_as_it_was(name):
    torch.manual_seed(0)
    make, num_folded = MODELS[name]
    model = make().to(memory_format=torch.channels_last)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():  # not as they begin, when batch norm changes nothing
                tensor.uniform_(0.5, 2)
    model.eval()
    images = torch.randn(5, CHANNELS, 8, 8)
    layers, before = list(model.named_modules()), model(images)
    with folded(model):
        inside = [layer for layer in model.modules() if isinstance(layer, nn.Identity)]
        outputs = model(images)
    assert len(inside) == num_folded
    torch.testing.assert_close(outputs, before, atol=1e-4, rtol=1e-3)
    assert list(model.named_modules()) == layers
    assert torch.equal(model(images), before)


def with_a_hook():
    pool = nn.MaxPool2d(2)
    pool.register_forward_hook(lambda layer, inputs, output: output + 1)
    return pool


POOLS = {
    "2 x 2": (nn.MaxPool2d(2), True),
    "in pairs": (nn.MaxPool2d((2, 2), (2, 2), (0, 0), (1, 1)), True),
    "overlapping": (nn.MaxPool2d(2, stride=1), False),
    "not square": (nn.MaxPool2d((2, 1)), False),
    "in 1 x 2": (nn.MaxPool2d(2, stride=(1, 2)), False),
    "padded": (nn.MaxPool2d(2, padding=1), False),
    "spread": (nn.MaxPool2d(2, dilation=2), False),
    "rounded up": (nn.MaxPool2d(2, ceil_mode=True), False),
    "with a hook": (with_a_hook(), False),
    "average": (nn.AvgPool2d(2), True),
    "average of three": (nn.AvgPool2d(3), False),
    "sum": (nn.AvgPool2d(2, divisor_override=1), False),
    "average, padded": (nn.AvgPool2d(2, padding=1), False),
    "average, rounded up": (nn.AvgPool2d(2, ceil_mode=True), False),
}


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("shape", [(5, 3, 8, 6), (2, 1, 7, 9), (1, 4, 3, 5), (3, 8, 6)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_pooling_gives_the_same(name, shape, layout, precision):
    torch.manual_seed(0)
    pool, is_replaced = POOLS[name]
    model = nn.Sequential(pool).eval()
    images = torch.randn(shape).to(precision)
    images[0, 0, 0], images[-1, -1, 1] = float("-inf"), float("nan")
    images = images.contiguous(memory_format=layout) if len(shape) == 4 else images
    before = model(images)
    with folded(model):
        assert (model[0] is not pool) == is_replaced
        outputs = model(images)
    assert model[0] is pool
    torch.testing.assert_close(
        outputs, before, atol=1e-6 if isinstance(pool, nn.AvgPool2d) else 0, rtol=0, equal_nan=True
    )
    assert outputs.stride() == before.stride()


def test_images_too_small_to_pool_are_refused_as_ever():
    model = nn.Sequential(nn.MaxPool2d(2)).eval()
    with folded(model), pytest.raises(RuntimeError, match="too small"):
        model(torch.zeros(1, 3, 1, 4).contiguous(memory_format=torch.channels_last))


def test_a_model_in_training_is_left_alone():
    model = nn.Sequential(*pair(), nn.MaxPool2d(2))
    with folded(model):
        assert [type(layer) for layer in model] == [nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d]


def test_the_model_is_as_it_was_after_an_error():
    model = nn.Sequential(*pair()).eval()
    with pytest.raises(ValueError, match="of the block"), folded(model):
        assert isinstance(model[1], nn.Identity)
        raise ValueError("of the block")
    assert isinstance(model[1], nn.BatchNorm2d)


@pytest.mark.parametrize("backbone", ["cnn", "mobilenet_v3_small", "resnet18"])
def test_a_split_is_evaluated_as_the_model_itself_does(backbone):
    images = torch.randint(0, 256, (60, 32, 32, 3), dtype=torch.uint8).numpy()
    dataset = Dataset.from_arrays(train=(images, torch.arange(60).numpy() % 3))
    config = {**complete({"backbone": backbone, "precision": "float32", "memory_format": "channels_last"}), "seed": 0}
    model = build_model(config, dataset)
    feed = training.Feed(config, dataset, dataset.train, torch.device("cpu"))
    for inputs, _ in feed.shuffled():  # so that batch norm has averages
        model(inputs)
    outputs, _ = training.outputs_of(model, config, feed)
    with torch.inference_mode():
        plain = torch.cat([model(inputs) for inputs, _ in feed.in_order()])
    torch.testing.assert_close(outputs, plain, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(layer, nn.Identity) for layer in model.modules() if backbone == "cnn")
