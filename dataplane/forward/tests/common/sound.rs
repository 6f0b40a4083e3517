//! Whether what left is sound, judged without any code of the router: from the frame's bytes and the
//! RFCs alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is known of the router whose frames are judged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Judge {
    /// Its own addresses: a tunnel packet of any kind from one of them is opened, and an ICMP error from one of
    /// them must have a right checksum.
    pub(crate) own: Vec<IpAddr>,
    /// UDP port of its tunnels.
    pub(crate) tunnel_port: u16,
    /// A packet came that claims to be the router's own and is to leave with the TTL of one.
    pub(crate) is_fooled: bool,
}

impl Judge {
    /// Says what is wrong with a frame that left by an interface: the TTL has been decremented and is
    /// not 0, lengths agree with the frame, and the header checksum is right.
    pub(crate) fn forwarded(&self, frame: &[u8]) -> Result<(), String> {
        let Some((header, packet)) = frame.split_at_checked(14) else {
            return Err("shorter than an Ethernet header".to_owned());
        };
        if header[0] & 1 == 1 || header[..6] == [0; 6] {
            return Err("sent to no single station".to_owned());
        }
        match (header[12], header[13], packet.first().map(|byte| byte >> 4)) {
            (0x08, 0x00, Some(4)) | (0x86, 0xdd, Some(6)) => self.packet(packet, 1),
            _ => Err(format!("EtherType {:02x?} before {:02x?}", &header[12..], packet.first())),
        }
    }

    /// The same for an IP packet that went to the kernel, whose TTL is nobody's business. What comes
    /// under the router's own address is spoofed, which the kernel finds out itself.
    #[allow(dead_code, reason = "each test file is a program of its own, and not all need it")]
    pub(crate) fn to_kernel(packet: &[u8]) -> Result<(), String> {
        Self::default().packet(packet, 0)
    }

    /// Whether the TCP, UDP or ICMP checksum of a frame's innermost packet is right. `None` where there is
    /// none, or where it cannot be told: in a fragment, and behind extension headers of IPv6.
    #[allow(dead_code, reason = "each test file is a program of its own, and not all need it")]
    pub(crate) fn transport_checksum(&self, frame: &[u8]) -> Option<bool> {
        self.innermost(frame.get(14..)?)
    }

    /// Takes note of a frame that comes in, of which an outer or inner packet has an own address for its
    /// source and would leave with TTL 64: from then on nobody can tell what the router made itself.
    #[allow(dead_code, reason = "each test file is a program of its own, and not all need it")]
    pub(crate) fn note(&mut self, frame: &[u8]) {
        let mut next = frame.get(14..);
        while let Some(packet) = next {
            let (source, ttl) = match packet.first().map(|byte| byte >> 4) {
                Some(4) => (packet.get(12..16), packet.get(8)),
                Some(6) => (packet.get(8..24), packet.get(7)),
                _ => return,
            };
            let is_own = self.own.iter().any(|own| match own {
                IpAddr::V4(own) => Some(&own.octets()[..]) == source,
                IpAddr::V6(own) => Some(&own.octets()[..]) == source,
            });
            self.is_fooled |= is_own && ttl == Some(&65);
            next =
                parts(packet).and_then(|(_, _, protocol, payload)| self.inner(protocol, payload));
        }
    }

    /// How many tunnel headers of any kind a frame holds one in another.
    #[allow(dead_code, reason = "each test file is a program of its own, and not all need it")]
    pub(crate) fn nesting(&self, frame: &[u8]) -> usize {
        let mut depth = 0;
        let mut packet = frame.get(14..).unwrap_or_default();
        while let Some(inner) =
            parts(packet).and_then(|(_, _, protocol, payload)| self.inner(protocol, payload))
        {
            depth += 1;
            packet = inner;
        }
        depth
    }

    /// The packet in a tunnel packet of any kind.
    fn inner<'p>(&self, protocol: u8, payload: &'p [u8]) -> Option<&'p [u8]> {
        match protocol {
            4 | 41 => Some(payload),
            47 => gre(payload).ok(),
            17 if payload.len() >= 8 && be16(payload, 2) == self.tunnel_port => payload
                .get(8..)
                .filter(|inner| matches!(inner.first().map(|b| b >> 4), Some(4 | 6))),
            _ => None,
        }
    }

    fn innermost(&self, packet: &[u8]) -> Option<bool> {
        let (source, destination, protocol, payload) = parts(packet)?;
        if let Some(inner) = self.inner(protocol, payload) {
            return self.innermost(inner);
        }
        let pseudo_header = u32::from(sum(source, 0))
            + u32::from(sum(destination, 0))
            + u32::from(protocol)
            + u32::try_from(payload.len()).ok()?;
        let (covered, start) = match protocol {
            1 if source.len() == 4 && payload.len() >= 4 => (payload, 0),
            58 if source.len() == 16 && payload.len() >= 4 => (payload, pseudo_header),
            6 if payload.len() >= 20 => (payload, pseudo_header),
            17 if payload.len() >= 8 && be16(payload, 6) != 0 => {
                // What follows the datagram within its packet is no part of it, and its length stands in
                // the pseudo header (RFC 768).
                let length = be16(payload, 4);
                let start = pseudo_header - u32::try_from(payload.len()).ok()? + u32::from(length);
                (payload.get(..usize::from(length))?, start)
            }
            _ => return None,
        };
        Some(sum(covered, start) == 0xffff)
    }

    fn packet(&self, packet: &[u8], ttl_min: u8) -> Result<(), String> {
        let (source, ttl, protocol, payload) = match packet.first().map(|byte| byte >> 4) {
            Some(4) => ipv4(packet, ttl_min)?,
            Some(6) => ipv6(packet, ttl_min)?,
            version => return Err(format!("IP version {version:?}")),
        };
        // What the router makes leaves with TTL 64; what it forwards under its own address is spoofed.
        if ttl != 64 || self.is_fooled || !self.own.contains(&source) {
            return Ok(());
        }
        match protocol {
            17 if payload.len() >= 8 && be16(payload, 2) == self.tunnel_port => {
                if usize::from(be16(payload, 4)) != payload.len() {
                    return Err("UDP length of a tunnel packet".to_owned());
                }
                self.packet(&payload[8..], ttl_min).map_err(|wrong| format!("in a tunnel: {wrong}"))
            }
            4 | 41 => {
                let version = if protocol == 4 { 4 } else { 6 };
                if payload.first().map(|byte| byte >> 4) != Some(version) {
                    return Err(format!("protocol {protocol} before {:02x?}", payload.first()));
                }
                self.packet(payload, ttl_min).map_err(|wrong| format!("in a tunnel: {wrong}"))
            }
            47 => {
                let inner = gre(payload)?;
                self.packet(inner, ttl_min).map_err(|wrong| format!("in a tunnel: {wrong}"))
            }
            1 if sum(payload, 0) != 0xffff => Err("ICMP checksum".to_owned()),
            58 => {
                let addresses = sum(&packet[8..40], 0);
                let length = u32::try_from(payload.len()).map_err(|error| error.to_string())?;
                let sum = sum(payload, u32::from(addresses) + length + 58);
                if sum == 0xffff { Ok(()) } else { Err("ICMPv6 checksum".to_owned()) }
            }
            _ => Ok(()),
        }
    }
}

/// The packet behind a GRE header, which has no flag that it must not have (RFC 2784, RFC 2890).
fn gre(packet: &[u8]) -> Result<&[u8], String> {
    let [flags, version, high, low, ..] = *packet else { return Err("GRE header".to_owned()) };
    if flags & 0x4f != 0 || version != 0 {
        return Err(format!("GRE flags {flags:02x} {version:02x}"));
    }
    if flags & 0x80 != 0 && sum(packet, 0) != 0xffff {
        return Err("GRE checksum".to_owned());
    }
    let fields = [0x80, 0x20, 0x10].iter().filter(|bit| flags & **bit != 0).count();
    let inner = packet.get(4 + 4 * fields..).ok_or("GRE header")?;
    match (u16::from_be_bytes([high, low]), inner.first().map(|byte| byte >> 4)) {
        (0x0800, Some(4)) | (0x86dd, Some(6)) => Ok(inner),
        (protocol, first) => Err(format!("GRE protocol {protocol:04x} before {first:?}")),
    }
}

/// Source, TTL or hop limit, protocol, and what follows the header.
type Parts<'a> = (IpAddr, u8, u8, &'a [u8]);

fn ipv4(packet: &[u8], ttl_min: u8) -> Result<Parts<'_>, String> {
    let header_len = usize::from(packet[0] & 15) * 4;
    if header_len < 20 || packet.len() < header_len {
        return Err("IPv4 header length".to_owned());
    }
    if usize::from(be16(packet, 2)) != packet.len() {
        return Err(format!("IPv4 total length {} of {}", be16(packet, 2), packet.len()));
    }
    if sum(&packet[..header_len], 0) != 0xffff {
        return Err("IPv4 header checksum".to_owned());
    }
    if packet[8] < ttl_min {
        return Err("TTL 0".to_owned());
    }
    let source = Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]);
    let destination = Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]);
    let is_martian = source.octets()[0] == 0
        || source.is_loopback()
        || source >= Ipv4Addr::new(224, 0, 0, 0)
        || destination.octets()[0] == 0
        || destination.is_loopback()
        || destination >= Ipv4Addr::new(224, 0, 0, 0);
    if is_martian {
        return Err(format!("{source} to {destination}"));
    }
    Ok((source.into(), packet[8], packet[9], &packet[header_len..]))
}

fn ipv6(packet: &[u8], hop_limit_min: u8) -> Result<Parts<'_>, String> {
    if packet.len() < 40 || usize::from(be16(packet, 4)) != packet.len() - 40 {
        return Err("IPv6 payload length".to_owned());
    }
    if packet[7] < hop_limit_min {
        return Err("hop limit 0".to_owned());
    }
    let address = |at: usize| {
        let bytes: [u8; 16] = packet[at..at + 16].try_into().expect("16 bytes");
        Ipv6Addr::from(bytes)
    };
    let (source, destination) = (address(8), address(24));
    let is_martian = |address: Ipv6Addr| {
        address.is_multicast()
            || address.is_loopback()
            || address.is_unspecified()
            || address.is_unicast_link_local()
            || address.to_ipv4_mapped().is_some()
    };
    if is_martian(source) || is_martian(destination) {
        return Err(format!("{source} to {destination}"));
    }
    Ok((source.into(), packet[7], packet[6], &packet[40..]))
}

/// Source, destination, protocol and payload.
type Ends<'a> = (&'a [u8], &'a [u8], u8, &'a [u8]);

/// What a packet says that is no fragment, whatever else is wrong with it.
fn parts(packet: &[u8]) -> Option<Ends<'_>> {
    match packet.first()? >> 4 {
        4 => {
            let header_len = usize::from(packet[0] & 15) * 4;
            if header_len < 20 || packet.len() < header_len || be16(packet, 6) & 0x3fff != 0 {
                return None;
            }
            let payload = packet.get(header_len..usize::from(be16(packet, 2)))?;
            Some((&packet[12..16], &packet[16..20], packet[9], payload))
        }
        6 if packet.len() >= 40 => {
            let payload = packet.get(40..40 + usize::from(be16(packet, 4)))?;
            Some((&packet[8..24], &packet[24..40], packet[6], payload))
        }
        _ => None,
    }
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// RFC 1071: the one's complement sum; all ones over what holds its right checksum.
fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = bytes.chunks(2).fold(u64::from(start), |sum, word| {
        sum + u64::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]))
    });
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("16 bits")
}
