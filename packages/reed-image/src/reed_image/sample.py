"""Drawing pictures: picture i depends on (seed, i) and its class alone, whatever the batch it is drawn in.

    x_1 = eps_i ~ N(0, I), drawn for (seed, i);   x_0 by a probability flow (Euler, Heun) or by the SDE
    on the way from picture i to picture j:   x_1 = cos(r) eps_i + sin(r) eps_j,  r = 0 ... pi/2
which is N(0, I) for every r, so that whatever lies between is a sample too. The noise of SDE steps is picture i's.

Guidance (`reed_core.sample.guidance`) pushes away from the null condition, or with a worse model, from that. Latents
that the model is told are drawn first, or given (`reed_image.told`).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from reed_core.errors import InputError
from reed_core.noise import NoiseSource, mix_seed
from reed_core.sample import Autoguidance, ClassifierFree, WithLatents
from reed_core.state import State
from torch import Tensor

from reed_image.autoencoder import Autoencoder, load_autoencoder, load_recorded
from reed_image.autoencoder.load import PIXELS
from reed_image.blend import Blend
from reed_image.model import ImageModel, ModelConfig
from reed_image.network import Condition
from reed_image.prompts import Prompts, read_prompts
from reed_image.solve import solve
from reed_image.told import check_given, draw_told

Sampler = Literal["euler", "heun", "sde"]
BATCH = 64
NO_CLASS = -1
_TOLD = 0x746F6C64


@dataclass(frozen=True)
class Request:
    """What is to be drawn.

    Attributes:
        num: Pictures; with `between`, rows of pictures.
        first: The number of the first.
        seed: The seed.
        steps: Steps of each; Heun evaluates twice a step.
        sampler: "euler" or "heun" (probability flow), or "sde".
        labels: Class numbers, taken in turn by the number of the picture; -1 is no class. None: every class in turn, or
            with texts those of the texts.
        scale: Scale of guidance; 1 is none.
        interval: Diffusion times within which it acts.
        between: Row r shows so many pictures on the way from the noise of picture 2r to that of 2r + 1, of one class;
            0 draws single pictures.
        blend: The pictures between go from one class or text to the next, with the noise of picture r alone.
        prompts: Texts, taken in turn likewise; None tells none.
        given: Values of latents that the model is told, [k, d] by name, taken in turn likewise; it draws the others.

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
    blend: bool = False
    prompts: Prompts | None = None
    given: Mapping[str, Float[Tensor, "_ d"]] = field(default_factory=dict)

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
        if self.blend and not self.between:
            raise InputError("blending needs rows of pictures between two classes or texts; say how many")

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
        texts: Its text; none at all where no texts were given.
    """

    x: Float[Tensor, "b c h w"]
    numbers: tuple[int, ...]
    labels: tuple[int, ...]
    texts: tuple[str, ...] = ()


class _Place(NamedTuple):
    """One picture: the numbers of its noise and how far between them; its turn and class; how far to the next ones."""

    number: int
    one: int
    other: int
    angle: float
    turn: int
    label: int
    share: float = 0.0


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
    labels = _labels(request, model.config.network.classes)
    places = _places(request, labels)
    for start in range(0, len(places), batch):
        some = places[start : start + batch]
        noise = NoiseSource(request.seed, [place.one for place in some])
        x = _start(noise, some, model, device)
        c = _condition(model, request, some, device)
        led = denoiser
        if request.blend:
            share = torch.tensor([place.share for place in some], device=device)
            onward = [place._replace(turn=place.turn + 1, label=_label(labels, place.turn + 1)) for place in some]
            led = Blend(denoiser, _condition(model, request, onward, device), share)
        if model.config.told:
            own = NoiseSource(mix_seed(request.seed, _TOLD), noise.positions)
            given = {name: z[[place.turn % len(z) for place in some]] for name, z in request.given.items()}
            led = WithLatents(led, draw_told(model, x, c, own, given))
        found = solve(model.process, led, x, c, noise, request.steps, request.sampler)
        texts = () if request.prompts is None else tuple(request.prompts.texts[_turn(request, place)] for place in some)
        yield Drawn(_alone(found), tuple(place.number for place in some), tuple(place.label for place in some), texts)


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
    texts: Sequence[str] = (),
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
        texts: What they are to show, taken in turn; for a model that reads text.
        batch: Pictures at once.
        progress: Called with the number of pictures of each batch.
        settings: The other fields of `Request`.

    Returns:
        In [0, 1], on the CPU.

    Raises:
        InputError: As `draw` and `decoder_of`.
    """
    labels = class_numbers(model.config, classes)
    prompts = read_prompts(model.config, texts) if texts else None
    request = Request(num, labels=labels, prompts=prompts, **settings)
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
    if request.prompts is not None and model.config.text is None:
        raise InputError("the model was trained without texts; leave them out")
    check_given(model.config.told, request.given)
    if worse is not None:
        mine, theirs = model.config, worse.config
        same = ("path", "prediction", "autoencoder", "class_names", "time_shift", "text", "told", "joint")
        differ = [name for name in same if getattr(mine, name) != getattr(theirs, name)]
        differ += ["shape of x"] if model.shape != worse.shape else []
        differ += ["classes"] if classes != theirs.network.classes else []
        if differ:
            raise InputError(
                f"the worse model is of another kind ({', '.join(differ)} differ); train it on the same data"
            )
    elif request.scale != 1 and not classes and model.config.text is None:
        raise InputError(f"guidance of scale {request.scale:g} without classes, texts or a worse model; leave it at 1")


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


def _labels(request: Request, classes: int) -> tuple[int, ...]:
    """The classes that are taken in turn."""
    if request.prompts is None or request.labels is not None:
        return request.labels or tuple(range(classes)) or (NO_CLASS,)
    own = request.prompts.labels
    return (NO_CLASS,) if own is None else tuple(own.tolist())


def _label(labels: Sequence[int], turn: int) -> int:
    return labels[turn % len(labels)]


def _places(request: Request, labels: Sequence[int]) -> list[_Place]:
    numbers = range(request.first, request.first + request.num)
    if not request.between:
        return [_Place(number, number, number, 0.0, number, _label(labels, number)) for number in numbers]
    found = []
    for row in numbers:
        for column in range(request.between):
            number, share = row * request.between + column, column / (request.between - 1)
            if request.blend:
                found.append(_Place(number, row, row, 0.0, 2 * row, _label(labels, 2 * row), share))
            else:
                angle = 0.5 * math.pi * share
                found.append(_Place(number, 2 * row, 2 * row + 1, angle, row, _label(labels, row)))
    return found


def _turn(request: Request, place: _Place) -> int:
    return place.turn % len(request.prompts or ())


def _start(noise: NoiseSource, places: Sequence[_Place], model: ImageModel, device: torch.device) -> State:
    """Noise of x, and where there is one, of the second field."""
    others = NoiseSource(noise.seed, [place.other for place in places])
    angle = torch.tensor([place.angle for place in places])

    def drawn(shape: Sequence[int]) -> Tensor:
        own = noise.normal(shape)
        if not bool(angle.any()):
            return own.to(device)
        wide = angle.reshape(-1, *[1] * len(shape))
        return (wide.cos() * own + wide.sin() * others.normal(shape)).to(device)

    x = drawn(model.shape)
    return {"x": x, "z": drawn(model.config.network.joint_shape)} if model.config.joint is not None else x


def _condition(model: ImageModel, request: Request, places: Sequence[_Place], device: torch.device) -> Condition | None:
    label = torch.tensor([place.label for place in places]) if model.config.network.classes else None
    if request.prompts is None:
        return None if label is None else Condition(label).to(device)
    turns = [_turn(request, place) for place in places]
    tokens = request.prompts.tokens
    return Condition(label, tokens.value[turns], tokens.mask[turns]).to(device)


def _alone(found: State) -> Float[Tensor, "b c h w"]:
    return found["x"] if isinstance(found, Mapping) else found
