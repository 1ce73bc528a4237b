"""Synthetic images, made fresh for a run and removed with it: nobody's data, and the same sizes on every machine."""

import random
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
MULTI_FRAME_GRAYSCALE_WORD = "1.2.840.10008.5.1.4.1.1.7.3"
FRAME_BYTES = 512 * 512 * 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder of part-10 files: `files` of them, `size` bytes together."""

    path: Path
    files: int
    size: int


def _image(sop_class_uid: str, rows: int, columns: int, frames: int, pixels: bytes, study: UID, number: int) -> Dataset:
    """Return one image with the usual header of about 40 elements."""
    image = Dataset()
    image.SpecificCharacterSet = "ISO_IR 192"
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.SOPClassUID, image.SOPInstanceUID = sop_class_uid, generate_uid(None)
    image.StudyDate = image.SeriesDate = image.AcquisitionDate = image.ContentDate = "20260102"
    image.StudyTime = image.SeriesTime = image.ContentTime = "101112.000"
    image.AccessionNumber, image.Modality, image.Manufacturer = "BENCH0001", "CT", "Dicomward bench"
    image.InstitutionName, image.ReferringPhysicianName = "Bench Hospital", "Doctor^Bench"
    image.StudyDescription, image.SeriesDescription = "Synthetic study", "Synthetic series"
    image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex = (
        "Bench^Patient",
        "B1",
        "19700101",
        "O",
    )
    image.SliceThickness, image.KVP, image.PatientPosition = "1.0", "120", "HFS"
    image.StudyInstanceUID, image.SeriesInstanceUID = study, UID(f"{study}.1")
    image.FrameOfReferenceUID, image.StudyID = UID(f"{study}.2"), "1"
    image.SeriesNumber, image.InstanceNumber = "1", str(number)
    image.ImagePositionPatient, image.ImageOrientationPatient = ["0", "0", str(number)], ["1", "0", "0", "0", "1", "0"]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns, image.PixelSpacing = rows, columns, ["0.5", "0.5"]
    if frames > 1:
        image.NumberOfFrames = str(frames)
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.RescaleIntercept, image.RescaleSlope = "-1024", "1"
    image.add_new(0x7FE00010, "OW", pixels)
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return image


def _folder(path: Path) -> Folder:
    files = list(path.iterdir())
    return Folder(path=path, files=len(files), size=sum(file.stat().st_size for file in files))


def make_images(path: Path, *, count: int, rows: int, columns: int) -> Folder:
    """Write `count` CT images of rows × columns × 16 bit."""
    path.mkdir(parents=True)
    study, chance = generate_uid(None), random.Random(count)
    for number in range(count):
        image = _image(CT_IMAGE_STORAGE, rows, columns, 1, chance.randbytes(rows * columns * 2), study, number)
        image.save_as(path / f"{number:05d}.dcm", enforce_file_format=True)
    return _folder(path)


def make_ct_slices(path: Path, count: int = 200) -> Folder:
    """Write CT slices of 512 KiB of pixels each."""
    return make_images(path, count=count, rows=512, columns=512)


def make_small_objects(path: Path, count: int = 2_000) -> Folder:
    """Write objects of about 17 KB each."""
    return make_images(path, count=count, rows=64, columns=128)


def make_multi_frame(path: Path, frames: int = 1_024) -> Folder:
    """Write one multi-frame object of 512 KiB a frame (1,024 frames = 537 MB), frame by frame."""
    path.mkdir(parents=True)
    frame = random.Random(frames).randbytes(FRAME_BYTES)
    # Even 537 MB must not be held in memory: write the header with an empty value, then give it its length.
    image = _image(MULTI_FRAME_GRAYSCALE_WORD, 512, 512, frames, b"", generate_uid(None), 1)
    file = path / "multi-frame.dcm"
    image.save_as(file, enforce_file_format=True)
    with file.open("r+b") as stream:
        # The Pixel Data element is the last one: tag, VR, two reserved bytes, then its 32-bit length.
        stream.seek(-4, 2)
        stream.write((FRAME_BYTES * frames).to_bytes(4, "little"))
        for _ in range(frames):
            stream.write(frame)
    return _folder(path)
