//! The check that no packet is lost without a name.

use thiserror::Error;

use super::StatusReport;

/// An interface whose packets do not add up.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{interface}: received {rx} packets, but {accounted} are accounted for \
     (forwarded {forwarded} + to kernel {to_kernel} + consumed {consumed} + held {held} + dropped {dropped})"
)]
pub struct AccountingError {
    /// Name of the interface.
    pub interface: String,
    /// Packets received.
    pub rx: u64,
    /// Packets with a known fate; the sum of the fields below.
    pub accounted: u128,
    /// Packets forwarded.
    pub forwarded: u64,
    /// Packets handed to the kernel.
    pub to_kernel: u64,
    /// Packets used up by the router.
    pub consumed: u64,
    /// Packets that wait.
    pub held: u64,
    /// Packets dropped, over all reasons.
    pub dropped: u64,
}

/// Checks that for each interface `rx = forwarded + to_kernel + consumed + held + sum(drops)`.
///
/// It holds exactly for a report that was taken while the workers stood between turns. In a report
/// of a router under load a batch may be between two counters: compare two reports then, or stop
/// the traffic first.
///
/// # Errors
/// One error for each interface that does not add up, in the report's order.
pub fn accounting(report: &StatusReport) -> Result<(), Vec<AccountingError>> {
    let errors: Vec<_> = report
        .interfaces
        .iter()
        .filter_map(|interface| {
            // 128 bits: a counter that is near its end must not hide in a wrapped sum.
            let dropped: u128 = interface.drops.values().map(|&drops| u128::from(drops)).sum();
            let accounted = u128::from(interface.forwarded)
                + u128::from(interface.to_kernel)
                + u128::from(interface.consumed)
                + u128::from(interface.held)
                + dropped;
            (accounted != u128::from(interface.rx_packets)).then(|| AccountingError {
                interface: interface.name.clone(),
                rx: interface.rx_packets,
                accounted,
                forwarded: interface.forwarded,
                to_kernel: interface.to_kernel,
                consumed: interface.consumed,
                held: interface.held,
                dropped: interface.dropped(),
            })
        })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::InterfaceStatus;

    fn balanced() -> InterfaceStatus {
        InterfaceStatus {
            name: "eth0".into(),
            rx_packets: 100,
            forwarded: 60,
            to_kernel: 20,
            consumed: 5,
            held: 3,
            drops: [("ttl_expired".into(), 10), ("no_route".into(), 2)].into(),
            // What leaves here is charged to where it was received, so it takes no part.
            tx_packets: 7,
            originated: 4,
            ..Default::default()
        }
    }

    fn report(interfaces: Vec<InterfaceStatus>) -> StatusReport {
        StatusReport { interfaces, ..Default::default() }
    }

    #[test]
    fn a_balanced_report_passes() {
        assert_eq!(accounting(&report(vec![balanced()])), Ok(()));
        assert_eq!(accounting(&report(vec![])), Ok(()));
    }

    #[test]
    fn each_term_counts() {
        let changes: [fn(&mut InterfaceStatus); 6] = [
            |interface| interface.rx_packets += 1,
            |interface| interface.forwarded += 1,
            |interface| interface.to_kernel += 1,
            |interface| interface.consumed += 1,
            |interface| interface.held += 1,
            |interface| *interface.drops.entry("no_route".into()).or_default() += 1,
        ];
        for change in changes {
            let mut interface = balanced();
            change(&mut interface);
            let errors = accounting(&report(vec![balanced(), interface])).unwrap_err();
            assert_eq!(errors.len(), 1, "only the changed interface is named");
            assert_eq!(errors[0].accounted.abs_diff(u128::from(errors[0].rx)), 1);
        }
    }

    #[test]
    fn the_error_names_the_interface_and_every_term() {
        let mut interface = balanced();
        interface.rx_packets = 101;
        let errors = accounting(&report(vec![interface])).unwrap_err();
        assert_eq!(
            errors[0].to_string(),
            "eth0: received 101 packets, but 100 are accounted for (forwarded 60 + to kernel 20 + \
             consumed 5 + held 3 + dropped 12)"
        );
    }

    #[test]
    fn a_sum_that_would_wrap_is_an_error() {
        let mut interface = balanced();
        interface.forwarded = u64::MAX;
        interface.to_kernel = 1;
        interface.rx_packets = 20;
        assert!(accounting(&report(vec![interface])).is_err());
    }
}
