//! Who gives routes, by the names that `ip route` uses.

use std::borrow::Cow;

/// A source of routes that has a place in `routes.preference`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoutesFrom {
    /// The configuration and its route files.
    Configuration,
    /// The kernel: of one protocol (`RTPROT_*`), or of all that are not named otherwise.
    Kernel(Option<u8>),
}

/// Numbers and names of protocols: `linux/rtnetlink.h`, iproute2's `rt_protos`, and from 186 on those that FRR
/// has beside (`zebra/rt_netlink.h`). Its static routes are `zstatic`, since `static` are an administrator's.
const PROTOCOLS: [(u8, &str); 32] = [
    (0, "unspec"),
    (1, "redirect"),
    (2, "kernel"),
    (3, "boot"),
    (4, "static"),
    (8, "gated"),
    (9, "ra"),
    (10, "mrt"),
    (11, "zebra"),
    (12, "bird"),
    (13, "dnrouted"),
    (14, "xorp"),
    (15, "ntk"),
    (16, "dhcp"),
    (17, "mrouted"),
    (18, "keepalived"),
    (42, "babel"),
    (84, "ovn"),
    (99, "openr"),
    (186, "bgp"),
    (187, "isis"),
    (188, "ospf"),
    (189, "rip"),
    (190, "ripng"),
    (191, "nhrp"),
    (192, "eigrp"),
    (193, "ldp"),
    (194, "sharp"),
    (195, "pbr"),
    (196, "zstatic"),
    (197, "openfabric"),
    (198, "srte"),
];

/// The name of a protocol, or its number where it has none.
#[must_use]
pub fn protocol_name(protocol: u8) -> Cow<'static, str> {
    match PROTOCOLS.iter().find(|(number, _)| *number == protocol) {
        Some((_, name)) => Cow::Borrowed(name),
        None => Cow::Owned(protocol.to_string()),
    }
}

impl RoutesFrom {
    /// From the words of the configuration.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "static" => return Some(Self::Configuration),
            "kernel" => return Some(Self::Kernel(None)),
            _ => {}
        }
        let protocol = text.strip_prefix("kernel:")?;
        let named = PROTOCOLS.iter().find(|(_, name)| *name == protocol).map(|(number, _)| *number);
        named.or_else(|| protocol.parse().ok()).map(|number| Self::Kernel(Some(number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read_back() {
        for protocol in 0..=255 {
            let text = format!("kernel:{}", protocol_name(protocol));
            assert_eq!(
                RoutesFrom::parse(&text),
                Some(RoutesFrom::Kernel(Some(protocol))),
                "{text}"
            );
        }
        assert_eq!(protocol_name(196), "zstatic", "static routes of FRR");
        assert_eq!(protocol_name(99), "openr");
        assert_eq!(RoutesFrom::parse("static"), Some(RoutesFrom::Configuration));
        assert_eq!(RoutesFrom::parse("kernel"), Some(RoutesFrom::Kernel(None)));
        for wrong in ["", "bird", "kernel:", "kernel:256", "kernel:nobody", "Static"] {
            assert_eq!(RoutesFrom::parse(wrong), None, "{wrong}");
        }
    }
}
