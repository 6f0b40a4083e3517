#!/usr/bin/env python3
"""Makes the input captures of the scenarios, and says what each must give, by scapy and the RFCs.

    pip install scapy==2.7.0
    ./make.py             write in-IFACE.pcap of every scenario
    ./make.py --check     compare every expect/ (which the router wrote) with what is said here
    ./make.py --check slice-to-node ...

Nothing here knows the router's code: outputs are built anew, with checksums over all bytes. Two
fields are the router's choice and are taken from its output, within what the RFC permits: the UDP
source port of a tunnel packet (49152 to 65535, one for each flow) and the flow label of its outer
IPv6 header. Neither this file nor scapy is needed to run the tests.
"""

import ipaddress
import json
import struct
import sys
from pathlib import Path

from scapy.all import (
    GRE,
    ICMP,
    IP,
    TCP,
    UDP,
    Ether,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6DestUnreach,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPOption_NOP,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
    Raw,
)
from scapy.contrib.mpls import MPLS
from scapy.layers.sctp import SCTP

HERE = Path(__file__).resolve().parent
# One packet each 30 ms: the default limit of ICMP errors to one source prefix is one each 20 ms.
STEP_NS = 30_000_000

WAN, LAN = "02:00:00:00:00:01", "02:00:00:00:00:02"
STATION = "02:00:00:00:aa:01"  # who sends the frames that come in
SHARED, SHARED6 = "192.0.2.1", "2001:db8:5::1"
WORLD, WORLD6 = "198.51.100.7", "2001:db8:7::7"
HOST, HOST6 = "10.1.0.5", "fd01::5"
WEB, WEB6, DB = "10.1.0.2", "fd01::2", "10.1.0.3"
NODE_A, NODE_B = "10.0.0.11", "10.0.0.12"
NODE_A6, NODE_B6 = "fd00::11", "fd00::12"
ROUTER = "10.1.0.1"  # The router's address on lan0, as NODE_A is that on wan0.
MINE, THEIRS, NOBODY = 2000, 40000, 80  # ports: in web's slice, in node b's, in none
TUNNEL_PORT = 6080


# --- Bytes ---------------------------------------------------------------------------------------


def checksum(data):
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def mac_bytes(mac):
    return bytes(int(part, 16) for part in mac.split(":"))


def neighbor(address):
    """The link-layer address that a replay invents for a next hop."""
    if ":" in address:
        return "02:06:" + ":".join(
            f"{byte:02x}" for byte in ipaddress.ip_address(address).packed[-4:]
        )
    return "02:04:" + ":".join(f"{int(part):02x}" for part in address.split("."))


def ether(packet, to, source):
    """A packet (bytes that begin with an IP header) behind an Ethernet header."""
    kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    return mac_bytes(to) + mac_bytes(source) + struct.pack(">H", kind) + packet


def raw(packet):
    return packet if isinstance(packet, bytes) else bytes(packet)


def hop(packet, ecn=None):
    """One forwarding step: TTL or hop limit less one, and the IPv4 header checksum computed anew.
    With `ecn`, the ECN field is replaced too. Whatever follows the packet's end is cut."""
    data = bytearray(raw(packet))
    if data[0] >> 4 == 4:
        del data[struct.unpack(">H", data[2:4])[0] :]
        header = (data[0] & 15) * 4
        data[8] -= 1
        if ecn is not None:
            data[1] = data[1] & 0xFC | ecn
        data[10:12] = b"\0\0"
        data[10:12] = struct.pack(">H", checksum(bytes(data[:header])))
    else:
        del data[40 + struct.unpack(">H", data[4:6])[0] :]
        data[7] -= 1
        if ecn is not None:
            data[1] = data[1] & 0xCF | ecn << 4
    return bytes(data)


def set_mss(packet, mss):
    """The packet with another MSS and a TCP checksum computed anew (scapy's)."""
    changed = packet.copy()
    for layer in (changed[IP] if IP in changed else None, changed[TCP]):
        if layer is not None:
            layer.chksum = None
    changed[TCP].options = [(k, mss if k == "MSS" else v) for k, v in changed[TCP].options]
    return changed


def quote(packet, most):
    """As much of a packet as fits an ICMP error of `most` bytes."""
    data = raw(packet)
    if data[0] >> 4 == 4:
        return data[: struct.unpack(">H", data[2:4])[0]][: most - 28]
    return data[: 40 + struct.unpack(">H", data[4:6])[0]][: most - 48]


def error4(about, source, kind, code, mtu=0, pointer=0):
    """RFC 792 and RFC 1812 section 4.3.2: TTL 64, precedence 6, DF, identification 0. Section 4.3.2.4:
    `source` is an address of the interface by which the error leaves (`Scenario.expect` sees to it)."""
    about = raw(about)
    to = ".".join(str(byte) for byte in about[12:16])
    message = struct.pack(">BBHBBH", kind, code, 0, pointer, 0, mtu) + quote(about, 576)
    message = message[:2] + struct.pack(">H", checksum(message)) + message[4:]
    return raw(IP(src=source, dst=to, tos=0xC0, id=0, flags="DF", ttl=64, proto=1) / Raw(message))


def error6(about, source, kind, code, mtu=0):
    """RFC 4443 section 2 and 3; `mtu` is the pointer of a parameter problem: up to the minimum MTU of 1280 bytes; checksum by scapy."""
    about = raw(about)
    to = str(ipaddress.ip_address(about[8:24]))
    body = Raw(quote(about, 1280))
    message = {
        1: lambda: ICMPv6DestUnreach(code=code),
        2: lambda: ICMPv6PacketTooBig(code=code, mtu=mtu),
        3: lambda: ICMPv6TimeExceeded(code=code),
        4: lambda: ICMPv6ParamProblem(code=code, ptr=mtu),
    }[kind]()
    return raw(IPv6(src=source, dst=to, hlim=64) / message / body)


class Out:
    """A frame that must leave. `free` are (offset, mask bytes) of the router's choice."""

    def __init__(self, data, free=(), flow=None):
        self.data, self.free, self.flow = bytearray(data), free, flow


def to_wan(packet, gateway=None, **more):
    packet = raw(packet)
    gateway = gateway or ("10.0.0.1" if packet[0] >> 4 == 4 else "fd00::1")
    return Out(ether(packet, neighbor(gateway), WAN), **more)


def to_lan(packet, station):
    return Out(ether(raw(packet), neighbor(station), LAN))


def gue_packet(inner, source, destination, sport, tos=None, udp_sum=0, port=TUNNEL_PORT):
    """draft-ietf-intarea-gue section 4: the inner packet directly behind the UDP header."""
    inner = raw(inner)
    if tos is None:
        tos = inner[1] if inner[0] >> 4 == 4 else (struct.unpack(">H", inner[:2])[0] >> 4) & 0xFF
    udp = UDP(sport=sport, dport=port, chksum=udp_sum, len=8 + len(inner)) / Raw(inner)
    if ":" in source:
        return IPv6(src=source, dst=destination, hlim=64, tc=tos) / udp
    return IP(src=source, dst=destination, ttl=64, flags="DF", id=0, tos=tos) / udp


def outer_packet(kind, inner, source, destination, tos=None, ethertype=None, **gre):
    """A tunnel packet of another kind than GUE: RFC 2784 and RFC 2890 by scapy's GRE layer, or RFC 2003,
    RFC 4213 and RFC 2473 by hand. `gre` are fields of the GRE layer."""
    inner = raw(inner)
    is_v6 = inner[0] >> 4 == 6
    if tos is None:
        tos = (struct.unpack(">H", inner[:2])[0] >> 4) & 0xFF if is_v6 else inner[1]
    if kind == "gue":
        return gue_packet(inner, source, destination, 50000, tos)
    if kind == "gre":
        protocol, payload = 47, GRE(proto=ethertype or (0x86DD if is_v6 else 0x0800), **gre) / Raw(inner)
    else:
        protocol, payload = (41 if is_v6 else 4), Raw(inner)
    if ":" in source:
        return IPv6(src=source, dst=destination, hlim=64, tc=tos, nh=protocol) / payload
    return IP(src=source, dst=destination, ttl=64, flags="DF", id=0, tos=tos, proto=protocol) / payload


def gre_fields(key=None, checksum=False, sequence=None):
    """The fields of scapy's GRE layer."""
    fields = {}
    if key is not None:
        fields.update(key_present=1, key=key)
    if checksum:
        fields.update(chksum_present=1)
    if sequence is not None:
        fields.update(seqnum_present=1, sequence_number=sequence)
    return fields


def into_tunnel(inner, flow, to=NODE_B, via=None, source=None):
    """A tunnel packet that must leave for another node: by `via`, or straight to it."""
    source = source or (NODE_A6 if ":" in to else NODE_A)
    data = raw(gue_packet(inner, source, to, 0))
    if ":" in to:
        # Flow label: 20 bits at 1.5 bytes into the IPv6 header. Source port: behind 40 bytes.
        free = [(15, b"\x0f\xff\xff"), (54, b"\xff\xff")]
    else:
        free = [(34, b"\xff\xff")]
    return to_wan(data, gateway=via or to, free=free, flow=flow)


def pieces(base, payload, *cuts, id=5, proto=17):
    """Fragments of a packet: `base` with its addresses, the payload cut at these bytes."""
    ends = [*cuts, len(payload)]
    out = []
    for start, end in zip([0, *cuts], ends):
        more, data = end != len(payload), Raw(payload[start:end])
        if IPv6 in base:
            out.append(base / IPv6ExtHdrFragment(nh=proto, m=more, offset=start // 8, id=id) / data)
        else:
            piece = base.copy()
            piece.id, piece.proto, piece.flags, piece.frag = id, proto, int(more), start // 8
            out.append(piece / data)
    return out


def with_options(packet, options):
    """An IPv4 packet with options, whose length is a multiple of 4."""
    data = bytearray(raw(packet)[:20] + options + raw(packet)[20:])
    data[0] = 0x45 + len(options) // 4
    data[2:4] = struct.pack(">H", len(data))
    data[10:12] = b"\0\0"
    data[10:12] = struct.pack(">H", checksum(bytes(data[: 20 + len(options)])))
    return bytes(data)


def copied_options(options):
    """RFC 791 section 3.1: those with the copied flag are carried by every fragment."""
    kept = b""
    while options and options[0] != 0:
        size = 1 if options[0] == 1 else options[1]
        if options[0] & 0x80:
            kept += options[:size]
        options = options[size:]
    return kept + bytes(-len(kept) % 4)


def split4(packet, mtu):
    """RFC 791 section 3.2, "An Example Fragmentation Procedure"."""
    data = raw(packet)
    header = (data[0] & 15) * 4
    word = struct.unpack(">H", data[6:8])[0]
    body, options, at, out = data[header:], data[20:header], 0, []
    while at < len(body):
        room = (mtu - 20 - len(options)) // 8 * 8
        part = body[at : at + room]
        more = at + room < len(body) or word & 0x2000
        new = bytearray(data[:20] + options)
        new[0] = 0x45 + len(options) // 4
        new[2:4] = struct.pack(">H", len(new) + len(part))
        new[6:8] = struct.pack(">H", (0x2000 if more else 0) | (word & 0x1FFF) + at // 8)
        new[10:12] = b"\0\0"
        new[10:12] = struct.pack(">H", checksum(bytes(new)))
        out.append(bytes(new) + part)
        at, options = at + room, copied_options(options)
    return out


# --- Scenarios -----------------------------------------------------------------------------------


class Scenario:
    def __init__(self, name):
        self.name = name
        self.inputs, self.sent, self.kernel = {}, {}, []
        self.drops, self.counts = {}, {}
        self.time = 0
        self.chosen = ()  # counters that depend on the router's choice of a worker

    def at_once(self):
        """The next packet comes at the time of the one before."""
        self.time -= STEP_NS

    def receive(self, interface, packet, padding=b"", to=None, source=STATION):
        """A packet comes in; `packet` as a whole frame when it is bytes and `to` is `raw`."""
        if to == "raw":
            frame = packet
        else:
            frame = (
                ether(raw(packet), to or (WAN if interface == "wan0" else LAN), source) + padding
            )
        self.inputs.setdefault(interface, []).append((self.time, frame))
        self.time += STEP_NS

    def expect(self, interface, out):
        # RFC 1812 section 4.3.2.4: errors that begin here (their TTL is whole) are from the interface
        # by which they leave, whichever way came what they are about.
        packet = bytes(out.data[14:])
        if packet[0] == 0x45 and packet[8:10] == b"\x40\x01" and packet[20] in (3, 11, 12):
            source = {"wan0": NODE_A, "lan0": ROUTER}[interface]
            assert packet[12:16] == ipaddress.ip_address(source).packed, (self.name, interface)
        self.sent.setdefault(interface, []).append(out)

    def drop(self, interface, reason, count=1):
        drops = self.drops.setdefault(interface, {})
        drops[reason] = drops.get(reason, 0) + count

    def count(self, interface, counter, count=1):
        counts = self.counts.setdefault(interface, {})
        counts[counter] = counts.get(counter, 0) + count

    # What happens most.
    def out(self, packet, gateway=None, **more):
        """From inside to outside, routed."""
        self.receive("lan0", packet)
        self.expect("wan0", to_wan(hop(packet), gateway=gateway, **more))
        self.count("lan0", "forwarded")

    def refused(self, interface, packet, reason, **more):
        self.receive(interface, packet, **more)
        self.drop(interface, reason)

    def answer(self, interface, packet, reason, error, station, more=b""):
        """Refused, and the sender told."""
        self.receive(interface, packet, padding=more)
        self.drop(interface, reason)
        mac = WAN if interface == "wan0" else LAN
        self.expect(interface, Out(ether(error, station, mac)))
        self.count(interface, "originated")

    def delivered(self, interface, packet, station=WEB):
        self.receive(interface, packet)
        self.expect("lan0", to_lan(hop(packet), station))
        self.count(interface, "forwarded")
        self.count(interface, "delivered")

    def fragmented(self, interface, packet, mtu, wrap):
        """Leaves by wan0 in fragments, each with the headers that `wrap` puts in front."""
        self.receive(interface, packet)
        parts = split4(hop(packet), mtu)
        for part in parts:
            self.expect("wan0", wrap(part))
        self.count(interface, "forwarded")
        self.count("wan0", "fragmented")
        self.count("wan0", "fragments_created", len(parts))

    def punted(self, interface, packet, becomes=None, delivered=False, **more):
        self.receive(interface, packet, **more)
        self.kernel.append(
            Out(ether(raw(becomes or packet), "00:00:00:00:00:00", "00:00:00:00:00:00"))
        )
        self.count(interface, "to_kernel")
        if delivered:
            self.count(interface, "delivered")

    def tunnelled(self, interface, packet, flow, **more):
        self.receive(interface, packet)
        self.expect("wan0", into_tunnel(hop(packet), flow, **more))
        self.count(interface, "forwarded")
        self.count(interface, "to_owner")

    def from_tunnel(self, inner, becomes=None, station=WEB, outer=None):
        self.receive("wan0", outer or gue_packet(inner, NODE_B, NODE_A, 50000))
        self.expect("lan0", to_lan(becomes or hop(inner), station))
        for counter in ("forwarded", "delivered", "decapsulated"):
            self.count("wan0", counter)


SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__.replace("_", "-")] = function
    return function


def udp4(dst=WORLD, src=HOST, sport=1111, dport=53, size=20, **ip):
    return (
        IP(src=src, dst=dst, **{"id": 7, "ttl": 64, **ip})
        / UDP(sport=sport, dport=dport)
        / Raw((bytes(range(256)) * 16)[:size])
    )


def udp6(dst=WORLD6, src=HOST6, sport=1111, dport=53, size=20, **ip):
    return (
        IPv6(src=src, dst=dst, **{"hlim": 64, **ip})
        / UDP(sport=sport, dport=dport)
        / Raw((bytes(range(256)) * 16)[:size])
    )


def sized4(total, **more):
    return udp4(size=total - 28, **more)


def sized6(total, **more):
    return udp6(size=total - 48, **more)


@scenario
def ipv4_forward(s):
    s.out(udp4())
    s.out(udp4(ttl=255, tos=0xB8, flags="DF"))
    s.out(udp4(ttl=2))
    s.out(
        IP(src=HOST, dst=WORLD, id=9, options=[IPOption_NOP(), IPOption_NOP()])
        / TCP(dport=443, flags="A")
    )
    s.out(IP(src=HOST, dst=WORLD, id=9, proto=99) / Raw(b"no ports"))
    for before in (0xFEFF, 0xFEFE, 0xFF00, 0xFFFE, 0x0000, 0x00FF):
        base = udp4(id=0)
        # Adding x to the identification subtracts x from the checksum, in one's complement.
        for identification in range(65536):
            total = (~checksum_of(base) & 0xFFFF) + identification
            total = (total & 0xFFFF) + (total >> 16)
            if ~total & 0xFFFF == before:
                base.id = identification
                break
        assert checksum_of(base) == before, hex(before)
        s.out(base)


def checksum_of(packet):
    return struct.unpack(">H", raw(packet)[10:12])[0]


@scenario
def ipv6_forward(s):
    s.out(udp6())
    s.out(udp6(hlim=255, tc=0xB8, fl=0xABCDE))
    s.out(udp6(hlim=2))
    s.out(IPv6(src=HOST6, dst=WORLD6) / TCP(dport=443, flags="A"))
    s.out(IPv6(src=HOST6, dst=WORLD6, nh=59))


@scenario
def ipv4_ttl_exceeded(s):
    def exceeded(packet):
        s.answer("lan0", packet, "ttl-exceeded", error4(packet, "10.1.0.1", 11, 0), neighbor(HOST))

    exceeded(udp4(ttl=1))
    exceeded(udp4(ttl=0))
    exceeded(sized4(1000, ttl=1))
    exceeded(sized4(548, ttl=1))
    exceeded(IP(src=HOST, dst=WORLD, ttl=1) / ICMP(type=8, id=5, seq=1))
    inner = udp4(src=WORLD, dst=HOST)
    s.refused(
        "lan0",
        IP(src=HOST, dst=WORLD, ttl=1) / ICMP(type=3, code=3) / Raw(raw(inner)),
        "ttl-exceeded",
    )
    s.refused(
        "lan0", IP(src=HOST, dst=WORLD, ttl=1, frag=10, proto=17) / Raw(b"x" * 64), "ttl-exceeded"
    )
    s.punted("lan0", udp4(dst="10.1.0.1", ttl=1))
    # From outside: the error leaves by the other interface, from that one's address.
    packet = udp4(src="10.0.0.77", dst=HOST, ttl=1)
    s.answer("wan0", packet, "ttl-exceeded", error4(packet, NODE_A, 11, 0), neighbor("10.0.0.77"))


@scenario
def ipv6_hop_limit_exceeded(s):
    def exceeded(packet):
        s.answer("lan0", packet, "ttl-exceeded", error6(packet, "fd01::1", 3, 0), neighbor(HOST6))

    exceeded(udp6(hlim=1))
    exceeded(udp6(hlim=0))
    exceeded(sized6(1400, hlim=1))
    inner = udp6(src=WORLD6, dst=HOST6)
    s.refused(
        "lan0",
        IPv6(src=HOST6, dst=WORLD6, hlim=1) / ICMPv6DestUnreach(code=4) / Raw(raw(inner)),
        "ttl-exceeded",
    )
    s.punted("lan0", udp6(dst="fd01::1", hlim=1))


@scenario
def no_route(s):
    packet = udp4()
    s.answer("lan0", packet, "no-route", error4(packet, "10.1.0.1", 3, 0), neighbor(HOST))
    packet = udp6()
    s.answer("lan0", packet, "no-route", error6(packet, "fd01::1", 1, 0), neighbor(HOST6))


@scenario
def error_unresolved(s):
    for number in (1, 2):
        packet = udp4(id=number)
        s.answer("lan0", packet, "no-route", error4(packet, "10.1.0.1", 3, 0), neighbor(HOST))


@scenario
def route_types(s):
    for dst, reason, code in (
        ("198.51.100.1", "blackhole", None),
        ("198.51.100.65", "unreachable", 1),
        ("198.51.100.129", "prohibited", 13),
    ):
        packet = udp4(dst=dst)
        if code is None:
            s.refused("lan0", packet, reason)
        else:
            s.answer("lan0", packet, reason, error4(packet, "10.1.0.1", 3, code), neighbor(HOST))
    for dst, reason, code in (
        ("2001:db8:1::1", "blackhole", None),
        ("2001:db8:2::1", "unreachable", 0),
        ("2001:db8:3::1", "prohibited", 1),
    ):
        packet = udp6(dst=dst)
        if code is None:
            s.refused("lan0", packet, reason)
        else:
            s.answer("lan0", packet, reason, error6(packet, "fd01::1", 1, code), neighbor(HOST6))
    s.out(udp4(dst="198.51.100.200"))


@scenario
def too_big(s):
    s.out(sized4(1400, flags="DF"))
    packet = sized4(1401, flags="DF")
    s.answer("lan0", packet, "mtu-exceeded", error4(packet, "10.1.0.1", 3, 4, 1400), neighbor(HOST))
    s.fragmented("lan0", sized4(1401), 1400, to_wan)
    s.out(sized6(1400))
    packet = sized6(1401)
    s.answer("lan0", packet, "mtu-exceeded", error6(packet, "fd01::1", 2, 0, 1400), neighbor(HOST6))
    # RFC 4443 section 3.2: a packet that cannot be forwarded, which a later fragment is as well.
    packet = (
        IPv6(src=HOST6, dst=WORLD6) / IPv6ExtHdrFragment(nh=17, offset=100, id=5) / Raw(b"x" * 1400)
    )
    s.answer("lan0", packet, "mtu-exceeded", error6(packet, "fd01::1", 2, 0, 1400), neighbor(HOST6))


@scenario
def longest_prefix(s):
    for dst, gateway in (
        ("203.0.113.1", "10.0.0.1"),
        ("198.1.1.1", "10.0.0.8"),
        ("198.51.1.1", "10.0.0.16"),
        ("198.51.100.0", "10.0.0.24"),
        ("198.51.100.127", "10.0.0.24"),
        ("198.51.100.128", "10.0.0.25"),
        ("198.51.100.129", "10.0.0.32"),
        ("198.51.100.130", "10.0.0.25"),
        ("198.51.100.200", "10.0.0.31"),
        ("198.51.100.201", "10.0.0.31"),
        ("198.51.100.202", "10.0.0.25"),
        ("198.51.100.255", "10.0.0.25"),
        ("198.51.101.0", "10.0.0.16"),
        ("198.51.255.255", "10.0.0.16"),
        ("198.255.255.255", "10.0.0.8"),
        ("199.0.0.0", "10.0.0.1"),
    ):
        s.out(udp4(dst=dst), gateway=gateway)
    for dst, gateway in (
        ("2001:db7:ffff::1", "fd00::1"),
        ("2001:db8::1", "fd00::32"),
        ("2001:db8:7::", "fd00::48"),
        ("2001:db8:7:1::", "fd00::64"),
        ("2001:db8:7:1::5", "fd00::128"),
        ("2001:db8:7:1::6", "fd00::64"),
        ("2001:db8:7:1:ffff:ffff:ffff:ffff", "fd00::64"),
        ("2001:db8:7:2::", "fd00::48"),
        ("2001:db8:8::", "fd00::32"),
        ("2001:db9::", "fd00::1"),
    ):
        s.out(udp6(dst=dst), gateway=gateway)


@scenario
def ecmp(s):
    for flow in [*range(32), *range(32)]:
        packet = udp4(dst=f"198.51.100.{flow}", sport=1000 + flow)
        # Which one is the router's choice: the same for each packet of a flow.
        s.out(packet, free=[(5, b"\x03")], flow=flow)


@scenario
def ipv4_over_ipv6_next_hop(s):
    s.out(udp4(), gateway="fd00::1")
    packet = udp4(ttl=1)
    s.answer("lan0", packet, "ttl-exceeded", error4(packet, "10.1.0.1", 11, 0), neighbor(HOST))


def damaged(packet, *changes, fix=True):
    """Bytes of a packet with some replaced, then the IPv4 header checksum made right if `fix`."""
    data = bytearray(raw(packet))
    for offset, value in changes:
        data[offset] = value
    if fix and data[0] >> 4 != 6:
        header = max((data[0] & 15) * 4, 20)
        data[10:12] = b"\0\0"
        data[10:12] = struct.pack(">H", checksum(bytes(data[:header])))
    return bytes(data)


def frame4(packet):
    return mac_bytes(LAN) + mac_bytes(STATION) + b"\x08\x00" + packet


def frame6(packet):
    return mac_bytes(LAN) + mac_bytes(STATION) + b"\x86\xdd" + packet


@scenario
def malformed_ipv4(s):
    good = raw(udp4())
    refuse = lambda reason, frame: s.refused("lan0", frame, reason, to="raw")
    refuse("frame-truncated", mac_bytes(LAN) + mac_bytes(STATION) + b"\x08")
    refuse("not-ip", mac_bytes(LAN) + mac_bytes(STATION) + b"\x08\x06" + b"\0" * 46)
    refuse("not-ip", mac_bytes(LAN) + mac_bytes(STATION) + b"\x81\x00\x00\x05\x08\x00" + good)
    refuse("not-ip", mac_bytes(LAN) + mac_bytes(STATION) + b"\x00\x26" + b"\x42" * 46)
    refuse("ipv4-truncated", frame4(b""))
    refuse("ipv4-truncated", frame4(good[:19]))
    refuse("ipv4-version", frame4(damaged(good, (0, 0x55))))
    refuse("ipv4-version", frame4(raw(udp6())))
    refuse("ipv4-header-length", frame4(damaged(good, (0, 0x44))))
    refuse("ipv4-total-length", frame4(damaged(good, (2, 0), (3, 19))))
    refuse("ipv4-total-length", frame4(damaged(good, (3, len(good) + 1))))
    refuse("ipv4-total-length", frame4(good[:-1]))
    refuse("ipv4-checksum", frame4(damaged(good, (8, 63), fix=False)))
    refuse("ipv4-checksum", frame4(damaged(good, (10, 0), (11, 0), fix=False)))

    def options(data):
        header = bytearray(
            raw(IP(src=HOST, dst=WORLD, proto=17, ihl=5 + len(data) // 4, len=20 + len(data) + 8))
        )[:20]
        packet = bytes(header) + data + raw(UDP(sport=1, dport=2, chksum=0))
        return damaged(packet)

    # An option that reaches past the header; one whose length is 0, and 1; one without a length. RFC 1812
    # section 4.3.3.5: the sender learns where the option begins.
    def problem(data, pointer):
        packet = options(data)
        error = error4(packet, "10.1.0.1", 12, 0, pointer=pointer)
        s.answer("lan0", packet, "ipv4-options", error, neighbor(HOST))

    problem(b"\x07\x08\x04\x00", 20)
    problem(b"\x07\x00\x00\x00", 20)
    problem(b"\x07\x01\x00\x00", 20)
    problem(b"\x01\x01\x01\x44", 23)
    problem(b"\x01\x94\x04\x00\x00\x82\x0b\x00", 25)
    # Section 4.3.2.7: about no ICMP error, no later fragment, and nothing that many heard.
    bad = b"\x07\x08\x04\x00"
    error = with_options(IP(src=HOST, dst=WORLD) / ICMP(type=3, code=3) / Raw(raw(udp4())), bad)
    s.refused("lan0", error, "ipv4-options")
    s.refused("lan0", with_options(IP(src=HOST, dst=WORLD, proto=17, frag=9) / Raw(b"x" * 8), bad), "ipv4-options")
    s.refused("lan0", options(bad), "link-layer-multicast", to="ff:ff:ff:ff:ff:ff")
    # An echo is no error.
    echo = with_options(IP(src=HOST, dst=WORLD) / ICMP(type=8, id=1, seq=1), bad)
    error = error4(echo, "10.1.0.1", 12, 0, pointer=20)
    s.answer("lan0", echo, "ipv4-options", error, neighbor(HOST))
    # RFC 791: loose is 131, strict is 137.
    refuse("ipv4-source-route", frame4(options(b"\x83\x07\x04\xc6\x33\x64\x01\x00")))
    refuse("ipv4-source-route", frame4(options(b"\x01\x89\x07\x04\xc6\x33\x64\x01")))
    # Behind the end of options stands nothing.
    packet = options(b"\x00\x83\x07\x04")
    s.out(packet)


@scenario
def malformed_ipv6(s):
    good = raw(udp6())
    refuse = lambda reason, frame: s.refused("lan0", frame, reason, to="raw")
    refuse("ipv6-truncated", frame6(b""))
    refuse("ipv6-truncated", frame6(good[:39]))
    refuse("ipv6-version", frame6(damaged(good, (0, 0x50), fix=False)))
    refuse("ipv6-version", frame6(raw(udp4()) + bytes(40)))
    refuse("ipv6-payload-length", frame6(damaged(good, (5, 29))))
    refuse("ipv6-payload-length", frame6(good[:-1]))

    def chain(first, payload):
        return frame6(raw(IPv6(src=HOST6, dst=WORLD6, nh=first) / Raw(payload)))

    refuse("ipv6-extension-chain", chain(0, b"\x11\x00\x01\x04\x00\x00\x00"))
    refuse("ipv6-extension-chain", chain(60, b"\x11\x01\x01\x04\x00\x00\x00\x00"))

    def problem(first, payload, code, pointer):
        packet = raw(IPv6(src=HOST6, dst=WORLD6, nh=first) / Raw(payload))
        error = error6(packet, "fd01::1", 4, code, pointer)
        s.answer("lan0", packet, "ipv6-extension-chain", error, neighbor(HOST6))

    # RFC 8200 section 4: a Next Header value of zero anywhere but in the IPv6 header is a parameter problem
    # of code 1, with a pointer to it.
    empty = b"\x00\x01\x04\0\0\0\0"  # an extension header but for its first byte
    problem(43, b"\x00\x00\x00\x00\x00\x00\x00\x00" + b"\x11" + empty + bytes(8), 1, 40)
    problem(60, b"\x2b" + empty + b"\x00" + bytes(7) + b"\x11" + empty + bytes(8), 1, 48)
    # RFC 8883: more headers than a router on the way follows is code 8, more bytes code 7.
    problem(60, (b"\x3c" + empty) * 8 + b"\x11" + empty + bytes(8), 8, 40 + 8 * 8)
    problem(60, b"\x11\x40\x01\x04" + bytes(516) + bytes(8), 7, 40 + 512)
    refuse(
        "ipv6-extension-chain",
        chain(44, b"\x2c\x00\x00\x01\0\0\0\x05" + b"\x11\x00\x00\x00\0\0\0\x05" + bytes(8)),
    )
    # RFC 7112 section 5: a first fragment without the whole header chain.
    refuse(
        "ipv6-extension-chain",
        chain(44, b"\x3c\x00\x00\x01\0\0\0\x05" + b"\x11\x02\x01\x04\0\0\0\0"),
    )
    refuse("ipv6-mapped-address", frame6(raw(udp6(src="::ffff:10.1.0.5"))))
    refuse("ipv6-mapped-address", frame6(raw(udp6(dst="::ffff:198.51.100.7"))))


@scenario
def tiny_fragments(s):
    tcp = raw(TCP(sport=1111, dport=80, flags="S"))
    s.refused(
        "lan0",
        IP(src=HOST, dst=WORLD, proto=6, frag=1, flags="MF") / Raw(b"x" * 32),
        "tiny-fragment",
    )
    s.refused("lan0", IP(src=HOST, dst=WORLD, proto=6, frag=1) / Raw(b"x" * 32), "tiny-fragment")
    s.refused("lan0", IP(src=HOST, dst=WORLD, proto=6, flags="MF") / Raw(tcp[:8]), "tiny-fragment")
    s.refused("lan0", IP(src=HOST, dst=WORLD, proto=6, flags="MF") / Raw(tcp[:15]), "tiny-fragment")
    s.refused(
        "lan0",
        IP(src=HOST, dst=WORLD, proto=17, flags="MF") / Raw(b"\x04\x57\x00\x35"),
        "tiny-fragment",
    )
    fragment = lambda more, offset: IPv6ExtHdrFragment(nh=6, m=more, offset=offset, id=5)
    s.refused("lan0", IPv6(src=HOST6, dst=WORLD6) / fragment(1, 0) / Raw(tcp[:8]), "tiny-fragment")
    s.refused(
        "lan0", IPv6(src=HOST6, dst=WORLD6) / fragment(0, 1) / Raw(b"x" * 32), "tiny-fragment"
    )
    s.out(IP(src=HOST, dst=WORLD, proto=6, flags="MF") / Raw(tcp + b"x" * 4))
    s.out(IP(src=HOST, dst=WORLD, proto=6, frag=3) / Raw(b"x" * 32))
    s.out(IP(src=HOST, dst=WORLD, proto=17, frag=1) / Raw(b"x" * 32))
    s.out(IPv6(src=HOST6, dst=WORLD6) / fragment(1, 0) / Raw(tcp + b"x" * 4))
    s.out(IPv6(src=HOST6, dst=WORLD6) / fragment(0, 3) / Raw(b"x" * 32))


@scenario
def martians(s):
    for src in ("0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"):
        s.refused("lan0", udp4(src=src, ttl=1), "martian-source")
    s.refused("lan0", udp4(src=WORLD, dst=WORLD), "martian-source")
    # The router's own, wherever they come from.
    for interface in ("wan0", "lan0"):
        for packet in (udp4(src="10.0.0.11", ttl=1), udp4(src="10.1.0.1"), udp6(src="fd00::11"), udp6(src="fd01::1")):
            s.refused(interface, packet, "martian-source")
    for dst in ("0.0.0.0", "127.0.0.1", "240.0.0.1", "255.255.255.255"):
        s.refused("lan0", udp4(dst=dst, ttl=1), "martian-destination")
    for dst in ("224.0.0.5", "239.255.255.250"):
        s.refused("lan0", udp4(dst=dst, ttl=1), "multicast-destination")
    # RFC 3927 section 2.7. The one on the right is where clouds have their metadata.
    for dst in ("169.254.0.1", "169.254.169.254"):
        s.refused("lan0", udp4(dst=dst), "ipv4-link-local")
    s.refused("lan0", udp4(src="169.254.1.1"), "ipv4-link-local")
    s.refused("lan0", udp4(src="169.254.1.1", dst="169.254.1.2", ttl=1), "ipv4-link-local")
    s.out(udp4(dst="169.253.255.255"))
    s.out(udp4(src="169.255.0.0", dst="169.255.0.1"))
    for src in ("::", "::1", "ff02::1", "fe80::1", "febf::1"):
        s.refused("lan0", udp6(src=src, hlim=1), "martian-source")
    s.refused("lan0", udp6(src=WORLD6, dst=WORLD6), "martian-source")
    for dst in ("::", "::1", "fe80::1"):
        s.refused("lan0", udp6(dst=dst, hlim=1), "martian-destination")
    for dst in ("ff02::1", "ff0e::1"):
        s.refused("lan0", udp6(dst=dst, hlim=1), "multicast-destination")


@scenario
def martians_allowed(s):
    for src, dst in ((HOST, "240.0.0.1"), (HOST, "255.255.255.254"), ("250.1.2.3", WORLD), (HOST, "0.0.0.1"), ("0.1.2.3", WORLD)):
        s.out(udp4(src=src, dst=dst))
    # What no host can have, or what nobody could be told about.
    for src in ("0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"):
        s.refused("lan0", udp4(src=src, ttl=1), "martian-source")
    for dst in ("0.0.0.0", "127.0.0.1", "255.255.255.255"):
        s.refused("lan0", udp4(dst=dst, ttl=1), "martian-destination")
    s.refused("lan0", udp4(dst="224.0.0.5"), "multicast-destination")
    s.refused("lan0", udp4(dst="169.254.169.254"), "ipv4-link-local")
    # A source route is an option like any other: passed on, and not acted upon.
    for kind in (b"\x83", b"\x89"):
        s.out(with_options(udp4(), kind + b"\x07\x04\x0a\x01\x00\x06\x00"))


@scenario
def source_strict(s):
    for packet in (udp4(), udp4(src="203.0.113.5"), udp4(src="10.1.0.200")):
        s.out(packet)  # On the link, and by one of two next hops (RFC 3704 section 2.3).
    for packet in (udp6(), udp6(src="2001:db8:9::1")):
        s.out(packet)
    # Back by another interface: the default route, a longer one, the other link; and this router's own.
    for src in ("198.51.100.9", "203.0.114.5", "10.0.0.77", "10.1.0.1", NODE_A, "10.1.0.255", "203.0.115.5", "203.0.116.5"):
        s.refused("lan0", udp4(src=src), "reverse-path")
    for src in ("2001:db8:7::1", "fd00::77", "fd01::1", "2001:db8:c::1"):
        s.refused("lan0", udp6(src=src), "reverse-path")
    s.refused("lan0", udp4(src="203.0.117.5"), "source-blackhole")
    s.refused("lan0", udp6(src="2001:db8:b::1"), "source-blackhole")
    # Asked before anything else, and nobody is told: not about the TTL, not about options.
    s.refused("lan0", udp4(src="198.51.100.9", ttl=1), "reverse-path")
    s.refused("lan0", udp4(src="198.51.100.9", dst=ROUTER), "reverse-path")
    s.refused("lan0", with_options(udp4(src="198.51.100.9"), b"\x07\x08\x04\x00"), "ipv4-options")
    error = IP(src="198.51.100.9", dst=WORLD) / ICMP(type=3, code=3) / Raw(raw(udp4()))
    s.refused("lan0", error, "reverse-path")
    s.refused("lan0", IP(src="198.51.100.9", dst=WORLD, proto=17, frag=9) / Raw(b"x" * 8), "reverse-path")
    s.refused("lan0", udp4(src="127.0.0.1"), "martian-source")
    # The other interface does not ask.
    packet = udp4(src="10.1.0.66", dst=HOST)
    s.receive("wan0", packet)
    s.expect("lan0", to_lan(hop(packet), HOST))
    s.count("wan0", "forwarded")


@scenario
def source_loose(s):
    def inwards(packet):
        s.receive("wan0", packet)
        s.expect("lan0", to_lan(hop(packet), HOST6 if IPv6 in packet else HOST))
        s.count("wan0", "forwarded")

    # Any way back will do, the default route included (RFC 3704 section 2.4).
    for src in (WORLD, "9.9.9.9", "10.1.0.66", "203.0.113.5"):
        inwards(udp4(src=src, dst=HOST))
    inwards(udp6(src="2001:db8:7::1", dst=HOST6))
    # None at all: there is no default route for IPv6.
    s.refused("wan0", udp6(src="2001:db8:8::1", dst=HOST6), "reverse-path")
    s.refused("wan0", udp4(src=NODE_A, dst=HOST), "reverse-path")
    s.refused("wan0", udp4(src="203.0.115.5", dst=HOST), "reverse-path")
    # RFC 5635: a blackhole route drops what comes from there as well as what goes there.
    s.refused("wan0", udp4(src="203.0.117.5", dst=HOST), "source-blackhole")
    s.refused("wan0", udp6(src="2001:db8:b::1", dst=HOST6), "source-blackhole")
    # Ignoring the default route (section 2.5), not what shares its next hop.
    s.out(udp4())
    s.out(udp4(src="10.0.0.77"))
    s.out(udp4(src="203.0.113.5"))
    s.refused("lan0", udp4(src="9.9.9.9"), "reverse-path")
    s.refused("lan0", udp4(src="203.0.117.5"), "source-blackhole")


@scenario
def source_slices(s):
    """A one-armed interface, strictly: the workload's packets come from where those to it go."""
    forth = udp4(src=SHARED, sport=MINE)
    s.receive("wan0", forth, source=neighbor("10.0.0.2"))
    s.expect("wan0", to_wan(hop(forth)))
    s.count("wan0", "forwarded")
    # The world claims the same address and port.
    s.refused("wan0", forth, "spoofed-source", source=neighbor("10.0.0.1"))
    s.refused("wan0", forth, "spoofed-source")
    # The workload of another owner on the same link, and a port of its own that is not the sender's.
    s.refused("wan0", udp4(src=SHARED, sport=50), "spoofed-source", source=neighbor("10.0.0.2"))
    packet = udp4(src=SHARED, sport=50)
    s.receive("wan0", packet, source=neighbor("10.0.0.3"))
    s.expect("wan0", to_wan(hop(packet)))
    s.count("wan0", "forwarded")
    wrong = udp4(src=SHARED, sport=THEIRS)
    s.answer("wan0", wrong, "slice-sender", error4(wrong, NODE_A, 3, 13), STATION)
    # A tunnel's outer header is asked about like any packet, what is inside is not: the far end asked.
    for src in (WORLD, "203.0.117.5"):
        inner = udp4(src=src, dst=SHARED, dport=MINE)
        s.receive("wan0", gue_packet(inner, NODE_B, NODE_A, 50000))
        s.expect("wan0", to_wan(hop(inner), gateway="10.0.0.2"))
        for counter in ("forwarded", "delivered", "decapsulated"):
            s.count("wan0", counter)
    s.refused("wan0", gue_packet(udp4(src=WORLD, dst=SHARED, dport=MINE), "10.0.9.9", NODE_A, 50000), "source-blackhole")
    s.refused("wan0", udp4(src="203.0.117.5", dst=SHARED, dport=MINE), "source-blackhole")


@scenario
def two_insides(s):
    """Each owner by the interface that it is behind."""
    for interface, other, source, port in (("lan0", "wan0", ROUTER, MINE), ("wan0", "lan0", NODE_A, 50)):
        packet = udp4(src=SHARED, sport=port, dst="10.2.0.9" if interface == "lan0" else "10.3.0.9")
        s.receive(interface, packet)
        s.expect(other, to_wan(hop(packet), gateway="10.0.0.9") if other == "wan0" else to_lan(hop(packet), "10.1.0.9"))
        s.count(interface, "forwarded")
        s.answer(other, packet, "slice-sender", error4(packet, NODE_A if other == "wan0" else ROUTER, 3, 13), STATION)


@scenario
def icmp_error_source(s):
    """About packets that come by the one interface from senders behind the other."""
    packet = udp6(src=HOST6, dst=WORLD6, hlim=1)
    s.receive("wan0", packet)
    s.drop("wan0", "ttl-exceeded")
    s.expect("lan0", to_lan(error6(packet, NODE_A6, 3, 0), HOST6))
    packet = udp4(src=HOST, dst=WORLD, ttl=1)
    s.receive("wan0", packet)
    s.drop("wan0", "ttl-exceeded")
    s.expect("lan0", to_lan(error4(packet, ROUTER, 11, 0), HOST))
    s.count("lan0", "originated", 2)


@scenario
def icmp_interface_limit(s):
    """Every packet is from another prefix, so that none of those reaches its own limit."""
    def flood(interface, prefixes, sent):
        for number, n in enumerate(prefixes):
            packet = udp4(src=f"172.16.{n}.1", dst="203.0.113.1", id=n)
            s.receive(interface, packet)
            s.drop(interface, "unreachable")
            s.at_once()
            if number < sent:
                s.expect("lan0", to_lan(error4(packet, ROUTER, 3, 1), "10.1.0.9"))
                s.count("lan0", "originated")
            else:
                s.count(interface, "icmp_limited")

    flood("lan0", range(10), 2)  # a tenth of 20 at once
    flood("wan0", range(20, 24), 2)  # the other one has a rate of its own
    s.time += 100_000_000
    flood("lan0", range(30, 36), 2)


@scenario
def slice_other_ports(s):
    """DCCP (RFC 4340) and UDP-Lite (RFC 3828): the first four bytes are the ports."""
    for protocol in (33, 136):
        header = lambda sport, dport: struct.pack(">HH", sport, dport) + bytes(range(20))
        back = lambda port: IP(src=WORLD, dst=SHARED, proto=protocol) / Raw(header(53, port))
        s.delivered("wan0", back(MINE))
        s.tunnelled("wan0", back(THEIRS), protocol)
        s.refused("wan0", back(NOBODY), "slice-default")
        s.out(IP(src=SHARED, dst=WORLD, proto=protocol) / Raw(header(MINE, 53)))
        wrong = IP(src=SHARED, dst=WORLD, proto=protocol) / Raw(header(THEIRS, 53))
        s.answer("lan0", wrong, "slice-sender", error4(wrong, ROUTER, 3, 13), STATION)


@scenario
def ecmp_fragments(s):
    """Whichever of the four next hops it is: the same for each fragment of a packet, which have no ports but
    the first; and of many packets not always the same one."""
    for number in range(24):
        base = IP(src=HOST, dst=f"198.51.100.{number}")
        for piece in pieces(base, segment(1000 + number, 53), 16, 48, id=number):
            s.out(piece, gateway="10.0.0.4", free=[(5, b"\x03")], flow=number)


@scenario
def route_mtu(s):
    # By a next hop, on the link, and in IPv6: what the route says, where that is less than the link's.
    for dst, gateway, mtu in (("198.51.100.9", "10.0.0.1", 1300), ("203.0.113.9", "203.0.113.9", 1200), (WORLD, "10.0.0.1", 1300), ("9.9.9.9", "10.0.0.1", 1500)):
        s.out(sized4(mtu, dst=dst, flags="DF"), gateway=gateway)
        if mtu < 1500:
            packet = sized4(mtu + 1, dst=dst, flags="DF")
            error = error4(packet, ROUTER, 3, 4, mtu)
            s.answer("lan0", packet, "mtu-exceeded", error, neighbor(HOST))
            s.fragmented("lan0", sized4(mtu + 1, dst=dst), mtu, lambda part: to_wan(part, gateway=gateway))
    packet = sized6(1281, dst="2001:db8:9::1")
    s.answer("lan0", packet, "mtu-exceeded", error6(packet, "fd01::1", 2, 0, 1280), neighbor(HOST6))
    s.out(sized6(1280, dst="2001:db8:9::1"))

    # The MSS: to what fits the next hop, of the way there and of the way back.
    def clamped(interface, packet, mss, out):
        s.receive(interface, packet)
        s.expect("wan0" if interface == "lan0" else "lan0", out(hop(set_mss(packet, mss))))
        s.count(interface, "forwarded")

    syn = lambda **ip: IP(**ip) / TCP(sport=443, dport=80, flags="S", options=[("MSS", 1460)])
    clamped("lan0", syn(src=HOST, dst="198.51.100.9"), 1260, to_wan)
    clamped("lan0", syn(src=HOST, dst="203.0.113.9"), 1160, lambda p: to_wan(p, gateway="203.0.113.9"))
    clamped("lan0", syn(src=HOST, dst="9.9.9.9"), 1460, to_wan)
    clamped("wan0", syn(src="198.51.100.9", dst=HOST), 1260, lambda p: to_lan(p, HOST))
    clamped("wan0", syn(src="203.0.113.9", dst=HOST), 1160, lambda p: to_lan(p, HOST))
    six = IPv6(src=HOST6, dst="2001:db8:9::1") / TCP(dport=80, flags="S", options=[("MSS", 1440)])
    clamped("lan0", six, 1220, to_wan)


@scenario
def link_layer(s):
    s.out(udp4())
    # TTL 1, so that an error would be due if it were not for the link layer.
    s.refused("lan0", udp4(ttl=1), "link-layer-multicast", to="ff:ff:ff:ff:ff:ff")
    s.refused("lan0", udp4(ttl=1), "link-layer-multicast", to="01:00:5e:00:00:01")
    s.refused("lan0", udp6(hlim=1), "link-layer-multicast", to="33:33:00:00:00:01")
    s.refused("lan0", udp4(ttl=1), "other-host", to="02:00:00:00:00:99")
    s.refused("lan0", udp4(ttl=1), "other-host", to=WAN)


@scenario
def own_addresses(s):
    s.punted("lan0", udp4(dst="10.1.0.1", ttl=1))
    s.punted("lan0", udp4(dst=NODE_A))
    s.punted("lan0", udp6(dst="fd01::1", hlim=1))
    s.punted("wan0", udp6(dst="fd01::1", src=WORLD6))
    s.punted("lan0", IP(src=HOST, dst="10.1.0.1") / ICMP(type=8, id=9, seq=1))
    s.punted("lan0", udp4(dst="10.1.0.1", size=2), padding=b"\xee" * 16)
    s.punted("lan0", IP(src=HOST, dst="10.1.0.1", proto=17, frag=10) / Raw(b"x" * 40))


@scenario
def padding(s):
    packet = udp4(size=2)
    s.receive("lan0", packet, padding=b"\xee" * 16)
    s.expect("wan0", to_wan(hop(packet)))
    packet = udp6(size=2)
    s.receive("lan0", packet, padding=b"\xee" * 1450)
    s.expect("wan0", to_wan(hop(packet)))
    s.count("lan0", "forwarded", 2)
    # What is quoted in an error is the packet, and not what follows it.
    packet = udp4(ttl=1, size=2)
    s.answer(
        "lan0",
        packet,
        "ttl-exceeded",
        error4(packet, "10.1.0.1", 11, 0),
        neighbor(HOST),
        more=b"\xee" * 16,
    )


@scenario
def connected(s):
    for seq in range(3):
        packet = IP(src=WORLD, dst=HOST, id=seq) / ICMP(type=8, id=1, seq=seq)
        s.receive("wan0", packet)
        s.expect("lan0", to_lan(hop(packet), HOST))
        s.at_once()
    s.time += STEP_NS
    packet = udp6(src=WORLD6, dst=HOST6)
    s.receive("wan0", packet)
    s.expect("lan0", to_lan(hop(packet), HOST6))
    s.count("wan0", "forwarded", 4)


@scenario
def slice_to_workload(s):
    back = lambda port, **more: udp4(src=WORLD, dst=SHARED, sport=53, dport=port, **more)
    for port in (1024, MINE, 33791):
        s.delivered("wan0", back(port))
    s.delivered(
        "wan0", IP(src=WORLD, dst=SHARED) / TCP(sport=443, dport=MINE, flags="A") / Raw(b"data")
    )
    s.delivered("wan0", IP(src="203.0.113.9", dst=SHARED) / TCP(sport=443, dport=MINE, flags="A"))
    s.delivered("wan0", IP(src=WORLD, dst=SHARED) / SCTP(sport=9, dport=MINE))
    for port in (0, NOBODY, 1023):
        s.refused("wan0", back(port), "slice-default")
    back6 = lambda port: udp6(src=WORLD6, dst=SHARED6, sport=53, dport=port)
    for port in (1024, 33791):
        s.delivered("wan0", back6(port), WEB6)
    s.refused("wan0", back6(1023), "slice-default")
    packet = back(MINE, ttl=1)
    s.answer("wan0", packet, "ttl-exceeded", error4(packet, NODE_A, 11, 0), neighbor("10.0.0.1"))


@scenario
def slice_to_kernel(s):
    back = lambda port, **more: udp4(src=WORLD, dst=SHARED, sport=53, dport=port, **more)
    s.punted("wan0", back(MINE), delivered=True)
    s.punted("wan0", back(MINE, ttl=1), delivered=True)
    s.punted("wan0", back(1024, size=2), delivered=True, padding=b"\xee" * 20)
    s.tunnelled("wan0", back(THEIRS), "t")
    s.refused("wan0", back(1023), "slice-default")
    syn = IP(src=WORLD, dst=SHARED) / TCP(sport=443, dport=MINE, flags="S", options=[("MSS", 1460)])
    s.punted("wan0", syn, set_mss(syn, 1432), delivered=True)
    # What the kernel sent to another slice was lost in the tunnel: it is told of it.
    inner = udp4(src=SHARED, dst=SHARED, sport=MINE, dport=THEIRS, ttl=63)
    outer = raw(gue_packet(inner, NODE_A, NODE_B, 50000))
    s.receive("wan0", IP(src=ROUTER_FAR, dst=NODE_A, proto=1) / Raw(raw_error(3, 1, bytes(4), outer)))
    s.count("wan0", "consumed")
    error = error4(inner, NODE_A, 3, 1)
    s.kernel.append(Out(ether(error, "00:00:00:00:00:00", "00:00:00:00:00:00")))
    s.count("wan0", "originated_to_kernel")


@scenario
def slice_to_node(s):
    back = lambda port, **more: udp4(src=WORLD, dst=SHARED, sport=53, dport=port, **more)
    s.tunnelled("wan0", back(33792), "first")
    s.tunnelled("wan0", back(65535), "last")
    s.tunnelled("wan0", back(65535, id=8), "last")
    for tos in (0x00, 0x01, 0x02, 0x03, 0xB8, 0xBB):
        s.tunnelled("wan0", back(THEIRS, tos=tos, ttl=2), "tos")
    s.tunnelled("wan0", back(THEIRS, flags="DF"), "tos")
    s.tunnelled("wan0", IP(src=WORLD, dst=SHARED) / TCP(sport=443, dport=THEIRS, flags="A"), "tcp")
    s.tunnelled("wan0", udp6(src=WORLD6, dst=SHARED6, dport=THEIRS, tc=0x2E), "v6")
    # A host inside that is no owner may use the service as anybody else.
    s.tunnelled("lan0", udp4(dst=SHARED, dport=THEIRS), "inside")
    packet = back(THEIRS, ttl=1)
    s.answer("wan0", packet, "ttl-exceeded", error4(packet, NODE_A, 11, 0), neighbor("10.0.0.1"))


@scenario
def slice_to_node_ipv6(s):
    back = lambda **more: udp4(src=WORLD, dst=SHARED, sport=53, dport=THEIRS, **more)
    s.tunnelled("wan0", back(), "a", to=NODE_B6)
    s.tunnelled("wan0", back(tos=0xBB), "a", to=NODE_B6)
    # And back: from the other node's tunnel.
    inner = udp4(src=WORLD, dst=SHARED, dport=MINE)
    s.from_tunnel(inner, outer=gue_packet(inner, NODE_B6, NODE_A6, 50000))


@scenario
def slice_from_node(s):
    inner = udp4(src=WORLD, dst=SHARED, dport=MINE)
    s.from_tunnel(inner)
    s.from_tunnel(inner, outer=gue_packet(inner, NODE_B, NODE_A, 50000, udp_sum=None))
    s.from_tunnel(inner, outer=gue_packet(raw(inner) + b"\xee" * 30, NODE_B, NODE_A, 50000))
    short = IP(src=WORLD, dst=SHARED, ttl=2) / TCP(sport=443, dport=MINE, flags="A")
    s.from_tunnel(short)
    inner6 = udp6(src=WORLD6, dst=SHARED6, dport=MINE)
    s.from_tunnel(inner6, station=WEB6)
    # The outer TTL has nothing to do with it.
    outer = gue_packet(inner, NODE_B, NODE_A, 50000)
    outer.ttl = 1
    s.from_tunnel(inner, outer=outer)
    # Inner TTL 1: not forwarded. The error goes to whoever sent the inner packet.
    dead = udp4(src=WORLD, dst=SHARED, dport=MINE, ttl=1)
    s.receive("wan0", gue_packet(dead, NODE_B, NODE_A, 50000))
    s.drop("wan0", "ttl-exceeded")
    s.count("wan0", "decapsulated")
    s.expect("wan0", Out(ether(error4(dead, NODE_A, 11, 0), neighbor("10.0.0.1"), WAN)))
    s.count("wan0", "originated")


@scenario
def tunnel_loop(s):
    inner = udp4(src=WORLD, dst=SHARED, dport=THEIRS)
    s.refused("wan0", gue_packet(inner, NODE_B, NODE_A, 50000), "tunnel-loop")
    s.count("wan0", "decapsulated")


@scenario
def tunnel_refusals(s):
    inner = udp4(src=WORLD, dst=SHARED, dport=MINE)
    gue = lambda inner=inner, source=NODE_B, **more: gue_packet(
        inner, source, NODE_A, 50000, **more
    )
    s.refused("wan0", gue(source="10.0.0.99"), "tunnel-unknown-peer")
    s.refused("lan0", gue(source="10.1.0.99"), "tunnel-unknown-peer")
    s.refused("wan0", gue(udp_sum=0x1234), "tunnel-malformed")
    short = gue()
    short[UDP].len = 20
    s.refused("wan0", short, "tunnel-malformed")
    long = gue()
    long[UDP].len = 8 + len(raw(inner)) + 1
    s.refused("wan0", long, "tunnel-malformed")
    fragment = IP(src=NODE_B, dst=NODE_A, flags="MF") / gue()[UDP]
    s.refused("wan0", fragment, "tunnel-malformed")
    # GUE variant 0 (a control or data header), and nothing at all behind the UDP header.
    s.refused("wan0", gue(b"\x00\x04\x00\x00" + raw(inner)), "tunnel-malformed")
    s.refused(
        "wan0",
        IP(src=NODE_B, dst=NODE_A, flags="DF", id=0)
        / UDP(sport=50000, dport=TUNNEL_PORT, chksum=0),
        "tunnel-malformed",
    )
    s.refused("wan0", gue(gue()), "tunnel-nested")
    s.refused("wan0", gue(damaged(inner, (8, 63), fix=False)), "ipv4-checksum")
    s.refused("wan0", gue(raw(inner)[:-1]), "ipv4-total-length")
    s.refused("wan0", gue(udp4(src="127.0.0.1", dst=SHARED, dport=MINE)), "martian-source")
    s.out(gue_packet(inner, HOST, WORLD, 50000))
    # A later fragment has no ports: it is for the kernel, like all else to this machine's address.
    s.punted("wan0", IP(src=NODE_B, dst=NODE_A, proto=17, frag=10) / Raw(b"x" * 40))


@scenario
def tunnel_ecn(s):
    # RFC 6040 figure 4: rows inner, columns outer Not-ECT (0), ECT(0) (2), ECT(1) (1), CE (3).
    result = {0: (0, 0, 0, None), 2: (2, 2, 1, 3), 1: (1, 1, 1, 3), 3: (3, 3, 3, 3)}
    for inner_ecn, row in result.items():
        for outer_ecn, ecn in zip((0, 2, 1, 3), row):
            inner = udp4(src=WORLD, dst=SHARED, dport=MINE, tos=0x28 | inner_ecn)
            outer = gue_packet(inner, NODE_B, NODE_A, 50000, tos=0xB8 | outer_ecn)
            if ecn is None:
                s.refused("wan0", outer, "tunnel-ecn")
            else:
                s.from_tunnel(inner, becomes=hop(inner, ecn=ecn), outer=outer)


@scenario
def tunnel_too_big(s):
    back = lambda total, **more: sized4(total, src=WORLD, dst=SHARED, dport=THEIRS, **more)
    s.tunnelled("wan0", back(1472, flags="DF"), "a")
    packet = back(1473, flags="DF")
    s.answer(
        "wan0", packet, "mtu-exceeded", error4(packet, NODE_A, 3, 4, 1472), neighbor("10.0.0.1")
    )
    s.fragmented("wan0", back(1473), 1472, lambda part: into_tunnel(part, "a"))
    s.count("wan0", "to_owner")
    s.tunnelled("wan0", sized6(1472, src=WORLD6, dst=SHARED6, dport=THEIRS), "b")
    packet = sized6(1473, src=WORLD6, dst=SHARED6, dport=THEIRS)
    s.answer(
        "wan0", packet, "mtu-exceeded", error6(packet, NODE_A6, 2, 0, 1472), neighbor("fd00::1")
    )


@scenario
def tunnel_mtu_ipv6(s):
    back = lambda total, **more: sized4(total, src=WORLD, dst=SHARED, dport=THEIRS, **more)
    s.tunnelled("wan0", back(1452, flags="DF"), "a", to=NODE_B6)
    packet = back(1453, flags="DF")
    s.answer(
        "wan0", packet, "mtu-exceeded", error4(packet, NODE_A, 3, 4, 1452), neighbor("10.0.0.1")
    )
    s.fragmented("wan0", back(2000), 1452, lambda part: into_tunnel(part, "b", to=NODE_B6))
    s.count("wan0", "to_owner")


@scenario
def tunnel_padding(s):
    packet = udp4(src=WORLD, dst=SHARED, dport=THEIRS, size=2)
    s.receive("wan0", packet, padding=b"\xee" * 16)
    s.expect("wan0", into_tunnel(hop(packet), "a"))
    # And in the other direction, with padding behind the outer packet.
    s.count("wan0", "to_owner")
    inner = udp4(src=WORLD, dst=SHARED, dport=MINE, size=2)
    s.receive("wan0", gue_packet(inner, NODE_B, NODE_A, 50000), padding=b"\xee" * 20)
    s.expect("lan0", to_lan(hop(inner), WEB))
    s.count("wan0", "forwarded", 2)
    s.count("wan0", "delivered")
    s.count("wan0", "decapsulated")


@scenario
def tunnel_sender(s):
    def sends(port, **more):
        return udp4(src=SHARED, sport=port, **more)

    good = sends(THEIRS)
    s.receive("wan0", gue_packet(good, NODE_B, NODE_A, 50000))
    s.expect("wan0", to_wan(hop(good)))
    s.count("wan0", "forwarded")
    s.count("wan0", "decapsulated")
    # To this node's own workload, by the shared address.
    good = sends(THEIRS, dst=SHARED, dport=MINE)
    s.from_tunnel(good)
    for port in (MINE, NOBODY):
        s.refused("wan0", gue_packet(sends(port), NODE_B, NODE_A, 50000), "slice-sender")
        s.count("wan0", "decapsulated")
    # A workload that plays this node, whose tunnel node b would take it for.
    s.refused("lan0", gue_packet(sends(NOBODY), NODE_A, NODE_B, 50000), "martian-source")


@scenario
def sites(s):
    back = lambda port, **more: udp4(src=WORLD, dst=SHARED, sport=53, dport=port, **more)
    fra = {"to": "10.0.9.1", "via": "10.0.0.1"}
    s.delivered("wan0", back(MINE))
    s.tunnelled("wan0", back(20000), "node")
    s.tunnelled("wan0", back(40000), "site", **fra)
    s.tunnelled("wan0", back(65535), "site2", **fra)
    s.refused("wan0", back(100), "slice-default")
    # From the other site: to a node of this one, or to this node, and never back.
    inner = back(20000)
    s.receive("wan0", gue_packet(inner, "10.0.9.1", NODE_A, 50000))
    s.expect("wan0", into_tunnel(hop(inner), "node"))
    for counter in ("forwarded", "to_owner", "decapsulated"):
        s.count("wan0", counter)
    inner = back(MINE)
    s.from_tunnel(inner, outer=gue_packet(inner, "10.0.9.1", NODE_A, 50000))
    s.refused("wan0", gue_packet(back(40000), "10.0.9.1", NODE_A, 50000), "tunnel-loop")
    s.refused("wan0", gue_packet(back(20000), NODE_B, NODE_A, 50000), "tunnel-loop")
    s.refused("wan0", gue_packet(back(40000), NODE_B, NODE_A, 50000), "tunnel-loop")
    # Senders: a site from its own slices, straight or passed on by a node of this site; a node from its own.
    sends = lambda port: udp4(src=SHARED, sport=port, dst=SHARED, dport=MINE)
    s.from_tunnel(sends(40000), outer=gue_packet(sends(40000), "10.0.9.1", NODE_A, 50000))
    s.from_tunnel(sends(40000), outer=gue_packet(sends(40000), NODE_B, NODE_A, 50000))
    s.from_tunnel(sends(20000), outer=gue_packet(sends(20000), NODE_B, NODE_A, 50000))
    # No site has a packet of this site's nodes, and nobody one of this node's own. Nobody is told.
    for port, far in ((20000, "10.0.9.1"), (MINE, "10.0.9.1"), (MINE, NODE_B), (100, "10.0.9.1"), (20000, "10.0.9.3")):
        s.refused("wan0", gue_packet(sends(port), far, NODE_A, 50000), "slice-sender")
        s.count("wan0", "decapsulated")
    # Every node of the other site sends from its own address.
    inner = back(MINE)
    s.from_tunnel(inner, outer=gue_packet(inner, "10.0.9.3", NODE_A, 50000))
    s.from_tunnel(sends(40000), outer=gue_packet(sends(40000), "10.0.9.3", NODE_A, 50000))
    s.refused("wan0", gue_packet(back(40000), "10.0.9.3", NODE_A, 50000), "tunnel-loop")
    s.refused("wan0", gue_packet(back(MINE), "10.0.9.4", NODE_A, 50000), "tunnel-unknown-peer")
    s.count("wan0", "decapsulated", 4)


@scenario
def slice_defaults(s):
    back = lambda address, port: udp4(src=WORLD, dst=address, sport=53, dport=port)
    s.delivered("wan0", back("192.0.2.1", MINE))
    s.tunnelled("wan0", back("192.0.2.1", NOBODY), "a")
    s.tunnelled("wan0", back("192.0.2.1", 65535), "b")
    s.delivered("wan0", back("192.0.2.2", NOBODY))
    s.tunnelled("wan0", back("192.0.2.2", 65535), "c")
    s.refused("wan0", back("192.0.2.3", NOBODY), "slice-default")


@scenario
def slice_portless(s):
    gre = lambda dst: IP(src=WORLD, dst=dst) / GRE() / Raw(raw(udp4()))
    esp = lambda dst: IP(src=WORLD, dst=dst, proto=50) / Raw(b"\x00\x00\x01\x00" + b"x" * 40)
    for packet in (gre, esp):
        s.refused("wan0", packet("192.0.2.1"), "slice-portless")
        s.delivered("wan0", packet("192.0.2.2"))
        s.tunnelled("wan0", packet("192.0.2.3"), packet)
    tcp = raw(TCP(sport=443, dport=MINE))
    s.refused("wan0", IP(src=WORLD, dst=SHARED, proto=6) / Raw(tcp[:13]), "transport-truncated")
    s.refused(
        "wan0",
        IP(src=WORLD, dst=SHARED, proto=17) / Raw(b"\x00\x35\x07\xd0"),
        "transport-truncated",
    )


def to_shared():
    """Both families: addresses of a packet from the world to the shared address, its slice's owner."""
    return ((IP(src=WORLD, dst=SHARED), WEB), (IPv6(src=WORLD6, dst=SHARED6), WEB6))


def segment(sport, dport, size=64):
    return raw(UDP(sport=sport, dport=dport, len=8 + size, chksum=0)) + bytes(range(size))


@scenario
def slice_fragments(s):
    for base, station in to_shared():
        for piece in pieces(base, segment(53, MINE), 24, 48, id=5):
            s.delivered("wan0", piece, station)
        # Before their first: they leave behind it, in order of arrival.
        a, b, c = pieces(base, segment(53, MINE), 24, 48, id=6)
        for piece in (c, b, a):
            s.receive("wan0", piece)
        for piece in (a, c, b):
            s.expect("lan0", to_lan(hop(piece), station))
        s.count("wan0", "forwarded", 3)
        s.count("wan0", "delivered", 3)
        # All in one batch.
        a, b, c = pieces(base, segment(53, MINE), 24, 48, id=7)
        for piece in (b, a, c):
            s.receive("wan0", piece)
            s.at_once()
        s.time += STEP_NS
        for piece in (a, b, c):
            s.expect("lan0", to_lan(hop(piece), station))
        s.count("wan0", "forwarded", 3)
        s.count("wan0", "delivered", 3)
        # What comes twice passes once.
        a, b, c = pieces(base, segment(53, MINE), 24, 48, id=8)
        s.delivered("wan0", a, station)
        s.refused("wan0", a, "fragment-duplicate")
        s.delivered("wan0", c, station)
        s.refused("wan0", c, "fragment-duplicate")
        s.delivered("wan0", b, station)
        # Another packet between two ends of the same name.
        for piece in pieces(base, segment(53, MINE), 24, 48, id=8):
            s.delivered("wan0", piece, station)
        flow = "4" if IP in base else "6"
        for piece in pieces(base, segment(53, THEIRS), 24, 48, id=9):
            s.tunnelled("wan0", piece, flow)
        a, b, c = pieces(base, segment(53, THEIRS), 24, 48, id=10)
        for piece in (b, c, a):
            s.receive("wan0", piece)
        for piece in (a, b, c):
            s.expect("wan0", into_tunnel(hop(piece), flow))
        s.count("wan0", "forwarded", 3)
        s.count("wan0", "to_owner", 3)
        for piece in pieces(base, segment(53, NOBODY), 24, 48, id=11):
            s.refused("wan0", piece, "slice-default")
    # RFC 6946: an atomic fragment is a whole packet, in spite of one under way with its identification.
    first, last = pieces(IPv6(src=WORLD6, dst=SHARED6), segment(53, MINE), 24, id=12)
    s.delivered("wan0", first, WEB6)
    atomic = IPv6(src=WORLD6, dst=SHARED6) / IPv6ExtHdrFragment(nh=17, id=12)
    s.delivered("wan0", atomic / Raw(segment(53, MINE)), WEB6)
    s.delivered("wan0", last, WEB6)
    # Options in the fragmentable part: only the first fragment tells the protocol.
    options = bytes([17, 0, 1, 4, 0, 0, 0, 0])
    first, last = pieces(
        IPv6(src=WORLD6, dst=SHARED6), options + segment(53, THEIRS), 32, id=13, proto=60
    )
    s.receive("wan0", last)
    s.receive("wan0", first)
    for piece in (first, last):
        s.expect("wan0", into_tunnel(hop(piece), "6"))
    s.count("wan0", "forwarded", 2)
    s.count("wan0", "to_owner", 2)
    # An ICMP error in two: its slice is that of the packet that it quotes.
    quoted = raw(udp4(src=SHARED, sport=MINE, dst=WORLD, size=100))
    message = raw(ICMP(type=3, code=1) / Raw(quoted))
    first, last = pieces(IP(src=WORLD, dst=SHARED), message, 64, id=14, proto=1)
    s.receive("wan0", last)
    s.receive("wan0", first)
    for piece in (first, last):
        s.expect("lan0", to_lan(hop(piece), WEB))
    s.count("wan0", "forwarded", 2)
    s.count("wan0", "delivered", 2)


@scenario
def fragment_timeout(s):
    for base, station in to_shared():
        a, b, c = pieces(base, segment(53, MINE), 24, 48)
        s.receive("wan0", c)
        s.receive("wan0", b)
        s.drop("wan0", "fragment-timeout", 2)
        s.time += 500_000_000
        # The time is up: the first fragment begins a new packet.
        s.delivered("wan0", a, station)
        s.delivered("wan0", b, station)
        s.time += 500_000_000
        s.receive("wan0", c)
        s.drop("wan0", "fragment-timeout")
        s.time += 500_000_000


@scenario
def fragment_overlap(s):
    for base, station in to_shared():
        whole = segment(53, MINE)

        def part(start, end, more=True, **of):
            cut = pieces(base, whole + bytes(800), *(at for at in (start, end) if at), **of)
            piece = cut[1] if start else cut[0]
            if not more and IPv6 in piece:
                piece[IPv6ExtHdrFragment].m = 0
            elif not more:
                piece.flags = 0
            return piece

        # RFC 5722 section 4: nothing of the packet passes any more, until its time is up.
        s.delivered("wan0", part(0, 24, id=20), station)
        s.refused("wan0", part(16, 40, id=20), "fragment-overlap")
        s.refused("wan0", part(24, 48, id=20), "fragment-overlap")
        s.refused("wan0", part(0, 24, id=20), "fragment-overlap")
        # What waits for the first one too.
        for piece in (part(24, 48, id=21), part(48, 72, id=21), part(40, 56, id=21), part(0, 24, id=21)):
            s.refused("wan0", piece, "fragment-overlap")
        # A part within another, and one around another.
        s.delivered("wan0", part(0, 48, id=22), station)
        s.refused("wan0", part(8, 16, id=22), "fragment-overlap")
        s.delivered("wan0", part(0, 24, id=23), station)
        s.delivered("wan0", part(48, 56, id=23), station)
        s.refused("wan0", part(24, 72, id=23), "fragment-overlap")
        # Two ends, and something behind the end.
        s.delivered("wan0", part(0, 24, id=24), station)
        s.delivered("wan0", part(48, 72, more=False, id=24), station)
        s.refused("wan0", part(32, 40, more=False, id=24), "fragment-overlap")
        s.delivered("wan0", part(0, 24, id=25), station)
        s.delivered("wan0", part(48, 72, more=False, id=25), station)
        s.refused("wan0", part(80, 88, id=25), "fragment-overlap")
        s.delivered("wan0", part(0, 24, id=26), station)
        s.delivered("wan0", part(80, 88, id=26), station)
        s.refused("wan0", part(48, 72, more=False, id=26), "fragment-overlap")
        # No multiple of 8 bytes, nothing at all, and more than a packet holds.
        s.refused("wan0", part(24, 44, id=27), "fragment-malformed")
        s.refused("wan0", pieces(base, whole, 24, 24, id=27)[1], "fragment-malformed")
        beyond = pieces(base, bytes(65520) + whole, 65520, id=27)[1]
        s.refused("wan0", beyond, "fragment-malformed")
        # RFC 3128 section 2: TCP flags behind the first fragment's.
        s.refused("wan0", part(8, 40, id=28, proto=6), "tiny-fragment")
        s.time += 2_000_000_000
        for piece in pieces(base, whole, 24, 48, id=20):
            s.delivered("wan0", piece, station)
    # RFC 7112 section 5: the first fragment holds the whole header chain.
    base = IPv6(src=WORLD6, dst=SHARED6)
    options = bytes([17, 1, 1, 12]) + bytes(12)
    first, last = pieces(base, options + segment(53, MINE), 8, id=30, proto=60)
    s.refused("wan0", first, "ipv6-extension-chain")
    s.receive("wan0", last)
    s.drop("wan0", "fragment-timeout")
    tcp = raw(TCP(sport=53, dport=MINE, flags="S")) + bytes(40)
    s.refused("wan0", pieces(base, tcp, 16, id=31, proto=6)[0], "tiny-fragment")


@scenario
def fragment_limits(s):
    waits = lambda id: pieces(IP(src=WORLD, dst=SHARED), segment(53, MINE), 24, id=id)[1]
    s.receive("wan0", waits(1))
    s.receive("wan0", waits(2))
    s.refused("wan0", waits(3), "fragment-full")
    # The oldest of three packets gives way to a fourth.
    s.delivered("wan0", pieces(IP(src=WORLD, dst=SHARED), segment(53, MINE), 24, id=4)[0])
    s.drop("wan0", "fragment-full")
    # And makes room for another one that waits.
    s.receive("wan0", waits(5))
    s.drop("wan0", "fragment-full")
    s.drop("wan0", "fragment-timeout")


@scenario
def fragments_not_followed(s):
    for base, station in to_shared():
        first, last = pieces(base, segment(53, MINE), 24)
        s.delivered("wan0", first, station)
        s.refused("wan0", last, "slice-fragment")


@scenario
def fragment_sender(s):
    outwards = (
        (IP(src=SHARED, dst=WORLD), lambda about: error4(about, "10.1.0.1", 3, 13)),
        (IPv6(src=SHARED6, dst=WORLD6), lambda about: error6(about, "fd01::1", 1, 5)),
    )
    for base, error in outwards:
        for piece in pieces(base, segment(MINE, 53), 24, 48, id=1):
            s.out(piece)
        a, b, c = pieces(base, segment(MINE, 53), 24, 48, id=2)
        for piece in (b, c, a):
            s.receive("lan0", piece)
        for piece in (a, b, c):
            s.expect("wan0", to_wan(hop(piece)))
        s.count("lan0", "forwarded", 3)
        # Another's slice: all fragments are refused. RFC 1812 section 4.3.2.7 has no error about a later
        # one; RFC 4443 has.
        for number, piece in enumerate(pieces(base, segment(THEIRS, 53), 24, 48, id=3)):
            if number == 0 or IPv6 in base:
                s.answer("lan0", piece, "slice-sender", error(piece), STATION)
            else:
                s.refused("lan0", piece, "slice-sender")
        # From outside the source is spoofed, and nothing waits.
        s.refused("wan0", pieces(base, segment(MINE, 53), 24, id=4)[1], "spoofed-source")
    # Between two slices of one address.
    base = IP(src=SHARED, dst=SHARED)
    for piece in pieces(base, segment(MINE, THEIRS), 24, 48, id=5):
        s.tunnelled("lan0", piece, "h")


@scenario
def fragments_from_node(s):
    a, b, c = pieces(IP(src=WORLD, dst=SHARED), segment(53, MINE), 24, 48)
    for inner in (a, b, c):
        s.from_tunnel(inner)
    a, b, c = pieces(IP(src=WORLD, dst=SHARED), segment(53, MINE), 24, 48, id=6)
    for inner in (c, a, b):
        s.receive("wan0", gue_packet(inner, NODE_B, NODE_A, 50000))
    for inner in (a, c, b):
        s.expect("lan0", to_lan(hop(inner), WEB))
    for counter in ("forwarded", "delivered", "decapsulated"):
        s.count("wan0", counter, 3)
    # What its own slice would send back again.
    for inner in pieces(IP(src=WORLD, dst=SHARED), segment(53, THEIRS), 24, 48, id=7):
        s.refused("wan0", gue_packet(inner, NODE_B, NODE_A, 50000), "tunnel-loop")
        s.count("wan0", "decapsulated")


@scenario
def fragments_workers(s):
    s.chosen = ("handed_over", "taken_over")
    for number in range(24):
        base, station = to_shared()[number % 2]
        whole = bytearray(segment(53, MINE))
        # Later fragments differ where a NIC looks for ports, so that they spread over the workers.
        whole[24:26] = struct.pack(">H", number * 2500)
        a, b, c = pieces(base, bytes(whole), 24, 48, id=100 + number)
        for piece in (c, a, b):
            s.receive("wan0", piece)
        for piece in (a, c, b):
            s.expect("lan0", to_lan(hop(piece), station))
    s.count("wan0", "forwarded", 72)
    s.count("wan0", "delivered", 72)


@scenario
def fragmentation(s):
    out = lambda packet: s.fragmented("lan0", packet, 1397, to_wan)
    s.out(sized4(1397))
    out(sized4(1398))
    out(sized4(3000, id=0x1234, tos=0xB8))
    # Copied: a router alert (148) and an unknown option (130). Not copied: a timestamp (68).
    options = bytes([1, 68, 8, 5, 0, 0, 0, 0, 0, 148, 4, 0, 0, 130, 3, 9])
    out(with_options(sized4(3000), options))
    out(with_options(sized4(1390), bytes([7, 7, 4, 0, 0, 0, 0, 0])))
    # Fragments of fragments: offsets count on, and the last of a first keeps its flag.
    out(IP(src=HOST, dst=WORLD, id=9, proto=17, flags="MF") / Raw(segment(1, 2) + bytes(1400)))
    out(IP(src=HOST, dst=WORLD, id=9, proto=17, flags="MF", frag=184) / Raw(bytes(1480)))
    out(IP(src=HOST, dst=WORLD, id=9, proto=17, frag=369) / Raw(bytes(1501)))
    packet = sized4(1398, flags="DF")
    s.answer("lan0", packet, "mtu-exceeded", error4(packet, "10.1.0.1", 3, 4, 1397), neighbor(HOST))
    # Padding is no part of the packet.
    packet = sized4(1500)
    s.receive("lan0", packet, padding=b"\xee" * 20)
    for part in split4(hop(packet), 1397):
        s.expect("wan0", to_wan(part))
    s.count("lan0", "forwarded")
    s.count("wan0", "fragmented")
    s.count("wan0", "fragments_created", 2)
    # A fragment that ends beyond 65,535 bytes cannot be said by any header.
    beyond = IP(src=HOST, dst=WORLD, id=9, proto=17, frag=8190) / Raw(bytes(1480))
    s.refused("lan0", beyond, "fragment-malformed")


@scenario
def fragmentation_off(s):
    s.refused("lan0", sized4(1401), "fragmentation-off")
    s.out(sized4(1400))


@scenario
def fragmentation_limited(s):
    s.fragmented("lan0", sized4(1401), 1400, to_wan)
    s.at_once()
    s.refused("lan0", sized4(1401), "fragmentation-limited")
    s.time += 100_000_000
    s.fragmented("lan0", sized4(1401), 1400, to_wan)


@scenario
def slice_echo(s):
    echo = (
        lambda kind, identifier: IP(src=WORLD, dst=SHARED)
        / ICMP(type=kind, id=identifier, seq=1)
        / Raw(b"ping")
    )
    s.delivered("wan0", echo(0, MINE))
    s.delivered("wan0", echo(8, 1024))
    s.tunnelled("wan0", echo(0, THEIRS), "a")
    s.refused("wan0", echo(0, NOBODY), "slice-default")
    s.refused(
        "wan0",
        IP(src=WORLD, dst=SHARED) / ICMP(type=13, id=MINE, seq=1, ts_ori=0, ts_rx=0, ts_tx=0),
        "slice-icmp",
    )
    s.refused(
        "wan0", IP(src=WORLD, dst=SHARED, proto=1) / Raw(b"\x08\x00\xf7\xff\x07"), "slice-icmp"
    )
    s.delivered("wan0", IPv6(src=WORLD6, dst=SHARED6) / ICMPv6EchoReply(id=MINE, seq=1), WEB6)
    s.tunnelled("wan0", IPv6(src=WORLD6, dst=SHARED6) / ICMPv6EchoRequest(id=THEIRS, seq=1), "b")
    s.refused(
        "wan0", IPv6(src=WORLD6, dst=SHARED6) / ICMPv6EchoRequest(id=NOBODY, seq=1), "slice-default"
    )
    # ICMPv6 neighbor solicitation (135) to a shared address.
    s.refused(
        "wan0",
        IPv6(src=WORLD6, dst=SHARED6, nh=58, hlim=255) / Raw(b"\x87" + bytes(23)),
        "slice-icmp",
    )
    # A workload that pings with an identifier of its slice, and with another.
    ping = IP(src=SHARED, dst=WORLD) / ICMP(type=8, id=MINE, seq=1)
    s.out(ping)
    ping = IP(src=SHARED, dst=WORLD) / ICMP(type=8, id=THEIRS, seq=1)
    s.answer("lan0", ping, "slice-sender", error4(ping, "10.1.0.1", 3, 13), STATION)


ROUTER_FAR, ROUTER_FAR6 = "203.0.113.1", "2001:db8:99::1"


@scenario
def icmp_error_ipv4(s):
    sent = lambda port, **more: udp4(src=SHARED, sport=port, ttl=1, **more)

    def error(quoted, kind=3, code=3, rest=b"\0\0\0\0"):
        return IP(src=ROUTER_FAR, dst=SHARED) / ICMP(raw_error(kind, code, rest, raw(quoted)))

    s.delivered("wan0", error(sent(MINE)))
    s.delivered("wan0", error(raw(sent(MINE))[:28], kind=11, code=0))
    s.delivered("wan0", error(sent(MINE), kind=3, code=4, rest=b"\0\0\x05\x78"))
    s.delivered("wan0", error(raw(IP(src=SHARED, dst=WORLD) / TCP(sport=MINE, dport=80))[:28]))
    s.delivered("wan0", error(IP(src=SHARED, dst=WORLD) / ICMP(type=8, id=MINE)))
    s.delivered(
        "wan0",
        error(IP(src=SHARED, dst=WORLD, options=[IPOption_NOP()] * 4) / UDP(sport=MINE, dport=1)),
    )
    s.delivered("wan0", error(IP(src=SHARED, dst=WORLD, flags="MF") / UDP(sport=MINE, dport=1)))
    s.tunnelled("wan0", error(sent(THEIRS)), "e")
    # RFC 4884: quotation padded to 128 bytes (32 words), then an extension with an MPLS label stack.
    quoted = raw(sent(MINE, size=60)).ljust(128, b"\0")
    extension = b"\x20\x00\0\0" + b"\x00\x08\x01\x01" + raw(MPLS(label=16, ttl=1))
    extension = extension[:2] + struct.pack(">H", checksum(extension)) + extension[4:]
    s.delivered("wan0", error(quoted + extension, kind=11, code=0, rest=b"\0\x20\0\0"))
    # The length says that the quotation ends before the ports: what follows is no quotation.
    cut = raw(sent(MINE))[:20]
    s.refused(
        "wan0", error(cut + extension, kind=11, code=0, rest=b"\0\x05\0\0"), "icmp-inner-truncated"
    )
    for length in (0, 19, 20, 23):
        s.refused("wan0", error(raw(sent(MINE))[:length]), "icmp-inner-truncated")
    s.refused("wan0", error(udp4(src=WORLD, sport=MINE)), "slice-icmp")
    s.refused(
        "wan0", error(IP(src=SHARED, dst=WORLD, proto=17, frag=5) / Raw(b"x" * 20)), "slice-icmp"
    )
    s.refused("wan0", error(IP(src=SHARED, dst=WORLD, proto=50) / Raw(b"x" * 20)), "slice-icmp")
    s.refused("wan0", error(sent(NOBODY)), "slice-default")
    # A workload's own error about a packet to its slice leaves; about another slice's it does not.
    got = udp4(src=WORLD, dst=SHARED, sport=53, dport=MINE)
    s.out(IP(src=SHARED, dst=WORLD) / ICMP(raw_error(3, 3, bytes(4), raw(got))))
    got = udp4(src=WORLD, dst=SHARED, sport=53, dport=THEIRS)
    s.refused(
        "lan0",
        IP(src=SHARED, dst=WORLD) / ICMP(raw_error(3, 3, bytes(4), raw(got))),
        "slice-sender",
    )


def raw_error(kind, code, rest, quoted):
    message = bytes([kind, code, 0, 0]) + rest + quoted
    return message[:2] + struct.pack(">H", checksum(message)) + message[4:]


@scenario
def icmp_error_ipv6(s):
    sent = lambda port, **more: udp6(src=SHARED6, sport=port, hlim=1, **more)
    error = lambda layer, quoted: IPv6(src=ROUTER_FAR6, dst=SHARED6) / layer / Raw(raw(quoted))
    s.delivered("wan0", error(ICMPv6DestUnreach(code=4), sent(MINE)), WEB6)
    s.delivered("wan0", error(ICMPv6TimeExceeded(), sent(MINE)), WEB6)
    s.delivered(
        "wan0", error(ICMPv6PacketTooBig(mtu=1400), sized6(1232, src=SHARED6, sport=MINE)), WEB6
    )
    s.delivered("wan0", error(ICMPv6TimeExceeded(), raw(sent(MINE))[:44]), WEB6)
    s.delivered(
        "wan0",
        error(
            ICMPv6DestUnreach(),
            IPv6(src=SHARED6, dst=WORLD6)
            / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)])
            / UDP(sport=MINE),
        ),
        WEB6,
    )
    s.delivered(
        "wan0",
        error(ICMPv6DestUnreach(), IPv6(src=SHARED6, dst=WORLD6) / ICMPv6EchoRequest(id=MINE)),
        WEB6,
    )
    s.tunnelled("wan0", error(ICMPv6TimeExceeded(), sent(THEIRS)), "e")
    # RFC 4884: the length in 64-bit words stands in byte 4.
    quoted = raw(sent(MINE, size=72)).ljust(128, b"\0")
    extension = b"\x20\x00\0\0" + b"\x00\x08\x01\x01" + raw(MPLS(label=16, ttl=1))
    s.delivered("wan0", error(ICMPv6TimeExceeded(length=16), quoted + extension), WEB6)
    s.refused(
        "wan0",
        error(ICMPv6TimeExceeded(length=5), raw(sent(MINE))[:40] + extension),
        "icmp-inner-truncated",
    )
    for length in (0, 39, 43):
        s.refused(
            "wan0", error(ICMPv6TimeExceeded(), raw(sent(MINE))[:length]), "icmp-inner-truncated"
        )
    s.refused("wan0", error(ICMPv6TimeExceeded(), udp6(src=WORLD6, sport=MINE)), "slice-icmp")
    s.refused(
        "wan0",
        error(
            ICMPv6TimeExceeded(),
            IPv6(src=SHARED6, dst=WORLD6) / IPv6ExtHdrFragment(nh=17, offset=5),
        ),
        "slice-icmp",
    )


@scenario
def slice_sender(s):
    sends = lambda port, **more: udp4(src=SHARED, sport=port, **more)
    for port in (1024, 33791):
        s.out(sends(port))
    for port in (1023, NOBODY, THEIRS):
        packet = sends(port)
        s.answer("lan0", packet, "slice-sender", error4(packet, "10.1.0.1", 3, 13), STATION)
    # Back by the way that it came, but not to a group address, which many would hear.
    for station in ("ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "33:33:00:00:00:01"):
        s.refused("lan0", sends(THEIRS), "slice-sender", source=station)
        s.count("lan0", "originated_lost")
    s.out(udp6(src=SHARED6, sport=MINE))
    packet = udp6(src=SHARED6, sport=THEIRS)
    s.answer("lan0", packet, "slice-sender", error6(packet, "fd01::1", 1, 5), STATION)
    # A later fragment and a protocol without ports name no slice. About the fragment: no error.
    # Nobody knows what it may send before its first fragment comes.
    s.refused("lan0", IP(src=SHARED, dst=WORLD, proto=17, frag=5) / Raw(b"x" * 20), "fragment-timeout")
    packet = IP(src=SHARED, dst=WORLD, proto=50) / Raw(b"x" * 20)
    s.answer("lan0", packet, "slice-sender", error4(packet, "10.1.0.1", 3, 13), STATION)
    # An error about a packet that a workload sent from its slice comes back to the workload.
    packet = sends(MINE, ttl=1)
    s.answer("lan0", packet, "ttl-exceeded", error4(packet, "10.1.0.1", 11, 0), neighbor(WEB))


@scenario
def spoofed_source(s):
    for port in (MINE, THEIRS, NOBODY):
        s.refused("wan0", udp4(src=SHARED, sport=port), "spoofed-source")
    s.refused("wan0", udp4(src=SHARED, sport=MINE, dst=HOST), "spoofed-source")
    # Broken options would be answered, but not to whom the address belongs.
    s.refused("wan0", with_options(udp4(src=SHARED, sport=MINE), b"\x07\x08\x04\x00"), "ipv4-options")
    s.refused("wan0", udp6(src=SHARED6, sport=MINE), "spoofed-source")


@scenario
def hairpin(s):
    def talk(sport, dport, station):
        packet = udp4(src=SHARED, dst=SHARED, sport=sport, dport=dport)
        s.receive("lan0", packet)
        s.expect("lan0", to_lan(hop(packet), station))
        s.count("lan0", "forwarded")
        s.count("lan0", "delivered")

    talk(2000, 20000, DB)
    talk(20000, 2000, WEB)
    s.tunnelled("lan0", udp4(src=SHARED, dst=SHARED, sport=2000, dport=THEIRS), "a")
    # And from the other node.
    s.from_tunnel(udp4(src=SHARED, dst=SHARED, sport=THEIRS, dport=2000))
    # What nobody may send does not come through this way either.
    packet = udp4(src=SHARED, dst=SHARED, sport=NOBODY, dport=2000)
    s.receive("lan0", packet)
    s.drop("lan0", "slice-sender")
    s.expect("lan0", Out(ether(error4(packet, "10.1.0.1", 3, 13), STATION, LAN)))
    s.count("lan0", "originated")


def syn4(mss, flags="S", before=0, **more):
    options = [("NOP", None)] * before + [("MSS", mss)]
    return (
        IP(**{"src": SHARED, "dst": WORLD, **more})
        / TCP(sport=MINE, dport=443, flags=flags, options=options)
        / Raw(b"odd")
    )


@scenario
def mss_clamp(s):
    def out(packet, mss):
        s.receive("lan0", packet)
        s.expect("wan0", to_wan(hop(set_mss(packet, mss))))
        s.count("lan0", "forwarded")

    for before in range(4):
        out(syn4(1460, before=before), 1432)
    out(syn4(65535), 1432)
    out(syn4(1433, flags="SA"), 1432)
    out(syn4(1432), 1432)
    out(syn4(536), 536)
    s.out(syn4(1460, flags="A"))
    s.out(IP(src=SHARED, dst=WORLD) / TCP(sport=MINE, dport=443, flags="S"))
    packet = IPv6(src=SHARED6, dst=WORLD6) / TCP(
        sport=MINE, dport=443, flags="S", options=[("MSS", 1440)]
    )
    out(packet, 1412)
    # Inbound: to the workload, to the other node, and out of its tunnel.
    syn = lambda dport: IP(src=WORLD, dst=SHARED) / TCP(
        sport=443, dport=dport, flags="SA", options=[("MSS", 1460)]
    )
    s.receive("wan0", syn(MINE))
    s.expect("lan0", to_lan(hop(set_mss(syn(MINE), 1432)), WEB))
    s.count("wan0", "delivered")
    s.receive("wan0", syn(THEIRS))
    s.expect("wan0", into_tunnel(hop(set_mss(syn(THEIRS), 1432)), "a"))
    s.count("wan0", "to_owner")
    s.count("wan0", "forwarded", 2)
    s.from_tunnel(syn(MINE), becomes=hop(set_mss(syn(MINE), 1432)))


def tunnel_kind(s, v6, kind, nodes, mss):
    """Tunnels of one kind: both directions, both families, sizes to the byte, ECN. `nodes` are number of
    the node, a port of its slice, bytes in front of a packet, fields of GRE, and the DSCP that is
    copied (a mask)."""
    here = NODE_A6 if v6 else NODE_A
    sequences = {}

    def wrapped(number, inner, dscp, gre, there=None):
        gre = dict(gre)
        if gre.get("sequence") is not None:
            gre["sequence"] = sequences[number] = sequences.get(number, -1) + 1
        inner = raw(inner)
        tos = inner[1] if inner[0] >> 4 == 4 else (struct.unpack(">H", inner[:2])[0] >> 4) & 0xFF
        return outer_packet(kind, inner, here, there, tos & (dscp | 3), **gre_fields(**gre))

    def tunnelled(number, packet, there, gre, dscp, becomes=None, mtu=1500):
        """Into the tunnel; in fragments when it is larger than `mtu`, each of which is a packet of the
        tunnel: with a sequence number of its own (RFC 2890 section 2.2), a checksum of its own, and
        the flow label of the packet that it was cut from."""
        s.receive("wan0", packet)
        # The flow label: 20 bits at 1.5 bytes into the outer IPv6 header.
        free = [(15, b"\x0f\xff\xff")] if v6 else []
        flow = (number, packet.dst, raw(packet)[-30:]) if v6 else None
        inner = hop(becomes or packet)
        parts = split4(inner, mtu) if len(inner) > mtu else [inner]
        for part in parts:
            outer = wrapped(number, part, dscp, gre, there)
            s.expect("wan0", to_wan(outer, gateway=there, free=free, flow=flow))
        if len(parts) > 1:
            s.count("wan0", "fragmented")
            s.count("wan0", "fragments_created", len(parts))
        s.count("wan0", "forwarded")
        s.count("wan0", "to_owner")

    for number, port, overhead, gre, dscp in nodes:
        there = f"fd00::{number}" if v6 else f"10.0.0.{number}"
        back4 = lambda total=48, **more: sized4(total, src=WORLD, dst=SHARED, dport=port, **more)
        back6 = lambda total=68, **more: sized6(total, src=WORLD6, dst=SHARED6, dport=port, **more)
        tunnelled(number, back4(tos=0xBB, ttl=2), there, gre, dscp)
        tunnelled(number, back6(tc=0x2E), there, gre, dscp)
        # An odd number of bytes, for the checksum.
        tunnelled(number, back4(total=49), there, gre, dscp)
        # RFC 2003 section 3.1: the outer packet has DF, whatever the inner one has.
        tunnelled(number, back4(1500 - overhead, flags="DF"), there, gre, dscp)
        tunnelled(number, back6(1500 - overhead), there, gre, dscp)
        big = back4(1501 - overhead, flags="DF")
        error = error4(big, NODE_A, 3, 4, 1500 - overhead)
        s.answer("wan0", big, "mtu-exceeded", error, neighbor("10.0.0.1"))
        big = back6(1501 - overhead)
        error = error6(big, NODE_A6, 2, 0, 1500 - overhead)
        s.answer("wan0", big, "mtu-exceeded", error, neighbor("fd00::1"))
        # Without DF: the packet is cut first (RFC 791 section 3.2), so that no outer one is.
        tunnelled(number, back4(1501 - overhead), there, gre, dscp, mtu=1500 - overhead)
        syn = IP(src=WORLD, dst=SHARED) / TCP(
            sport=443, dport=port, flags="SA", options=[("MSS", 1460)]
        )
        tunnelled(number, syn, there, gre, dscp, becomes=set_mss(syn, mss))
        # And from that node, to the workload of this one.
        for n in range(2):
            fields = dict(gre)
            if fields.get("sequence") is not None:
                # Out of order on purpose: nothing is dropped for it.
                fields["sequence"] = (0xFFFFFFFF, 5)[n]
            fields = gre_fields(**fields)
            inner = udp4(src=WORLD, dst=SHARED, dport=MINE, size=20 + n, tos=2)
            outer = outer_packet(kind, inner, there, here, **fields)
            s.from_tunnel(inner, outer=outer)
            # RFC 6040 section 4.2: congestion in the tunnel is passed on.
            outer = outer_packet(kind, inner, there, here, tos=3, **fields)
            s.from_tunnel(inner, becomes=hop(inner, ecn=3), outer=outer)
            inner = udp6(src=WORLD6, dst=SHARED6, dport=MINE, size=20 + n)
            outer = outer_packet(kind, inner, there, here, **fields)
            s.from_tunnel(inner, outer=outer, station=WEB6)
            inner = udp4(src=WORLD, dst=SHARED, dport=MINE)
            outer = outer_packet(kind, inner, there, here, tos=3, **fields)
            s.refused("wan0", outer, "tunnel-ecn")


GRE_NODES = (
    (12, 10000, 4, {}, 0xFC),
    (13, 20000, 8, {"key": 7}, 0xFC),
    (14, 30000, 8, {"checksum": True}, 0xFC),
    (15, 40000, 16, {"key": 0xFFFFFFFF, "checksum": True, "sequence": 0}, 0xFC),
)


def behind(ip, nodes):
    return [(number, port, ip + length, *rest) for number, port, length, *rest in nodes]


@scenario
def tunnel_gre(s):
    tunnel_kind(s, False, "gre", behind(20, GRE_NODES), 1500 - 36 - 40)


@scenario
def tunnel_gre_ipv6(s):
    tunnel_kind(s, True, "gre", behind(40, GRE_NODES), 1500 - 56 - 40)


IPIP_NODES = ((12, 10000, 0, {}, 0xFC), (13, 20000, 0, {}, 0))


@scenario
def tunnel_ipip(s):
    tunnel_kind(s, False, "ipip", behind(20, IPIP_NODES), 1500 - 20 - 40)


@scenario
def tunnel_ipip_ipv6(s):
    tunnel_kind(s, True, "ipip", behind(40, IPIP_NODES), 1500 - 40 - 40)


NODE_KEY, NODE_IPIP, NODE_GRE = "10.0.0.13", "10.0.0.14", "10.0.0.15"


@scenario
def tunnel_kinds_refusals(s):
    inner = udp4(src=WORLD, dst=SHARED, dport=MINE)
    key = {"key_present": 1, "key": 7}

    def gre(source=NODE_KEY, inner=inner, fields=key, **more):
        return outer_packet("gre", inner, source, NODE_A, **{**fields, **more})

    def ipip(source=NODE_IPIP, inner=inner):
        return outer_packet("ipip", inner, source, NODE_A)

    s.from_tunnel(inner, outer=gre())
    for version in (1, 2, 7):
        s.refused("wan0", gre(version=version), "tunnel-malformed")
    # RFC 2784 section 2.3: bit 1, bits 4 and 5; then bits 6 to 12, which are ignored.
    for bit in range(1, 13):
        packet = bytearray(raw(gre()))
        word = struct.unpack(">H", packet[20:22])[0] | 0x8000 >> bit
        packet[20:22] = struct.pack(">H", word)
        if bit in (1, 4, 5):
            s.refused("wan0", bytes(packet), "tunnel-malformed")
        elif bit > 5:
            s.from_tunnel(inner, outer=bytes(packet))
    s.refused("wan0", gre(chksum_present=1, chksum=0x1234), "tunnel-malformed")
    s.from_tunnel(inner, outer=gre(chksum_present=1))
    s.from_tunnel(inner, outer=gre(seqnum_present=1, sequence_number=9))
    s.refused("wan0", gre(key=8), "tunnel-key")
    s.refused("wan0", gre(fields={}), "tunnel-key")
    s.refused("wan0", gre(source=NODE_GRE), "tunnel-key")
    # Key 0 is a key.
    s.refused("wan0", gre(source=NODE_GRE, key=0), "tunnel-key")
    s.from_tunnel(inner, outer=gre(source=NODE_GRE, fields={}))
    for ethertype in (0x6558, 0x8847, 0):
        packet = bytearray(raw(gre()))
        packet[22:24] = struct.pack(">H", ethertype)
        s.refused("wan0", bytes(packet), "tunnel-malformed")
    # It says IPv6 and carries IPv4, and the other way round.
    s.refused("wan0", gre(ethertype=0x86DD), "ipv6-truncated" if len(raw(inner)) < 40 else "ipv6-version")
    inner6 = udp6(src=WORLD6, dst=SHARED6, dport=MINE)
    s.refused("wan0", gre(inner=inner6, ethertype=0x0800), "ipv4-version")
    packet = raw(ipip(inner=inner6))
    s.refused("wan0", damaged(packet, (9, 4)), "ipv4-version")
    # A header that the packet ends in.
    for length in range(8):
        packet = IP(src=NODE_KEY, dst=NODE_A, flags="DF", proto=47) / Raw(raw(gre())[20:][:length])
        s.refused("wan0", packet, "tunnel-malformed")
    s.refused("wan0", IP(src=NODE_IPIP, dst=NODE_A, flags="DF", proto=4), "ipv4-truncated")
    s.refused("wan0", ipip(inner=damaged(inner, (8, 63), fix=False)), "ipv4-checksum")
    for packet in (gre(source="10.0.0.99"), ipip(source="10.0.0.99"), ipip("10.0.0.99", inner6)):
        s.refused("wan0", packet, "tunnel-unknown-peer")
    for packet in (
        gre(source=NODE_B),
        ipip(source=NODE_B),
        ipip(source=NODE_GRE),
        gre(source=NODE_IPIP),
        gue_packet(inner, NODE_IPIP, NODE_A, 50000),
    ):
        s.refused("wan0", packet, "tunnel-kind")
    for protocol, source in ((47, NODE_KEY), (4, NODE_IPIP), (41, NODE_IPIP)):
        for fragment in ({"flags": "MF"}, {"frag": 100, "flags": "MF"}, {"frag": 100}):
            packet = IP(src=source, dst=NODE_A, proto=protocol, **fragment) / Raw(raw(inner))
            s.refused("wan0", packet, "tunnel-malformed")
    for nested in (gre(), ipip(), gue_packet(inner, NODE_B, NODE_A, 50000)):
        s.refused("wan0", gre(inner=nested), "tunnel-nested")
        s.refused("wan0", ipip(inner=nested), "tunnel-nested")
        s.refused("wan0", gue_packet(nested, NODE_B, NODE_A, 50000), "tunnel-nested")
    # Other protocols to this node are its kernel's, and tunnels of others pass.
    s.punted("wan0", IP(src=NODE_KEY, dst=NODE_A, proto=50) / Raw(b"x" * 40))
    s.out(outer_packet("gre", inner, HOST, WORLD))
    s.out(outer_packet("ipip", inner, HOST, WORLD))


def tunnel_icmp_of(s, v6):
    """Errors about tunnels of each kind. RFC 2003 section 4 over IPv4, RFC 2473 section 8 over IPv6."""
    here = NODE_A6 if v6 else NODE_A
    base = 40 if v6 else 20
    peers = (  # Kind, number of the node, port of its slice, bytes behind the outer IP header, key.
        ("gue", 12, 10000, 8, None),
        ("gre", 13, 20000, 8, 7),
        ("ipip", 14, 30000, 0, None),
        ("gre", 15, 40000, 4, None),
    )

    def report(quoted, kind, code, rest=0):
        """What a router within the tunnel sends here."""
        rest = struct.pack(">I", rest)
        if not v6:
            return IP(src=ROUTER_FAR, dst=here, proto=1) / Raw(raw_error(kind, code, rest, quoted))
        message = {
            1: ICMPv6DestUnreach(code=code),
            2: ICMPv6PacketTooBig(code=code, mtu=struct.unpack(">I", rest)[0]),
            3: ICMPv6TimeExceeded(code=code),
            4: ICMPv6ParamProblem(code=code),
        }[kind]
        return IPv6(src=ROUTER_FAR6, dst=here) / message / Raw(quoted)

    def relayed(about, error):
        """The error that arrives is used up, and another one goes to whoever sent what is inside."""
        s.receive("wan0", about)
        s.count("wan0", "consumed")
        s.expect("wan0", to_wan(error))
        s.count("wan0", "originated")

    def silent(about):
        s.receive("wan0", about)
        s.count("wan0", "consumed")

    most = (1280 - 48) if v6 else (576 - 28)
    lost, too_big = ((1, 0), (2, 0)) if v6 else ((3, 1), (3, 4))
    ttl = (3, 0) if v6 else (11, 0)
    for kind, number, port, length, key in peers:
        there = f"fd00::{number}" if v6 else f"10.0.0.{number}"
        overhead = base + length
        wrap = lambda inner: raw(outer_packet(kind, inner, here, there, **gre_fields(key=key)))
        four = lambda **more: udp4(src=WORLD, dst=SHARED, dport=port, ttl=63, **more)
        six = lambda **more: udp6(src=WORLD6, dst=SHARED6, dport=port, hlim=63, **more)
        inside = lambda inner: wrap(inner)[:most][overhead:]
        # Lost: whatever the reason was.
        for code in {True: (0, 1, 3), False: (0, 1, 2, 13)}[v6]:
            inner = four()
            about = report(wrap(inner)[:most], lost[0], code)
            relayed(about, error4(inner, NODE_A, 3, 1))
        inner = six()
        relayed(report(wrap(inner)[:most], *ttl), error6(inner, NODE_A6, 1, 3))
        inner = four()
        relayed(report(wrap(inner)[:most], *ttl), error4(inner, NODE_A, 3, 1))
        # Too big: with the tunnel's overhead taken off; quoted is what was quoted.
        inner = four(size=1300, flags="DF")
        mtu = 1400 - overhead if len(wrap(inner)) > 1400 else 1300 - overhead
        about = report(wrap(inner)[:most], *too_big, mtu + overhead)
        relayed(about, error4(inside(inner), NODE_A, 3, 4, mtu))
        inner = six(size=1360)
        about = report(wrap(inner)[:most], *too_big, 1400)
        relayed(about, error6(inside(inner), NODE_A6, 2, 0, 1400 - overhead))
        # RFC 8200 section 5: no IPv6 sender goes below 1280 bytes.
        about = report(wrap(inner)[:most], *too_big, 1290)
        relayed(about, error6(inside(inner), NODE_A6, 2, 0, 1280))
        # RFC 2473 section 8.2: not about a packet of 1280 bytes or less.
        inner = six(size=1232)
        silent(report(wrap(inner)[:most], *too_big, 1280))
        inner = four(size=1300)
        about = report(wrap(inner)[:most], *too_big, 1300)
        if v6:
            # RFC 2473 section 8.3: without DF the sender is not told.
            silent(about)
        else:
            # RFC 2003 section 4.1: "MUST relay".
            relayed(about, error4(inside(inner), NODE_A, 3, 4, 1300 - overhead))
            # RFC 1191 section 4: an old router gives no MTU; RFC 791: no path has less than 68 bytes.
            relayed(report(wrap(inner)[:most], 3, 4, 0), error4(inside(inner), NODE_A, 3, 4, 0))
            relayed(report(wrap(inner)[:most], 3, 4, 70), error4(inside(inner), NODE_A, 3, 4, 68))
        # The least that is enough: 8 bytes behind the inner IP header. One less is not.
        inner = four(size=100)
        about = report(wrap(inner)[: overhead + 28], *ttl)
        relayed(about, error4(raw(inner)[:28], NODE_A, 3, 1))
        s.refused("wan0", report(wrap(inner)[: overhead + 27], *ttl), "tunnel-icmp")
        s.refused("wan0", report(wrap(inner)[: overhead + 19], *ttl), "tunnel-icmp")
        # RFC 792's least: 8 bytes behind the outer IP header.
        s.refused("wan0", report(wrap(inner)[: base + 8], *ttl), "tunnel-icmp")
        # What is of no use to the sender.
        for other in {True: ((3, 1), (4, 0), (4, 1)), False: ((3, 5), (4, 0), (11, 1), (12, 0))}[v6]:
            silent(report(wrap(four()), *other))
        # Port unreachable: the far end of GUE does not listen. Other kinds have no ports.
        about = report(wrap(four()), lost[0], 4 if v6 else 3)
        if kind == "gue":
            relayed(about, error4(four(), NODE_A, 3, 1))
        else:
            silent(about)
        # RFC 1812 section 4.3.2.7: no error about an error.
        error = raw(IP(src=WORLD, dst=SHARED) / ICMP(type=3, code=1)) + raw(udp4(src=SHARED))
        error = damaged(error, (2, len(error) >> 8), (3, len(error) & 255))
        silent(report(wrap(error), *ttl))
        # What never left here: to no egress address, from no sender, an MTU that would have been enough.
        s.refused("wan0", report(wrap(udp4(src=WORLD, dst=HOST)), *ttl), "tunnel-icmp")
        s.refused("wan0", report(wrap(udp4(src="127.0.0.1", dst=SHARED)), *ttl), "tunnel-icmp")
        inner = four(size=1300, flags="DF")
        s.refused("wan0", report(wrap(inner)[:most], *too_big, len(wrap(inner))), "tunnel-icmp")
        # In fragments: the first one quotes what is needed; its checksum is that of the whole.
        inner = four()
        whole = report(wrap(inner)[:most], *ttl)
        payload = raw(whole)[base:]
        first, later = pieces(
            IPv6(src=ROUTER_FAR6, dst=here) if v6 else IP(src=ROUTER_FAR, dst=here),
            payload,
            (8 + overhead + 28 + 7) // 8 * 8,
            proto=58 if v6 else 1,
        )
        relayed(first, error4(raw(first)[base + 8 * v6 + 8 :][overhead:], NODE_A, 3, 1))
        s.punted("wan0", later)
        # A wrong checksum.
        packet = bytearray(raw(report(wrap(four()), *ttl)))
        packet[base + 2] ^= 1
        s.refused("wan0", bytes(packet), "tunnel-icmp")
        # About packets to strangers, of another kind, or from somebody else: the kernel's affair.
        stranger = "fd00::99" if v6 else "10.0.0.99"
        fields = gre_fields(key=key)
        s.punted("wan0", report(raw(outer_packet(kind, four(), here, stranger, **fields)), *ttl))
        s.punted("wan0", report(raw(outer_packet(kind, four(), stranger, there, **fields)), *ttl))
        wrong = "ipip" if kind != "ipip" else "gre"
        s.punted("wan0", report(raw(outer_packet(wrong, four(), here, there)), *ttl))
    # Another key than that of the tunnel never left here.
    there = "fd00::13" if v6 else "10.0.0.13"
    inner = udp4(src=WORLD, dst=SHARED, dport=20000)
    outer = raw(outer_packet("gre", inner, here, there, **gre_fields(key=8)))
    s.refused("wan0", report(outer, *ttl), "tunnel-icmp")
    # The sender may be a workload of this node, which talks to another node's slice.
    inner = udp4(src=SHARED, dst=SHARED, sport=MINE, dport=20000, ttl=63)
    outer = raw(outer_packet("gre", inner, here, there, **gre_fields(key=7)))
    s.receive("wan0", report(outer, *ttl))
    s.count("wan0", "consumed")
    # It leaves by lan0, thus from lan0's address, though what it is about came in by wan0.
    s.expect("lan0", to_lan(error4(inner, ROUTER, 3, 1), WEB))
    s.count("lan0", "originated")


@scenario
def tunnel_icmp(s):
    tunnel_icmp_of(s, False)


@scenario
def tunnel_icmp_ipv6(s):
    tunnel_icmp_of(s, True)


@scenario
def directed_broadcast(s):
    ping = lambda dst: IP(src=WORLD, dst=dst, ttl=9) / ICMP(type=8, id=1, seq=1)
    for dst in ("10.1.0.255", "10.1.0.0", "10.1.9.255", "10.0.0.255", "10.0.0.0", "10.9.2.3"):
        s.refused("wan0", ping(dst), "directed-broadcast")
        s.refused("lan0", udp4(dst=dst), "directed-broadcast")
        s.refused("wan0", udp4(src=WORLD, dst=dst, ttl=1), "directed-broadcast")
    s.refused("wan0", ping("10.9.2.0"), "directed-broadcast")

    def onward(dst, station):
        s.receive("wan0", ping(dst))
        s.expect("lan0", to_lan(hop(ping(dst)), station))
        s.count("wan0", "forwarded")

    # Within a /23, whose lowest address is this node's own.
    onward("10.1.8.255", "10.1.8.255")
    onward("10.1.9.0", "10.1.9.0")
    s.punted("wan0", ping("10.1.8.0"))
    # RFC 3021: the other end of a /31. A /32 is this node; what is around it is routed.
    s.receive("lan0", udp4(dst="10.9.0.1"))
    s.expect("wan0", to_wan(hop(udp4(dst="10.9.0.1")), gateway="10.9.0.1"))
    s.count("lan0", "forwarded")
    s.punted("lan0", udp4(dst="10.9.0.0"))
    s.punted("lan0", udp4(dst="10.9.1.1"))
    for dst in ("10.9.1.0", "10.9.1.255", "10.2.0.0", "10.2.0.255"):
        onward(dst, "10.1.0.9")
    # Owned: all four addresses of the prefix.
    for last in range(4):
        s.delivered("wan0", udp4(src=WORLD, dst=f"192.0.2.{last}", dport=MINE))


@scenario
def icmp_error_portless(s):
    esp = b"\x00\x00\x01\x00" + b"x" * 40

    def error(dst, quoted, src=ROUTER_FAR):
        return IP(src=src, dst=dst) / ICMP(raw_error(3, 2, bytes(4), raw(quoted)))

    sent = lambda src, protocol: IP(src=src, dst=WORLD, proto=protocol) / Raw(esp)
    for protocol in (50, 51, 47, 4, 99):
        s.refused("wan0", error("192.0.2.1", sent("192.0.2.1", protocol)), "slice-icmp")
        s.delivered("wan0", error("192.0.2.2", sent("192.0.2.2", protocol)))
        s.tunnelled("wan0", error("192.0.2.3", sent("192.0.2.3", protocol)), protocol)
    # The addresses are enough.
    s.delivered("wan0", error("192.0.2.2", raw(sent("192.0.2.2", 50))[:20]))
    s.refused("wan0", error("192.0.2.2", raw(sent("192.0.2.2", 50))[:19]), "icmp-inner-truncated")
    s.refused("wan0", error("192.0.2.2", sent("192.0.2.3", 50)), "slice-icmp")
    s.refused("wan0", error("192.0.2.2", sent(WORLD, 50)), "slice-icmp")
    later = IP(src="192.0.2.2", dst=WORLD, proto=50, frag=9) / Raw(esp)
    s.refused("wan0", error("192.0.2.2", later), "slice-icmp")
    timestamp = IP(src="192.0.2.2", dst=WORLD) / ICMP(type=13, id=MINE, ts_ori=0, ts_rx=0, ts_tx=0)
    s.refused("wan0", error("192.0.2.2", timestamp), "slice-icmp")
    # The owner's own error, about what it got.
    got = IP(src=WORLD, dst="192.0.2.2", proto=50) / Raw(esp)
    s.out(error(WORLD, got, src="192.0.2.2"))
    got = IP(src=WORLD, dst=SHARED, proto=50) / Raw(esp)
    s.refused("lan0", error(WORLD, got, src=SHARED), "slice-sender")
    shared = "2001:db8:5::2"
    six = IPv6(src=ROUTER_FAR6, dst=shared) / ICMPv6DestUnreach(code=0)
    s.delivered("wan0", six / Raw(raw(IPv6(src=shared, dst=WORLD6, nh=50) / Raw(esp))), WEB6)
    options = IPv6ExtHdrDestOpt(nh=50, options=[PadN(optdata=b"\0" * 4)])
    s.delivered("wan0", six / Raw(raw(IPv6(src=shared, dst=WORLD6) / options / Raw(esp))), WEB6)
    s.refused("wan0", six / Raw(raw(IPv6(src=SHARED6, dst=WORLD6, nh=50))), "slice-icmp")


@scenario
def mss_clamp_bytes(s):
    packet = syn4(1460, src=HOST)
    s.receive("lan0", packet)
    s.expect("wan0", to_wan(hop(set_mss(packet, 1200))))
    s.count("lan0", "forwarded")
    packet = syn4(1460, src=WORLD, dst=HOST, flags="SA")
    s.receive("wan0", packet)
    s.expect("lan0", to_lan(hop(set_mss(packet, 1200)), HOST))
    s.count("wan0", "forwarded")
    s.out(syn4(1000, src=HOST))


@scenario
def ipv6_extensions(s):
    options = IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)])
    hop_by_hop = IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 12)])
    routing = IPv6ExtHdrRouting(type=4, segleft=0)
    atomic = lambda nh: IPv6ExtHdrFragment(nh=nh, id=7)
    base = lambda: IPv6(src=WORLD6, dst=SHARED6)
    to = UDP(sport=53, dport=MINE) / Raw(b"data")
    s.delivered("wan0", base() / hop_by_hop / to, WEB6)
    s.delivered("wan0", base() / options / to, WEB6)
    s.delivered("wan0", base() / routing / to, WEB6)
    s.delivered("wan0", base() / atomic(17) / to, WEB6)
    s.delivered("wan0", base() / hop_by_hop / options / routing / atomic(60) / options / to, WEB6)
    s.tunnelled("wan0", base() / hop_by_hop / UDP(sport=53, dport=THEIRS), "a")
    s.out(IPv6(src=HOST6, dst=WORLD6) / hop_by_hop / options / UDP(sport=1, dport=2))
    # ESP behind options has no ports.
    s.refused(
        "wan0",
        base() / IPv6ExtHdrDestOpt(nh=50, options=[PadN(optdata=b"\0" * 4)]) / Raw(b"x" * 40),
        "slice-portless",
    )


@scenario
def hold_timeout(s):
    four = [udp4(id=n) for n in range(3)]
    six = [udp6(sport=n) for n in range(3)]
    for packets in (four, six):
        for packet in packets:
            s.receive("lan0", packet)
            s.at_once()
        s.time += STEP_NS
    s.drop("lan0", "hold-full", 2)
    s.drop("lan0", "hold-timeout", 4)
    # Turns of the replay come each 100 ms after the last packet: both kinds are due in one or two.
    for packet in four[:2]:
        s.expect("lan0", Out(ether(error4(packet, "10.1.0.1", 3, 1), "02:00:00:00:05:04", LAN)))
    for packet in six[:2]:
        s.expect("lan0", Out(ether(error6(packet, "fd01::1", 1, 3), "02:00:00:00:05:06", LAN)))
    s.count("lan0", "originated", 4)


@scenario
def icmp_rate_limit(s):
    def flood(hosts):
        for n in hosts:
            packet = udp4(src=f"10.1.0.{n}", id=n)
            s.receive("lan0", packet)
            s.drop("lan0", "no-route")
            s.at_once()
        return udp4(src=f"10.1.0.{hosts[0]}", id=hosts[0])

    def answered(packet):
        source = packet.src
        s.expect("lan0", Out(ether(error4(packet, "10.1.0.1", 3, 0), neighbor(source), LAN)))
        s.count("lan0", "originated")

    answered(flood([10, 11, 12, 13]))
    s.count("lan0", "icmp_limited", 3)
    s.time += 100_000_000  # one more token for the prefix
    answered(flood([20, 21]))
    s.count("lan0", "icmp_limited", 1)
    s.time += 50_000_000  # none yet
    flood([30])
    s.count("lan0", "icmp_limited", 1)


@scenario
def one_armed(s):
    back = udp4(src=WORLD, dst=SHARED, dport=MINE)
    s.receive("wan0", back)
    s.expect("wan0", to_wan(hop(back), gateway="10.0.0.2"))
    s.count("wan0", "delivered")
    forth = udp4(src=SHARED, sport=MINE)
    s.receive("wan0", forth)
    s.expect("wan0", to_wan(hop(forth)))
    s.count("wan0", "forwarded", 2)
    s.tunnelled("wan0", udp4(src=WORLD, dst=SHARED, dport=THEIRS), "a")
    wrong = udp4(src=SHARED, sport=THEIRS)
    s.answer("wan0", wrong, "slice-sender", error4(wrong, NODE_A, 3, 13), STATION)


@scenario
def tunnel_unreachable(s):
    packet = udp4(src=WORLD, dst=SHARED, dport=THEIRS)
    s.answer("wan0", packet, "no-route", error4(packet, NODE_A, 3, 0), neighbor("10.0.0.1"))
    s.delivered("wan0", udp4(src=WORLD, dst=SHARED, dport=MINE))


@scenario
def plugin_filter(s):
    s.refused("lan0", udp4(dport=11211), "plugin")
    s.refused("lan0", udp4(dport=1905), "plugin")
    s.out(udp4(dport=1911))
    s.refused("wan0", udp4(src="203.0.113.5", dst=SHARED, dport=MINE), "plugin")
    s.delivered("wan0", udp4(src="203.0.113.7", dst=SHARED, dport=MINE))
    s.delivered("wan0", udp4(src="203.0.113.7", dst=SHARED, dport=11211))
    s.refused("lan0", IP(src=HOST, dst=WORLD) / TCP(flags="SF"), "plugin")
    s.out(IP(src=HOST, dst=WORLD) / TCP(flags="F"))
    inner = udp4(src="203.0.113.5", dst=SHARED, dport=MINE)
    s.refused("wan0", gue_packet(inner, NODE_B, NODE_A, 50000), "plugin")
    s.count("wan0", "decapsulated")
    # What the parser refuses no plugin sees.
    s.refused("lan0", udp4(src="127.0.0.1"), "martian-source")


@scenario
def plugin_egress(s):
    s.refused("lan0", udp4(dport=11211), "plugin")
    s.out(udp4(dport=1911))
    s.refused("wan0", udp4(src="203.0.113.5", dst=SHARED, dport=MINE), "plugin")
    s.delivered("wan0", udp4(src="203.0.113.7", dst=SHARED, dport=MINE))
    # Into a tunnel, and in fragments: they leave too.
    s.refused("wan0", udp4(src="203.0.113.5", dst=SHARED, dport=THEIRS), "plugin")
    s.refused("lan0", udp4(dport=11211, size=2000), "plugin")
    # What goes to the kernel leaves by no interface, and what was refused before is not asked about.
    s.punted("lan0", udp4(dst="10.1.0.1", dport=11211))
    s.refused("lan0", udp4(src="127.0.0.1", dport=11211), "martian-source")


@scenario
def plugin_rate_limit(s):
    """Which ten pass depends on the workers' turns, so that only their number is said here."""
    for n in range(40):
        s.receive("lan0", udp4(id=n, sport=1000 + n % 8))
        s.at_once()
    s.drop("lan0", "plugin", 30)
    s.count("lan0", "forwarded", 11)
    s.receive("lan0", udp4(src="10.1.1.5"))
    s.any_of = {"wan0": 11}


@scenario
def plugin_expressions(s):
    s.delivered("wan0", udp4(src="203.0.113.7", dst=SHARED, dport=MINE))
    s.refused("wan0", udp4(src="203.0.113.5", dst=SHARED, dport=MINE), "plugin")
    s.out(udp6())
    s.refused("lan0", udp6(src="2001:db8:bad::7"), "plugin")
    s.refused("lan0", udp4(dport=11211), "plugin")
    s.refused("lan0", udp4(sport=1905), "plugin")
    s.out(udp4(dport=1911))
    s.out(IP(src=HOST, dst=WORLD) / TCP(dport=11211, flags="S"))
    s.refused("lan0", IP(src=HOST, dst=WORLD) / TCP(flags="SF"), "plugin")
    s.refused("lan0", udp4(ttl=4), "plugin")
    s.out(udp4(ttl=5))
    s.delivered("wan0", udp4(src=WORLD, dst=SHARED, dport=MINE, ttl=4))
    body = Raw(bytes(1000))
    s.refused("lan0", IP(src=HOST, dst=WORLD) / TCP(dport=80, flags="A") / body, "plugin")
    s.out(IP(src=HOST, dst=WORLD) / TCP(dport=443, flags="A") / body)
    s.out(udp4(size=1000))


@scenario
def plugin_hop_distance(s):
    def world(ttl, src=WORLD):
        return udp4(src=src, dst=SHARED, dport=MINE, ttl=ttl)

    s.delivered("wan0", world(44))
    s.refused("wan0", world(43), "plugin")
    s.delivered("wan0", world(128))
    s.refused("wan0", world(107), "plugin")
    s.delivered("wan0", world(235))
    # One prefix is known better.
    s.delivered("wan0", world(61, src="203.0.113.9"))
    s.refused("wan0", world(62, src="203.0.113.9"), "plugin")
    s.delivered("wan0", world(55, src="203.0.113.9"))
    s.refused("wan0", world(54, src="203.0.113.9"), "plugin")
    s.out(udp4(ttl=100))


@scenario
def plugin_syn_guard(s):
    def tcp(sport, flags, src=WORLD):
        return IP(src=src, dst=SHARED, id=3) / TCP(sport=sport, dport=MINE, flags=flags)

    s.delivered("wan0", tcp(1, "S", src="203.0.113.1"))
    s.refused("wan0", tcp(1, "S"), "plugin")
    # An answer, data and a reset are none of its business, whatever it knows of the flow.
    for flags in ("SA", "A", "PA", "R"):
        s.delivered("wan0", tcp(2, flags, src="203.0.113.2"))
    s.delivered("wan0", udp4(src=WORLD, dst=SHARED, dport=MINE))
    s.refused("wan0", tcp(1, "S"), "plugin")
    s.time += 1_000_000_000
    s.delivered("wan0", tcp(1, "S"))
    s.delivered("wan0", tcp(1, "A"))
    # The source is known now, and leaves two handshakes half-open, not three.
    s.delivered("wan0", tcp(2, "S"))
    s.delivered("wan0", tcp(3, "S"))
    s.refused("wan0", tcp(4, "S"), "plugin")
    s.delivered("wan0", tcp(3, "A"))
    s.delivered("wan0", tcp(4, "S"))
    s.refused("wan0", tcp(9, "S", src="203.0.113.9"), "plugin")
    s.out(IP(src=HOST, dst=WORLD) / TCP(flags="S"))


@scenario
def plugin_syn_guard_answers(s):
    def tcp(sport, flags, ack=0, src=WORLD):
        layer = TCP(sport=sport, dport=MINE, flags=flags, seq=77, ack=ack)
        return IP(src=src, dst=SHARED, id=3) / layer

    def answer(dport, seq):
        layer = TCP(sport=MINE, dport=dport, flags="SA", seq=seq, ack=78)
        s.out(IP(src=SHARED, dst=WORLD, id=4) / layer)

    s.delivered("wan0", tcp(1, "S", src="203.0.113.1"))
    for sport in (1, 2):
        s.refused("wan0", tcp(sport, "S"), "plugin")
    s.time += 1_000_000_000
    for sport, seq in ((1, 2**32 - 1), (2, 5000)):
        s.delivered("wan0", tcp(sport, "S"))
        answer(sport, seq)
    # Both are half-open, and whoever does not see the answers cannot change that.
    for sport, flags, ack in ((1, "A", 1), (1, "A", 5001), (2, "RA", 0), (2, "R", 78), (3, "A", 0)):
        s.delivered("wan0", tcp(sport, flags, ack))
    s.refused("wan0", tcp(4, "S"), "plugin")
    s.time += 1_000_000_000
    s.refused("wan0", tcp(4, "S"), "plugin")
    # An ACK with the number completes one, and makes the source a known one.
    s.delivered("wan0", tcp(1, "A", 0))
    s.delivered("wan0", tcp(5, "S"))
    s.refused("wan0", tcp(6, "S"), "plugin")
    # A reset with it returns the place too.
    s.delivered("wan0", tcp(2, "RA", 5001))
    s.delivered("wan0", tcp(6, "S"))


def marked(packet, dscp):
    """The packet with another DSCP; its ECN stays."""
    changed = packet.copy()
    if IP in changed:
        changed[IP].tos = dscp << 2 | changed[IP].tos & 3
    else:
        changed[IPv6].tc = dscp << 2 | changed[IPv6].tc & 3
    return changed


SYN_OPTIONS = [
    ("MSS", 1400),
    ("SAckOK", b""),
    ("Timestamp", (1, 0)),
    ("NOP", None),
    ("WScale", 7),
    (34, b"\x09\x09\x09\x09"),
    (30, b"\x01\x81"),
    ("NOP", None),
    ("NOP", None),
]


def erased(packet, kinds):
    """The packet's options of these kinds as no-operations, with a TCP checksum computed anew."""
    lengths = {"SAckOK": 2, "Timestamp": 10, "WScale": 3, 34: 6, 30: 4}
    changed = packet.copy()
    for layer in (changed[IP] if IP in changed else None, changed[TCP]):
        if layer is not None:
            layer.chksum = None
    options = []
    for kind, value in changed[TCP].options:
        options += [("NOP", None)] * lengths[kind] if kind in kinds else [(kind, value)]
    changed[TCP].options = options
    return changed


def opening4(sport, flags="S", **ip):
    return IP(src=HOST, dst=WORLD, **{"id": 7, **ip}) / TCP(
        sport=sport, dport=443, flags=flags, options=SYN_OPTIONS
    )


def opening6(sport):
    return IPv6(src=HOST6, dst=WORLD6) / TCP(sport=sport, dport=443, flags="S", options=SYN_OPTIONS)


ALL_OPTIONS = ("SAckOK", "Timestamp", "WScale", 34, 30)


def acts(s):
    """What `actor.wat` asks for by the source port, and what is to come of it."""

    def changed(before, after, gateway=None):
        s.receive("lan0", before)
        s.expect("wan0", to_wan(hop(after), gateway=gateway))
        s.count("lan0", "forwarded")

    def same(packet, gateway=None):
        changed(packet, packet, gateway)

    same(udp4(sport=5000))
    # The next hop has to be resolved first: what was set is set when the packet goes on. A transmit goes
    # before a tag.
    changed(udp4(sport=5012, tos=1), marked(udp4(sport=5012, tos=1), 34), "10.0.0.8")
    # A transmit, and a tag: packets of both families, and to where a route or a slice leads elsewhere.
    same(udp4(sport=5001), "10.0.0.8")
    same(udp6(sport=5001), "10.0.0.8")
    same(udp4(sport=5001, dst=SHARED, dport=MINE), "10.0.0.8")
    same(udp4(sport=5001, dst=SHARED, dport=THEIRS), "10.0.0.8")
    same(udp4(sport=5002), "10.0.0.9")
    same(udp6(sport=5002), "10.0.0.9")
    # TTL, MTU and ICMP errors as for routed packets: the tag's next hop takes 1300 bytes.
    packet = udp4(sport=5001, ttl=1)
    s.answer("lan0", packet, "ttl-exceeded", error4(packet, ROUTER, 11, 0), neighbor(HOST))
    packet = sized4(1301, sport=5002, flags="DF")
    s.answer(
        "lan0", packet, "mtu-exceeded", error4(packet, ROUTER, 3, 4, mtu=1300), neighbor(HOST)
    )
    packet = sized6(1301, sport=5002)
    s.answer(
        "lan0", packet, "mtu-exceeded", error6(packet, "fd01::1", 2, 0, 1300), neighbor(HOST6)
    )
    # A next hop on no link: nowhere, and a tag of such ones: the route.
    packet = udp4(sport=5010)
    s.answer("lan0", packet, "plugin-next-hop", error4(packet, ROUTER, 3, 0), neighbor(HOST))
    same(udp4(sport=5011))
    s.delivered("wan0", udp4(src=WORLD, dst=SHARED, dport=MINE, sport=5011))
    # Nobody sends under an address that is not his, whatever a plugin says.
    s.refused("wan0", udp4(src=SHARED, sport=5001), "spoofed-source")
    # Class and DSCP, with the ECN field as it was.
    for make in (udp4, udp6):
        ecn = {"tos": 0xB9} if make is udp4 else {"tc": 0xB9}
        changed(make(sport=5003, **ecn), marked(make(sport=5003, **ecn), 18))
        changed(make(sport=5004, **ecn), marked(make(sport=5004, **ecn), 46))
    same(udp4(sport=5007))
    # MSS and options, of SYNs and SYN-ACKs.
    changed(opening4(5005), set_mss(opening4(5005), 1000))
    changed(opening6(5005), set_mss(opening6(5005), 1000))
    changed(opening4(5006, "SA"), erased(opening4(5006, "SA"), ALL_OPTIONS))
    changed(opening6(5006), erased(opening6(5006), ALL_OPTIONS))
    changed(
        opening4(5008, tos=2),
        marked(set_mss(erased(opening4(5008, tos=2), ("WScale",)), 1000), 10),
    )
    # No SYN, or a part of a packet.
    for port in (5005, 5006):
        same(opening4(port, "A"))
    same(IP(src=HOST, dst=WORLD, id=8, flags="MF") / TCP(sport=5005, flags="S", options=SYN_OPTIONS))
    # Into a tunnel, whose outer header has the DSCP that was set.
    packet = udp4(src=WORLD, dst=SHARED, dport=THEIRS, sport=5004, tos=1)
    s.receive("wan0", packet)
    s.expect("wan0", into_tunnel(hop(marked(packet, 46)), (WORLD, 5004)))
    s.count("wan0", "forwarded")
    s.count("wan0", "to_owner")
    # A mirror changes nothing, and a drop may be mirrored.
    s.refused("lan0", udp4(sport=5009), "plugin")


@scenario
def plugin_actions(s):
    acts(s)
    # From outside, and out again where it came from.
    packet = udp4(src="10.0.0.77", dst=HOST, sport=5001)
    s.receive("wan0", packet)
    s.expect("wan0", to_wan(hop(packet), gateway="10.0.0.8"))
    s.count("wan0", "forwarded")


@scenario
def plugin_actions_forward(s):
    acts(s)


@scenario
def plugin_bad_verdicts(s):
    for which in range(20, 33):
        s.refused("lan0", udp4(sport=5000 + which), "plugin-default")


@scenario
def plugin_void_verdicts(s):
    for which in range(20, 33):
        s.out(udp4(sport=5000 + which, tos=0xB9))


@scenario
def plugin_egress_tags(s):
    ams, fra, scrubber = "10.0.0.7", "10.0.0.8", "10.0.0.9"
    # Users of two countries that leave by the other site, of one that does not, of none.
    s.out(udp4(dport=443), gateway=fra)
    s.out(udp4(src="10.1.0.4", dport=443), gateway=fra)
    s.out(udp4(src="10.1.0.6", dport=443), gateway=ams)
    s.out(udp4(src="10.1.0.99", dport=443), gateway=ams)
    s.out(udp6(dport=443), gateway=fra)
    # DNS, by UDP and TCP; from port 53 is none.
    s.out(udp4(), gateway=ams)
    s.out(udp6(), gateway=ams)
    s.out(IP(src=HOST, dst=WORLD) / TCP(dport=53, flags="S"), gateway=ams)
    s.out(IP(src=HOST, dst=WORLD) / TCP(dport=853, flags="S"), gateway=ams)
    s.out(udp4(sport=53, dport=443), gateway=fra)
    s.out(IP(src=HOST, dst=WORLD) / ICMP(id=7), gateway=fra)
    # Little trusted; DNS of such a user is DNS all the same.
    s.out(udp4(src="10.1.0.7", dport=443), gateway=scrubber)
    s.out(udp4(src="10.1.0.7"), gateway=ams)
    # Another product than the interface serves.
    s.out(udp4(src="10.1.0.8", dport=443), gateway=ams)
    # A slice's owner is a user like others; what is not his is refused whatever its tag.
    s.out(udp4(src=SHARED, sport=MINE, dport=443), gateway=ams)
    wrong = udp4(src=SHARED, sport=THEIRS, dport=443)
    s.answer("lan0", wrong, "slice-sender", error4(wrong, ROUTER, 3, 13), STATION)
    # From the world: left alone.
    s.delivered("wan0", udp4(src=WORLD, dst=SHARED, sport=443, dport=MINE))


@scenario
def plugin_egress_tunnel(s):
    ams = "10.0.0.7"
    # Users of the other site's countries leave by its tunnel, whatever is in it.
    s.tunnelled("lan0", udp4(dport=443), "v4")
    s.tunnelled("lan0", udp4(dport=443, tos=0xB8), "v4")
    s.tunnelled("lan0", udp6(dport=443), "v6")
    s.tunnelled("lan0", IP(src=HOST, dst=WORLD) / TCP(sport=5, dport=443, flags="S"), "tcp")
    # Too big for what the tunnel adds.
    packet = udp4(dport=443, size=1445, flags="DF")
    s.answer("lan0", packet, "mtu-exceeded", error4(packet, ROUTER, 3, 4, mtu=1472), neighbor(HOST))
    # Another country, and DNS: by a next hop on the link.
    s.out(udp4(src="10.1.0.6", dport=443), gateway=ams)
    s.out(udp4(), gateway=ams)
    # The next hop of the little trusted is this node: their routes decide.
    s.out(udp4(src="10.1.0.7", dport=443))
    # A slice's owner may go through the tunnel, and nobody under an address that is not his.
    s.out(udp4(src=SHARED, sport=MINE, dport=443), gateway=ams)
    wrong = udp4(src=SHARED, sport=THEIRS, dport=443)
    s.answer("lan0", wrong, "slice-sender", error4(wrong, ROUTER, 3, 13), STATION)
    # What came by that tunnel is not sent back by it, though its sender is of that country.
    inner = udp4(dport=443, ttl=40)
    s.receive("wan0", gue_packet(inner, NODE_B, NODE_A, 50000))
    s.expect("wan0", to_wan(hop(inner)))
    for counter in ("forwarded", "decapsulated"):
        s.count("wan0", counter)


# --- Files ---------------------------------------------------------------------------------------


def write_pcap(path, packets):
    """Classic pcap, little-endian, nanoseconds, Ethernet."""
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
        for time, data in packets:
            file.write(
                struct.pack("<IIII", time // 10**9, time % 10**9, len(data), len(data)) + data
            )


def read_pcap(path):
    data = path.read_bytes()
    assert data[:4] == struct.pack("<I", 0xA1B23C4D), path
    packets, at = [], 24
    while at < len(data):
        _, _, length, whole = struct.unpack("<IIII", data[at : at + 16])
        assert length == whole
        packets.append(data[at + 16 : at + 16 + length])
        at += 16 + length
    return packets


def compare(s):
    """Complaints about what the router gave."""
    expect, complaints = HERE / s.name / "expect", []
    counters = json.loads((expect / "counters.json").read_text())
    flows = {}
    for interface, counts in counters["interfaces"].items():
        got = read_pcap(expect / f"{interface}.pcap")
        if hasattr(s, "any_of"):
            if len(got) != s.any_of.get(interface, 0):
                complaints.append(f"{interface}: {len(got)} packets")
        else:
            complaints += compare_packets(interface, got, s.sent.get(interface, []), flows)
        if counts["drops"] != s.drops.get(interface, {}):
            complaints.append(
                f"{interface}: drops {counts['drops']}, not {s.drops.get(interface, {})}"
            )
        wanted = {
            "rx_packets": len(s.inputs.get(interface, [])),
            "rx_bytes": sum(len(frame) for _, frame in s.inputs.get(interface, [])),
            "tx_packets": len(got),
            "tx_bytes": sum(map(len, got)),
            **s.counts.get(interface, {}),
        }
        for counter, value in counts.items():
            if counter not in ("drops", *s.chosen) and value != wanted.get(counter, 0):
                complaints.append(
                    f"{interface}: {counter} is {value}, not {wanted.get(counter, 0)}"
                )
    complaints += compare_packets("kernel", read_pcap(expect / "kernel.pcap"), s.kernel, flows)
    if counters["lost_before_rx"]:
        complaints.append("lost before RX")
    return complaints


def compare_packets(where, got, wanted, flows):
    complaints = []
    if len(got) != len(wanted):
        complaints.append(f"{where}: {len(got)} packets, not {len(wanted)}")
    for index, (data, out) in enumerate(zip(got, wanted)):
        chosen = []
        for offset, mask in out.free:
            for at, bits in enumerate(mask, offset):
                if at < min(len(data), len(out.data)):
                    out.data[at] = out.data[at] & ~bits & 0xFF | data[at] & bits
                    chosen.append(data[at] & bits)
        if out.flow is not None and flows.setdefault(out.flow, chosen) != chosen:
            complaints.append(f"{where} {index}: a flow takes two ways: {chosen}")
        for offset, mask in out.free:
            if mask == b"\xff\xff" and not data[offset] >= 0xC0:
                complaints.append(f"{where} {index}: tunnel source port below 49152")
        if bytes(out.data) != data:
            complaints.append(
                f"{where} {index}:\n    got    {data.hex()}\n    wanted {bytes(out.data).hex()}"
            )
            for name, what in (("got", data), ("wanted", bytes(out.data))):
                complaints.append(f"    {name}: {Ether(what).summary()} ({len(what)} bytes)")
    if (
        len(wanted) > 8
        and where == "wan0"
        and flows
        and all(out.flow is not None for out in wanted)
    ):
        if len({tuple(chosen) for chosen in flows.values()}) < 2:
            complaints.append(f"{where}: all flows take one way")
    return complaints


def main(arguments):
    check = "--check" in arguments
    names = [argument for argument in arguments if not argument.startswith("-")] or list(SCENARIOS)
    folders = {path.name for path in HERE.iterdir() if (path / "config.toml").exists()}
    assert folders == set(SCENARIOS), folders ^ set(SCENARIOS)
    wrong = 0
    for name in names:
        s = Scenario(name)
        SCENARIOS[name](s)
        if not check:
            for interface, packets in s.inputs.items():
                write_pcap(HERE / name / f"in-{interface}.pcap", packets)
            continue
        complaints = compare(s)
        wrong += bool(complaints)
        for complaint in complaints:
            print(f"{name}: {complaint}")
    if check:
        print(f"{len(names) - wrong} of {len(names)} scenarios give what is said here")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
