"""DICOM network services over pynetdicom. Upper layer: PS3.8; DIMSE: PS3.7.

peers          whom to talk to
associations   those that this node asks for
sending        echo and send over them
listening      the listener, and the services it offers
"""

from dicomnode.dimse.associations import associate
from dicomnode.dimse.listening import STORED_SOP_CLASSES, Service, close, listen
from dicomnode.dimse.peers import Peer, parse_peer
from dicomnode.dimse.sending import echo, send

__all__ = ["STORED_SOP_CLASSES", "Peer", "Service", "associate", "close", "echo", "listen", "parse_peer", "send"]
