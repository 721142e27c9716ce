"""For CIFAR-10 and photographs of its size. Augmentation and weight decay as in He et al., arXiv:1512.03385."""

from tunekit import choice, loguniform, uniform

space = {
    "backbone": choice(["cnn", "cifar_net"]),  # with a GPU, add "resnet18"
    "batch_size": choice([32, 64, 128, 256]),
    "optimizer": choice([
        {"name": "sgd", "lr": loguniform(1e-3, 3e-1), "momentum": uniform(0.5, 0.95),
         "weight_decay": loguniform(1e-6, 1e-3)},
        {"name": "adamw", "lr": loguniform(1e-4, 1e-2), "weight_decay": loguniform(1e-6, 1e-1)},
    ]),
    "lr_schedule": "one_cycle",  # one for all: asha compares trials in their first epochs, where schedules differ
    "augment": choice(["none", "flip", "flip_crop"]),
}  # fmt: skip
