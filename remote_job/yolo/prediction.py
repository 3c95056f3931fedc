"""See what a model sees: predictions drawn on pictures, side by side in one PNG.

python -m gpu_offload.remote_job.yolo.prediction MODEL.pt OUT.png IMAGE...
"""

import sys
from pathlib import Path

TILE = 320
COLUMNS = 4
CONFIDENCE = 0.25


def draw(model: Path, target: Path, images: list[Path], *, confidence: float = CONFIDENCE) -> int:
    """Draw the predictions on each image and write them as tiles of one PNG; return how many objects were found.

    Args:
        model: A checkpoint of our own making: loading one executes what a stranger put into it.
        target: The PNG.
        images: Pictures to look at, in the order of the tiles.
        confidence: Objects below it are not drawn.
    """
    from gpu_offload.remote_job.yolo.isolation import isolate

    isolate(target.parent / ".ultralytics")
    from PIL import Image
    from ultralytics import YOLO

    network = YOLO(model)
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * TILE, rows * TILE), "white")
    found = 0
    for i, image in enumerate(images):
        (result,) = network.predict(image, conf=confidence, verbose=False, save=False)
        found += len(result.boxes or ())
        picture = Image.fromarray(result.plot(line_width=2, font_size=9)[..., ::-1])
        picture.thumbnail((TILE, TILE))
        if max(picture.size) < TILE:
            scale = TILE / max(picture.size)
            picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
        sheet.paste(picture, (i % columns * TILE, i // columns * TILE))
    sheet.save(target)
    return found


if __name__ == "__main__":
    print(draw(Path(sys.argv[1]), Path(sys.argv[2]), [Path(p) for p in sys.argv[3:]]))  # noqa: T201 - its answer
