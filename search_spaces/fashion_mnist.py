"""For Fashion-MNIST: MNIST's ranges, with what helps on a harder set (mirrored clothes are clothes; dropout)."""

from tunekit import choice, loguniform, uniform

space = {
    "backbone": choice(["cnn", "cnn_small"]),
    "batch_size": choice([32, 64, 128, 256]),
    "optimizer": choice([
        {"name": "sgd", "lr": loguniform(1e-2, 5e-1), "momentum": uniform(0.5, 0.95)},
        {"name": "adam", "lr": loguniform(3e-4, 1e-2)},
    ]),
    "lr_schedule": "one_cycle",  # one for all: asha compares trials in their first epochs, where schedules differ
    "augment": choice(["none", "flip"]),
    "dropout": uniform(0.0, 0.5),
}  # fmt: skip
