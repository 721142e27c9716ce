"""For scikit-learn's digits: tiny images, so everything is quick and wide ranges cost little."""

from tunekit import choice, loguniform, uniform

space = {
    "backbone": choice(["cnn", "cnn_small", "mlp"]),
    "lr": loguniform(3e-4, 1e-1),  # a decade and a half around Adam's 1e-3 and SGD's 1e-2 to 1e-1
    "batch_size": choice([16, 32, 64]),  # 1,257 train images: larger batches leave too few steps
    "optimizer": choice([{"name": "sgd", "momentum": uniform(0.5, 0.99)}, {"name": "adam"}]),
}
