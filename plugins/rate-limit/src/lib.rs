//! A token bucket for each source prefix, shared by all workers. See `README.md`.
#![deny(unsafe_code)]

use serde_json::{Map, Value};
use sluice_sdk::{BATCH_MAX, Batch, Meter, Plugin, Verdict, flags};

/// The reason of a drop: the prefix had no token left.
pub const REASON_RATE: u32 = 0;
/// Position of the counter of packets that got a token.
pub const COUNTER_ADMITTED: usize = 0;
/// Position of the counter of packets that got none.
pub const COUNTER_REFUSED: usize = 1;
/// All counters that the manifest names.
pub const COUNTERS: usize = 2;

/// The plugin: the meter, the masks that make keys of sources, and room for one batch.
#[derive(Debug)]
pub struct RateLimit {
    meter: Meter,
    mask4: u128,
    mask6: u128,
    keys: Box<[[u8; 16]; BATCH_MAX]>,
    admitted: Box<[u8; BATCH_MAX]>,
}

/// The configuration, whose keys are taken one by one.
struct Config(Map<String, Value>);

impl Config {
    fn parse(json: &[u8]) -> Result<Self, String> {
        match serde_json::from_slice(json).map_err(|error| error.to_string())? {
            Value::Object(entries) => Ok(Self(entries)),
            other => Err(format!("{other} is no table")),
        }
    }

    /// The value of a key, a number of `unit`, if the key is there.
    fn number(&mut self, key: &str, unit: &str) -> Result<Option<f64>, String> {
        match self.0.remove(key) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(format!("`{key}`: {value} is no number of {unit}")),
            },
        }
    }

    /// The same for whole numbers from `least` to `most`.
    fn whole(
        &mut self,
        key: &str,
        unit: &str,
        least: u32,
        most: u32,
    ) -> Result<Option<u32>, String> {
        match self.number(key, unit)? {
            None => Ok(None),
            Some(number)
                if number.fract() != 0.0 || number < least.into() || number > most.into() =>
            {
                Err(format!("`{key}`: {number} is no whole number from {least} to {most}"))
            }
            Some(number) => Ok(Some(number as u32)),
        }
    }

    fn finish(self) -> Result<(), String> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(key) => Err(format!("`{key}`: unknown key")),
        }
    }
}

impl Plugin for RateLimit {
    fn configure(config: &[u8]) -> Result<Self, String> {
        let mut config = Config::parse(config)?;
        let rate = config
            .number("packets_per_s", "packets a second")?
            .ok_or("`packets_per_s` is missing: packets a second for each prefix")?;
        if !(0.001..=1e9).contains(&rate) {
            return Err(format!("`packets_per_s`: {rate} is not from 0.001 to 1000000000"));
        }
        let burst = config
            .whole("burst", "packets", 1, u32::MAX)?
            .ok_or("`burst` is missing: packets that a prefix may send at once")?;
        let prefix4 = config.whole("ipv4_prefix", "bits", 1, 32)?.unwrap_or(24);
        let prefix6 = config.whole("ipv6_prefix", "bits", 1, 128)?.unwrap_or(64);
        let entries = config.whole("entries", "prefixes", 1, 1 << 22)?.unwrap_or(65_536);
        config.finish()?;
        let meter = Meter::open((rate * 1000.0).round() as i64, burst.into(), entries)
            .map_err(|error| format!("`packets_per_s`, `burst`: {error}"))?;
        Ok(Self {
            meter,
            // The IPv4 address is the last 32 of the 128 bits.
            mask4: u128::MAX << (32 - prefix4),
            mask6: u128::MAX << (128 - prefix6),
            keys: Box::new([[0; 16]; BATCH_MAX]),
            admitted: Box::new([0; BATCH_MAX]),
        })
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        let n = batch.len();
        let Some((keys, admitted)) = self.keys.get_mut(..n).zip(self.admitted.get_mut(..n)) else {
            return;
        };
        for (key, packet) in keys.iter_mut().zip(batch.descriptors()) {
            let mask = if packet.flags & flags::IPV6 == 0 { self.mask4 } else { self.mask6 };
            *key = (u128::from_be_bytes(packet.source) & mask).to_be_bytes();
        }
        self.meter.take(keys, batch.now_ns(), admitted);
        let mut refused = 0;
        for (verdict, admitted) in batch.verdicts_mut().iter_mut().zip(admitted) {
            if *admitted == 0 {
                *verdict = Verdict::drop(REASON_RATE);
                refused += 1;
            } else {
                *verdict = Verdict::CONTINUE;
            }
        }
        batch.count(COUNTER_REFUSED, refused);
        batch.count(COUNTER_ADMITTED, n as u64 - refused);
    }
}

sluice_sdk::export!(RateLimit, manifest = include_str!("../manifest.toml"), counters = COUNTERS);

#[cfg(test)]
mod tests {
    use sluice_sdk::testing::{Bench, ipv4, ipv6};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn bench(config: &str) -> Bench<RateLimit> {
        Bench::new(config, COUNTERS).expect("the configuration is good")
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
        assert_eq!(verdicts, [Verdict::CONTINUE, Verdict::drop(REASON_RATE)]);
        assert_eq!(bench.judge(&[packet], 3 * SECOND - 1), [Verdict::drop(REASON_RATE)]);
        assert_eq!(bench.judge(&[packet], 3 * SECOND), [Verdict::CONTINUE]);
    }

    #[test]
    fn errors_name_the_key() {
        for (config, expected) in [
            (r#"{"burst": 1}"#, "`packets_per_s` is missing"),
            (r#"{"packets_per_s": 1}"#, "`burst` is missing"),
            (r#"{"packets_per_s": "1", "burst": 1}"#, "`packets_per_s`: \"1\" is no number"),
            (r#"{"packets_per_s": 0, "burst": 1}"#, "`packets_per_s`: 0 is not from"),
            (r#"{"packets_per_s": 1, "burst": 0}"#, "`burst`: 0 is no whole number"),
            (r#"{"packets_per_s": 1, "burst": 1.5}"#, "`burst`: 1.5"),
            (r#"{"packets_per_s": 0.001, "burst": 4000000000}"#, "the burst must be"),
            (r#"{"packets_per_s": 1, "burst": 1, "ipv4_prefix": 33}"#, "`ipv4_prefix`: 33"),
            (r#"{"packets_per_s": 1, "burst": 1, "ipv6_prefix": 0}"#, "`ipv6_prefix`: 0"),
            (r#"{"packets_per_s": 1, "burst": 1, "entries": 0}"#, "`entries`: 0"),
            (r#"{"packets_per_s": 1, "burst": 1, "rate": 0}"#, "`rate`: unknown key"),
            ("[]", "is no table"),
        ] {
            let text = Bench::<RateLimit>::new(config, COUNTERS).expect_err(config);
            assert!(text.contains(expected), "{config}: {text}");
        }
    }
}
