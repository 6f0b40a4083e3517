//! [`TransmitCounters`]: what an interface dropped of the frames that were redirected to it.
//!
//! `ndo_xdp_xmit` says how many frames it took, and the redirecting program never hears of it. The
//! driver counts the others: veth as `tx_queue_N_xdp_xmit_errors` and in `tx_dropped` of the interface
//! (drivers/net/veth.c, `peer_tq_xdp_xmit_err`), ENA and others in `tx_dropped` alone. The latter is
//! read here, since it is the same for all.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::TesterError;

/// Position of `tx_dropped` among the numbers of a line (net/core/net-procfs.c): 8 columns of what was
/// received, then bytes, packets, errors and drops of what was sent.
const TX_DROPPED: usize = 11;

/// Reads the counters of one interface.
#[derive(Debug)]
pub(super) struct TransmitCounters {
    interface: String,
    /// The file shows the network namespace that it was opened in, whoever reads it later.
    file: File,
}

impl TransmitCounters {
    /// For an interface of the thread's network namespace.
    pub(super) fn open(interface: &str) -> Result<Self, TesterError> {
        let file = File::open("/proc/thread-self/net/dev")
            .map_err(|error| TesterError::Counters { interface: interface.into(), error })?;
        Ok(Self { interface: interface.into(), file })
    }

    /// Packets that the interface dropped instead of sending them, since it was made.
    pub(super) fn dropped(&self) -> Result<u64, TesterError> {
        let failed = |error| TesterError::Counters { interface: self.interface.clone(), error };
        let mut text = Vec::new();
        loop {
            let start = text.len();
            text.resize(start + 4096, 0);
            let count = self.file.read_at(&mut text[start..], start as u64).map_err(failed)?;
            text.truncate(start + count);
            if count == 0 {
                break;
            }
        }
        tx_dropped(&String::from_utf8_lossy(&text), &self.interface).ok_or_else(|| {
            failed(io::Error::new(io::ErrorKind::NotFound, "it is not listed there"))
        })
    }
}

/// Finds the interface's line, and the number in it.
fn tx_dropped(table: &str, interface: &str) -> Option<u64> {
    table.lines().find_map(|line| {
        let (name, numbers) = line.rsplit_once(':')?;
        (name.trim() == interface)
            .then(|| numbers.split_whitespace().nth(TX_DROPPED))??
            .parse()
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_number_is_read() {
        let table = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
eth0.1: 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36
";
        assert_eq!(tx_dropped(table, "lo"), Some(12));
        assert_eq!(tx_dropped(table, "eth0.1"), Some(32));
        assert_eq!(tx_dropped(table, "eth0"), None);
    }

    #[test]
    fn the_loopback_has_counters() {
        let counters = TransmitCounters::open("lo").expect("/proc is there");
        assert!(counters.dropped().is_ok());
        let counters = TransmitCounters::open("no-such").expect("/proc is there");
        assert!(matches!(counters.dropped(), Err(TesterError::Counters { .. })));
    }
}
