"""DICOM TLS with mutual certificates, both ways, between the node, a real Orthanc and dcmtk."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dicomnode import dimse
from dicomnode.errors import Unavailable
from dicomnode.sections import ListenerSettings
from tests.certificates import Identity, make_identity
from tests.external import find_program
from tests.orthanc import Orthanc
from tests.phantom import PhantomOptions, write_series
from tests.served import ServedNode, take_port, wait_for

pytestmark = pytest.mark.slow
NOW = datetime.now(UTC) + timedelta(hours=1)


class Site(NamedTuple):
    node: ServedNode
    orthanc: Orthanc
    ours: Identity
    theirs: Identity
    strangers: Identity
    strangers_port: int

    def refusals(self) -> list[dict[str, Any]]:
        command = self.node._command("refusals", "--json")
        return list(json.loads(subprocess.run(command, capture_output=True, env=self.node._environment()).stdout))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    find_program("Orthanc", "orthanc")
    ours = make_identity(tmp_path / "ours")
    theirs, strangers = make_identity(tmp_path / "theirs", ours), make_identity(tmp_path / "strangers")
    ports = {"NODE": take_port(), "STRANGER": take_port()}
    modality = {"AET": "PANCREAS", "Host": "127.0.0.1", "UseDicomTls": True}
    orthanc = Orthanc(
        tmp_path / "orthanc",
        DicomTlsEnabled=True,
        DicomTlsCertificate=str(theirs.certificate),
        DicomTlsPrivateKey=str(theirs.key),
        DicomTlsTrustedCertificates=str(theirs.ca),
        DicomTlsRemoteCertificateRequired=True,
        DicomModalities={name: {**modality, "Port": port} for name, port in ports.items()},
    )
    node = ServedNode(tmp_path, ("ORTHANC", orthanc.dicom_port))
    text = node.config.read_text().replace(f"port = {node.port}\n", f"port = {ports['NODE']}\ntls = true\n", 1)
    node.port = ports["NODE"]
    text += f'tls = true\ncertificate_name = "localhost"\n[tls]\nca = "{ours.ca}"\n'
    node.config.write_text(text + f'certificate = "{ours.certificate}"\nkey = "{ours.key}"\n')
    node.start()
    yield Site(node, orthanc, ours, theirs, strangers, ports["STRANGER"])
    assert node.stop() == 0, node.log()
    orthanc.stop()


def test_a_series_goes_to_the_node_and_its_results_come_back_over_tls(site: Site, tmp_path: Path) -> None:
    (tmp_path / "phantom").mkdir()
    options = PhantomOptions(shape=(24, 40, 50), spacing_mm=(4.0, 4.0, 4.0))
    for path in write_series(tmp_path / "phantom", options):
        site.orthanc.ask("/instances", path.read_bytes())
    (study,) = site.orthanc.ask("/studies")
    sent = site.orthanc.ask("/modalities/NODE/store", json.dumps(study).encode())
    assert (sent["InstancesCount"], sent["FailedInstancesCount"]) == (24, 0)
    wait_for("SEG and SR in Orthanc", lambda: site.orthanc.series().keys() == {"CT", "SEG", "SR"}, 90)
    assert "PHANTOM-1" not in site.node.log()  # case 34


def test_an_authority_that_is_not_trusted_is_refused_in_both_directions(site: Site) -> None:
    us, them = ("localhost", site.node.port), ("localhost", site.orthanc.dicom_port)
    friend = dimse.client_context(site.theirs.settings(), NOW)
    dimse.echo(dimse.Peer("PANCREAS", *us, friend), "FRIEND", 10)
    dimse.echo(dimse.Peer("ORTHANC", *them, friend), "FRIEND", 10)
    site.orthanc.ask("/modalities/NODE/echo", b"{}")

    # A stranger who calls: he trusts them, they do not trust him.
    stranger = dimse.client_context(site.strangers.settings(), NOW, site.ours.ca)
    for title, address in (("PANCREAS", us), ("ORTHANC", them)):
        with pytest.raises(Unavailable, match=r"TLS: .*unknown ca"):
            dimse.echo(dimse.Peer(title, *address, stranger), "STRANGER", 10)
    # A stranger who is called.
    security = dimse.server_context(site.strangers.settings(ca=site.ours.ca), NOW)
    listener = dimse.listen(ListenerSettings(port=site.strangers_port), [], security)
    with pytest.raises(urllib.error.HTTPError):
        site.orthanc.ask("/modalities/STRANGER/echo", b"{}")
    with pytest.raises(Unavailable, match=r"TLS: .*certificate"):
        dimse.echo(dimse.Peer("PANCREAS", "localhost", site.strangers_port, friend), "FRIEND", 10)
    dimse.close(listener, 5)

    orthanc = f"ORTHANC@localhost:{site.orthanc.dicom_port}"
    for options, status in ((["--tls"], 0), ([], 1)):
        command = site.node._command("echo", orthanc, *options)
        assert subprocess.run(command, env=site.node._environment(), timeout=60).returncode == status

    wait_for("the refusal is recorded", site.refusals)
    (refusal,) = site.refusals()
    assert (refusal["kind"], refusal["address"]) == ("tls", "127.0.0.1")
    assert refusal["reason"].startswith("TLS handshake failed: ")


def test_dcmtk_is_answered_with_a_certificate_and_not_without(site: Site, tmp_path: Path) -> None:
    echoscu = find_program("echoscu", "dcmtk")

    def echo(*options: str | Path) -> int:
        command = [echoscu, *options, "-aec", "PANCREAS", "localhost", str(site.node.port)]
        return subprocess.run(
            command, capture_output=True, timeout=60, env={**os.environ, "TCP_NODELAY": "1"}
        ).returncode

    trusting = ("+cf", site.ours.ca)
    assert echo("+tls", site.theirs.key, site.theirs.certificate, *trusting) == 0
    assert echo("+tla", *trusting) != 0
    assert echo("+tls", site.strangers.key, site.strangers.certificate, *trusting) != 0
    assert echo() != 0
    assert echo("+tls", site.theirs.key, site.theirs.certificate, *trusting) == 0
    wait_for("what was refused is recorded", lambda: len(site.refusals()) == 3)
    assert {refusal["kind"] for refusal in site.refusals()} == {"tls"}
