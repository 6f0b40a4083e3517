//! Options of all measurements that send: which packets, by which interfaces.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use load::neighbor::{self, NextHop};
use load::profile::{
    Addresses, Bursts, Destinations, Kind, PORTS, Popularity, Profile, Sizes, SliceRange, Stations,
};
use load::source::Capture;
use load::{Engine, RigPlan, SinkKind, Source};
use wire::MacAddress;

/// Packets of other flows behind a burst.
const BURST_TAIL: u16 = 8;

/// The networks that RFC 2544 (appendix C.2.2) sets aside for measurements, a half each.
const SOURCES_DEFAULT: &str = "198.18.0.0/16";
const DESTINATIONS_DEFAULT: &str = "198.19.0.0/16";

#[derive(Debug, Args)]
pub(crate) struct TrafficArgs {
    #[command(flatten, next_help_heading = "Interfaces")]
    ports: PortArgs,
    #[command(flatten, next_help_heading = "Packets")]
    packets: PacketArgs,
}

/// Which interfaces, queues and cores, and how.
#[derive(Debug, Args)]
struct PortArgs {
    /// The interface to send by
    #[arg(long, value_name = "IFACE")]
    tx: String,
    /// The interface to count on; without it the one that sends, and latency is that of a round trip
    #[arg(long, value_name = "IFACE")]
    rx: Option<String>,
    /// MAC address of the device under test
    #[arg(long, value_name = "MAC", conflicts_with = "gateway")]
    dst_mac: Option<MacAddress>,
    /// IP address of the device under test, which the kernel resolves to a MAC address
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<IpAddr>,
    /// What to send by: live (packets made in the kernel), xsk (AF_XDP sockets), or auto: live on
    /// veth pairs, xsk elsewhere
    #[arg(long, default_value_t = Engine::Auto)]
    engine: Engine,
    /// What to count by: kernel (an XDP program), xsk (AF_XDP sockets), or none
    #[arg(long, default_value_t = SinkKind::Kernel)]
    sink: SinkKind,
    /// Queues to send by, one worker each; live workers have no queue, only their number counts
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "0")]
    queues: Vec<u32>,
    /// Queues that an xsk sink receives by; all unless given
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    sink_queues: Vec<u32>,
    /// Cores to pin workers to: first those that send, then those of an xsk sink
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    cores: Vec<usize>,
    /// After a run, wait until nothing has arrived for so long; while packets are missing, for as long
    /// as the slowest one took on top, and while none has come for --settle-max
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = time)]
    settle: Duration,
    /// But wait no longer than this
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time)]
    settle_max: Duration,
}

/// Which packets.
#[derive(Debug, Args)]
struct PacketArgs {
    /// Bytes of a frame without check sequence (60 is 64 on the wire), or imix: of 100 packets 58 of
    /// 60 bytes, 33 of 590 and 9 of 1514. Where headers and tag need more, frames are longer: IPv6
    /// UDP 80, IPv4 TCP 72, IPv6 TCP 92
    #[arg(long, value_name = "BYTES|imix", default_value = "60")]
    size: Sizes,
    /// Number of five-tuples (1, 10k, 1M)
    #[arg(long, value_name = "N", default_value = "1", value_parser = load::rate::count)]
    flows: u64,
    /// Send the n-th flow in proportion to n^-S; without it all equally often
    #[arg(long, value_name = "S")]
    zipf: Option<f64>,
    /// How many of the packets are IPv6
    #[arg(long, value_name = "SHARE", value_parser = share)]
    ipv6_share: Option<f64>,
    /// What the packets are: udp, or a flood of tcp-syn or tcp-ack
    #[arg(long, value_name = "KIND", default_value = "udp", value_parser = kind)]
    kind: Kind,
    /// Send bursts of so many packets of one flow, and 8 of others after each
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "64")]
    burst: Option<u16>,
    /// Prefixes of source addresses, or internet [default: 198.18.0.0/16; with --slices internet]
    #[arg(long, value_name = "PREFIX,..|internet")]
    src: Option<Addresses>,
    /// Prefixes of destination addresses [default: 198.19.0.0/16]
    #[arg(long, value_name = "PREFIX,..", conflicts_with = "slices")]
    dst: Option<Addresses>,
    /// Destination ports [default: 1024-65535]
    #[arg(long, value_name = "FIRST-LAST", value_parser = ports, conflicts_with = "slices")]
    dst_ports: Option<RangeInclusive<u16>>,
    /// Return traffic: slices as destinations, each as often as any other; or @FILE with one on each
    /// line. Without --flows one flow for each slice
    #[arg(long, value_name = "ADDRESS:FIRST-LAST,..")]
    slices: Option<String>,
    /// Send the packets of a capture (pcap) again and again, at --rate, by --engine xsk. The first 18
    /// bytes of UDP and TCP payload become the tag, and checksums are made right; MAC addresses are
    /// replaced if --dst-mac or --gateway is given. Packets without room for a tag go as they are, and
    /// loss is then by count
    #[arg(long, value_name = "FILE", conflicts_with_all = ["size", "flows", "zipf", "ipv6_share",
        "kind", "burst", "src", "dst", "dst_ports", "slices"])]
    pcap: Option<PathBuf>,
    /// What random choices follow from: the same seed gives the same packets
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

impl TrafficArgs {
    /// The tester's plan; the next hop is resolved, and packets are made.
    pub(crate) fn plan(&self) -> Result<RigPlan> {
        let PortArgs { tx, engine, sink, .. } = &self.ports;
        let stations = match (self.ports.dst_mac, self.ports.gateway) {
            (Some(address), _) => Some(neighbor::stations(tx, NextHop::Mac(address))?),
            (None, Some(address)) => Some(neighbor::stations(tx, NextHop::Address(address))?),
            (None, None) => None,
        };
        Ok(RigPlan {
            engine: *engine,
            send_queues: self.ports.queues.clone(),
            sink: *sink,
            sink_queues: self.ports.sink_queues.clone(),
            cores: self.ports.cores.clone(),
            settle: self.ports.settle,
            settle_max: self.ports.settle_max,
            ..RigPlan::new(tx, self.sink_interface(), Arc::new(self.packets.source(stations)?))
        })
    }

    /// Both interfaces, or the one that is both.
    pub(crate) fn interfaces(&self) -> Vec<String> {
        let mut interfaces = vec![self.ports.tx.clone(), self.sink_interface().to_owned()];
        interfaces.dedup();
        interfaces
    }

    /// Bytes of a frame without check sequence; `None` for a mix.
    pub(crate) fn frame_bytes(&self) -> Option<u32> {
        match &self.packets.pcap {
            Some(_) => None,
            None => self.packets.size.one().map(u32::from),
        }
    }

    fn sink_interface(&self) -> &str {
        self.ports.rx.as_ref().unwrap_or(&self.ports.tx)
    }
}

impl PacketArgs {
    fn source(&self, stations: Option<Stations>) -> Result<Source> {
        if let Some(path) = &self.pcap {
            return Ok(Source::Capture(Capture::read(path, stations)?));
        }
        let Some(stations) = stations else {
            bail!(
                "say which station the packets go to: --dst-mac MAC, or --gateway ADDRESS for the \
                 kernel to resolve"
            );
        };
        Ok(Source::Profile(self.profile()?.build(stations)?))
    }

    fn profile(&self) -> Result<Profile> {
        let slices = self.slices.as_deref().map(read_slices).transpose()?;
        let mut flows = usize::try_from(self.flows).context("--flows")?;
        if let (Some(slices), 1) = (&slices, flows) {
            flows = slices.len();
        }
        let default = |prefix: &str| prefix.parse().context("a prefix");
        let sources = match (&self.src, &slices) {
            (Some(sources), _) => sources.clone(),
            (None, Some(_)) => Addresses::Internet,
            (None, None) => default(SOURCES_DEFAULT)?,
        };
        let destinations = match slices {
            Some(slices) => Destinations::Slices(slices),
            None => Destinations::Addresses(
                match &self.dst {
                    Some(destinations) => destinations.clone(),
                    None => default(DESTINATIONS_DEFAULT)?,
                },
                self.dst_ports.clone().unwrap_or(PORTS),
            ),
        };
        Ok(Profile {
            sizes: self.size.clone(),
            flows,
            popularity: self.zipf.map_or(Popularity::Uniform, Popularity::Zipf),
            ipv6_share: self.ipv6_share,
            kind: self.kind,
            bursts: self.burst.map(|packets| Bursts { packets, tail: BURST_TAIL }),
            sources,
            destinations,
            seed: self.seed,
        })
    }
}

/// A list of slices, or a file of them: one on each line, `#` starts a comment.
fn read_slices(text: &str) -> Result<Vec<SliceRange>> {
    let Some(path) = text.strip_prefix('@') else {
        return text.split(',').map(|slice| Ok(slice.parse()?)).collect();
    };
    let text = std::fs::read_to_string(path).with_context(|| format!("{path}: cannot be read"))?;
    let slices: Vec<SliceRange> = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .map(|line| line.parse().with_context(|| path.to_owned()))
        .collect::<Result<_>>()?;
    if slices.is_empty() {
        bail!("{path}: there is no slice in it");
    }
    Ok(slices)
}

fn kind(text: &str) -> Result<Kind, String> {
    match text {
        "udp" => Ok(Kind::Udp),
        "tcp-syn" => Ok(Kind::TcpSyn),
        "tcp-ack" => Ok(Kind::TcpAck),
        _ => Err("expected udp, tcp-syn or tcp-ack".into()),
    }
}

fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        _ => Err("expected a range of ports, such as 1024-65535".into()),
    }
}

/// Parses a share: `36%`, or `0.36`.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let (number, divisor) = match text.strip_suffix('%') {
        Some(number) => (number.trim_end(), 100.0),
        None => (text, 1.0),
    };
    match number.parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&(number / divisor)) => Ok(number / divisor),
        _ => Err("expected a share from 0% to 100%, such as 36%".into()),
    }
}

/// Parses a time: `500ms`, `10s`, `20m`, or a number of seconds.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a time such as 500ms, 10s or 20m".to_owned();
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0)];
    let (number, unit_s) = units
        .into_iter()
        .find_map(|(unit, unit_s)| Some((text.strip_suffix(unit)?, unit_s)))
        .unwrap_or((text, 1.0));
    let number: f64 = number.trim_end().parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * unit_s).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        traffic: TrafficArgs,
    }

    fn parse(line: &str) -> Result<TrafficArgs, clap::Error> {
        let words = ["generate", "--tx", "eth0"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.traffic)
    }

    fn describe(line: &str) -> String {
        let args = parse(line).expect("the options are right");
        args.packets.profile().expect("a profile").describe()
    }

    #[test]
    fn options_make_a_profile() {
        assert_eq!(describe(""), "60 B, 1 flow, IPv4 UDP");
        assert_eq!(
            describe("--size imix --flows 10k --zipf 1.0"),
            "IMIX, 10000 flows (Zipf 1), IPv4 UDP"
        );
        assert_eq!(
            describe(
                "--src 10.0.0.0/8,2001:db8::/64 --dst 11.0.0.0/8,2001:db8:1::/64 --flows 100 \
                      --ipv6-share 36% --size 128"
            ),
            "128 B, 100 flows, UDP, 36 % IPv6"
        );
        assert_eq!(
            describe("--slices 192.0.2.1:1024-2047,192.0.2.1:2048-3071 --kind tcp-ack"),
            "60 B (at least 72 B where the tag needs it), 2 flows, IPv4 TCP ACK, to 2 slices"
        );
        assert!(describe("--burst --flows 9").ends_with("bursts of 64 and 8 others"));
    }

    #[test]
    fn slices_are_read_from_a_file() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "# two\n192.0.2.1:1-2\n\n[2001:db8::1]:3-4 # v6\n")
            .expect("text");
        let slices = read_slices(&format!("@{}", file.path().display())).expect("slices");
        assert_eq!(slices.len(), 2);
        std::fs::write(file.path(), "nothing\n").expect("text");
        let error = read_slices(&format!("@{}", file.path().display())).expect_err("no slice");
        assert!(format!("{error:#}").contains("is no slice"), "{error:#}");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "--size 59",
            "--flows 0",
            "--ipv6-share 200%",
            "--kind sctp",
            "--src 10.0.0.0/40",
            "--dst-ports 9-1",
            "--dst 10.0.0.0/8 --slices 192.0.2.1:1-2",
            "--dst-mac 1:2 ",
            "--dst-mac 02:00:00:00:00:01 --gateway 10.0.0.1",
            "--pcap x --flows 2",
            "--engine dpdk",
            "--sink tap",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn one_interface_may_be_both() {
        assert_eq!(parse("").expect("right").interfaces(), ["eth0"]);
        assert_eq!(parse("--rx eth1").expect("right").interfaces(), ["eth0", "eth1"]);
    }
}
