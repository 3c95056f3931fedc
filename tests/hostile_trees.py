"""Trees that cost little to write and would cost much to read, for tests and for benchmarks/hostile_trees.py.

Each maker writes a project with an offload.toml into an empty folder. `scale` 1 is what fits into a git repository of
a host with limits (files up to 100 MB); tests use smaller ones.
"""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from dataset_case import BOX, bitmap, flat, put, with_yaml

Maker = Callable[[Path, float], object]
MAKERS: dict[str, Maker] = {}
COMMANDS: dict[str, list[str]] = {}
"""What to run in place of `offload check`."""

MEBIBYTE = 1 << 20
HEAD = '[dataset]\npath = "data"\n'


def tree(make: Maker) -> Maker:
    """Register a maker under its name."""
    MAKERS[make.__name__] = make
    return make


def planned(make: Maker) -> Maker:
    """Register a maker of a tree whose danger is in what `offload plan` reads."""
    COMMANDS[make.__name__] = ["plan", "--on", "cpu", "--no-calibrate"]
    return tree(make)


def project(root: Path, more: str = "") -> Path:
    """Write an offload.toml, and return the folder of its dataset."""
    put(root / "offload.toml", HEAD + more)
    (root / "data").mkdir(exist_ok=True)
    return root / "data"


def repeated(piece: bytes, size: float) -> bytes:
    """Return about `size` bytes made of one piece."""
    return piece * max(int(size) // len(piece), 1)


# Labels


@tree
def bad_label(root, scale):
    """One label of 16 MiB of words that are no numbers."""
    put(flat(project(root)) / "000.txt", repeated(b"x y\n", 16 * MEBIBYTE * scale))


@tree
def bad_labels(root, scale):
    """Twenty labels of 16 MiB."""
    data = flat(project(root))
    for index in range(20):
        put(data / f"{index:03}.txt", repeated(b"0 2 2 2 2\n", 16 * MEBIBYTE * scale))


@tree
def long_rows(root, scale):
    """A label whose only row is 16 MiB long."""
    put(flat(project(root)) / "000.txt", b"0 " + repeated(b"0.5 ", 16 * MEBIBYTE * scale))


@tree
def long_word(root, scale):
    """A label that is one number of 16 MiB."""
    put(flat(project(root)) / "000.txt", b"0 0.5 0.5 0.5 0." + repeated(b"1", 16 * MEBIBYTE * scale))


@tree
def many_long_rows(root, scale):
    """Labels of valid polygons with very many points."""
    data = flat(project(root))
    for index in range(20):
        row = b"0 " + b"0.1 0.1 0.5 0.1 0.1 0.5 " * 5_000 + b"\n"
        put(data / f"{index:03}.txt", repeated(row, 15 * MEBIBYTE * scale))


@tree
def full_labels(root, scale):
    """Thousands of labels with as many rows as are allowed, all good."""
    data = project(root)
    rows = b"".join(b"0 0.5 0.5 0.%04d1 0.%04d1\n" % (i % 10_000, i // 10_000) for i in range(19_999))
    flat(data, max(int(200 * scale), 2))
    for label in data.glob("*.txt"):
        label.write_bytes(rows)


@tree
def repeated_rows(root, scale):
    """Many labels of repeated rows: warnings without end."""
    data = flat(project(root), max(int(400 * scale), 2))
    for label in data.glob("*.txt"):
        label.write_bytes(b"0 0.5 0.5 0.1 0.1\n" * 19_000)


@tree
def blank_lines(root, scale):
    """Labels of nothing but line ends, of several kinds."""
    data = flat(project(root))
    for index, end in enumerate((b"\n", b"\r", b"\r\n", "\u2028".encode(), b"\x0c", b" ")):
        put(data / f"{index:03}.txt", repeated(end, 16 * MEBIBYTE * scale))


@tree
def unknown_classes(root, scale):
    """Many labels with classes that no name is given for."""
    data = flat(project(root), max(int(3_000 * scale), 2))
    put(data / "classes.txt", "one\n")
    for label in data.glob("*.txt"):
        label.write_bytes(b"7 0.5 0.5 0.1 0.1\n" * 1_000)


# COCO


def coco(root: Path, images: int, annotations: str, head: str = "", picture: str = "a{}.bmp") -> None:
    data = project(root)
    for index in range(min(images, 1_000)):
        put(data / f"a{index}.bmp", bitmap(index))
    described = ",".join(
        f'{{"id":{i},"file_name":"{picture.format(i)}","width":16,"height":12}}' for i in range(images)
    )
    text = (
        f'{{{head}"images":[{described}],"categories":[{{"id":1,"name":"x"}}],"annotations":[{annotations}]}}'
    )
    put(data / "all.json", text)


def annotation(number: int, image: int = 0, extra: str = "") -> str:
    return f'{{"id":{number},"image_id":{image},"category_id":1,"bbox":[1,1,5,5]{extra}}}'


@tree
def coco_annotations(root, scale):
    """One line with 1.4 million good annotations, about 100 MB."""
    count = int(1_400_000 * scale)
    coco(root, 1_000, ",".join(annotation(i, i % 1_000) for i in range(count)))


@tree
def coco_on_one_image(root, scale):
    """All annotations on one image."""
    count = int(1_400_000 * scale)
    coco(root, 2, ",".join(annotation(i) for i in range(count)))


@tree
def coco_polygons(root, scale):
    """Annotations with long polygons, about 100 MB."""
    polygon = ',"segmentation":[[' + ",".join(["1,1,9,1,9,9"] * 1_000) + "]]"
    coco(root, 10, ",".join(annotation(i, i % 10, polygon) for i in range(int(8_000 * scale))))


@tree
def coco_parts(root, scale):
    """An annotation whose polygon has very many parts."""
    polygon = ',"segmentation":[' + ",".join(["[1,1,9,1,9,9]"] * int(6_000_000 * scale)) + "]"
    coco(root, 2, annotation(0, 0, polygon))


@tree
def coco_small_numbers(root, scale):
    """An annotation that is a list of 45 million numbers, which take more memory than text."""
    coco(root, 2, '{"id":1,"image_id":0,"category_id":1,"bbox":[' + "1," * int(45_000_000 * scale) + "1]}")


@tree
def coco_other_member(root, scale):
    """A member that is not read, of 33 million empty lists."""
    coco(root, 2, annotation(0), '"x":{"y":[' + "[]," * int(33_000_000 * scale) + "[]]},")


@tree
def coco_empty_objects(root, scale):
    """A member that is not read, of 25 million empty objects in one list of lists."""
    coco(root, 2, annotation(0), '"x":[[' + "{}," * int(30_000_000 * scale) + "{}]],")


@tree
def coco_deep(root, scale):
    """Lists in lists, 45 million deep."""
    coco(root, 2, annotation(0), '"x":' + "[" * int(45_000_000 * scale))


@tree
def coco_deep_lists(root, scale):
    """Elements that are each nested as deep as the parser takes."""
    deep = "[" * 900 + "]" * 900
    coco(root, 2, annotation(0), '"x":[' + ",".join([deep] * int(50_000 * scale)) + "],")


@tree
def coco_missing_images(root, scale):
    """A million images that are not there."""
    coco(root, int(1_000_000 * scale), annotation(0), picture="b{}.bmp")


@tree
def coco_huge_number(root, scale):
    """A number of very many digits."""
    coco(root, 2, '{"id":' + "9" * int(90_000_000 * scale) + "}")


@tree
def coco_same_names(root, scale):
    """A picture of the same name in each of many folders, and an image for each that is written without its folder."""
    data = project(root)
    count = int(20_000 * scale)
    for index in range(count):
        put(data / f"d{index}/a.bmp", bitmap(index))
    described = ",".join(
        f'{{"id":{i},"file_name":"x{i}/a.bmp","width":16,"height":12}}' for i in range(count)
    )
    text = f'{{"images":[{described}],"categories":[{{"id":1,"name":"x"}}],"annotations":[]}}'
    put(data / "all.json", text)


@tree
def coco_ranked_names(root, scale):
    """As above, but one picture ranks before the others, so that there is no fault to stop at."""
    data = project(root)
    count = int(20_000 * scale)
    for index in range(count):
        put(data / f"d{index}/a.bmp", bitmap(index))
    put(data / "train/a.bmp", bitmap(count))
    described = ",".join(
        f'{{"id":{i},"file_name":"x{i}/a.bmp","width":16,"height":12}}' for i in range(count)
    )
    text = f'{{"images":[{described}],"categories":[{{"id":1,"name":"x"}}],"annotations":[]}}'
    put(data / "instances_train.json", text)


@tree
def coco_categories(root, scale):
    """Two million categories."""
    data = project(root)
    put(data / "a.bmp", bitmap())
    named = ",".join(f'{{"id":{i},"name":"c{i}"}}' for i in range(int(2_000_000 * scale)))
    put(
        data / "all.json",
        f'{{"images":[{{"id":0,"file_name":"a.bmp"}}],"annotations":[],"categories":[{named}]}}',
    )


@tree
def coco_files(root, scale):
    """Twenty COCO files with 70,000 annotations each."""
    data = project(root)
    for index in range(100):
        put(data / f"a{index}.bmp", bitmap(index))
    described = ",".join(f'{{"id":{i},"file_name":"a{i}.bmp","width":16,"height":12}}' for i in range(100))
    objects = ",".join(annotation(i, i % 100) for i in range(int(70_000 * scale)))
    for index in range(20):
        text = f'{{"images":[{described}],"categories":[{{"id":1,"name":"x"}}],"annotations":[{objects}]}}'
        put(data / f"part{index}.json", text)


@tree
def coco_wide_characters(root, scale):
    """A COCO file of 90 MB with one character that makes Python's text four times as large."""
    data = project(root)
    put(data / "a.bmp", bitmap())
    text = '{"info":"\U0001f600","images":[{"id":0,"file_name":"a.bmp"}],"categories":[{"id":1,"name":"x"}],'
    put(data / "all.json", text + '"annotations":[]' + " " * int(90_000_000 * scale) + "}")


@tree
def coco_lines(root, scale):
    """Annotations that are each at fault, each on a line of its own."""
    coco(root, 2, ",\n".join(["{}"] * int(20_000_000 * scale)))


# VOC


def voc(objects: str, name: str = "a.bmp") -> str:
    return f"<annotation><filename>{name}</filename>{objects}</annotation>"


def voc_object(name: str = "x") -> str:
    return f"<object><name>{name}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"


@tree
def voc_objects(root, scale):
    """400,000 objects in VOC files of 4 MB."""
    data = project(root)
    for index in range(max(int(12 * scale), 2)):
        put(data / f"{index}.bmp", bitmap(index))
        put(data / f"{index}.xml", voc(voc_object() * int(36_000 * min(1, scale * 4))))


@tree
def voc_many_objects(root, scale):
    """Two million objects, 100 in each of 20,000 files."""
    data = project(root)
    for index in range(int(20_000 * scale)):
        put(data / f"{index}.bmp", bitmap(index))
        put(data / f"{index}.xml", voc(voc_object() * 100))


@tree
def voc_polygon(root, scale):
    """A polygon of 150,000 points."""
    data = project(root)
    points = "".join(f"<x{i}>1</x{i}><y{i}>2</y{i}>" for i in range(1, int(120_000 * scale)))
    for index in range(2):
        put(data / f"{index}.bmp", bitmap(index))
        put(data / f"{index}.xml", voc(f"<object><name>x</name><polygon>{points}</polygon></object>"))


@tree
def voc_empty_elements(root, scale):
    """Files of nothing but empty elements."""
    data = project(root)
    for index in range(5):
        put(data / f"{index}.bmp", bitmap(index))
        put(data / f"{index}.xml", voc("<a/>" * int(1_000_000 * scale)))


@tree
def voc_text(root, scale):
    """Text in pieces, between comments."""
    data = project(root)
    put(data / "a.bmp", bitmap())
    put(
        data / "a.xml",
        "<annotation><filename>" + "a<!---->" * int(500_000 * scale) + "</filename></annotation>",
    )


@tree
def voc_attributes(root, scale):
    """Elements with very many attributes."""
    data = project(root)
    put(data / "a.bmp", bitmap())
    many = " ".join(f'a{i}=""' for i in range(int(350_000 * scale)))
    put(data / "a.xml", voc(f"<object {many}/>"))


@tree
def voc_depth(root, scale):
    """Elements in elements."""
    data = project(root)
    put(data / "a.bmp", bitmap())
    put(data / "a.xml", voc("<a>" * int(1_300_000 * scale)))


@tree
def voc_entities(root, scale):
    """The billion laughs."""
    data = project(root)
    put(data / "a.bmp", bitmap())
    names = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "x"}">' for i in range(10))
    put(data / "a.xml", f"<!DOCTYPE a [{names}]><annotation><filename>&e9;</filename></annotation>")


@tree
def voc_same_stem(root, scale):
    """Pictures of the same name in many folders, and an XML file for each in other folders."""
    data = project(root)
    for index in range(int(10_000 * scale)):
        put(data / f"d{index}/a.bmp", bitmap(index))
        put(data / f"e{index}/a.xml", voc(voc_object()))


# NDJSON and other lists


@tree
def ndjson_boxes(root, scale):
    """Good NDJSON of 100 MB."""
    data = project(root)
    lines = ['{"type":"dataset","task":"detect","class_names":{"0":"x"}}']
    boxes = ",".join(["[0,0.5,0.5,0.2,0.2]"] * 500)
    for index in range(int(10_000 * scale)):
        put(data / f"{index}.bmp", bitmap(index))
        split = "val" if index % 5 == 0 else "train"
        lines.append(
            f'{{"type":"image","file":"{index}.bmp","split":"{split}","annotations":{{"boxes":[{boxes}]}}}}'
        )
    put(data / "set.ndjson", "\n".join(lines))


@tree
def ndjson_one_line(root, scale):
    """A line of 100 MB."""
    data = project(root)
    put(data / "a.bmp", bitmap())
    boxes = ",".join(["[0,0.5,0.5,0.2,0.2]"] * int(5_000_000 * scale))
    text = '{"type":"dataset","task":"detect","class_names":{"0":"x"}}\n'
    text += f'{{"type":"image","file":"a.bmp","split":"train","annotations":{{"boxes":[{boxes}]}}}}\n'
    put(data / "set.ndjson", text)


@tree
def ndjson_head(root, scale):
    """A first line with very many classes."""
    data = project(root)
    put(data / "a.bmp", bitmap())
    names = ",".join(f'"{i}":"c{i}"' for i in range(int(4_000_000 * scale)))
    put(data / "set.ndjson", f'{{"type":"dataset","class_names":{{{names}}}}}\n')


@tree
def ndjson_absent(root, scale):
    """A million images that are not there."""
    data = project(root)
    put(data / "a.bmp", bitmap())
    line = '{"type":"image","file":"b.bmp","split":"train"}\n'
    text = '{"type":"dataset","task":"detect","class_names":{"0":"x"}}\n' + line * int(2_000_000 * scale)
    put(data / "set.ndjson", text)


@tree
def json_numbers(root, scale):
    """An NDJSON line of small numbers."""
    data = project(root)
    put(data / "a.bmp", bitmap())
    text = (
        '{"type":"dataset","task":"detect","class_names":{"0":"x"},"x":['
        + "1," * int(45_000_000 * scale)
        + "1]}\n"
    )
    put(data / "set.ndjson", text)


@tree
def json_files(root, scale):
    """Many JSON files of 90 MB that are of no format."""
    data = flat(project(root))
    for index in range(5):
        put(data / f"{index}.json", b'"images" "annotations"' + bytes(int(90_000_000 * scale)))


@tree
def missing_lines(root, scale):
    """A list of images that are not there."""
    with_yaml(project(root), "train: list.txt\nval: images/val\nnames: [a]\n")
    put(root / "data/list.txt", ("a/" * 100 + "x.jpg\n") * int(500_000 * scale))


@tree
def repeated_lines(root, scale):
    """A list with the same image again and again, and in many spellings."""
    with_yaml(project(root), "train: list.txt\nval: images/val\nnames: [a]\n")
    lines = "".join(f"images/{'./' * (i % 50)}train/0.bmp\n" for i in range(int(1_000_000 * scale)))
    put(root / "data/list.txt", lines)


@tree
def voc_lists(root, scale):
    """A VOC list with very many lines."""
    data = project(root)
    put(data / "a.bmp", bitmap())
    put(data / "a.xml", voc(voc_object()))
    put(data / "ImageSets/Main/train.txt", "b\n" * int(30_000_000 * scale))


@tree
def class_list(root, scale):
    """A classes.txt with very many names."""
    put(flat(project(root)) / "classes.txt", "".join(f"{i}\n" for i in range(int(500_000 * scale))))


@tree
def class_lists(root, scale):
    """A classes.txt in each of many folders, all different."""
    data = flat(project(root))
    for index in range(int(20_000 * scale)):
        put(data / f"d{index}/classes.txt", f"{index}\n" * 10)


@tree
def darknet_lines(root, scale):
    """An obj.data of odd lines."""
    data = flat(project(root))
    put(data / "obj.data", b"a" * 1000 + b" = " + repeated(b" \t", MEBIBYTE * scale * 0.9) + b"\n")


# data.yaml


def yaml_tree(root: Path, text: str) -> None:
    with_yaml(project(root), text)


GOOD = "train: images/train\nval: images/val\n"


@tree
def yaml_merge_keys(root, scale):
    """Merge keys that merge each other."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 12)]
    yaml_tree(root, "\n".join(lines) + "\n" + GOOD + "names: [a]\n")


@tree
def yaml_aliases(root, scale):
    """Aliases of aliases."""
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    yaml_tree(root, "\n".join(lines) + "\n" + GOOD + "names: *a11\n")


@tree
def yaml_base_60(root, scale):
    """A number to the base 60."""
    yaml_tree(root, GOOD + "nc: 1" + ":59" * int(1_300_000 * scale) + "\nnames: [a]\n")


@tree
def yaml_keys(root, scale):
    """100,000 keys and more."""
    keys = "".join(f"k{i}: 1\n" for i in range(int(390_000 * scale)))
    yaml_tree(root, keys + GOOD + "names: [a]\n")


@tree
def yaml_names(root, scale):
    """As many classes as fit."""
    names = "".join(f"  {i}: n{i}\n" for i in range(int(190_000 * scale)))
    yaml_tree(root, GOOD + "names:\n" + names)


@tree
def yaml_same_keys(root, scale):
    """A key that is given again and again."""
    yaml_tree(root, GOOD + "names: [a]\n" + "k: 1\n" * int(800_000 * scale))


@tree
def yaml_deep(root, scale):
    """Lists in lists."""
    yaml_tree(root, GOOD + "names: " + "[" * int(4_000_000 * scale))


@tree
def yaml_indented(root, scale):
    """Mappings in mappings, by indentation."""
    yaml_tree(root, GOOD + "names:\n" + "".join(" " * i + "a:\n" for i in range(1, int(2_000 * scale**0.5))))


@tree
def yaml_long_key(root, scale):
    """A key as long as the file."""
    yaml_tree(root, "? " + "k" * int(4_000_000 * scale) + "\n: 1\n" + GOOD + "names: [a]\n")


@tree
def yaml_scalars(root, scale):
    """Folded text, quoted text, comments and blank lines."""
    text = (
        "x: >\n"
        + "  a\n" * 200_000
        + 'y: "'
        + "\\u0041" * 300_000
        + '"\n'
        + "# c\n" * 200_000
        + "\n" * 200_000
    )
    yaml_tree(root, text + GOOD + "names: [a]\n")


@tree
def yaml_sources(root, scale):
    """Very many sources that are not there."""
    yaml_tree(root, "train: [" + "nowhere, " * int(390_000 * scale) + "]\nval: images/val\nnames: [a]\n")


@tree
def yaml_climbing(root, scale):
    """A thousand sources that climb very far, and one that is very long."""
    far = "../" * 90 + "a/" * 9 + "x"
    yaml_tree(root, f"train: [{', '.join([far] * 990)}, {'../' * 300_000}]\nval: images/val\nnames: [a]\n")


@tree
def yaml_same_sources(root, scale):
    """A thousand spellings of the same folder with many pictures."""
    data = with_yaml(project(root))
    for index in range(int(5_000 * scale)):
        put(data / f"images/train/{index}.bmp", bitmap(index))
    spellings = ", ".join("images/" + "./" * i + "train" for i in range(990))
    put(data / "data.yaml", f"train: [{spellings}]\nval: images/val\nnames: [thing]\n")


@tree
def yaml_lists(root, scale):
    """Hundreds of lists of the same images."""
    data = with_yaml(project(root))
    for index in range(int(500 * scale)):
        put(data / f"list{index}.txt", "images/train/0.bmp\n" * 20_000)
    named = ", ".join(f"list{i}.txt" for i in range(int(500 * scale)))
    put(data / "data.yaml", f"train: [{named}]\nval: images/val\nnames: [thing]\n")


@tree
def yaml_missing_lists(root, scale):
    """Hundreds of lists of missing images."""
    data = with_yaml(project(root))
    for index in range(int(900 * scale)):
        put(data / f"list{index}.txt", ("a/" * 20 + "x.bmp\n") * 1_000)
    named = ", ".join(f"list{i}.txt" for i in range(int(900 * scale)))
    put(data / "data.yaml", f"train: [{named}]\nval: images/val\nnames: [thing]\n")


# Pictures


def png(width: int, height: int) -> bytes:
    """Return a PNG of zeros; large dimensions cost few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * width)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def encoded(kind: str, width: int, height: int, **options: object) -> bytes:
    """Return a picture of one colour as Pillow writes it."""
    import io

    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, kind, **options)
    return buffer.getvalue()


def pictures(root: Path, count: int, content: bytes, ending: str) -> None:
    data = flat(project(root))
    for index in range(count):
        put(data / f"x{index}.{ending}", content + bytes([index % 256, index // 256]))


@tree
def png_bombs(root, scale):
    """Forty PNGs of 100 megapixels, 300 kB each."""
    pictures(root, max(int(40 * scale), 2), png(10_000, 10_000), "png")


@tree
def png_huge(root, scale):
    """PNGs that promise more pixels than there are atoms."""
    head = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    good = png(20, 20)
    body = b"IHDR" + head + good[24:29]
    pictures(root, 40, good[:12] + body + struct.pack(">I", zlib.crc32(body)) + good[33:], "png")


@tree
def png_wide(root, scale):
    """PNGs with rows of a hundred million pixels."""
    pictures(root, 8, png(99_000_000, 1), "png")


@tree
def png_chunks(root, scale):
    """PNGs of nothing but empty chunks."""
    head = b"\x89PNG\r\n\x1a\n" + png(20, 20)[8:33]
    empty = struct.pack(">I", 0) + b"teXt" + struct.pack(">I", zlib.crc32(b"teXt"))
    pictures(root, max(int(20 * scale), 1), head + repeated(empty, 30 * MEBIBYTE * scale), "png")


@tree
def png_text(root, scale):
    """PNGs whose compressed text chunk is a bomb."""
    bomb = b"Comment\0\0" + zlib.compress(bytes(200 * MEBIBYTE), 9)
    chunk = struct.pack(">I", len(bomb)) + b"zTXt" + bomb + struct.pack(">I", zlib.crc32(b"zTXt" + bomb))
    good = png(20, 20)
    pictures(root, 20, good[:33] + chunk + good[33:], "png")


@tree
def jpeg_bombs(root, scale):
    """Forty JPEGs of 99 megapixels."""
    pictures(root, max(int(40 * scale), 2), encoded("JPEG", 9_950, 9_950), "jpg")


@tree
def jpeg_scans(root, scale):
    """Progressive JPEGs of many megapixels."""
    pictures(root, max(int(20 * scale), 2), encoded("JPEG", 9_000, 9_000, progressive=True), "jpg")


@tree
def webp_bombs(root, scale):
    """WebPs of 99 megapixels."""
    pictures(root, max(int(20 * scale), 2), encoded("WEBP", 9_950, 9_950), "webp")


@tree
def tiff_bombs(root, scale):
    """TIFFs of 99 megapixels that only a decoder can judge."""
    pictures(root, max(int(40 * scale), 2), encoded("TIFF", 9_950, 9_950, compression="tiff_deflate"), "tif")


@tree
def tiff_small_bombs(root, scale):
    """Hundreds of TIFFs just below the size from which on they are decoded one at a time."""
    pictures(root, max(int(400 * scale), 2), encoded("TIFF", 3_160, 3_160, compression="tiff_deflate"), "tif")


@tree
def jp2_bombs(root, scale):
    """JPEG 2000 pictures, which are slow to decode."""
    pictures(root, max(int(40 * scale), 2), encoded("JPEG2000", 9_950, 9_950), "jp2")


@tree
def avif_bombs(root, scale):
    """AVIF pictures of many megapixels."""
    pictures(root, max(int(20 * scale), 2), encoded("AVIF", 9_000, 9_000, speed=10), "avif")


@tree
def fill_bytes(root, scale):
    """JPEGs of fill bytes."""
    pictures(root, 8, b"\xff\xd8" + repeated(b"\xff", 32 * MEBIBYTE * scale), "jpg")


@tree
def stuffed_bytes(root, scale):
    """JPEGs of stuffed bytes."""
    pictures(root, 8, b"\xff\xd8\xff" + repeated(b"\xff\0", 32 * MEBIBYTE * scale), "jpg")


@tree
def segments(root, scale):
    """JPEGs of empty segments."""
    pictures(root, 8, b"\xff\xd8" + repeated(b"\xff\xe0\0\2", 32 * MEBIBYTE * scale), "jpg")


@tree
def large_pictures(root, scale):
    """Pictures of 95 MB that are no pictures."""
    data = flat(project(root))
    for index in range(max(int(10 * scale), 1)):
        put(data / f"x{index}.tif", b"II*\0" + os.urandom(4) + bytes(int(95_000_000 * scale)))


@tree
def sparse_file(root, scale):
    """A file of 64 GiB that holds nothing."""
    with (flat(project(root)) / "x.jpg").open("wb") as file:
        file.truncate(1 << 36)


@tree
def tiff_directories(root, scale):
    """A TIFF whose directory has very many entries."""
    entry = struct.pack("<HHII", 65000, 4, 1, 0)
    count = int(65_000 * min(1, scale * 4))
    data = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", count) + entry * count + bytes(4)
    pictures(root, 50, data, "tif")


# Files and folders


@tree
def many_files(root, scale):
    """100,000 small pictures with labels."""
    data = project(root)
    content = bitmap()
    for index in range(int(100_000 * scale)):
        put(data / f"{index // 1000}/{index}.bmp", content[:-4] + struct.pack("<I", index))
        put(data / f"{index // 1000}/{index}.txt", BOX)


@tree
def many_bad_files(root, scale):
    """100,000 pictures that are none."""
    data = project(root)
    for index in range(int(100_000 * scale)):
        put(data / f"{index // 1000}/{index}.jpg", b"x")


@tree
def same_pictures(root, scale):
    """100,000 copies of one picture."""
    data = flat(project(root))
    for index in range(int(100_000 * scale)):
        put(data / f"x{index}.bmp", bitmap(1))


@tree
def many_folders(root, scale):
    """100,000 folders, each with a mark of a virtual environment or a class."""
    data = project(root)
    for index in range(int(100_000 * scale)):
        put(data / f"train/c{index}/{index}.bmp", bitmap(index))


@tree
def many_orphans(root, scale):
    """Labels without images, and images without labels whose names are alike."""
    data = project(root)
    for index in range(int(20_000 * scale)):
        put(data / f"a{index}/x.bmp", bitmap(index))
        put(data / f"b{index}/x.txt", BOX)


@tree
def deep_folders(root, scale):
    """1,100 folders in each other."""
    handle = os.open(flat(project(root)), os.O_RDONLY)
    for _ in range(1_100):
        os.mkdir("d", dir_fd=handle)
        below = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(handle)


@tree
def long_names(root, scale):
    """Names as long as they may be, with characters that fold to more."""
    data = flat(project(root))
    for index in range(int(20_000 * scale)):
        put(data / ("\ufb03" * 80 + f"{index}.bmp"), bitmap(index))


@tree
def odd_names(root, scale):
    """Names that are no UTF-8, and names that fold alike."""
    data = flat(project(root))
    for index in range(int(20_000 * scale)):
        (data / os.fsdecode(b"\xff%d.bmp" % index)).write_bytes(bitmap(index))
        put(data / f"A{index}.bmp", bitmap(index))
        put(data / f"a{index}.bmp", bitmap(index))


@tree
def symlinks(root, scale):
    """Symlinks to each other and to the folder above."""
    data = flat(project(root))
    for index in range(int(20_000 * scale)):
        (data / f"l{index}.bmp").symlink_to(f"l{index + 1}.bmp")
    (data / "up").symlink_to("..")


@tree
def cache_folders(root, scale):
    """Folders that are named like caches."""
    data = flat(project(root))
    put(data / "x.cache/a.bmp", bitmap(77))
    put(data / "labels.cache/x/y.cache", b"\x80\x04.")


@tree
def lfs_pointers(root, scale):
    """Git LFS pointers in place of everything."""
    data = project(root)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:{:064x}\nsize 100\n"
    for index in range(int(20_000 * scale)):
        put(data / f"{index}.jpg", pointer.format(index))
        put(data / f"{index}.txt", pointer.format(index + 1))


@tree
def submodules(root, scale):
    """A .gitmodules of very many entries."""
    text = "".join(f'[submodule "s{i}"]\n\tpath = s{i}\n\turl = ./x\n' for i in range(int(300_000 * scale)))
    put(root / ".gitmodules", text)
    project(root)


# Configuration


@tree
def toml_keys(root, scale):
    """An offload.toml of 40 MB with keys that do not exist."""
    keys = "".join(f"k{i} = 1\n" for i in range(int(3_000_000 * scale)))
    put(root / "offload.toml", HEAD + keys)
    flat(root / "data")


@tree
def toml_tables(root, scale):
    """Very many tables."""
    tables = "".join(f"[[t.a{i}.b]]\nx = 1\n" for i in range(int(300_000 * scale)))
    put(root / "offload.toml", HEAD + tables)
    flat(root / "data")


@tree
def toml_array_of_tables(root, scale):
    """One array of very many tables."""
    put(root / "offload.toml", HEAD + "[[t]]\n" * int(3_000_000 * scale))
    flat(root / "data")


@tree
def toml_deep(root, scale):
    """Arrays in arrays."""
    deep = int(10_000_000 * scale)
    put(root / "offload.toml", HEAD + "x = " + "[" * deep + "]" * deep + "\n")
    flat(root / "data")


@tree
def toml_dotted(root, scale):
    """A dotted key of very many parts."""
    put(root / "offload.toml", HEAD + ".".join(["a"] * int(500_000 * scale)) + " = 1\n")
    flat(root / "data")


@tree
def toml_strings(root, scale):
    """A text of 90 MB, and a list of texts."""
    put(
        root / "offload.toml",
        HEAD + 'x = "' + "a" * int(50_000_000 * scale) + '"\ny = [' + '"b",' * 1_000_000 + "]\n",
    )
    flat(root / "data")


@tree
def toml_classes(root, scale):
    """Class names without end."""
    names = ", ".join(f'"c{i}"' for i in range(int(2_000_000 * scale)))
    put(root / "offload.toml", HEAD + f"classes = [{names}]\n")
    flat(root / "data")


@tree
def toml_number(root, scale):
    """A number of very many digits."""
    put(root / "offload.toml", HEAD + "x = 1" + "0" * int(50_000_000 * scale) + "\n")
    flat(root / "data")


@tree
def pyproject(root, scale):
    """A pyproject.toml of 40 MB without our table."""
    put(root / "pyproject.toml", "".join(f"k{i} = 1\n" for i in range(int(3_000_000 * scale))))
    flat(project(root))


@planned
def requirements(root, scale):
    """A requirements file of 50 MB."""
    lines = "".join(f"p{i}==1\\\n" for i in range(int(4_000_000 * scale)))
    data = flat(project(root, '[training]\nentrypoint = "t:train"\nrequirements = "r.txt"\n'))
    assert data
    put(root / "t.py", "def train(context): pass\n")
    put(root / "r.txt", lines)


@planned
def nested_requirements(root, scale):
    """Requirements files that name each other, 2,000 deep."""
    flat(project(root, '[training]\nentrypoint = "t:train"\nrequirements = "r0.txt"\n'))
    put(root / "t.py", "def train(context): pass\n")
    for index in range(int(2_000 * scale)):
        put(root / f"r{index}.txt", f"-r r{index + 1}.txt\n")
    put(root / f"r{int(2_000 * scale)}.txt", "numpy\n")


@planned
def endless_requirements(root, scale):
    """A requirements file that is a device without end."""
    flat(project(root, '[training]\nentrypoint = "t:train"\nrequirements = "r.txt"\n'))
    put(root / "t.py", "def train(context): pass\n")
    (root / "r.txt").symlink_to("/dev/zero")


@planned
def code(root, scale):
    """Training code that is a list of a million numbers, and very deep."""
    flat(project(root, '[training]\nentrypoint = "t:train"\n'))
    put(root / "t.py", "def train(context): pass\nx = [" + "1," * int(10_000_000 * scale) + "]\n")


@planned
def deep_code(root, scale):
    """Training code that is nested deeper than the parser takes."""
    flat(project(root, '[training]\nentrypoint = "t:train"\n'))
    put(
        root / "t.py",
        "def train(context): pass\nx = " + "(" * 150 + "1" + ")" * 150 + "\ny = " + "-" * 90_000 + "1\n",
    )


@planned
def many_modules(root, scale):
    """A package of very many modules that import each other."""
    flat(project(root, '[training]\nentrypoint = "p.t:train"\n'))
    put(root / "p/__init__.py")
    put(root / "p/t.py", "def train(context): pass\n")
    for index in range(int(5_000 * scale)):
        put(root / f"p/m{index}.py", "".join(f"from p import m{i}\n" for i in range(50)))


@planned
def many_imports(root, scale):
    """Modules of nothing but imports of what is not there."""
    flat(project(root, '[training]\nentrypoint = "p.t:train"\n'))
    put(root / "p/__init__.py")
    put(root / "p/t.py", "def train(context): pass\n")
    for index in range(int(16 * scale)):
        put(root / f"p/m{index}.py", "".join(f"import m{index}_{i}, p.a{i}\n" for i in range(20_000)))
