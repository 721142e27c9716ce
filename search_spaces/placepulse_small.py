"""For Place Pulse on a CPU: small CNNs from scratch, at the 64 px that the dataset has without preprocessing.

Ranges are those of the digits and CIFAR-10 spaces, around Adam's 1e-3, cut at the upper end, where squared error over
scores of 1 to 10 diverges; dropout and moved images, as a few thousand photographs are soon learnt by heart. The
largest of the three, `cnn`, takes ten times as long as `cifar_net`.
"""

from tunekit import choice, loguniform, uniform

space = {
    "backbone": choice(["cifar_net", "cnn_small", "cnn"]),
    "optimizer": choice([{"name": "adam"}, {"name": "adamw", "weight_decay": loguniform(1e-4, 1e-1)}]),
    "lr": loguniform(3e-4, 5e-3),
    "batch_size": choice([32, 64, 128]),
    "oversample": choice([False, True]),
    "lr_schedule": choice(["cosine", "one_cycle"]),
    "augment": choice(["flip_crop", "flip"]),
    "dropout": uniform(0.0, 0.5),
}
