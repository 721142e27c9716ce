"""For scikit-learn's digits: tiny images, so everything is quick and wide ranges cost little."""

from tunekit import choice, loguniform, uniform

space = {
    "backbone": choice(["cnn", "cnn_small", "mlp"]),
    "batch_size": choice([16, 32, 64]),  # 1,259 train images: larger batches leave too few steps
    "optimizer": choice([  # a decade either side of what is usual for each
        {"name": "sgd", "lr": loguniform(3e-3, 3e-1), "momentum": uniform(0.5, 0.95)},
        {"name": "adam", "lr": loguniform(3e-4, 1e-2)},
    ]),
}  # fmt: skip
