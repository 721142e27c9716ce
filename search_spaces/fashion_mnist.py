"""For Fashion-MNIST: MNIST's ranges, with what helps on a harder set (mirrored clothes are clothes; dropout)."""

from tunekit import choice, loguniform, uniform

space = {
    "backbone": choice(["cnn", "lenet"]),
    "lr": loguniform(1e-4, 1e-1),
    "batch_size": choice([32, 64, 128, 256]),
    "optimizer": choice([{"name": "sgd", "momentum": uniform(0.0, 0.99)}, {"name": "adam"}]),
    "lr_schedule": choice(["constant", "cosine", "one_cycle"]),
    "augment": choice(["none", "flip"]),
    "dropout": uniform(0.0, 0.5),
}
