"""For MNIST. Ranges as in the tutorials that tune it (learning rate 1e-4 to 1e-1, batches of 32 to 256)."""

from tunekit import choice, loguniform, uniform

space = {
    "backbone": choice(["cnn", "cnn_small", "lenet"]),
    "lr": loguniform(1e-4, 1e-1),
    "batch_size": choice([32, 64, 128, 256]),
    "optimizer": choice([{"name": "sgd", "momentum": uniform(0.0, 0.99)}, {"name": "adam"}]),
    "lr_schedule": choice(["constant", "one_cycle"]),
}
