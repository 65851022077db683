"""DICOM audit messages (PS3.15 A.5): the one place of the node where patients and studies are named.

messages     the parts of a message, and its XML
events       what the node reports, one function for each kind of message
transfers    what came over each association, counted by study
alerts       which security alerts are recorded when a peer keeps trying
syslog       the messages as syslog, over UDP and TLS
trail        the messages on disk
forwarding   from the disk to a syslog server
"""
