"""The phantom as an Enhanced CT, and what scanners send in the same series beside its slices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import (
    EnhancedCTImageStorage,
    SecondaryCaptureImageStorage,
    XRayRadiationDoseSRStorage,
    generate_uid,
)

from tests.phantom import (
    AIR_HU,
    CORONAL,
    Frame,
    PhantomOptions,
    Phase,
    frames,
    header,
    plane_cosines,
    position,
    save,
    set_attributes,
    set_pixels,
)

CHARACTER_SETS: dict[str, tuple[str | list[str] | None, bytes]] = {
    "latin-1": ("ISO_IR 100", "Müller^Jörg".encode("latin-1")),
    "japanese": (
        ["", "ISO 2022 IR 87"],
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    ),
    "utf-8": ("ISO_IR 192", "Wang^XiaoDong=王^小东".encode()),
    "gb18030": ("GB18030", "Wang^XiaoDong=王^小东".encode("gb18030")),
    "missing": (None, "Müller^Jörg".encode("latin-1")),
    "misspelt": ("ISO-IR 999", "Müller^Jörg".encode("latin-1")),
}
"""Specific Character Set and Patient's Name as bytes; the Japanese one is the example of PS3.5 H.3.1."""


def write_enhanced(path: Path, options: PhantomOptions | None = None) -> Path:
    """Write the phantom as one Enhanced CT (PS3.3 A.38), its frames in the order of `options`.

    The attributes of a phase go into the frame's Frame Content; each frame has the rescale of its own.
    """
    options = options or PhantomOptions()
    images = list(frames(options))
    instance = _without_plane(header(options))
    instance.SOPClassUID = EnhancedCTImageStorage
    instance.SOPInstanceUID = generate_uid(entropy_srcs=[options.seed, "enhanced"])
    instance.InstanceNumber = 1
    instance.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    instance.AcquisitionDateTime, instance.ContentQualification = "20200102101113", "PRODUCT"
    instance.PixelPresentation, instance.VolumetricProperties = "MONOCHROME", "VOLUME"
    instance.VolumeBasedCalculationTechnique = "NONE"
    set_pixels(instance, images, options)
    instance.NumberOfFrames = len(images)
    instance.SharedFunctionalGroupsSequence = [_shared_groups(options)]
    instance.PerFrameFunctionalGroupsSequence = [_frame_groups(image, options) for image in images]
    dimension = generate_uid(entropy_srcs=[options.seed, "dimensions"])
    instance.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=dimension)]
    pointers = {"DimensionIndexPointer": 0x00209057, "FunctionalGroupPointer": 0x00209111}  # In-Stack Position Number
    instance.DimensionIndexSequence = [_item(DimensionOrganizationUID=dimension, **pointers)]
    save(instance, path, options)
    return path


def write_localizer(path: Path, options: PhantomOptions) -> Path:
    """Write a scout: one coronal view in the same series and frame of reference."""
    view = PhantomOptions((1, 64, 64), (400.0, 6.0, 6.0), CORONAL, seed=options.seed)
    (image,) = frames(view)
    instance = header(view)
    instance.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    instance.SOPInstanceUID = generate_uid(entropy_srcs=[options.seed, "localizer"])
    instance.ImagePositionPatient = position(0, view)
    instance.RescaleSlope, instance.RescaleIntercept = "1", "-1024"
    set_pixels(instance, [image], view)
    save(instance, path, view)
    return path


def write_dose_page(path: Path, options: PhantomOptions) -> Path:
    """Write a picture of the dose table, which lies nowhere in the patient."""
    instance = _without_plane(header(options))
    instance.SOPClassUID = SecondaryCaptureImageStorage
    instance.SOPInstanceUID = generate_uid(entropy_srcs=[options.seed, "dose page"])
    instance.ImageType = ["DERIVED", "SECONDARY", "DOSE_INFO"]
    plain = PhantomOptions()
    set_pixels(instance, [Frame(1, 0, Phase(), np.full((32, 32), AIR_HU), 1.0)], plain)
    save(instance, path, plain)
    return path


def write_dose_report(path: Path, options: PhantomOptions) -> Path:
    """Write a radiation dose SR, which has no pixels."""
    instance = _without_plane(header(options))
    del instance.FrameOfReferenceUID
    instance.SOPClassUID, instance.Modality = XRayRadiationDoseSRStorage, "SR"
    instance.SOPInstanceUID = generate_uid(entropy_srcs=[options.seed, "dose report"])
    instance.ValueType, instance.ContinuityOfContent = "CONTAINER", "SEPARATE"
    title = _item(CodeValue="113701", CodingSchemeDesignator="DCM", CodeMeaning="X-Ray Radiation Dose Report")
    instance.ConceptNameCodeSequence = [title]
    instance.CompletionFlag, instance.VerificationFlag = "COMPLETE", "UNVERIFIED"
    instance.ContentDate, instance.ContentTime = "20200102", "101400"
    save(instance, path, PhantomOptions())
    return path


def _without_plane(instance: Dataset) -> Dataset:
    for keyword in ("PixelSpacing", "ImageOrientationPatient", "SliceThickness", "KVP", "AcquisitionNumber"):
        del instance[keyword]
    return instance


def _shared_groups(options: PhantomOptions) -> Dataset:
    cosines: Sequence[str] = [f"{value:g}" for value in plane_cosines(options).ravel()]
    spacing_mm = [f"{value:g}" for value in options.spacing_mm[1:]]
    frame_type = _item(
        FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
    )
    return _item(
        PixelMeasuresSequence=[_item(PixelSpacing=spacing_mm, SliceThickness="5")],
        PlaneOrientationSequence=[_item(ImageOrientationPatient=cosines)],
        CTImageFrameTypeSequence=[frame_type],
        CTXRayDetailsSequence=[_item(KVP="120")],
    )


def _frame_groups(image: Frame, options: PhantomOptions) -> Dataset:
    content = _item(FrameAcquisitionNumber=1, StackID="1", InStackPositionNumber=image.index + 1)
    content.DimensionIndexValues = [image.index + 1]
    set_attributes(content, image.phase.attributes)
    rescale = _item(RescaleSlope=f"{image.slope:g}", RescaleIntercept=f"{options.intercept:g}", RescaleType="HU")
    return _item(
        FrameContentSequence=[content],
        PlanePositionSequence=[_item(ImagePositionPatient=position(image.index, options))],
        PixelValueTransformationSequence=[rescale],
    )


def _item(**attributes: object) -> Dataset:
    item = Dataset()
    set_attributes(item, attributes)
    return item
