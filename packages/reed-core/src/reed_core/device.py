"""Where a command computes: `--device` and `--threads`, made real."""

from reed_core.errors import InputError


def use_device(name: str, threads: int = 0) -> str:
    """Checks a device and sets the number of CPU threads. Imports torch.

    Args:
        name: "auto" (CUDA, then MPS, then CPU), "cpu", "cuda", "cuda:N" or "mps".
        threads: CPU threads; 0 leaves torch's choice.

    Returns:
        The device's name for torch.

    Raises:
        InputError: If the device is unknown or not there, or threads is negative.
    """
    import torch

    if threads < 0:
        raise InputError(f"--threads is {threads}; expected 1 or more, or 0 for torch's own choice")
    if threads:
        torch.set_num_threads(threads)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name.partition(":")[0] not in ("cpu", "cuda", "mps"):
        raise InputError(f"--device {name} is unknown; expected auto, cpu, cuda, cuda:N or mps")
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"--device {name} cannot be used here ({reason}); try --device cpu") from error
    return name
