"""For Place Pulse: fine-tune torchvision's pretrained models, as the programs that this replaces do.

Load it with preprocessing="resnet". The learning rate is half a decade and more to each side of the 1e-3, and momentum
around the 0.9, of torchvision's transfer-learning tutorial; batches are those that fit a GPU of 16 GB at 224 px. The
scores' ends are rare: `oversample` shows them as often as the middle, which helps there and costs a little elsewhere.
"""

from tunekit import choice, loguniform, uniform

space = {
    "backbone": choice(["resnet18", "resnet50", "densenet121", "mobilenet_v3_large", "efficientnet_b0"]),
    "pretrained": True,
    "optimizer": "sgd",
    "lr": loguniform(1e-4, 1e-2),  # above, squared error over scores of 1 to 10 diverges
    "momentum": uniform(0.7, 0.99),
    "batch_size": choice([16, 32, 64]),
    "oversample": choice([False, True]),
    "lr_schedule": choice(["constant", "cosine"]),
    "augment": choice(["none", "flip"]),  # a mirrored street is a street
}
