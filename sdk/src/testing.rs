//! [`Bench`]: a plugin under test, natively and without a host.

use sluice_abi::{BATCH_MAX, Descriptor, Verdict};

use crate::{Batch, Plugin};

/// A configured plugin and its counters.
#[derive(Debug)]
pub struct Bench<P> {
    /// The plugin.
    pub plugin: P,
    /// Its counters, all zero at first.
    pub counters: Vec<u64>,
}

impl<P: Plugin> Bench<P> {
    /// Configures a plugin that has `counters` counters.
    ///
    /// # Errors
    /// What the plugin says of its configuration.
    pub fn new(config: &str, counters: usize) -> Result<Self, String> {
        let plugin = P::configure(config.as_bytes())?;
        Ok(Self { plugin, counters: vec![0; counters] })
    }

    /// The verdicts of the plugin for these packets, in batches as large as the host's. Packets that
    /// it leaves undecided have [`Verdict::CONTINUE`].
    pub fn judge(&mut self, packets: &[Descriptor], now_ns: u64) -> Vec<Verdict> {
        let mut verdicts = vec![Verdict::CONTINUE; packets.len()];
        for (packets, verdicts) in packets.chunks(BATCH_MAX).zip(verdicts.chunks_mut(BATCH_MAX)) {
            let mut batch = Batch::new(packets, verdicts, &mut self.counters, now_ns);
            self.plugin.process(&mut batch);
        }
        verdicts
    }
}

/// A descriptor of a UDP packet over IPv4.
#[must_use]
pub fn ipv4(source: [u8; 4], destination: [u8; 4]) -> Descriptor {
    let mapped = |[a, b, c, d]: [u8; 4]| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
    Descriptor {
        source: mapped(source),
        destination: mapped(destination),
        protocol: 17,
        flags: sluice_abi::flags::PORTS,
        length: 60,
        ttl: 64,
        ..Descriptor::default()
    }
}

/// A descriptor of a UDP packet over IPv6.
#[must_use]
pub fn ipv6(source: [u16; 8], destination: [u16; 8]) -> Descriptor {
    Descriptor {
        source: std::net::Ipv6Addr::from(source).octets(),
        destination: std::net::Ipv6Addr::from(destination).octets(),
        protocol: 17,
        flags: sluice_abi::flags::PORTS | sluice_abi::flags::IPV6,
        length: 80,
        ttl: 64,
        ..Descriptor::default()
    }
}
