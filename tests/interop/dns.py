#!/usr/bin/env python3
"""A name server for one carrier. NAPTR leads to SRV, SRV to a host, and nothing else exists.

  dns.py LISTEN DOMAIN IP PORT

DOMAIN's NAPTR record for SIP over UDP is `_sip._udp.trunks.DOMAIN`, whose SRV record is PORT at
`sbc.DOMAIN`, which has IP for an address."""

import socket
import struct
import sys

A, AAAA, SRV, NAPTR = 1, 28, 33, 35


def labels(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def text(value):
    return bytes([len(value)]) + value.encode()


def question(data):
    at, parts = 12, []
    while data[at]:
        parts.append(data[at + 1 : at + 1 + data[at]].decode())
        at += 1 + data[at]
    return ".".join(parts).lower(), struct.unpack_from("!H", data, at + 1)[0], data[12 : at + 5]


def main(listen, domain, ip, port):
    records = {
        (domain, NAPTR): struct.pack("!HH", 10, 10)
        + text("s")
        + text("SIP+D2U")
        + text("")
        + labels(f"_sip._udp.trunks.{domain}"),
        (f"_sip._udp.trunks.{domain}", SRV): struct.pack("!HHH", 10, 10, int(port)) + labels(f"sbc.{domain}"),
        (f"sbc.{domain}", A): socket.inet_aton(ip),
    }
    names = {name for name, _ in records}
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((listen, 53))
    print("ready", flush=True)
    while True:
        data, client = server.recvfrom(4096)
        name, kind, asked = question(data)
        print(name, kind, flush=True)
        answer = records.get((name, kind))
        # NXDOMAIN is said of a name, and not of a record that a name has not.
        code = 0 if name in names else 3
        reply = data[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, answer is not None, 0, 0) + asked
        if answer is not None:
            reply += b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 30, len(answer)) + answer
        server.sendto(reply, client)


if __name__ == "__main__":
    main(*sys.argv[1:])
