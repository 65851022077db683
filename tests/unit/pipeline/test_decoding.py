"""From stored values to Hounsfield units, in every transfer syntax."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate

from pipeline.decoders import DECODABLE_TRANSFER_SYNTAXES
from pipeline.decoding import read_hounsfield
from pipeline.errors import Undecodable
from pipeline.series import open_series, read_volume
from pipeline.volume import Volume
from tests.phantom import PhantomOptions, write_multiframe, write_series

SMALL = PhantomOptions(shape=(6, 48, 60), spacing_mm=(8.0, 4.0, 4.0))

# A reversible HTJ2K codestream, made by OpenJPH, of 12 rows and 16 columns of uint16: 7 * (16 * row + column).
RAMP_HTJ2K = bytes.fromhex(
    "ff4fff5100294000000000100000000c0000000000000000000000100000000c000000000000000000010f0101ff50000800"
    "020000000aff52000c00020001000504044001ff5c00132088909090909090909090909090888888ff64001700014f70656e"
    "4a50482056657220302e32362e332eff90000a0000000000740001ff93c000261dfc0507740000c00012c0001280fe008774"
    "007c02877400c00012c0001280de000274007d00023400c00013c0001540eefea323c27500f6eddbb7c03181beb600c0002a"
    "a00016882449fee780a7a7427700de5eafd7ebf57afa08407bf62101ecba00ffd9"
)


def read(folder: Path, **changes: object) -> Volume:
    return read_volume(open_series(write_series(folder, replace(SMALL, **changes))))


@pytest.fixture
def plain(tmp_path: Path) -> Volume:
    (tmp_path / "plain").mkdir()
    return read(tmp_path / "plain")


class TestHounsfield:
    def test_whole_rescale_gives_int16(self, plain: Volume) -> None:
        assert plain.hounsfield.dtype == np.int16
        assert plain.hounsfield.min() == -1000
        assert plain.hounsfield.max() == pytest.approx(180, abs=5)

    def test_slopes_that_differ_from_slice_to_slice(self, tmp_path: Path, plain: Volume) -> None:
        volume = read(tmp_path, slopes=(1, 0.5, 0.25))
        assert volume.hounsfield.dtype == np.float32
        np.testing.assert_allclose(volume.hounsfield, plain.hounsfield, atol=0.5)

    @pytest.mark.parametrize("is_signed", [True, False])
    def test_padding_is_air(self, tmp_path: Path, plain: Volume, is_signed: bool) -> None:
        volume = read(tmp_path, is_signed=is_signed, padding=-2000 if is_signed else 60000)
        np.testing.assert_array_equal(volume.hounsfield, np.where(plain.hounsfield == -1000, -1024, plain.hounsfield))

    def test_signed_padding_written_as_unsigned(self, tmp_path: Path) -> None:
        paths = write_series(tmp_path, replace(SMALL, is_signed=True, padding=-2000))
        for path in paths:
            instance = pydicom.dcmread(path)
            instance.add_new("PixelPaddingValue", "US", 0x10000 - 2000)
            instance.save_as(path)
        assert read_volume(open_series(paths)).hounsfield.min() == -1024

    def test_values_below_air_are_raised_and_metal_is_kept_in_range(self, tmp_path: Path) -> None:
        hounsfield = read(tmp_path, slopes=(40,), intercept=-3024).hounsfield
        assert hounsfield.min() >= -1024
        assert read(tmp_path, intercept=32700).hounsfield.max() == 32767

    def test_monochrome1_is_not_inverted(self, tmp_path: Path, plain: Volume) -> None:
        volume = read(tmp_path, attributes={"PhotometricInterpretation": "MONOCHROME1"})
        np.testing.assert_array_equal(volume.hounsfield, plain.hounsfield)


class TestTransferSyntaxes:
    """Case 19: the same voxels as uncompressed."""

    @pytest.mark.parametrize(
        "syntax",
        [
            uid.ImplicitVRLittleEndian,
            uid.DeflatedExplicitVRLittleEndian,
            uid.RLELossless,
            uid.JPEGLSLossless,
            uid.JPEG2000Lossless,
        ],
        ids=lambda syntax: syntax.keyword,
    )
    @pytest.mark.parametrize("is_signed", [True, False])
    def test_case_19_lossless(self, tmp_path: Path, plain: Volume, syntax: str, is_signed: bool) -> None:
        assert syntax in DECODABLE_TRANSFER_SYNTAXES
        volume = read(tmp_path, transfer_syntax=syntax, is_signed=is_signed)
        np.testing.assert_array_equal(volume.hounsfield, plain.hounsfield)
        np.testing.assert_allclose(volume.grid.geometry.affine, plain.grid.geometry.affine)

    @pytest.mark.parametrize(("option", "syntax"), [("+e1", uid.JPEGLosslessSV1), ("+el", uid.JPEGLossless)])
    def test_case_19_jpeg_lossless_of_dcmtk(self, tmp_path: Path, plain: Volume, option: str, syntax: str) -> None:
        paths = write_series(tmp_path, SMALL)
        for path in paths:
            subprocess.run(["dcmcjpeg", option, str(path), str(path)], check=True)
        assert {pydicom.dcmread(path).file_meta.TransferSyntaxUID for path in paths} == {syntax}
        assert syntax in DECODABLE_TRANSFER_SYNTAXES
        np.testing.assert_array_equal(read_volume(open_series(paths)).hounsfield, plain.hounsfield)

    def test_damaged_jpeg_lossless_headers_do_not_end_the_process(self, tmp_path: Path) -> None:
        paths = write_series(tmp_path, replace(SMALL, shape=(2, 16, 16)))
        path = paths[0]
        subprocess.run(["dcmcjpeg", str(path), str(path)], check=True)
        planes = [plane for plane in open_series(paths).planes if plane.path == path]
        assert planes[0].transfer_syntax == uid.JPEGLosslessSV1
        content = path.read_bytes()
        start, end = content.index(b"\xff\xd8\xff"), content.index(b"\xff\xda") + 10
        refused = 0
        for place in range(start, end):
            for value in (0x00, 0x23, 0xFF):
                path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
                try:
                    read_hounsfield(planes)
                except Undecodable:
                    refused += 1
        assert refused > end - start

    def test_case_19_near_lossless(self, tmp_path: Path, plain: Volume) -> None:
        volume = read(tmp_path, transfer_syntax=uid.JPEGLSNearLossless)
        np.testing.assert_allclose(volume.hounsfield, plain.hounsfield, atol=5)

    @pytest.mark.parametrize("syntax", [uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K])
    def test_case_19_htj2k(self, tmp_path: Path, syntax: uid.UID) -> None:
        assert syntax in DECODABLE_TRANSFER_SYNTAXES
        paths = write_series(tmp_path, replace(SMALL, shape=(2, 12, 16)))
        for path in paths:
            instance = pydicom.dcmread(path)
            instance.file_meta.TransferSyntaxUID = syntax
            instance.PixelData = encapsulate([RAMP_HTJ2K])
            instance["PixelData"].is_undefined_length = True
            instance.save_as(path)
        ramp = 7 * np.arange(12 * 16).reshape(12, 16) - 1024
        np.testing.assert_array_equal(read_volume(open_series(paths)).hounsfield, [ramp, ramp])

    def test_nothing_is_promised_that_12_bit_ct_cannot_use(self) -> None:
        assert not {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.MPEG2MPML} & set(DECODABLE_TRANSFER_SYNTAXES)


class TestMultiFrame:
    @pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
    def test_case_19_enhanced_ct(self, tmp_path: Path, plain: Volume, order: str) -> None:
        path = write_multiframe(tmp_path / "enhanced.dcm", replace(SMALL, order=order, slopes=(1, 0.5)))
        series = open_series([path])
        assert len(series.instances) == 1
        assert len(series.planes) == SMALL.shape[0]
        volume = read_volume(series)
        np.testing.assert_allclose(volume.hounsfield, plain.hounsfield, atol=0.5)
        np.testing.assert_allclose(volume.grid.geometry.affine, plain.grid.geometry.affine, atol=1e-6)
