//! Traffic profiles: which packets a generator sends, and in which order.
//!
//! ```text
//!   sources, destinations --> flows --+
//!   sizes, kind ----------------------+--> images (each different packet once)
//!   uniform | Zipf, bursts -----------+--> order  (numbers of images, walked again and again)
//! ```
//!
//! Everything is drawn from a seed: the same profile gives the same packets.
//!
//! Deliberately absent: TCP connections. A SYN or ACK flood asks the device under test for a table
//! entry, not a host for an answer.

mod address;
mod flow;
mod order;
mod packet;
mod size;
mod slice;

use std::fmt::Write as _;

use rand::SeedableRng;
use rand::rngs::StdRng;
use xdp::tester::Image;

pub use address::{Addresses, ParseAddressesError};
pub use flow::{Destinations, PORTS};
pub use packet::{Flow, Kind, Stations, frame_bytes_min};
pub use size::{FRAME_BYTES_MAX, FRAME_BYTES_MIN, ParseSizesError, Sizes};
pub use slice::{ParseSliceError, SliceRange};

use crate::LoadError;

/// The most flows of a profile: the images of more would not fit a machine's memory twice.
pub const FLOWS_MAX: usize = 4_000_000;

/// How often each flow comes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Popularity {
    /// All equally often.
    #[default]
    Uniform,
    /// The n-th most frequent one in proportion to n^-s.
    Zipf(f64),
}

/// Packets that come in bursts of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bursts {
    /// Packets of one flow in a row.
    pub packets: u16,
    /// Packets of any flows that follow before the next burst.
    pub tail: u16,
}

/// What a generator is to send.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Frame sizes. A packet that needs more room for its headers and tag is as long as it must be.
    pub sizes: Sizes,
    /// Number of flows.
    pub flows: usize,
    /// How often each flow comes.
    pub popularity: Popularity,
    /// How many of the packets are IPv6, 0 to 1; `None`: all of the one family that sources and
    /// destinations have in common.
    pub ipv6_share: Option<f64>,
    /// UDP, or a TCP flood.
    pub kind: Kind,
    /// Bursts of one flow.
    pub bursts: Option<Bursts>,
    /// Where packets come from.
    pub sources: Addresses,
    /// Where they go.
    pub destinations: Destinations,
    /// What everything is drawn from.
    pub seed: u64,
}

/// Packets and their order, ready to be sent.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Every different packet once.
    pub images: Vec<Image>,
    /// Numbers of images, walked again and again.
    pub order: Vec<u32>,
    /// The traffic in words ("60 B, 10000 flows, IPv4 UDP").
    pub text: String,
    /// Mean length of a frame in bytes, without check sequence.
    pub frame_bytes_mean: f64,
    /// The length if all frames have the same.
    pub frame_bytes: Option<u16>,
    /// The length of the longest.
    pub frame_bytes_max: u16,
}

impl Profile {
    /// Makes the packets.
    ///
    /// # Errors
    /// [`LoadError::Plan`] when the profile contradicts itself.
    pub fn build(&self, stations: Stations) -> Result<Traffic, LoadError> {
        let share = self.check()?;
        let mut random = StdRng::seed_from_u64(self.seed);
        let flows_v6 = flows_of_share(self.flows, share);
        let draw = |is_ipv6, count, random: &mut StdRng| {
            flow::draw_flows(&self.sources, &self.destinations, is_ipv6, count, random)
        };
        let families = [
            draw(false, if share < 1.0 { (self.flows - flows_v6).max(1) } else { 0 }, &mut random)?,
            draw(true, flows_v6, &mut random)?,
        ];
        let packets =
            order::order(self, share, [families[0].len(), families[1].len()], &mut random)?;

        let mut numbers = std::collections::HashMap::new();
        let mut images = Vec::new();
        let mut order = Vec::with_capacity(packets.len());
        for packet in packets {
            let number = *numbers.entry(packet).or_insert_with(|| {
                let flow = &families[usize::from(packet.is_ipv6)][packet.flow];
                images.push(packet::image(stations, flow, self.kind, packet.frame_bytes));
                images.len() - 1
            });
            order.push(u32::try_from(number).map_err(|_| too_many())?);
        }
        Ok(Traffic::new(images, order, self.text(share)))
    }

    /// The packets in words, as far as the profile makes sense.
    #[must_use]
    pub fn describe(&self) -> String {
        self.text(self.check().unwrap_or_default())
    }

    /// The share of IPv6, if the profile makes sense.
    fn check(&self) -> Result<f64, LoadError> {
        let plan = |text: &str| Err(LoadError::Plan(text.into()));
        if self.flows == 0 || self.flows > FLOWS_MAX {
            return Err(LoadError::Plan(format!(
                "{} flows: there must be 1 to {FLOWS_MAX}",
                self.flows
            )));
        }
        let has = |family| self.sources.has_family(family) && self.destinations.has_family(family);
        let share = match self.ipv6_share {
            Some(share) if !(0.0..=1.0).contains(&share) => {
                return plan("the share of IPv6 must be 0 to 100 %");
            }
            Some(share) => share,
            None => match (has(false), has(true)) {
                (true, false) => 0.0,
                (false, true) => 1.0,
                (true, true) => {
                    return plan(
                        "sources and destinations have both IPv4 and IPv6: say with --ipv6-share \
                         how many packets are IPv6",
                    );
                }
                (false, false) => {
                    return plan("sources and destinations are not of the same family");
                }
            },
        };
        if share < 1.0 && !has(false) {
            return plan("sources or destinations have no IPv4 address");
        }
        if share > 0.0 && !has(true) {
            return plan("sources or destinations have no IPv6 address");
        }
        if share > 0.0 && share < 1.0 && self.flows < 2 {
            return plan("IPv4 and IPv6 take two flows at least");
        }
        match self.bursts {
            Some(Bursts { packets: 0, .. }) => plan("a burst has one packet at least"),
            _ => Ok(share),
        }
    }

    fn text(&self, share: f64) -> String {
        let mut text = self.sizes.to_string();
        let ipv6 = share > 0.0;
        let min = frame_bytes_min(ipv6, self.kind);
        let shortest = self.sizes.shares().iter().map(|share| usize::from(share.0)).min();
        if shortest.is_some_and(|shortest| shortest < min) {
            let _ = write!(text, " (at least {min} B where the tag needs it)");
        }
        let _ = write!(text, ", {} flow{}", self.flows, if self.flows == 1 { "" } else { "s" });
        if let Popularity::Zipf(exponent) = self.popularity {
            let _ = write!(text, " (Zipf {exponent})");
        }
        let _ = match share {
            0.0 => write!(text, ", IPv4 {}", self.kind.label()),
            1.0 => write!(text, ", IPv6 {}", self.kind.label()),
            _ => {
                write!(text, ", {}, {} % IPv6", self.kind.label(), (share * 1000.0).round() / 10.0)
            }
        };
        if let Some(bursts) = self.bursts {
            let _ = write!(text, ", bursts of {} and {} others", bursts.packets, bursts.tail);
        }
        if let Destinations::Slices(slices) = &self.destinations {
            let _ = write!(text, ", to {} slices", slices.len());
        }
        text
    }
}

impl Traffic {
    fn new(images: Vec<Image>, order: Vec<u32>, text: String) -> Self {
        let lengths = || order.iter().map(|&number| images[number as usize].frame_len);
        let (min, max) = (lengths().min().unwrap_or(0), lengths().max().unwrap_or(0));
        #[expect(clippy::cast_precision_loss, reason = "a few million frames")]
        let mean = lengths().map(f64::from).sum::<f64>() / order.len().max(1) as f64;
        Self {
            frame_bytes_mean: mean,
            frame_bytes: (min == max).then_some(min),
            frame_bytes_max: max,
            images,
            order,
            text,
        }
    }
}

fn too_many() -> LoadError {
    LoadError::Plan("the profile has more different packets than there are numbers".into())
}

/// How many of `flows` are IPv6: by share, but at least one of each family that has any packets.
fn flows_of_share(flows: usize, share: f64) -> usize {
    if share <= 0.0 {
        return 0;
    }
    if share >= 1.0 {
        return flows;
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a few million"
    )]
    let part = (flows as f64 * share).round() as usize;
    part.clamp(1, flows - 1)
}

#[cfg(test)]
mod tests;
