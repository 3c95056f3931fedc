"""Trees that cost little to write and would cost much to read, for tests and for benchmarks/hostile_trees.py.

Each maker writes a project with an offload.toml into an empty folder. `scale` 1 is what fits into a git repository of
a host with limits (files up to 100 MB); tests use smaller ones.
"""

import io
import os
import struct
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from dataset_case import BOX, bitmap, flat, put, with_yaml
from PIL import Image

Content = bytes | str
Files = Mapping[str, Content]
"""Contents of files, by their paths below the dataset's folder."""

MAKERS: dict[str, Callable[[Path, float], object]] = {}
COMMANDS: dict[str, list[str]] = {}
"""What to run in place of `offload check`."""

MEBIBYTE = 1 << 20
HEAD = '[dataset]\npath = "data"\n'
PIXEL = bitmap()


def project(root: Path) -> Path:
    """Write an offload.toml, and return the folder of its dataset."""
    put(root / "offload.toml", HEAD)
    (root / "data").mkdir(exist_ok=True)
    return root / "data"


def trees(base: Callable[[Path], Path], **files: Callable[[float], Files]) -> None:
    """Register makers: a base, and the files that come to it at a scale."""

    def make(files_at: Callable[[float], Files], root: Path, scale: float) -> None:
        data = base(project(root))
        for path, content in files_at(scale).items():
            put(data / path, content)

    MAKERS.update({name: partial(make, files_at) for name, files_at in files.items()})


def bare(data: Path) -> Path:
    """Return a folder as it is: the base of trees that bring all files."""
    return data


def repeated(piece: bytes, size: float) -> bytes:
    """Return about `size` bytes made of one piece."""
    return piece * max(int(size) // len(piece), 1)


def numbered(count: float, path: str, content: Content | Callable[[int], Content]) -> dict[str, Content]:
    """Return so many files, with a content for all or for each."""
    return {path.format(i): content(i) if callable(content) else content for i in range(int(count))}


def joined(count: float, piece: str, separator: str = "") -> str:
    """Return numbered pieces of text."""
    return separator.join(piece.format(i=i) for i in range(int(count)))


# Labels


def labelled(count: float, label: bytes) -> dict[str, Content]:
    count = max(int(count), 2)
    return numbered(count, "{:03}.bmp", bitmap) | numbered(count, "{:03}.txt", label)


ENDS = (b"\n", b"\r", b"\r\n", "\u2028".encode(), b"\x0c", b" ")
MANY_POINTS = b"0 " + b"0.1 0.1 0.5 0.1 0.1 0.5 " * 5_000 + b"\n"
SMALL_BOX = b"0 0.5 0.5 0.%04d1 0.%04d1\n"

trees(
    flat,
    # One label of 16 MiB of words that are no numbers.
    bad_label=lambda s: {"000.txt": repeated(b"x y\n", 16 * MEBIBYTE * s)},
    # Twenty such labels.
    bad_labels=lambda s: numbered(20, "{:03}.txt", repeated(b"0 2 2 2 2\n", 16 * MEBIBYTE * s)),
    # A label whose only row is 16 MiB long.
    long_rows=lambda s: {"000.txt": b"0 " + repeated(b"0.5 ", 16 * MEBIBYTE * s)},
    # A label that is one number of 16 MiB.
    long_word=lambda s: {"000.txt": b"0 0.5 0.5 0.5 0." + repeated(b"1", 16 * MEBIBYTE * s)},
    # Labels of valid polygons with very many points.
    many_long_rows=lambda s: numbered(20, "{:03}.txt", repeated(MANY_POINTS, 15 * MEBIBYTE * s)),
    # Labels of nothing but line ends, of several kinds.
    blank_lines=lambda s: numbered(6, "{:03}.txt", lambda i: repeated(ENDS[i], 16 * MEBIBYTE * s)),
)
trees(
    bare,
    # Thousands of labels with as many rows as are allowed, all good.
    full_labels=lambda s: labelled(
        200 * s, b"".join(SMALL_BOX % (i % 10_000, i // 10_000) for i in range(19_999))
    ),
    # Many labels of repeated rows: warnings without end.
    repeated_rows=lambda s: labelled(400 * s, b"0 0.5 0.5 0.1 0.1\n" * 19_000),
    # Many labels with classes that no name is given for.
    unknown_classes=lambda s: labelled(3_000 * s, b"7 0.5 0.5 0.1 0.1\n" * 1_000) | {"classes.txt": "one\n"},
)

# COCO


def coco_text(images: float, annotations: str, head: str = "", picture: str = "a{i}.bmp") -> str:
    described = joined(images, f'{{{{"id":{{i}},"file_name":"{picture}","width":16,"height":12}}}}', ",")
    return (
        f'{{{head}"images":[{described}],"categories":[{{"id":1,"name":"x"}}],"annotations":[{annotations}]}}'
    )


def coco(images: float, annotations: str, head: str = "", picture: str = "a{i}.bmp") -> Files:
    files = numbered(min(images, 1_000), "a{}.bmp", bitmap)
    return files | {"all.json": coco_text(images, annotations, head, picture)}


def annotation(number: int, image: int = 0, extra: str = "") -> str:
    return f'{{"id":{number},"image_id":{image},"category_id":1,"bbox":[1,1,5,5]{extra}}}'


def annotations(count: float, images: int, extra: str = "") -> str:
    return ",".join(annotation(i, i % images, extra) for i in range(int(count)))


ONE = annotation(0)
POLYGON = ',"segmentation":[[' + ",".join(["1,1,9,1,9,9"] * 1_000) + "]]"
DEEP = "[" * 900 + "]" * 900
WIDE = '{"info":"\U0001f600","images":[{"id":0,"file_name":"a.bmp"}],"categories":[{"id":1,"name":"x"}],'

trees(
    bare,
    # One line with 1.4 million good annotations, about 100 MB.
    coco_annotations=lambda s: coco(1_000, annotations(1_400_000 * s, 1_000)),
    # All annotations on one image.
    coco_on_one_image=lambda s: coco(2, annotations(1_400_000 * s, 1)),
    # Annotations with long polygons, about 100 MB.
    coco_polygons=lambda s: coco(10, annotations(8_000 * s, 10, POLYGON)),
    # An annotation whose polygon has very many parts.
    coco_parts=lambda s: coco(
        2, annotation(0, 0, f',"segmentation":[{joined(6_000_000 * s, "[1,1,9,1,9,9]", ",")}]')
    ),
    # An annotation that is a list of 45 million numbers, which take more memory than text.
    coco_small_numbers=lambda s: coco(
        2, '{"id":1,"image_id":0,"category_id":1,"bbox":[' + "1," * int(45_000_000 * s) + "1]}"
    ),
    # A member that is not read, of 33 million empty lists.
    coco_other_member=lambda s: coco(2, ONE, '"x":{"y":[' + "[]," * int(33_000_000 * s) + "[]]},"),
    # A member that is not read, of 25 million empty objects in one list of lists.
    coco_empty_objects=lambda s: coco(2, ONE, '"x":[[' + "{}," * int(30_000_000 * s) + "{}]],"),
    # Lists in lists, 45 million deep.
    coco_deep=lambda s: coco(2, ONE, '"x":' + "[" * int(45_000_000 * s)),
    # Elements that are each nested as deep as the parser takes.
    coco_deep_lists=lambda s: coco(2, ONE, f'"x":[{joined(50_000 * s, DEEP, ",")}],'),
    # A million images that are not there.
    coco_missing_images=lambda s: coco(int(1_000_000 * s), ONE, picture="b{i}.bmp"),
    # A number of very many digits.
    coco_huge_number=lambda s: coco(2, '{"id":' + "9" * int(90_000_000 * s) + "}"),
    # A picture of the same name in each of many folders, and an image for each that is written without its folder.
    coco_same_names=lambda s: (
        numbered(20_000 * s, "d{}/a.bmp", bitmap)
        | {"all.json": coco_text(20_000 * s, "", picture="x{i}/a.bmp")}
    ),
    # The same, but one picture ranks before the others, so that there is no fault to stop at.
    coco_ranked_names=lambda s: (
        numbered(20_000 * s, "d{}/a.bmp", bitmap)
        | {"train/a.bmp": bitmap(int(20_000 * s))}
        | {"instances_train.json": coco_text(20_000 * s, "", picture="x{i}/a.bmp")}
    ),
    # Two million categories.
    coco_categories=lambda s: {
        "a.bmp": PIXEL,
        "all.json": '{"images":[{"id":0,"file_name":"a.bmp"}],"annotations":[],"categories":['
        + joined(2_000_000 * s, '{{"id":{i},"name":"c{i}"}}', ",")
        + "]}",
    },
    # Twenty COCO files with 70,000 annotations each.
    coco_files=lambda s: (
        numbered(100, "a{}.bmp", bitmap)
        | numbered(20, "part{}.json", coco_text(100, annotations(70_000 * s, 100)))
    ),
    # A COCO file of 90 MB with one character that makes Python's text four times as large.
    coco_wide_characters=lambda s: {
        "a.bmp": PIXEL,
        "all.json": WIDE + '"annotations":[]' + " " * int(90_000_000 * s) + "}",
    },
    # Annotations that are each at fault, each on a line of its own.
    coco_lines=lambda s: coco(2, ",\n".join(["{}"] * int(20_000_000 * s))),
)

# VOC


def voc(objects: str) -> str:
    return f"<annotation><filename>a.bmp</filename>{objects}</annotation>"


VOC_OBJECT = (
    "<object><name>x</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
)
LAUGHS = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "x"}">' for i in range(10))


def voc_files(count: float, text: str) -> Files:
    return numbered(count, "{}.bmp", bitmap) | numbered(count, "{}.xml", text)


trees(
    bare,
    # 400,000 objects in VOC files of 4 MB.
    voc_objects=lambda s: voc_files(max(12 * s, 2), voc(VOC_OBJECT * int(36_000 * min(1, s * 4)))),
    # Two million objects, 100 in each of 20,000 files.
    voc_many_objects=lambda s: voc_files(20_000 * s, voc(VOC_OBJECT * 100)),
    # A polygon of 150,000 points.
    voc_polygon=lambda s: voc_files(
        2,
        voc(
            "<object><name>x</name><polygon>"
            + "".join(f"<x{i}>1</x{i}><y{i}>2</y{i}>" for i in range(1, int(120_000 * s)))
            + "</polygon></object>"
        ),
    ),
    # Files of nothing but empty elements.
    voc_empty_elements=lambda s: voc_files(5, voc("<a/>" * int(1_000_000 * s))),
    # Text in pieces, between comments.
    voc_text=lambda s: {
        "a.bmp": PIXEL,
        "a.xml": f"<annotation><filename>{'a<!---->' * int(500_000 * s)}</filename></annotation>",
    },
    # Elements with very many attributes.
    voc_attributes=lambda s: {
        "a.bmp": PIXEL,
        "a.xml": voc("<object " + joined(350_000 * s, 'a{i}=""', " ") + "/>"),
    },
    # Elements in elements.
    voc_depth=lambda s: {"a.bmp": PIXEL, "a.xml": voc("<a>" * int(1_300_000 * s))},
    # The billion laughs.
    voc_entities=lambda _: {
        "a.bmp": PIXEL,
        "a.xml": f"<!DOCTYPE a [{LAUGHS}]><annotation><filename>&e9;</filename></annotation>",
    },
    # Pictures of the same name in many folders, and an XML file for each in other folders.
    voc_same_stem=lambda s: (
        numbered(10_000 * s, "d{}/a.bmp", bitmap) | numbered(10_000 * s, "e{}/a.xml", voc(VOC_OBJECT))
    ),
    # A VOC list with very many lines.
    voc_lists=lambda s: {
        "a.bmp": PIXEL,
        "a.xml": voc(VOC_OBJECT),
        "ImageSets/Main/train.txt": "b\n" * int(30_000_000 * s),
    },
)

# NDJSON and other lists

NDJSON = '{"type":"dataset","task":"detect","class_names":{"0":"x"}}\n'


def boxes(file: str, split: str, count: float) -> str:
    listed = ",".join(["[0,0.5,0.5,0.2,0.2]"] * int(count))
    return f'{{"type":"image","file":"{file}","split":"{split}","annotations":{{"boxes":[{listed}]}}}}'


def with_list(data: Path) -> Path:
    return with_yaml(data, "train: list.txt\nval: images/val\nnames: [a]\n")


trees(
    bare,
    # Good NDJSON of 100 MB.
    ndjson_boxes=lambda s: (
        numbered(10_000 * s, "{}.bmp", bitmap)
        | {
            "set.ndjson": NDJSON
            + "\n".join(
                boxes(f"{i}.bmp", "val" if i % 5 == 0 else "train", 500) for i in range(int(10_000 * s))
            )
        }
    ),
    # A line of 100 MB.
    ndjson_one_line=lambda s: {
        "a.bmp": PIXEL,
        "set.ndjson": NDJSON + boxes("a.bmp", "train", 5_000_000 * s) + "\n",
    },
    # A first line with very many classes.
    ndjson_head=lambda s: {
        "a.bmp": PIXEL,
        "set.ndjson": '{"type":"dataset","class_names":{'
        + joined(4_000_000 * s, '"{i}":"c{i}"', ",")
        + "}}\n",
    },
    # A million images that are not there.
    ndjson_absent=lambda s: {
        "a.bmp": PIXEL,
        "set.ndjson": NDJSON + '{"type":"image","file":"b.bmp","split":"train"}\n' * int(2_000_000 * s),
    },
    # A line of small numbers.
    json_numbers=lambda s: {
        "a.bmp": PIXEL,
        "set.ndjson": NDJSON[:-2] + ',"x":[' + "1," * int(45_000_000 * s) + "1]}\n",
    },
)
trees(
    flat,
    # Many JSON files of 90 MB that are of no format.
    json_files=lambda s: numbered(5, "{}.json", b'"images" "annotations"' + bytes(int(90_000_000 * s))),
    # A classes.txt with very many names.
    class_list=lambda s: {"classes.txt": joined(500_000 * s, "{i}\n")},
    # A classes.txt in each of many folders, all different.
    class_lists=lambda s: numbered(20_000 * s, "d{}/classes.txt", lambda i: f"{i}\n" * 10),
    # An obj.data of odd lines.
    darknet_lines=lambda s: {"obj.data": b"a" * 1000 + b" = " + repeated(b" \t", MEBIBYTE * s * 0.9) + b"\n"},
)
trees(
    with_list,
    # A list of images that are not there.
    missing_lines=lambda s: {"list.txt": ("a/" * 100 + "x.jpg\n") * int(500_000 * s)},
    # A list with the same image again and again, and in many spellings.
    repeated_lines=lambda s: {
        "list.txt": "".join(f"images/{'./' * (i % 50)}train/0.bmp\n" for i in range(int(1_000_000 * s)))
    },
)

# data.yaml

GOOD = "train: images/train\nval: images/val\n"
NAMED = GOOD + "names: [a]\n"
MERGED = "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12))
ALIASED = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
FOLDED = (
    "x: >\n" + "  a\n" * 200_000 + 'y: "' + "\\u0041" * 300_000 + '"\n' + "# c\n" * 200_000 + "\n" * 200_000
)
FAR = "../" * 90 + "a/" * 9 + "x"
SPELLINGS = ", ".join("images/" + "./" * i + "train" for i in range(990))


def yaml(text: str) -> Files:
    return {"data.yaml": text}


def sources(listed: str) -> Files:
    return yaml(f"train: [{listed}]\nval: images/val\nnames: [thing]\n")


trees(
    with_yaml,
    # Merge keys that merge each other.
    yaml_merge_keys=lambda _: yaml("a0: &a0 {x: 1}\n" + MERGED + NAMED),
    # Aliases of aliases.
    yaml_aliases=lambda _: yaml("a0: &a0 [x]\n" + ALIASED + GOOD + "names: *a11\n"),
    # A number to the base 60.
    yaml_base_60=lambda s: yaml(GOOD + "nc: 1" + ":59" * int(1_300_000 * s) + "\nnames: [a]\n"),
    # 100,000 keys and more.
    yaml_keys=lambda s: yaml(joined(390_000 * s, "k{i}: 1\n") + NAMED),
    # As many classes as fit.
    yaml_names=lambda s: yaml(GOOD + "names:\n" + joined(190_000 * s, "  {i}: n{i}\n")),
    # A key that is given again and again.
    yaml_same_keys=lambda s: yaml(NAMED + "k: 1\n" * int(800_000 * s)),
    # Lists in lists.
    yaml_deep=lambda s: yaml(GOOD + "names: " + "[" * int(4_000_000 * s)),
    # Mappings in mappings, by indentation.
    yaml_indented=lambda s: yaml(
        GOOD + "names:\n" + "".join(" " * i + "a:\n" for i in range(1, int(2_000 * s**0.5)))
    ),
    # A key as long as the file.
    yaml_long_key=lambda s: yaml("? " + "k" * int(4_000_000 * s) + "\n: 1\n" + NAMED),
    # Folded text, quoted text, comments and blank lines.
    yaml_scalars=lambda _: yaml(FOLDED + NAMED),
    # Very many sources that are not there.
    yaml_sources=lambda s: yaml(
        "train: [" + "nowhere, " * int(390_000 * s) + "]\nval: images/val\nnames: [a]\n"
    ),
    # A thousand sources that climb very far, and one that is very long.
    yaml_climbing=lambda _: yaml(
        f"train: [{', '.join([FAR] * 990)}, {'../' * 300_000}]\nval: images/val\nnames: [a]\n"
    ),
    # A thousand spellings of the same folder with many pictures.
    yaml_same_sources=lambda s: numbered(5_000 * s, "images/train/{}.bmp", bitmap) | sources(SPELLINGS),
    # Hundreds of lists of the same images.
    yaml_lists=lambda s: (
        numbered(500 * s, "list{}.txt", "images/train/0.bmp\n" * 20_000)
        | sources(joined(500 * s, "list{i}.txt", ", "))
    ),
    # Hundreds of lists of missing images.
    yaml_missing_lists=lambda s: (
        numbered(900 * s, "list{}.txt", ("a/" * 20 + "x.bmp\n") * 1_000)
        | sources(joined(900 * s, "list{i}.txt", ", "))
    ),
)

# Pictures


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int) -> bytes:
    """Return a PNG of zeros; large dimensions cost few bytes."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * width)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def encoded(kind: str, width: int, height: int, **options: object) -> bytes:
    """Return a picture of one colour as Pillow writes it."""
    Image.MAX_IMAGE_PIXELS = None
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, kind, **options)
    return buffer.getvalue()


def pictures(count: float, content: bytes, ending: str) -> Files:
    return numbered(count, f"x{{}}.{ending}", lambda i: content + bytes([i % 256, i // 256]))


def large_tiff(count: float, side: int) -> Files:
    return pictures(max(count, 2), encoded("TIFF", side, side, compression="tiff_deflate"), "tif")


SMALL_PNG = png(20, 20)
HUGE_HEAD = struct.pack(">II", 2**31 - 1, 2**31 - 1) + SMALL_PNG[24:29]
TIFF_ENTRY = struct.pack("<HHII", 65000, 4, 1, 0)


def tiff_of_entries(count: int) -> bytes:
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", count) + TIFF_ENTRY * count + bytes(4)


trees(
    flat,
    # Forty PNGs of 100 megapixels, 300 kB each.
    png_bombs=lambda s: pictures(max(40 * s, 2), png(10_000, 10_000), "png"),
    # PNGs that promise more pixels than there are atoms.
    png_huge=lambda _: pictures(40, SMALL_PNG[:8] + chunk(b"IHDR", HUGE_HEAD) + SMALL_PNG[33:], "png"),
    # PNGs with rows of a hundred million pixels.
    png_wide=lambda _: pictures(8, png(99_000_000, 1), "png"),
    # PNGs of nothing but empty chunks.
    png_chunks=lambda s: pictures(
        max(20 * s, 1),
        SMALL_PNG[:8] + SMALL_PNG[8:33] + repeated(chunk(b"teXt", b""), 30 * MEBIBYTE * s),
        "png",
    ),
    # PNGs whose compressed text chunk is a bomb.
    png_text=lambda _: pictures(
        20,
        SMALL_PNG[:33]
        + chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200 * MEBIBYTE), 9))
        + SMALL_PNG[33:],
        "png",
    ),
    # Forty JPEGs of 99 megapixels.
    jpeg_bombs=lambda s: pictures(max(40 * s, 2), encoded("JPEG", 9_950, 9_950), "jpg"),
    # Progressive JPEGs of many megapixels.
    jpeg_scans=lambda s: pictures(max(20 * s, 2), encoded("JPEG", 9_000, 9_000, progressive=True), "jpg"),
    # WebPs of 99 megapixels.
    webp_bombs=lambda s: pictures(max(20 * s, 2), encoded("WEBP", 9_950, 9_950), "webp"),
    # TIFFs of 99 megapixels that only a decoder can judge.
    tiff_bombs=lambda s: large_tiff(40 * s, 9_950),
    # Hundreds of TIFFs just below the size from which on they are decoded one at a time.
    tiff_small_bombs=lambda s: large_tiff(400 * s, 3_160),
    # JPEG 2000 pictures, which are slow to decode.
    jp2_bombs=lambda s: pictures(max(40 * s, 2), encoded("JPEG2000", 9_950, 9_950), "jp2"),
    # AVIF pictures of many megapixels.
    avif_bombs=lambda s: pictures(max(20 * s, 2), encoded("AVIF", 9_000, 9_000, speed=10), "avif"),
    # JPEGs of fill bytes, of stuffed bytes, and of empty segments.
    fill_bytes=lambda s: pictures(8, b"\xff\xd8" + repeated(b"\xff", 32 * MEBIBYTE * s), "jpg"),
    stuffed_bytes=lambda s: pictures(8, b"\xff\xd8\xff" + repeated(b"\xff\0", 32 * MEBIBYTE * s), "jpg"),
    segments=lambda s: pictures(8, b"\xff\xd8" + repeated(b"\xff\xe0\0\2", 32 * MEBIBYTE * s), "jpg"),
    # Pictures of 95 MB that are no pictures.
    large_pictures=lambda s: numbered(
        max(10 * s, 1), "x{}.tif", lambda _: b"II*\0" + os.urandom(4) + bytes(int(95_000_000 * s))
    ),
    # A TIFF whose directory has very many entries.
    tiff_directories=lambda s: pictures(50, tiff_of_entries(int(65_000 * min(1, s * 4))), "tif"),
)

# Files and folders

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{:064x}\nsize 100\n"
SUBMODULE = '[submodule "s{i}"]\n\tpath = s{i}\n\turl = ./x\n'

trees(
    flat,
    # 100,000 copies of one picture.
    same_pictures=lambda s: numbered(100_000 * s, "x{}.bmp", bitmap(1)),
    # Names as long as they may be, with characters that fold to more.
    long_names=lambda s: numbered(20_000 * s, "\ufb03" * 80 + "{}.bmp", bitmap),
    # Names that are no UTF-8, and names that fold alike.
    odd_names=lambda s: {
        path: content
        for name in (os.fsdecode(b"\xff") + "{}.bmp", "A{}.bmp", "a{}.bmp")
        for path, content in numbered(20_000 * s, name, bitmap).items()
    },
    # Folders that are named like caches.
    cache_folders=lambda _: {"x.cache/a.bmp": bitmap(77), "labels.cache/x/y.cache": b"\x80\x04."},
)
trees(
    bare,
    # 100,000 small pictures with labels.
    many_files=lambda s: {
        path: content
        for i in range(int(100_000 * s))
        for path, content in (
            (f"{i // 1000}/{i}.bmp", PIXEL[:-4] + struct.pack("<I", i)),
            (f"{i // 1000}/{i}.txt", BOX),
        )
    },
    # 100,000 pictures that are none.
    many_bad_files=lambda s: {f"{i // 1000}/{i}.jpg": b"x" for i in range(int(100_000 * s))},
    # 100,000 folders, each with a mark of a virtual environment or a class.
    many_folders=lambda s: numbered(100_000 * s, "train/c{0}/{0}.bmp", bitmap),
    # Labels without images, and images without labels whose names are alike.
    many_orphans=lambda s: numbered(20_000 * s, "a{}/x.bmp", bitmap) | numbered(20_000 * s, "b{}/x.txt", BOX),
    # Git LFS pointers in place of everything.
    lfs_pointers=lambda s: (
        numbered(20_000 * s, "{}.jpg", POINTER.format)
        | numbered(20_000 * s, "{}.txt", lambda i: POINTER.format(i + 1))
    ),
    # A .gitmodules of very many entries.
    submodules=lambda s: {"../.gitmodules": joined(300_000 * s, SUBMODULE)},
)


def sparse_file(root: Path, _: float) -> None:
    """A file of 64 GiB that holds nothing."""
    with (flat(project(root)) / "x.jpg").open("wb") as file:
        file.truncate(1 << 36)


def deep_folders(root: Path, _: float) -> None:
    """1,100 folders in each other."""
    handle = os.open(flat(project(root)), os.O_RDONLY)
    for _ in range(1_100):
        os.mkdir("d", dir_fd=handle)
        below = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(handle)


def symlinks(root: Path, scale: float) -> None:
    """Symlinks to each other and to the folder above."""
    data = flat(project(root))
    for index in range(int(20_000 * scale)):
        (data / f"l{index}.bmp").symlink_to(f"l{index + 1}.bmp")
    (data / "up").symlink_to("..")


def endless_requirements(root: Path, _: float) -> None:
    """A requirements file that is a device without end."""
    MAKERS["requirements"](root, 0)
    (root / "r.txt").unlink()
    (root / "r.txt").symlink_to("/dev/zero")


# Configuration


def toml(text: str) -> Files:
    return {"../offload.toml": HEAD + text}


trees(
    flat,
    # An offload.toml of 40 MB with keys that do not exist.
    toml_keys=lambda s: toml(joined(3_000_000 * s, "k{i} = 1\n")),
    # Very many tables.
    toml_tables=lambda s: toml(joined(300_000 * s, "[[t.a{i}.b]]\nx = 1\n")),
    # One array of very many tables.
    toml_array_of_tables=lambda s: toml("[[t]]\n" * int(3_000_000 * s)),
    # Arrays in arrays.
    toml_deep=lambda s: toml("x = " + "[" * int(10_000_000 * s) + "]" * int(10_000_000 * s) + "\n"),
    # A dotted key of very many parts.
    toml_dotted=lambda s: toml(joined(500_000 * s, "a", ".") + " = 1\n"),
    # A text of 90 MB, and a list of texts.
    toml_strings=lambda s: toml(
        'x = "' + "a" * int(50_000_000 * s) + '"\ny = [' + '"b",' * 1_000_000 + "]\n"
    ),
    # Class names without end.
    toml_classes=lambda s: toml("classes = [" + joined(2_000_000 * s, '"c{i}"', ", ") + "]\n"),
    # A number of very many digits.
    toml_number=lambda s: toml("x = 1" + "0" * int(50_000_000 * s) + "\n"),
    # A pyproject.toml of 40 MB without our table.
    pyproject=lambda s: {"../pyproject.toml": joined(3_000_000 * s, "k{i} = 1\n")},
)

# Training code


def training(code: str = "", requirements: str = "") -> Files:
    listed = f'requirements = "{requirements}"\n' if requirements else ""
    head = "def train(context): pass\n"
    return toml(f'[training]\nentrypoint = "t:train"\n{listed}') | {"../t.py": head + code}


def package(count: float, text: Callable[[int], str]) -> Files:
    files = toml('[training]\nentrypoint = "p.t:train"\n') | {"../p/__init__.py": ""}
    return files | {"../p/t.py": "def train(context): pass\n"} | numbered(count, "../p/m{}.py", text)


PLANNED = {
    # A requirements file of 50 MB.
    "requirements": lambda s: (
        training(requirements="r.txt") | {"../r.txt": joined(4_000_000 * s, "p{i}==1\\\n")}
    ),
    # Requirements files that name each other, 2,000 deep.
    "nested_requirements": lambda s: (
        training(requirements="r0.txt")
        | numbered(2_000 * s, "../r{}.txt", lambda i: f"-r r{i + 1}.txt\n")
        | {f"../r{int(2_000 * s)}.txt": "numpy\n"}
    ),
    # Training code that is a list of a million numbers, and very deep.
    "code": lambda s: training("x = [" + "1," * int(10_000_000 * s) + "]\n"),
    # Training code that is nested deeper than the parser takes.
    "deep_code": lambda _: training("x = " + "(" * 150 + "1" + ")" * 150 + "\ny = " + "-" * 90_000 + "1\n"),
    # A package of very many modules that import each other.
    "many_modules": lambda s: package(5_000 * s, lambda _: joined(50, "from p import m{i}\n")),
    # Modules of nothing but imports of what is not there.
    "many_imports": lambda s: package(
        16 * s, lambda m: "".join(f"import m{m}_{i}, p.a{i}\n" for i in range(20_000))
    ),
}
"""Trees whose danger is in what `offload plan` reads."""
trees(flat, **PLANNED)
MAKERS |= {make.__name__: make for make in (sparse_file, deep_folders, symlinks, endless_requirements)}
COMMANDS |= {name: ["plan", "--on", "cpu", "--no-calibrate"] for name in (*PLANNED, "endless_requirements")}
