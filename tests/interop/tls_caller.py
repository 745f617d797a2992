#!/usr/bin/env python3
"""Sends one INVITE over TLS, with a certificate or without, and prints what becomes of it: the
status of the first final answer, or `closed`.

  tls_caller.py HOST PORT CA_FILE [CERTIFICATE KEY]"""

import re
import secrets
import socket
import ssl
import sys


def main(host, port, authority, certificate=None, key=None):
    context = ssl.create_default_context(cafile=authority)
    if certificate:
        context.load_cert_chain(certificate, key)
    heard = b""
    try:
        with socket.create_connection((host, int(port)), 5) as bare, context.wrap_socket(bare, server_hostname=host) as tls:
            own = "%s:%d" % tls.getsockname()
            tls.sendall(
                (
                    f"INVITE sip:+18005550100@{host} SIP/2.0\r\nVia: SIP/2.0/TLS {own};rport;branch=z9hG4bK{secrets.token_hex(8)}\r\n"
                    f"Max-Forwards: 70\r\nFrom: <sip:+15555550142@{own}>;tag={secrets.token_hex(6)}\r\nTo: <sip:+18005550100@{host}>\r\n"
                    f"Call-ID: {secrets.token_hex(12)}\r\nCSeq: 1 INVITE\r\nContact: <sip:{own};transport=tls>\r\nContent-Length: 0\r\n\r\n"
                ).encode()
            )
            while True:
                status = re.search(rb"^SIP/2\.0 ([2-6]\d\d) ", heard, re.MULTILINE)
                if status:
                    return status.group(1).decode()
                more = tls.recv(65536)
                if not more:
                    return "closed"
                heard += more
    except (ssl.SSLError, ConnectionError):
        return "closed"


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
