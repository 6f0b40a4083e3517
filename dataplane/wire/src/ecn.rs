//! Congestion marks across a tunnel: RFC 6040, normal mode, and the traffic class of a header.
//!
//! A *traffic class* is the whole byte: DSCP in the upper six bits, ECN in the lower two.

use crate::{checksum, field};

/// The two bits of a traffic class that are ECN (RFC 3168 section 5).
pub const MASK: u8 = 0b11;
/// Not ECN-capable.
pub const NOT_ECT: u8 = 0b00;
/// ECN-capable, ECT(1).
pub const ECT_1: u8 = 0b01;
/// ECN-capable, ECT(0).
pub const ECT_0: u8 = 0b10;
/// Congestion experienced.
pub const CE: u8 = 0b11;

/// The tunnel met congestion, and the inner packet has no means to say so: it has to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CongestionLost;

impl core::fmt::Display for CongestionLost {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("congestion was experienced in the tunnel by a packet that is not ECN-capable")
    }
}

impl core::error::Error for CongestionLost {}

/// The traffic class of the outer header.
///
/// In normal mode the ingress copies the ECN field as it is, CE included (RFC 6040 section 4.1,
/// figure 3); the DSCP is copied too (RFC 2983).
#[inline]
#[must_use]
pub const fn encapsulate(inner_traffic_class: u8) -> u8 {
    inner_traffic_class
}

/// The traffic class of the inner packet after the outer header is taken off; the inner DSCP stays
/// as it was.
///
/// RFC 6040 section 4.2, figure 4:
///
/// ```text
/// +---------+------------------------------------------------+
/// |Arriving |            Arriving Outer Header               |
/// |   Inner +---------+------------+------------+------------+
/// |  Header | Not-ECT | ECT(0)     | ECT(1)     |     CE     |
/// +---------+---------+------------+------------+------------+
/// | Not-ECT | Not-ECT |Not-ECT(!!!)|Not-ECT(!!!)| <drop>(!!!)|
/// |  ECT(0) |  ECT(0) | ECT(0)     | ECT(1)     |     CE     |
/// |  ECT(1) |  ECT(1) | ECT(1) (!) | ECT(1)     |     CE     |
/// |    CE   |      CE |     CE     |     CE(!!!)|     CE     |
/// +---------+---------+------------+------------+------------+
/// ```
///
/// # Errors
///
/// [`CongestionLost`] if the inner header is Not-ECT and the outer one CE.
#[inline]
pub const fn decapsulate(
    inner_traffic_class: u8,
    outer_traffic_class: u8,
) -> Result<u8, CongestionLost> {
    let ecn = match (inner_traffic_class & MASK, outer_traffic_class & MASK) {
        (NOT_ECT, CE) => return Err(CongestionLost),
        (NOT_ECT, _) => NOT_ECT,
        (_, CE) => CE,
        (ECT_0, ECT_1) => ECT_1,
        (inner, _) => inner,
    };
    Ok(inner_traffic_class & !MASK | ecn)
}

/// Writes the traffic class of an IPv4 header and updates its checksum.
#[inline]
pub fn set_traffic_class_v4(header: &mut [u8; 20], traffic_class: u8) {
    const TRAFFIC_CLASS: usize = 1;
    const CHECKSUM: usize = 10;
    let old = field::u16_at::<0, _>(header);
    field::set_u8::<TRAFFIC_CLASS, _>(header, traffic_class);
    let new = field::u16_at::<0, _>(header);
    let checksum = checksum::update_u16(field::u16_at::<CHECKSUM, _>(header), old, new);
    field::set_u16::<CHECKSUM, _>(header, checksum);
}

/// Writes the traffic class of an IPv6 header; version and flow label stay as they are.
#[inline]
pub fn set_traffic_class_v6(header: &mut [u8; 40], traffic_class: u8) {
    let word = field::u32_at::<0, _>(header) & 0xf00f_ffff;
    field::set_u32::<0, _>(header, word | u32::from(traffic_class) << 20);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figure_4_of_rfc_6040() {
        let columns = [NOT_ECT, ECT_0, ECT_1, CE];
        let rows = [
            (NOT_ECT, [Ok(NOT_ECT), Ok(NOT_ECT), Ok(NOT_ECT), Err(CongestionLost)]),
            (ECT_0, [Ok(ECT_0), Ok(ECT_0), Ok(ECT_1), Ok(CE)]),
            (ECT_1, [Ok(ECT_1), Ok(ECT_1), Ok(ECT_1), Ok(CE)]),
            (CE, [Ok(CE), Ok(CE), Ok(CE), Ok(CE)]),
        ];
        for (inner, row) in rows {
            for (outer, expected) in columns.into_iter().zip(row) {
                for dscp in 0..64u8 {
                    // The outer DSCP differs, so that taking it over would show.
                    let result = decapsulate(dscp << 2 | inner, (63 - dscp) << 2 | outer);
                    assert_eq!(
                        result,
                        expected.map(|ecn| dscp << 2 | ecn),
                        "inner {inner:02b} outer {outer:02b} DSCP {dscp}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_tunnel_without_congestion_changes_nothing() {
        for inner in 0..=255 {
            assert_eq!(encapsulate(inner), inner);
            assert_eq!(decapsulate(inner, encapsulate(inner)), Ok(inner));
        }
    }

    #[test]
    fn v6_keeps_version_and_flow_label() {
        let mut header = [0; 40];
        header[..4].copy_from_slice(&[0x6f, 0xf9, 0x87, 0x65]);
        set_traffic_class_v6(&mut header, 0x2b);
        assert_eq!(header[..4], [0x62, 0xb9, 0x87, 0x65]);
    }
}
