"""From stored values to Hounsfield units, in every transfer syntax."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, uid
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import pixel_array

from pipeline.decoders import DECODABLE_TRANSFER_SYNTAXES, DECODERS
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


# Another decoder of each syntax, to compare with.
REFERENCES = {
    uid.JPEGLosslessSV1: "gdcm",
    uid.JPEGLossless: "gdcm",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
    uid.JPEG2000Lossless: "pylibjpeg",
    uid.JPEG2000: "pylibjpeg",
    uid.HTJ2KLossless: "pylibjpeg",
    uid.HTJ2K: "pylibjpeg",
    uid.RLELossless: "pydicom",
}


def body(bits: int, is_signed: bool) -> NDArray[np.int16] | NDArray[np.uint16]:
    """Stored values that use all of their bits, smooth and noisy, of 40 rows and 56 columns."""
    low = -(1 << bits - 1) if is_signed else 0
    ramp = np.linspace(low, low + (1 << bits) - 1, 40 * 56).reshape(40, 56)
    ramp[10:20] += np.random.default_rng(7).normal(scale=40, size=(10, 56))
    return np.clip(ramp, low, low + (1 << bits) - 1).astype(np.int16 if is_signed else np.uint16)


def compress(folder: Path, syntax: str, bits: int = 12, is_signed: bool = False) -> Dataset:
    """An image compressed by an encoder that is independent of the decoder under test, where there is one."""
    path = write_series(folder, replace(SMALL, shape=(2, 40, 56), is_signed=is_signed))[0]
    instance = pydicom.dcmread(path)
    stored = body(bits, is_signed)
    instance.BitsStored, instance.HighBit, instance.PixelData = bits, bits - 1, stored.tobytes()
    if syntax in (uid.JPEGLosslessSV1, uid.JPEGLossless):
        instance.save_as(path)
        option = "+e1" if syntax == uid.JPEGLosslessSV1 else "+el"
        subprocess.run(["dcmcjpeg", option, str(path), str(path)], check=True)
        return pydicom.dcmread(path)
    if syntax in (uid.HTJ2KLossless, uid.HTJ2K):
        is_reversible = syntax == uid.HTJ2KLossless
        stream = imagecodecs.htj2k_encode(stored, None if is_reversible else 1e-4, reversible=is_reversible)
        instance.PixelData, instance.file_meta.TransferSyntaxUID = encapsulate([stream]), syntax
        instance["PixelData"].is_undefined_length = True
        return instance
    options = {uid.JPEG2000: {"j2k_cr": [3]}, uid.JPEGLSNearLossless: {"jls_error": 2}}
    instance.compress(syntax, **options.get(syntax, {}))
    return instance


class TestDecoders:
    def test_each_compressed_syntax_has_a_reference(self) -> None:
        compressed = {syntax for syntax in DECODABLE_TRANSFER_SYNTAXES if uid.UID(syntax).is_encapsulated}
        assert compressed == {*REFERENCES, uid.HTJ2KLosslessRPCL}

    @pytest.mark.parametrize("is_signed", [True, False])
    @pytest.mark.parametrize("bits", [12, 16])
    @pytest.mark.parametrize(
        ("syntax", "reference"), REFERENCES.items(), ids=lambda value: getattr(value, "keyword", value)
    )
    def test_case_19_the_same_voxels_as_another_decoder(
        self, tmp_path: Path, syntax: uid.UID, reference: str, bits: int, is_signed: bool
    ) -> None:
        instance = compress(tmp_path, syntax, bits, is_signed)
        expected = pixel_array(instance, decoding_plugin=reference)
        assert expected.std() > 100
        np.testing.assert_array_equal(pixel_array(instance, decoding_plugin=DECODERS[syntax]), expected)

    @pytest.mark.parametrize("syntax", REFERENCES, ids=lambda syntax: syntax.keyword)
    def test_damage_neither_ends_nor_holds_up_the_process(self, tmp_path: Path, syntax: uid.UID) -> None:
        instance = compress(tmp_path, syntax)
        stream = next(generate_frames(instance.PixelData, number_of_frames=1)).rstrip(b"\0")
        generator, refused = np.random.default_rng(1), 0
        started = time.monotonic()
        for _ in range(100):
            damaged = bytearray(stream)
            for place in generator.integers(0, min(100, len(stream)), size=2):
                damaged[place] = generator.integers(256)
            instance.PixelData = encapsulate([bytes(damaged)])
            try:
                pixel_array(instance, decoding_plugin=DECODERS[syntax])
            except RuntimeError:
                refused += 1
        assert refused > 20
        assert time.monotonic() - started < 20

    @pytest.mark.parametrize("syntax", REFERENCES, ids=lambda syntax: syntax.keyword)
    @pytest.mark.parametrize("share", [0.5, 0.97])
    def test_a_stream_that_is_cut_off_is_refused(self, tmp_path: Path, syntax: uid.UID, share: float) -> None:
        instance = compress(tmp_path, syntax)
        stream = next(generate_frames(instance.PixelData, number_of_frames=1))
        instance.PixelData = encapsulate([stream[: int(len(stream) * share)]])
        with pytest.raises(RuntimeError):
            pixel_array(instance, decoding_plugin=DECODERS[syntax])

    @pytest.mark.parametrize("syntax", REFERENCES, ids=lambda syntax: syntax.keyword)
    def test_a_stream_of_another_size_is_refused(self, tmp_path: Path, syntax: uid.UID) -> None:
        instance = compress(tmp_path, syntax)
        instance.Rows -= 1
        with pytest.raises(RuntimeError):
            pixel_array(instance, decoding_plugin=DECODERS[syntax])


class TestThreads:
    def test_the_decoders_let_other_threads_run(self) -> None:
        """Ticks of another thread during one decoding call of a large slice: none where the call holds the lock."""
        stored = np.random.default_rng(1).integers(0, 4096, (1024, 1024)).astype(np.uint16)
        streams = {
            imagecodecs.jpeg8_decode: imagecodecs.jpeg8_encode(stored, lossless=True, bitspersample=16),
            imagecodecs.jpegls_decode: imagecodecs.jpegls_encode(stored),
            imagecodecs.jpeg2k_decode: imagecodecs.jpeg2k_encode(stored, reversible=True),
        }
        for decode, stream in streams.items():
            with ThreadPoolExecutor(1) as pool:
                future, ticks = pool.submit(decode, stream), 0
                while not future.done():
                    time.sleep(0.0005)
                    ticks += 1
            assert ticks > 3, decode


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

    @pytest.mark.parametrize("cores", [1, 4])
    @pytest.mark.parametrize("syntax", [uid.DeflatedExplicitVRLittleEndian, uid.JPEG2000Lossless])
    def test_frames_are_the_same_on_any_number_of_cores(
        self, tmp_path: Path, plain: Volume, monkeypatch: pytest.MonkeyPatch, syntax: str, cores: int
    ) -> None:
        monkeypatch.setattr("os.cpu_count", lambda: cores)
        series = open_series([write_multiframe(tmp_path / "enhanced.dcm", replace(SMALL, transfer_syntax=syntax))])
        np.testing.assert_array_equal(read_volume(series).hounsfield, plain.hounsfield)
