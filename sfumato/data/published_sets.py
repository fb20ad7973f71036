"""The named data sets: what is published about each. Works with nothing on disk."""

from dataclasses import dataclass

from sfumato.core.errors import ArgumentError


@dataclass(frozen=True)
class RemoteFile:
    """A file at the official address and the MD5 sum its authors (or long use) published for it."""

    name: str
    md5: str


@dataclass(frozen=True)
class NamedDataset:
    """One named data set. `counts` are the published numbers of images; `files` is empty for what
    needs no download."""

    name: str
    title: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    counts: dict[str, int]
    address: str  # where it comes from; the files lie directly below
    license: str
    files: tuple[RemoteFile, ...] = ()  # what a download fetches
    not_read: tuple[str, ...] = ()  # other forms of the same images, which are refused by name
    folders: tuple[str, ...] = ()  # names of sub-folders of a data directory that may hold it
    layout: str = ""  # of its files; see named.py
    first_test_labels: tuple[
        int, ...
    ] = ()  # tells MNIST from Fashion-MNIST, whose files have the same names

    @property
    def images(self) -> int:
        return sum(self.counts.values())


def _idx_files(*md5: str) -> tuple[RemoteFile, ...]:
    names = (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    )
    return tuple(RemoteFile(name + ".gz", sum_) for name, sum_ in zip(names, md5, strict=True))


_DIGITS = tuple(str(k) for k in range(10))
_KRIZHEVSKY = "no license stated by the authors; cite A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
_FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_CIFAR10 = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_CIFAR100_TEXT = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
"""
_CIFAR100 = tuple(_CIFAR100_TEXT.split())

_TABLE = (
    NamedDataset(
        "digits",
        "Optical recognition of handwritten digits (UCI, test part)",
        (8, 8, 1),
        _DIGITS,
        {"train": 1797},
        "bundled with scikit-learn",
        "CC BY 4.0; cite E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998",
    ),
    NamedDataset(
        "mnist",
        "MNIST handwritten digits",
        (28, 28, 1),
        _DIGITS,
        {"train": 60_000, "test": 10_000},
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "usually given as CC BY-SA 3.0; cite Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Proc. IEEE, 1998",
        _idx_files(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
        (),
        ("mnist", "MNIST", "MNIST/raw"),
        "idx",
        (7, 2, 1, 0, 4, 1, 4, 9, 5, 9),
    ),
    NamedDataset(
        "fashion_mnist",
        "Fashion-MNIST articles of clothing",
        (28, 28, 1),
        _FASHION,
        {"train": 60_000, "test": 10_000},
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "MIT; cite H. Xiao, K. Rasul and R. Vollgraf, arXiv 1708.07747",
        _idx_files(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
        (),
        ("fashion_mnist", "fashion-mnist", "FashionMNIST", "FashionMNIST/raw"),
        "idx",
        (9, 2, 1, 1, 6, 1, 4, 6, 5, 7),
    ),
    NamedDataset(
        "cifar10",
        "CIFAR-10 tiny color photographs",
        (32, 32, 3),
        _CIFAR10,
        {"train": 50_000, "test": 10_000},
        "https://www.cs.toronto.edu/~kriz/",
        _KRIZHEVSKY,
        (RemoteFile("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),),
        ("cifar-10-python.tar.gz", "cifar-10-batches-py", "data_batch_1"),
        ("cifar10", "cifar-10", "CIFAR10"),
        "cifar",
    ),
    NamedDataset(
        "cifar100",
        "CIFAR-100 tiny color photographs (fine labels)",
        (32, 32, 3),
        _CIFAR100,
        {"train": 50_000, "test": 10_000},
        "https://www.cs.toronto.edu/~kriz/",
        _KRIZHEVSKY,
        (RemoteFile("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),),
        ("cifar-100-python.tar.gz", "cifar-100-python"),
        ("cifar100", "cifar-100", "CIFAR100"),
        "cifar",
    ),
)
REGISTRY = {row.name: row for row in _TABLE}


def names() -> tuple[str, ...]:
    """The named data sets."""
    return tuple(REGISTRY)


def published(name: str) -> NamedDataset:
    """What is published about a named data set. Raises ArgumentError for any other name."""
    if name not in REGISTRY:
        raise ArgumentError(
            "data", name, f"not a named data set; the names are {', '.join(REGISTRY)}"
        )
    return REGISTRY[name]
