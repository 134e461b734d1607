"""Drawing pictures: picture i depends on (seed, i) and its class alone, whatever the batch it is drawn in.

    x_1 = eps_i ~ N(0, I), drawn for (seed, i);   x_0 by a probability flow (Euler, Heun) or by the SDE
    on the way from picture i to picture j:   x_1 = cos(r) eps_i + sin(r) eps_j,  r = 0 ... pi/2
which is N(0, I) for every r, so that whatever lies between is a sample too. The noise of SDE steps is picture i's.

Guidance (`reed_core.sample.guidance`) pushes away from the null condition, or with a worse model, from that.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant
from reed_core.sample import Autoguidance, ClassifierFree, euler_maruyama, integrate
from torch import Tensor

from reed_image.autoencoder import Autoencoder, load_autoencoder, load_recorded
from reed_image.autoencoder.load import PIXELS
from reed_image.model import ImageModel, ModelConfig
from reed_image.network import Condition

Sampler = Literal["euler", "heun", "sde"]
BATCH = 64
NO_CLASS = -1


@dataclass(frozen=True)
class Request:
    """What is to be drawn.

    Attributes:
        num: Pictures; with `between`, rows of pictures.
        first: The number of the first.
        seed: The seed.
        steps: Steps of each; Heun evaluates twice a step.
        sampler: "euler" or "heun" (probability flow), or "sde".
        labels: Class numbers, taken in turn by the number of the picture; -1 is no class. None: every class in turn.
        scale: Scale of guidance; 1 is none.
        interval: Diffusion times within which it acts.
        between: Row r shows so many pictures on the way from the noise of picture 2r to that of 2r + 1, of one class;
            0 draws single pictures.

    Raises:
        InputError: If a number is out of range.
    """

    num: int
    first: int = 0
    seed: int = 0
    steps: int = 50
    sampler: Sampler = "heun"
    labels: tuple[int, ...] | None = None
    scale: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    between: int = 0

    def __post_init__(self) -> None:
        if self.num < 1 or self.first < 0 or self.steps < 1:
            raise InputError(
                f"{self.num} pictures from number {self.first} in {self.steps} steps; expected at least 1, 0 and 1"
            )
        if not 0 <= self.scale < math.inf or not 0.0 <= self.interval[0] <= self.interval[1] <= 1.0:
            raise InputError(
                f"guidance of scale {self.scale:g} at times {list(self.interval)}; expected a scale of 0 or more, and "
                "two times in order between 0 and 1"
            )
        if self.between == 1 or self.between < 0:
            raise InputError(f"{self.between} pictures between two; expected at least 2, or 0 for single pictures")

    @property
    def columns(self) -> int | None:
        """Pictures of a row of a grid; None where any number will do."""
        return self.between or None


class Drawn(NamedTuple):
    """A batch that was drawn.

    Attributes:
        x: The network's data.
        numbers: Number of each picture; with `between`, counted row by row.
        labels: Its class, -1 without.
    """

    x: Float[Tensor, "b c h w"]
    numbers: tuple[int, ...]
    labels: tuple[int, ...]


class _Place(NamedTuple):
    """The noise of one picture: of which numbers, how far between them, and its class."""

    number: int
    one: int
    other: int
    angle: float
    label: int


def draw(model: ImageModel, request: Request, worse: ImageModel | None = None, batch: int = BATCH) -> Iterator[Drawn]:
    """Draws, batch by batch.

    Args:
        model: The model, in evaluation mode, where it is to run.
        request: What is to be drawn.
        worse: Guidance is away from this one, and not from the null condition.
        batch: Pictures drawn at once.

    Raises:
        InputError: If a class is unknown, guidance has nothing to push away from, or `worse` draws something else.
    """
    if batch < 1:
        raise InputError(f"{batch} pictures at once; expected at least 1")
    _check(model, request, worse)
    device = next(model.parameters()).device
    denoiser: Any = model
    if worse is not None:
        denoiser = Autoguidance(model, worse, request.scale, request.interval)
    elif request.scale != 1:
        denoiser = ClassifierFree(model, None, request.scale, request.interval)
    places = _places(request, model.config.network.classes)
    for start in range(0, len(places), batch):
        some = places[start : start + batch]
        noise = NoiseSource(request.seed, [place.one for place in some])
        labels = tuple(place.label for place in some)
        x = _start(noise, some, model.shape).to(device)
        c = Condition(torch.tensor(labels, device=device)) if model.config.network.classes else None
        found = _solve(model.process, denoiser, x, c, noise, request)
        yield Drawn(found, tuple(place.number for place in some), labels)


def class_numbers(config: ModelConfig, asked: Sequence[str | int]) -> tuple[int, ...] | None:
    """Classes as numbers.

    Args:
        config: What the model is.
        asked: Names, numbers, or "none" for no class; none at all: None, every class in turn.

    Raises:
        InputError: If the model has no such class.
    """
    if not asked:
        return None
    return tuple(_class_number(config, one) for one in asked)


def class_label(config: ModelConfig, number: int) -> str:
    """The name of a class; its number where it has none, and "" for no class."""
    return "" if number == NO_CLASS else config.class_names[number] if config.class_names else str(number)


@dataclass(frozen=True)
class Decoder:
    """From what a model draws to pictures.

    Attributes:
        autoencoder: What decodes; None for pixels in [-1, 1].
    """

    autoencoder: Autoencoder | None = None

    def __call__(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        """Pictures in [0, 1], on the CPU."""
        if self.autoencoder is None:
            return ((x.float() + 1) / 2).clamp(0, 1).cpu()
        return self.autoencoder.decode(x).cpu()

    def to(self, device: Any) -> "Decoder":
        """Moves the autoencoder; returns this object."""
        if self.autoencoder is not None:
            self.autoencoder.to(device)
        return self


def decoder_of(config: ModelConfig, name: str | None = None, device: Any = "cpu") -> Decoder:
    """The decoder of a model.

    Args:
        config: What the model is.
        name: Another place for its autoencoder, as `load_autoencoder` takes it; None: where the model says.
        device: Where it is to run.

    Raises:
        InputError: If it cannot be had, or is another one.
    """
    spec = config.autoencoder
    if spec is None:
        if name not in (None, PIXELS):
            raise InputError(f"the model draws pixels and needs no autoencoder {name}; leave it out")
        return Decoder()
    if name is None:
        return Decoder(load_recorded(spec).to(device))
    found = load_autoencoder(name)
    if (found.codec.channels, found.codec.factor) != (spec.channels, spec.factor):
        raise InputError(
            f"{name} has {found.codec.channels} channels and divides by {found.codec.factor}, the model's autoencoder "
            f"{spec.name} {spec.channels} and {spec.factor}; give that one"
        )
    return Decoder(Autoencoder(found.name, found.codec, spec.shift, spec.scale).to(device))


def pictures(
    model: ImageModel,
    num: int = 1,
    classes: Sequence[str | int] = (),
    *,
    autoencoder: str | None = None,
    worse: ImageModel | None = None,
    batch: int = BATCH,
    progress: Callable[[int], Any] | None = None,
    **settings: Any,
) -> Float[Tensor, "n 3 H W"]:
    """Draws pictures and decodes them.

    Args:
        model: The model.
        num: How many.
        classes: Names or numbers of classes, taken in turn; none at all takes every class in turn.
        autoencoder: Another place for its autoencoder.
        worse: As of `draw`.
        batch: Pictures at once.
        progress: Called with the number of pictures of each batch.
        settings: The other fields of `Request`.

    Returns:
        In [0, 1], on the CPU.

    Raises:
        InputError: As `draw` and `decoder_of`.
    """
    labels = class_numbers(model.config, classes)
    request = Request(num, labels=labels, **settings)
    decode = decoder_of(model.config, autoencoder, next(model.parameters()).device)
    found = []
    for drawn in draw(model, request, worse, batch):
        found.append(decode(drawn.x))
        if progress is not None:
            progress(len(drawn.numbers))
    return torch.cat(found)


def _check(model: ImageModel, request: Request, worse: ImageModel | None) -> None:
    classes = model.config.network.classes
    for label in request.labels or ():
        if not NO_CLASS <= label < classes:
            raise InputError(f"no class {label}; the model has {classes or 'none'}")
    if worse is not None:
        mine, theirs = model.config, worse.config
        same = ("path", "prediction", "autoencoder", "class_names")
        differ = [name for name in same if getattr(mine, name) != getattr(theirs, name)]
        differ += ["shape of x"] if model.shape != worse.shape else []
        differ += ["classes"] if classes != theirs.network.classes else []
        if differ:
            raise InputError(
                f"the worse model is of another kind ({', '.join(differ)} differ); train it on the same data"
            )
    elif request.scale != 1 and not classes:
        raise InputError(f"guidance of scale {request.scale:g} without classes or a worse model; leave it at 1")


def _class_number(config: ModelConfig, asked: str | int) -> int:
    classes = config.network.classes
    text = str(asked)
    if text in config.class_names:
        return config.class_names.index(text)
    if text == "none":
        return NO_CLASS
    if text.lstrip("-").isdigit() and NO_CLASS <= int(text) < classes:
        return int(text)
    named = ", ".join(config.class_names[:12]) + (", ..." if len(config.class_names) > 12 else "")
    have = f"0 to {classes - 1}{f' ({named})' if named else ''}, or none" if classes else "none: it was trained without"
    raise InputError(f"no class '{text}'; the model has {have}")


def _places(request: Request, classes: int) -> list[_Place]:
    labels = request.labels or tuple(range(classes)) or (NO_CLASS,)
    numbers = range(request.first, request.first + request.num)
    if not request.between:
        return [_Place(number, number, number, 0.0, labels[number % len(labels)]) for number in numbers]
    return [
        _Place(
            row * request.between + column,
            2 * row,
            2 * row + 1,
            0.5 * math.pi * column / (request.between - 1),
            labels[row % len(labels)],
        )
        for row in numbers
        for column in range(request.between)
    ]


def _start(noise: NoiseSource, places: Sequence[_Place], shape: Sequence[int]) -> Float[Tensor, "b c h w"]:
    own = noise.normal(shape)
    if all(place.angle == 0 for place in places):
        return own
    others = NoiseSource(noise.seed, [place.other for place in places]).normal(shape)
    angle = torch.tensor([place.angle for place in places])[:, None, None, None]
    return angle.cos() * own + angle.sin() * others


def _solve(
    process: Interpolant, denoiser: Any, x: Tensor, c: Condition | None, noise: NoiseSource, request: Request
) -> Float[Tensor, "b c h w"]:
    if request.sampler == "sde":
        return euler_maruyama(process, denoiser, x, request.steps, noise, c)
    return integrate(process, denoiser, x, request.steps, c, request.sampler)
