"""The built-in toy dataset: small vehicles seen by several cameras, drawn from nothing, in Market-1501 layout.

An identity is a body shape, two colours shared with many others, and details: stripes, stickers, roof. Vehicles of one
fleet differ in the details alone. The rest is nuisance, and each camera has habits (viewpoint, background, colour
cast), so that two images of one camera often look more alike than two images of one vehicle.

A vehicle is a contour in the (x, z) plane, front at positive x, extruded along y; the viewer stands at negative y.
Lengths are in metres, angles in radians, colours RGB in [0, 255].
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from reid.names import counted

Array = NDArray[np.float64]
Colour = tuple[int, int, int]
Outline = Sequence[tuple[float, float]]
Panels = Mapping[int, Sequence[tuple[Array, Colour]]]  # what is on a panel: polygons, u and v in [0, 1] across it

FORMAT = 1  # raise it with every change of the pictures: an older set on disk is then not taken for the new one
RECIPE = "toy.json"  # in the root of a complete set: the parameters it was made with
FLEET_SIZE = 2
DISTRACTORS, JUNK = 8, 4  # gallery images of identity 0 and -1, per camera
OTHERS = 10_000  # vehicles from this number on are nobody's: distractors and junk
FLEETS, VEHICLES, CAMERAS, SHOTS = range(4)  # independent random streams of one seed
SUPERSAMPLING = 4
CAST = 0.25  # of a camera: its colour channels are scaled by 1 - CAST to 1 + CAST
VIEWING_DISTANCE = 11.0

PALETTE = ((226, 224, 216), (190, 46, 42), (46, 88, 172), (228, 172, 50), (50, 124, 82), (56, 58, 66))
GLASS, BLACK, STEEL, ORANGE = (62, 80, 100), (30, 30, 32), (176, 178, 184), (250, 130, 20)
HEADLAMP, TAIL_LAMP = (250, 244, 210), (160, 20, 20)

NOSE, BONNET, SCREEN, ROOF, REAR_WINDOW, BOOT, TAIL = range(7)  # panels between the points of a contour
STRIPES: Mapping[str, Sequence[Outline]] = {  # on the lower side: u from rear to front, v from sill to shoulder
    "none": [],
    "racing": [],  # lies on the panels
    "waist": [[(0, 0.76), (1, 0.76), (1, 1), (0, 1)]],
    "double": [[(0, v), (1, v), (1, v + 0.16), (0, v + 0.16)] for v in (0.5, 0.84)],
    "skirt": [[(0, 0), (1, 0), (1, 0.45), (0, 0.45)]],
    "slashes": [[(u, 0), (u + 0.08, 0), (u + 0.18, 1), (u + 0.1, 1)] for u in (0.26, 0.42, 0.58)],
    "bars": [[(u, 0), (u + 0.1, 0), (u + 0.1, 1), (u, 1)] for u in (0, 0.5, 0.9)],
    "wedge": [[(0, 0), (1, 0), (0, 1)]],
}
STICKERS: Mapping[str, Outline] = {  # within the unit circle
    "disc": [(np.cos(angle), np.sin(angle)) for angle in np.linspace(0, 2 * np.pi, 16)],
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "triangle": [(-1, -0.8), (1, -0.8), (0, 1)],
    "diamond": [(0, -1), (0.8, 0), (0, 1), (-0.8, 0)],
    "arrow": [(-1, -0.3), (0.1, -0.3), (0.1, -0.9), (1, 0), (0.1, 0.9), (0.1, 0.3), (-1, 0.3)],
}
DOORS, LIDS = {"front door": 0.1, "rear door": -0.12}, {"bonnet": BONNET, "roof": ROOF}  # sites of stickers
ROOF_KITS: Mapping[str, Sequence[tuple[float, float, float, float]]] = {  # start, end (of the roof), height, width
    "none": [],
    "sunroof": [],  # lies on the panel
    "rack": [(start, start + 0.08, 0.16, 1.7) for start in (0.75, 0.45, 0.15)],
    "box": [(0.1, 0.9, 0.34, 0.9)],
    "beacon": [(0.2, 0.4, 0.26, 1.2)],
}


@dataclass(frozen=True)
class _Body:
    """A kind of vehicle; x and z are fractions of length and height, x = 1 is the front."""

    length: float
    height: float
    outline: Outline  # top of nose, foot of windscreen, both ends of the roof, foot of rear window, top of tail
    pillars: tuple[float, ...]
    glass_end: float = 0.0  # where the side windows stop


SALOON = _Body(4.6, 1.45, [(1, 0.52), (0.73, 0.62), (0.58, 1), (0.31, 1), (0.18, 0.66), (0, 0.61)], (0.45,))
HATCHBACK = _Body(3.8, 1.5, [(1, 0.52), (0.77, 0.64), (0.6, 1), (0.15, 1), (0.02, 0.62), (0, 0.56)], (0.42,))
ESTATE = _Body(4.8, 1.5, [(1, 0.52), (0.75, 0.62), (0.62, 1), (0.08, 1), (0.01, 0.62), (0, 0.56)], (0.48, 0.26))
COUPE = _Body(4.4, 1.3, [(1, 0.5), (0.68, 0.63), (0.51, 1), (0.36, 1), (0.07, 0.68), (0, 0.62)], (0.4,))
PICK_UP = _Body(4.9, 1.7, [(1, 0.52), (0.75, 0.6), (0.65, 1), (0.45, 1), (0.41, 0.58), (0, 0.57)], (0.54,))
VAN = _Body(4.6, 2.1, [(1, 0.4), (0.88, 0.52), (0.77, 1), (0.02, 1), (0, 0.52), (0, 0.44)], (0.72,), 0.56)
BUS = _Body(4.4, 2.0, [(1, 0.44), (0.96, 0.5), (0.9, 1), (0.02, 1), (0, 0.5), (0, 0.44)], (0.7, 0.48, 0.25))
BODIES = (SALOON, HATCHBACK, ESTATE, COUPE, PICK_UP, VAN, BUS)


@dataclass(frozen=True)
class _Vehicle:
    """All that belongs to an identity."""

    body: _Body
    contour: Array  # (8, 2), from the bottom of the nose over the roof to the bottom of the tail
    width: float
    paint: Colour
    trim: Colour
    roof: Colour
    stripe: str
    roof_kit: str
    stickers: Mapping[str, tuple[str, Colour]]  # by site: shape, colour


def _vehicle(seed: int, number: int) -> _Vehicle:
    fleet = default_rng((seed, FLEETS, (number - 1) // FLEET_SIZE))
    body = BODIES[fleet.integers(len(BODIES))]
    paint, trim, *others = (PALETTE[i] for i in fleet.permutation(len(PALETTE)))
    rng = default_rng((seed, VEHICLES, number))
    length, height = np.array((body.length, body.height)) * rng.uniform(0.94, 1.06, 2)
    outline = np.array([(1, 0.24 / height), *body.outline, (0, 0.24 / height)])
    sites = rng.permutation([*DOORS, *LIDS])[: rng.integers(1, 4)]
    return _Vehicle(
        body=body,
        contour=(outline - (0.5, 0)) * (length, height),
        width=rng.uniform(1.7, 1.9),
        paint=paint,
        trim=trim,
        roof=trim if rng.random() < 0.35 else paint,
        stripe=str(rng.choice(list(STRIPES))),
        roof_kit=str(rng.choice(list(ROOF_KITS))),
        stickers={str(site): (str(rng.choice(list(STICKERS))), others[rng.integers(2)]) for site in sites},
    )


def _colour(values: NDArray[np.generic]) -> Colour:
    red, green, blue = np.clip(values, 0, 255).astype(int).tolist()
    return red, green, blue


def _box(left: float, low: float, right: float, high: float) -> Array:
    return np.array([(left, low), (right, low), (right, high), (left, high)])


class _Painter:
    """Projects polygons in space onto a canvas, their brightness depending on the way they face."""

    def __init__(self, canvas: Image.Image, yaw: float, elevation: float, light: Array) -> None:
        """`light`: brightness of what faces along the x, y and z axis."""
        sin_y, sin_e, cos_y, cos_e = np.sin(yaw), np.sin(elevation), np.cos(yaw), np.cos(elevation)
        self.right = np.array((cos_y, -sin_y, 0))
        self.depth = np.array((sin_y * cos_e, cos_y * cos_e, -sin_e))
        self.down = -np.array((sin_y * sin_e, cos_y * sin_e, cos_e))
        self.light = light
        self.draw = ImageDraw.Draw(canvas)
        self.scale, self.offset = 1.0, np.zeros(2)

    def frame(self, points: Array, size: float, centre: Array) -> None:
        """Choose scale and offset so that the points fill a box with this longer side and centre, in pixels."""
        pixels = self.project(points)
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        self.scale = size / float((high - low).max())
        self.offset = centre - self.scale * (low + high) / 2

    def project(self, points: Array) -> Array:
        """Points (n, 3) to pixels (n, 2)."""
        flat = np.stack((points @ self.right, points @ self.down), axis=1)
        return np.asarray(self.offset + self.scale * flat / (1 + points @ self.depth / VIEWING_DISTANCE)[:, None])

    def fill(self, points: Array, colour: Colour) -> None:
        """Fill a plane polygon (n, 3)."""
        (ax, ay, az), (bx, by, bz) = points[1] - points[0], points[2] - points[1]
        normal = np.array((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx))
        brightness = normal**2 @ self.light / max(normal @ normal, 1e-9)
        self.draw.polygon(self.project(points).ravel().tolist(), fill=_colour(np.array(colour) * brightness))

    def solid(self, contour: Array, width: float, colour: Colour, panels: Panels) -> None:
        """Draw an extruded contour, far panels first, each with what is on it."""
        near, far = (np.insert(contour, 1, y, axis=1) for y in (-width / 2, width / 2))
        quads = {i: np.stack((near[i], near[i + 1], far[i + 1], far[i])) for i in range(len(contour) - 1)}
        for i, quad in sorted(quads.items(), key=lambda item: -float(item[1].sum(axis=0) @ self.depth)):
            x, y = self.project(quad).T
            if x @ np.roll(y, -1) <= y @ np.roll(x, -1):
                continue  # seen from behind
            self.fill(quad, colour)
            for outline, paint in panels.get(i, ()):
                u, v = outline.T[:, :, None]
                self.fill(quad[0] + u * (quad[1] - quad[0]) + v * (quad[3] - quad[0]), paint)
        self.fill(near, colour)


def _panels(vehicle: _Vehicle) -> Panels:
    panels: dict[int, list[tuple[Array, Colour]]] = {
        NOSE: [(_box(0.15, 0.25, 0.5, 0.75), BLACK), (_box(0.2, 0.4, 0.4, 0.6), STEEL)],
        BONNET: [],
        SCREEN: [(_box(0, 0, 1, 1), vehicle.roof), (_box(0.08, 0.07, 0.9, 0.93), GLASS)],
        ROOF: [(_box(0, 0, 1, 1), vehicle.roof)],
        REAR_WINDOW: [(_box(0, 0, 1, 1), vehicle.roof), (_box(0.12, 0.1, 0.88, 0.9), GLASS)],
        BOOT: [],
        TAIL: [(_box(0.55, 0.38, 0.75, 0.62), STEEL)],
    }
    for left in (0.04, 0.76):
        panels[NOSE].append((_box(0.6, left, 0.9, left + 0.2), HEADLAMP))
        panels[TAIL].append((_box(0.1, left, 0.4, left + 0.2), TAIL_LAMP))
    if vehicle.stripe == "racing":
        for panel in (BONNET, ROOF, BOOT):
            panels[panel] += [(_box(0, v, 1, v + 0.16), vehicle.trim) for v in (0.28, 0.56)]
    if vehicle.body is PICK_UP:
        panels[BOOT].append((_box(0.04, 0.1, 0.94, 0.9), BLACK))
    if vehicle.roof_kit == "sunroof":
        panels[ROOF].append((_box(0.1, 0.18, 0.65, 0.82), BLACK))
    for site, panel in LIDS.items():
        if site in vehicle.stickers:
            shape, colour = vehicle.stickers[site]
            length = float(np.linalg.norm(vehicle.contour[panel + 1] - vehicle.contour[panel]))
            panels[panel].append((0.5 + np.array(STICKERS[shape]) * (0.5 / length, 0.5 / vehicle.width), colour))
    return panels


def _draw_vehicle(painter: _Painter, vehicle: _Vehicle) -> None:
    contour, cabin, circle = vehicle.contour, vehicle.contour[SCREEN : BOOT + 1], np.array(STICKERS["disc"])
    length, height, sill, shoulder = np.ptp(contour[:, 0]), contour[ROOF, 1], contour[0, 1], contour[1, 1]
    axles = [np.array((x * length, 0.33)) for x in (-0.31, 0.31)]

    def side(outline: Array, colour: Colour, y: float = -vehicle.width / 2) -> None:
        painter.fill(np.insert(outline, 1, y, axis=1), colour)

    for axle in axles:
        side(axle + 0.33 * circle, BLACK, vehicle.width / 2)
    painter.solid(contour, vehicle.width, vehicle.paint, _panels(vehicle))
    for stripe in STRIPES[vehicle.stripe]:
        side((np.array(stripe) - (0.5, 0)) * (length, shoulder - sill) + (0, sill), vehicle.trim)
    side(cabin, vehicle.roof)
    feet, tops = cabin[[0, 3]], cabin[[1, 2]]
    if vehicle.body.glass_end:
        feet[1, 0] = tops[1, 0] = (vehicle.body.glass_end - 0.5) * length
    low, high = (feet + t * (tops - feet) + ((-0.12, 0), (0.12, 0)) for t in (0.1, 0.82))
    side(np.stack((low[0], high[0], high[1], low[1])), GLASS)
    for x in (np.array(vehicle.body.pillars) - 0.5) * length:
        side(_box(x - 0.05, cabin[0, 1], x + 0.05, height), vehicle.roof)
        side(_box(x - 0.02, sill, x + 0.02, cabin[0, 1]), _colour(np.array(vehicle.paint) * 0.6))
    for site, x in DOORS.items():
        if site in vehicle.stickers:
            shape, colour = vehicle.stickers[site]
            side(0.27 * np.array(STICKERS[shape]) + (x * length, (sill + shoulder) / 2), colour)
    for axle in axles:
        for radius, colour in ((0.4, BLACK), (0.2, STEEL)):
            side(axle + radius * circle, colour)
    front, rear = cabin[1:3, 0]
    for start, end, rise, width in ROOF_KITS[vehicle.roof_kit]:
        kit = _box(front + start * (rear - front), height, front + end * (rear - front), height + rise)
        colour = {"box": vehicle.trim, "beacon": ORANGE}.get(vehicle.roof_kit, BLACK)
        painter.solid(kit[[0, 3, 2, 1]], width, colour, {})


def _draw_scene(canvas: Image.Image, habits: Generator, rng: Generator) -> None:
    draw, size = ImageDraw.Draw(canvas), canvas.width
    far, ground = (grey + habits.uniform(-20, 20, 3) + rng.uniform(-12, 12) for grey in habits.uniform(70, 190, 2))
    horizon = size * (habits.uniform(0.2, 0.5) + rng.uniform(-0.08, 0.08))
    draw.rectangle((0, 0, size, horizon), fill=_colour(far))
    draw.rectangle((0, horizon, size, size), fill=_colour(ground))
    if habits.random() < 0.5:  # a brick wall
        mortar, brick = _colour(far * 0.82), size / 12
        for row, y in enumerate(np.arange(horizon, 0, -brick)):
            draw.line((0, y, size, y), fill=mortar, width=size // 100)
            for x in np.arange((row % 2 - rng.random()) * brick, size, 2 * brick):
                draw.line((x, y, x, y - brick), fill=mortar, width=size // 100)
    else:  # houses under the sky
        for x in rng.uniform(-0.2, 1, rng.integers(2, 6)) * size:
            house = (x, horizon * rng.uniform(0.2, 0.9), x + size * rng.uniform(0.1, 0.4), horizon)
            draw.rectangle(house, fill=_colour(rng.uniform(60, 170) + rng.uniform(-20, 20, 3)))
    draw.rectangle((0, horizon, size, horizon + size * 0.05), fill=_colour(ground + 35))
    for x in np.arange(rng.uniform(-0.4, 0), 1, 0.4):
        dash = np.array([(x, 0.93), (x + 0.2, 0.93), (x + 0.17, 0.97), (x - 0.03, 0.97)])
        draw.polygon((dash * size).ravel().tolist(), fill=(205, 205, 195))


def _draw_occluder(canvas: Image.Image, rng: Generator) -> None:
    draw, size = ImageDraw.Draw(canvas), canvas.width
    x = rng.uniform(0, size)
    if rng.random() < 0.5:  # a post
        colour = _colour(rng.uniform(40, 190) + rng.uniform(-10, 10, 3))
        draw.rectangle((x, 0, x + size * rng.uniform(0.03, 0.08), size), fill=colour)
        return
    for _ in range(14):  # the leaves of a bush
        left, top, radius = x + size * rng.normal(0, 0.1), size * rng.uniform(0.66, 0.92), size * rng.uniform(0.05, 0.1)
        green = _colour(np.array((60, 110, 50)) * rng.uniform(0.5, 1.3))
        draw.ellipse((left - radius, top - radius, left + radius, top + radius), fill=green)


@dataclass(frozen=True)
class _Shot:
    """One image file: where it goes and what it shows."""

    folder: str
    label: str  # the identity in the file name
    camera: int
    number: int
    vehicle: int
    content: Literal["vehicle", "part", "nothing"] = "vehicle"

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.label}_c{self.camera + 1}s1_{self.number:06d}_01.jpg"


def _photograph(shot: _Shot, seed: int, size: int, root: Path) -> None:
    habits = default_rng((seed, CAMERAS, shot.camera))  # the same for every image of a camera
    rng = default_rng((seed, SHOTS, shot.vehicle, shot.camera, shot.number))
    yaw, elevation, blur, noise, hue = habits.uniform((-0.5, 0.2, 0.2, 3, -0.3), (0.5, 0.5, 0.6, 9, 0.3))
    canvas = Image.new("RGB", (size * SUPERSAMPLING,) * 2)
    _draw_scene(canvas, habits, rng)
    if shot.content != "nothing":
        vehicle = _vehicle(seed, shot.vehicle)
        yaw, elevation = np.clip(rng.normal((yaw, elevation), (0.3, 0.05)), (-0.95, 0.1), (0.95, 0.6))
        painter = _Painter(canvas, yaw, elevation, light=rng.uniform((0.7, 0.75, 1.0), (1.0, 1.0, 1.2)))
        front, height = vehicle.contour.max(axis=0)
        footprint = _box(-front, -vehicle.width / 2, front, vehicle.width / 2)
        corners = np.concatenate([np.insert(footprint, 2, z, axis=1) for z in (0, height)])
        centre, side = rng.uniform(0.45, 0.55, 2), rng.uniform(0.8, 1.05)
        if shot.content == "part":
            centre, side = rng.choice((0.0, 1.0), 2), 1.7
        painter.frame(corners, side * canvas.width, centre * canvas.width)
        painter.fill(corners[:4] * (1.03, 1.1, 1), (45, 45, 48))  # the shadow
        _draw_vehicle(painter, vehicle)
    for _ in range(rng.choice(3, p=(0.45, 0.4, 0.15))):
        _draw_occluder(canvas, rng)
    if rng.random() < 0.5:
        canvas = ImageOps.mirror(canvas)
    radius = float(blur + rng.uniform(0, 0.4)) * size / 64
    image = canvas.reduce(SUPERSAMPLING).filter(ImageFilter.GaussianBlur(radius))
    hue += 2.4 * shot.camera  # the golden angle keeps the casts of any number of cameras apart
    cast = 1 + CAST * np.cos(hue + np.array((0, 2, 4)) * np.pi / 3)
    light = rng.uniform(0.65, 1.2) * np.linspace(rng.uniform(0.85, 1.15), rng.uniform(0.85, 1.15), size)
    pixels = np.asarray(image) * light[:, None] * cast + rng.uniform(-10, 20) + rng.normal(0, noise, (size, size, 3))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    image.save(root / shot.path, quality=int(rng.integers(60, 91)))


def _shots(identities: int, cameras: int, images_per_camera: int) -> Iterator[_Shot]:
    train, test, last_train = "bounding_box_train", "bounding_box_test", 2 * identities // 3
    for camera in range(cameras):
        for identity in range(1, identities + 1):
            for number in range(images_per_camera):
                folder = train if identity <= last_train else test if number else "query"
                yield _Shot(folder, f"{identity:04d}", camera, number, identity)
        for number in range(DISTRACTORS):
            yield _Shot(test, "0000", camera, number, OTHERS + number, "nothing" if number % 2 else "vehicle")
        for number in range(JUNK):
            yield _Shot(test, "-1", camera, number, OTHERS + DISTRACTORS + number, "part")


def _check_existing(root: Path, recipe: Mapping[str, int], shots: Iterable[_Shot]) -> None:
    try:
        found = json.loads((root / RECIPE).read_text())
    except (OSError, ValueError):
        raise FileExistsError(f"{root} exists and is no toy set; give a folder that is new or empty") from None
    if found != recipe:
        raise FileExistsError(f"{root} holds a toy set made with {found}, not {recipe}; give another folder")
    missing = [shot.path for shot in shots if not (root / shot.path).is_file()]
    if missing:
        raise FileExistsError(
            f"{root} lacks {counted(len(missing), 'image')} of its toy set, first {missing[0]}; delete it"
        )


def generate(
    root: Path,
    *,
    identities: int = 96,
    cameras: int = 4,
    images_per_camera: int = 5,
    size: int = 64,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the toy set to `root` in Market-1501 layout, unless it is there already, and return `root`.

    Two thirds of the identities train. Of each other one, the first image of every camera is a query, the rest is
    gallery, joined by distractors (identity 0: other vehicles, empty scenes) and junk (identity -1: cut-off vehicles).
    `size` is the side of the square images in pixels; `progress` is called with the images written and their total.
    An image depends on the seed, its identity, camera and number alone. `root` appears whole or not at all.

    Raises:
        ValueError: a parameter is out of range.
        FileExistsError: `root` holds something else, be it a toy set made with other parameters or an incomplete one.
    """
    recipe = {"identities": identities, "cameras": cameras, "images_per_camera": images_per_camera, "size": size}
    for (name, value), low, high in zip(recipe.items(), (3, 2, 2, 32), (9999, 9, 999_999, 1024), strict=True):
        if not low <= value <= high:
            raise ValueError(f"toy set: {name} must be from {low} to {high}, not {value}")
    if seed < 0:
        raise ValueError(f"toy set: seed must be 0 or more, not {seed}")
    recipe |= {"seed": seed, "format": FORMAT}
    shots = list(_shots(identities, cameras, images_per_camera))
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        _check_existing(root, recipe, shots)
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as scratch:
        partial = Path(scratch) / root.name
        for folder in {shot.folder for shot in shots}:
            (partial / folder).mkdir(parents=True)
        for done, shot in enumerate(shots, 1):
            _photograph(shot, seed, size, partial)
            if progress:
                progress(done, len(shots))
        (partial / RECIPE).write_text(json.dumps(recipe, indent=2) + "\n")
        partial.rename(root)
    return root
