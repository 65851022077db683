"""DICOM network services over pynetdicom. Upper layer: PS3.8; DIMSE: PS3.7.

peers          whom to talk to
security       TLS for either side
associations   those that this node asks for
sending        echo and send over them
querying       asking which studies and series an archive has, and of how many instances
moving         having an archive send a series
getting        fetching a series over our own association
commitment     storage commitment: asking for it, and what archives report
listening      the listener, and the services it offers
door           what a connection passes before it is an association
admission      who may associate
bounds         what an association may take
contexts       every presentation context, for the conformance statement
"""

from dicomnode.dimse.admission import Denial, DenialKind
from dicomnode.dimse.associations import associate
from dicomnode.dimse.contexts import Context, accepted, proposed
from dicomnode.dimse.getting import Intake, get
from dicomnode.dimse.listening import STORED_SOP_CLASSES, Service, close, listen
from dicomnode.dimse.moving import move
from dicomnode.dimse.peers import Peer, make_peer, parse_peer
from dicomnode.dimse.querying import STUDY_ROOT_FIND, SentQuery, count_instances, find
from dicomnode.dimse.security import client_context, server_context, web_context
from dicomnode.dimse.sending import Line, echo, send

__all__ = [
    "STORED_SOP_CLASSES", "STUDY_ROOT_FIND", "Context", "Denial", "DenialKind", "Intake", "Line", "Peer",
    "SentQuery", "Service", "accepted", "associate", "client_context", "close", "count_instances", "echo", "find",
    "get", "listen", "make_peer", "move", "parse_peer", "proposed", "send", "server_context", "web_context",
]  # fmt: skip
