//! What the kernel says of the tester's interfaces while it measures.

use std::fs;

use xdp::host;

use crate::LoadError;

/// Drops that an interface counted, by whomever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drops {
    /// On reception: also what the device missed.
    pub(crate) received: u64,
    /// On transmission.
    pub(crate) sent: u64,
}

/// Reads the drop counters of an interface of this thread's network namespace.
pub(crate) fn drops(interface: &str) -> Result<Drops, LoadError> {
    const PATH: &str = "/proc/thread-self/net/dev";
    let text = fs::read_to_string(PATH)
        .map_err(|source| LoadError::host(format!("cannot read {PATH}"), source))?;
    parse_drops(&text, interface).ok_or_else(|| LoadError::LinkDown {
        interface: interface.into(),
        how: "is gone",
        at_s: 0.0,
    })
}

/// Of a line: packets, errors and so on received (8 numbers), then sent; the fourth is drops.
fn parse_drops(text: &str, interface: &str) -> Option<Drops> {
    let line =
        text.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'))?;
    let numbers: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    Some(Drops { received: *numbers.get(3)?, sent: *numbers.get(11)? })
}

/// An interface that must stay as it is while something is measured.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    interface: String,
    /// Its number: another one under the same name is another interface.
    index: u32,
    /// Number of the XDP program that must stay attached.
    program: Option<u32>,
}

impl Watch {
    /// Watches an interface that is up, and if `with_program` the XDP program that is attached now.
    pub(crate) fn new(interface: &str, with_program: bool) -> Result<Self, LoadError> {
        let facts = facts(interface)?;
        if !facts.is_running {
            let how = if facts.is_up { "has no carrier" } else { "is down" };
            return Err(LoadError::Plan(format!(
                "interface {interface} {how}: `ip link set dev {interface} up`, on both ends of a veth \
                 pair"
            )));
        }
        let program = facts.xdp_program.map(|(number, _)| number).filter(|_| with_program);
        Ok(Self { interface: interface.into(), index: facts.index, program })
    }

    /// Whether everything is as it was.
    ///
    /// # Errors
    /// What changed, `at_s` into the run.
    pub(crate) fn check(&self, at_s: f64) -> Result<(), LoadError> {
        let down = |how| LoadError::LinkDown { interface: self.interface.clone(), how, at_s };
        let facts = match host::interface(&self.interface) {
            Ok(facts) => facts,
            Err(xdp::XdpError::UnknownInterface { .. }) => return Err(down("was removed")),
            // Between the look-up of its number and the questions it may be gone as well.
            Err(_) if host::interface_index(&self.interface).is_err() => {
                return Err(down("was removed"));
            }
            Err(error) => return Err(LoadError::host("cannot watch the link", error)),
        };
        if facts.index != self.index {
            return Err(down("was removed and made anew"));
        }
        if !facts.is_running {
            return Err(down(if facts.is_up { "lost its carrier" } else { "went down" }));
        }
        if self.program.is_some() && facts.xdp_program.map(|(number, _)| number) != self.program {
            return Err(LoadError::SinkLost { interface: self.interface.clone(), at_s });
        }
        Ok(())
    }
}

/// What the kernel says of an interface.
pub(crate) fn facts(interface: &str) -> Result<host::InterfaceFacts, LoadError> {
    host::interface(interface)
        .map_err(|error| LoadError::host(format!("interface {interface}"), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_read_by_interface() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets \
                    errs drop fifo colls carrier compressed\n\
                    \x20   lo:     100       2    0    0    0     0          0         0      100       \
                    2    0    0    0     0       0          0\n\
                    veth10: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        assert_eq!(parse_drops(text, "veth10"), Some(Drops { received: 4, sent: 12 }));
        assert_eq!(parse_drops(text, "lo"), Some(Drops { received: 0, sent: 0 }));
        assert_eq!(parse_drops(text, "veth1"), None);
    }
}
