//! A token bucket for each source prefix, shared by all workers. See `README.md`.
#![deny(unsafe_code)]

use serde::Deserialize;
use sluice_sdk::{BATCH_MAX, Batch, Meter, Plugin, PrefixLens};

/// The plugin: the meter, the bits of sources that share a bucket, and room for one batch.
#[derive(Debug)]
pub struct RateLimit {
    meter: Meter,
    lens: PrefixLens,
    admitted: Box<[u8; BATCH_MAX]>,
}

/// The configuration.
#[derive(Debug, Deserialize)]
pub struct Config {
    /// Packets a second for each prefix.
    packets_per_s: f64,
    /// Packets that a prefix may send at once.
    burst: u32,
    /// Bits of an IPv4 source that share a bucket.
    #[serde(default = "ipv4_prefix")]
    ipv4_prefix: u32,
    /// Bits of an IPv6 source that share a bucket.
    #[serde(default = "ipv6_prefix")]
    ipv6_prefix: u32,
    /// Buckets that are kept.
    #[serde(default = "entries")]
    entries: u32,
}

fn ipv4_prefix() -> u32 {
    24
}

fn ipv6_prefix() -> u32 {
    64
}

fn entries() -> u32 {
    65_536
}

fn in_range(key: &str, value: u32, least: u32, most: u32) -> Result<u32, String> {
    if !(least..=most).contains(&value) {
        return Err(format!("`{key}`: {value} is not from {least} to {most}"));
    }
    Ok(value)
}

#[sluice_sdk::plugin(manifest = "manifest.toml")]
impl Plugin for RateLimit {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        let rate = config.packets_per_s;
        if !(0.001..=1e9).contains(&rate) {
            return Err(format!("`packets_per_s`: {rate} is not from 0.001 to 1000000000"));
        }
        let burst = in_range("burst", config.burst, 1, u32::MAX)?;
        let prefix4 = in_range("ipv4_prefix", config.ipv4_prefix, 1, 32)?;
        let prefix6 = in_range("ipv6_prefix", config.ipv6_prefix, 1, 128)?;
        let entries = in_range("entries", config.entries, 1, 1 << 22)?;
        let meter = Meter::open((rate * 1000.0).round() as i64, burst.into(), entries)
            .map_err(|error| format!("`packets_per_s`, `burst`: {error}"))?;
        let lens = PrefixLens::new(prefix4, prefix6)?;
        Ok(Self { meter, lens, admitted: Box::new([0; BATCH_MAX]) })
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        let n = batch.len();
        let Some(admitted) = self.admitted.get_mut(..n) else {
            return;
        };
        self.meter.take_sources(batch.descriptors(), self.lens, batch.now_ns(), admitted);
        let refused = batch.admit(admitted, reason::RATE.verdict());
        batch.count(counter::REFUSED, refused);
        batch.count(counter::ADMITTED, n as u64 - refused);
    }
}

#[cfg(test)]
mod tests {
    use sluice_sdk::Verdict;
    use sluice_sdk::testing::{Bench, ipv4, ipv6};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn bench(config: &str) -> Bench<RateLimit> {
        Bench::new(config).expect("the configuration is good")
    }

    fn admitted(verdicts: &[Verdict]) -> usize {
        verdicts.iter().filter(|verdict| **verdict == Verdict::CONTINUE).count()
    }

    #[test]
    fn each_prefix_has_its_burst_and_its_rate() {
        let mut bench = bench(r#"{"packets_per_s": 100, "burst": 10}"#);
        let one: Vec<_> = (0..30).map(|host| ipv4([10, 0, 0, host], [1, 1, 1, 1])).collect();
        let other = vec![ipv4([10, 0, 1, 7], [1, 1, 1, 1]); 5];
        assert_eq!(admitted(&bench.judge(&one, SECOND)), 10, "a /24 has one bucket");
        assert_eq!(admitted(&bench.judge(&other, SECOND)), 5);
        assert_eq!(admitted(&bench.judge(&one, SECOND + SECOND / 20)), 5);
        assert_eq!(admitted(&bench.judge(&one, 9 * SECOND)), 10);
        assert_eq!(bench.counters, [30, 65]);
    }

    #[test]
    fn ipv6_is_metered_by_64_bits_unless_told_otherwise() {
        let host = |net, host| ipv6([0x2001, 0xdb8, 0, net, 0, 0, 0, host], [1; 8]);
        let packets = [host(1, 1), host(1, 2), host(2, 1)];
        let mut bench_64 = bench(r#"{"packets_per_s": 1, "burst": 1}"#);
        assert_eq!(admitted(&bench_64.judge(&packets, SECOND)), 2);
        let mut bench_128 = bench(r#"{"packets_per_s": 1, "burst": 1, "ipv6_prefix": 128}"#);
        assert_eq!(admitted(&bench_128.judge(&packets, SECOND)), 3);
        let mut bench_32 = bench(r#"{"packets_per_s": 1, "burst": 1, "ipv6_prefix": 32}"#);
        assert_eq!(admitted(&bench_32.judge(&packets, SECOND)), 1);
    }

    #[test]
    fn a_refused_packet_has_the_plugins_reason() {
        let mut bench = bench(r#"{"packets_per_s": 0.5, "burst": 1, "ipv4_prefix": 32}"#);
        let packet = ipv4([10, 0, 0, 1], [1, 1, 1, 1]);
        let verdicts = bench.judge(&[packet, packet], SECOND);
        assert_eq!(verdicts, [Verdict::CONTINUE, reason::RATE.verdict()]);
        assert_eq!(bench.judge(&[packet], 3 * SECOND - 1), [reason::RATE.verdict()]);
        assert_eq!(bench.judge(&[packet], 3 * SECOND), [Verdict::CONTINUE]);
    }

    #[test]
    fn errors_name_the_key() {
        for (config, expected) in [
            (r#"{"burst": 1}"#, "missing field `packets_per_s`"),
            (r#"{"packets_per_s": 1}"#, "missing field `burst`"),
            (
                r#"{"packets_per_s": "1", "burst": 1}"#,
                "`packets_per_s`: invalid type: string \"1\"",
            ),
            (r#"{"packets_per_s": 0, "burst": 1}"#, "`packets_per_s`: 0 is not from"),
            (r#"{"packets_per_s": 1, "burst": 0}"#, "`burst`: 0 is not from 1"),
            (
                r#"{"packets_per_s": 1, "burst": 1.5}"#,
                "`burst`: invalid type: floating point `1.5`",
            ),
            (r#"{"packets_per_s": 0.001, "burst": 4000000000}"#, "the burst must be"),
            (r#"{"packets_per_s": 1, "burst": 1, "ipv4_prefix": 33}"#, "`ipv4_prefix`: 33"),
            (r#"{"packets_per_s": 1, "burst": 1, "ipv6_prefix": 0}"#, "`ipv6_prefix`: 0"),
            (r#"{"packets_per_s": 1, "burst": 1, "entries": 0}"#, "`entries`: 0"),
            (r#"{"packets_per_s": 1, "burst": 1, "rate": 0}"#, "`rate`: unknown key"),
            ("[]", "expected"),
        ] {
            let text = Bench::<RateLimit>::new(config).expect_err(config);
            assert!(text.contains(expected), "{config}: {text}");
        }
    }
}
