"""For MNIST. Batches as in the tutorials that tune it; learning rates a decade either side of what is usual."""

from tunekit import choice, loguniform, uniform

space = {
    "backbone": choice(["cnn", "cnn_small"]),
    "batch_size": choice([32, 64, 128, 256]),
    "optimizer": choice([
        {"name": "sgd", "lr": loguniform(1e-2, 5e-1), "momentum": uniform(0.5, 0.95)},
        {"name": "adam", "lr": loguniform(3e-4, 1e-2)},
    ]),
    "lr_schedule": "one_cycle",  # the best for few epochs: Smith and Topin, arXiv:1708.07120
}  # fmt: skip
