"""Formats of which any data set can be read by its name. Importing this imports neither torch nor numpy."""

from headsweep.config import DatasetFormat
from headsweep.data.formats.base import Format
from headsweep.data.formats.huggingface import HuggingFace
from headsweep.data.formats.medmnist import MedMnist
from headsweep.data.formats.torchvision_sets import TorchvisionSets
from headsweep.data.formats.webdataset import WebDataset

FORMATS: dict[DatasetFormat, Format] = {
    DatasetFormat.torchvision: TorchvisionSets(),
    DatasetFormat.medmnist: MedMnist(),
    DatasetFormat.huggingface: HuggingFace(),
    DatasetFormat.webdataset: WebDataset(),
}
