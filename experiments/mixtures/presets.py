"""What flags that are not given stand for, by data set."""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "digits": {
        "dataset": "mnist",
        "ordinary": "mnist_lenet",
        "robust": ["mnist_lenet_robust"],
        "mirrored": False,  # digits have no mirror images
        "judges": ["runs/lenet_seed1/weights.npz"],
        "shown": ["3", "8", "3=0.75,8=0.25", "3=0.5,8=0.5", "0=0.5,4=0.5", "1=0.4,6=0.4,9=0.2"],
        "ends": ["5", "9"],
        "tolerance": 1e-3,
        "noise_mean": 0.2,
        "noise_std": 0.2,
    },
    "cifar10": {
        "dataset": "cifar10",
        "ordinary": "cifar10_whitened_half",
        "robust": ["cifar10_whitened_half_robust_r1", "cifar10_whitened_half_robust"],
        "mirrored": True,
        "search": 60,
        "judges": ["cifar10_vgg16_half"],
        "shown": [
            "horse",
            "ship",
            "horse=0.75,ship=0.25",
            "horse=0.5,ship=0.5",
            "cat=0.5,truck=0.5",
            "bird=0.4,dog=0.4,frog=0.2",
        ],
        "ends": ["ship", "horse"],
        # With faint noise, and at 0.03 rather than 0.1, one viewer each named both classes more often: twenty mixtures
        # of another seed. So did they with both classifiers and the mirror image, shown without the pixels' edges
        # (from noise 17 of 20, before 12; from test images 12, before 11): twenty of each start of a third seed.
        "tolerance": 0.03,
        "noise_mean": 0.5,
        "noise_std": 0.01,
    },
}
