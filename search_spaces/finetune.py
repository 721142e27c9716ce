"""For fine-tuning torchvision's pretrained models on one's own photographs.

Small learning rates, as in torchvision's transfer-learning tutorial (SGD 1e-3 with momentum 0.9); weights are fetched
the first time they are used.
"""

from tunekit import choice, loguniform, uniform

space = {
    "backbone": choice(["resnet18", "resnet50", "mobilenet_v3_large", "efficientnet_b0"]),
    "pretrained": True,
    "image_size": 224,  # what these weights were trained at
    "freeze": choice([None, "backbone"]),
    "lr": loguniform(1e-5, 1e-2),
    "batch_size": choice([16, 32, 64]),
    "optimizer": choice([{"name": "sgd", "momentum": uniform(0.8, 0.99)}, {"name": "adamw"}]),
    "lr_schedule": "cosine",
    "augment": "flip",
}
