//! [`Accounts`]: what came to each router and left it, by packet and by unit of its payload.
//!
//! A router has a *credit* for each unit that came to it, with its TTL and the tunnel that it came out of.
//! What leaves takes a credit away, and so does what the router says it dropped: what finds none has
//! nowhere come from, and a credit that is left over at the end is a packet without an end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use frame::DropReason;

use super::Property;
use crate::frames::{self, ETHERNET_LEN, Layer};
use crate::model::{node_at, site};

/// A packet, by what its payload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    /// One that a host or workload made.
    Packet(u32),
    /// An ICMP error that a router made about it.
    Error { about: u32, from: IpAddr, to: IpAddr },
}

/// The tunnel that a packet comes out of, or goes into, at a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    Plain,
    Site,
    Node,
}

/// A packet or a fragment, as a router sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) key: Key,
    pub(super) first: u16,
    pub(super) end: u16,
    pub(super) ttl: u8,
    pub(super) lane: Lane,
}

impl Piece {
    pub(super) fn units(&self) -> i64 {
        i64::from(self.end) - i64::from(self.first)
    }
}

/// Which way a frame goes at a router.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}

/// What is known of the packets that were made: whether one is an ICMP error, and from where.
pub(super) trait Made {
    fn error_source(&self, id: u32) -> Option<IpAddr>;
}

/// Which packet a frame holds, or an IP packet that begins at `start`; `None` where no packet can be
/// recognized.
pub(super) fn identify(
    bytes: &[u8],
    start: usize,
    way: Way,
    router: usize,
    own: &BTreeSet<IpAddr>,
    made: &impl Made,
) -> Option<Piece> {
    let outer = Layer::read(bytes, start)?;
    let last = frames::innermost(bytes, &outer)?;
    let far_end = match way {
        Way::In if own.contains(&outer.destination) => Some(outer.source),
        Way::Out if own.contains(&outer.source) => Some(outer.destination),
        _ => None,
    };
    let inner = outer.inner(bytes).and_then(|inner| Layer::read(bytes, inner));
    let (ttl, lane) = match (far_end, inner) {
        (Some(far_end), Some(inner)) => {
            let lane = match node_at(far_end) {
                Some(node) if router > 0 && site(node) == site(router) => Lane::Node,
                Some(_) => Lane::Site,
                None => Lane::Plain,
            };
            (inner.ttl, lane)
        }
        _ => (outer.ttl, Lane::Plain),
    };
    let key = key(bytes, &last, made)?;
    let first = last.offset / 8;
    let end = first + (last.payload.len().div_ceil(8)) as u16;
    Some(Piece { key, first, end, ttl, lane })
}

/// Which packet a layer is, or a part of it.
pub(super) fn key(bytes: &[u8], layer: &Layer, made: &impl Made) -> Option<Key> {
    let payload = bytes.get(layer.payload.clone())?;
    if layer.is_icmp_error(bytes) {
        let about = frames::find_block(payload)?;
        if made.error_source(about) == Some(layer.source) {
            return Some(Key::Packet(about));
        }
        return Some(Key::Error { about, from: layer.source, to: layer.destination });
    }
    let aligned = frames::find_aligned_block(payload)?;
    Some(Key::Packet(aligned))
}

type Wrong = (Property, String);

/// By packet and unit, the TTL with which it came and the tunnel that it came out of.
type Credits = HashMap<(Key, u16), Vec<(u8, Lane)>>;

/// Takes one of those that fit away, if there is one.
fn take(from: &mut Credits, of: (Key, u16), fits: impl Fn(&(u8, Lane)) -> bool) -> bool {
    let Some(credits) = from.get_mut(&of) else { return false };
    let Some(position) = credits.iter().position(fits) else { return false };
    credits.swap_remove(position);
    if credits.is_empty() {
        from.remove(&of);
    }
    true
}

/// Whether a packet that came out of this tunnel may go into that one: a site hop, and behind it a node hop.
fn may_enter(from: Lane, into: Lane) -> bool {
    match into {
        Lane::Plain => true,
        Lane::Site => from == Lane::Plain,
        Lane::Node => from != Lane::Node,
    }
}

/// The books of one router.
#[derive(Debug, Default)]
pub(super) struct Account {
    credits: Credits,
    /// What ended because a ring was full, perhaps while fragments of it were sent already: those were sent,
    /// and their packet is a drop.
    cut_short: Credits,
    /// Frames that nobody can recognize.
    anonymous: i64,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) originated: u64,
    pub(super) originated_to_kernel: u64,
    pub(super) to_kernel: u64,
    /// Drops that were recorded, by reason.
    dropped: BTreeMap<DropReason, u64>,
    /// Packets of which a fragment waited for its first.
    waited: BTreeSet<Key>,
    frames_waited: u64,
}

impl Account {
    /// A frame came.
    pub(super) fn arrive(&mut self, piece: Option<&Piece>) {
        self.received += 1;
        let Some(piece) = piece else {
            self.anonymous += 1;
            return;
        };
        for unit in piece.first..piece.end {
            let credits = self.credits.entry((piece.key, unit)).or_default();
            credits.push((piece.ttl, piece.lane));
        }
    }

    /// Whether a piece came of which this could be what leaves. By packet and unit alone nothing could be
    /// told: an error that was made here may pass again in somebody's tunnel, while the next one about the
    /// same packet, of another fragment, is being made.
    pub(super) fn may_have_come(&self, piece: &Piece, is_forwarded: bool) -> bool {
        let ttl = piece.ttl.saturating_add(u8::from(is_forwarded));
        let credits = self.credits.get(&(piece.key, piece.first));
        credits.is_some_and(|credits| {
            credits.iter().any(|&(came, from)| came == ttl && may_enter(from, piece.lane))
        })
    }

    /// A frame left, or went to the kernel with its TTL as it came. Returns how many of its units the router
    /// said it had dropped.
    pub(super) fn depart(&mut self, piece: &Piece, is_forwarded: bool) -> Result<i64, Wrong> {
        let ttl = piece.ttl.saturating_add(u8::from(is_forwarded));
        let fits = |&(came, from): &(u8, Lane)| came == ttl && may_enter(from, piece.lane);
        let mut cut_short = 0;
        for unit in piece.first..piece.end {
            let of = (piece.key, unit);
            if take(&mut self.credits, of, fits) {
                continue;
            }
            if take(&mut self.cut_short, of, fits) {
                cut_short += 1;
                continue;
            }
            let Some(credits) = self.credits.get(&of) else {
                return Err((
                    Property::OneForOne,
                    format!("unit {unit} of {:?} left more often than it came", piece.key),
                ));
            };
            let has_ttl = credits.iter().any(|&(came, _)| came == ttl);
            let property = if has_ttl { Property::Hops } else { Property::Ttl };
            return Err((
                property,
                format!(
                    "{:?} leaves as {:?} with TTL {}, and came as {credits:?}",
                    piece.key, piece.lane, piece.ttl
                ),
            ));
        }
        Ok(cut_short)
    }

    /// The router says that it dropped a frame, or used it up. Returns how many of its units it had said that
    /// of already: those of another copy, of which fragments had left.
    pub(super) fn end(
        &mut self,
        piece: Option<&Piece>,
        reason: Option<DropReason>,
    ) -> Result<i64, Wrong> {
        if let Some(reason) = reason {
            *self.dropped.entry(reason).or_default() += 1;
        }
        let Some(piece) = piece else {
            self.anonymous -= 1;
            return Ok(0);
        };
        let same = |credit: &(u8, Lane)| *credit == (piece.ttl, piece.lane);
        let mut cut_short = 0;
        for unit in piece.first..piece.end {
            let of = (piece.key, unit);
            if !take(&mut self.credits, of, same) {
                if !take(&mut self.cut_short, of, same) {
                    return Err((
                        Property::Reason,
                        format!("{:?} is dropped ({reason:?}) and has another end too", piece.key),
                    ));
                }
                cut_short += 1;
            }
            if reason == Some(DropReason::TransmitFull) {
                self.cut_short.entry(of).or_default().push((piece.ttl, piece.lane));
            }
        }
        Ok(cut_short)
    }

    /// A fragment began to wait for its first.
    pub(super) fn wait(&mut self, piece: Option<&Piece>) {
        self.frames_waited += 1;
        self.waited.extend(piece.map(|piece| piece.key));
    }

    /// At the end, when nothing is held any more: what is left must be fragments that waited in vain.
    /// `counted` is what the router's own counters say. Returns the units that are left of each packet.
    pub(super) fn close(
        &self,
        counted: &BTreeMap<DropReason, u64>,
    ) -> Result<BTreeMap<Key, i64>, Wrong> {
        let mut left: BTreeMap<Key, i64> = BTreeMap::new();
        for ((key, _), credits) in &self.credits {
            *left.entry(*key).or_default() += credits.len() as i64;
        }
        if self.anonymous != 0 {
            return Err((
                Property::Reason,
                format!("{} frames that nobody can recognize have no end", self.anonymous),
            ));
        }
        let mut unrecorded = 0;
        for reason in DropReason::ALL {
            let count = |from: &BTreeMap<DropReason, u64>| from.get(reason).copied().unwrap_or(0);
            let (counted, recorded) = (count(counted), count(&self.dropped));
            let may_doom = matches!(
                reason,
                DropReason::FragmentTimeout
                    | DropReason::FragmentOverlap
                    | DropReason::FragmentFull
            );
            if counted < recorded || counted > recorded && !may_doom {
                return Err((
                    Property::Reason,
                    format!(
                        "{counted} drops are counted as {}, and {recorded} happened",
                        reason.label()
                    ),
                ));
            }
            unrecorded += counted - recorded;
        }
        if let Some((key, units)) = left.iter().find(|(key, _)| !self.waited.contains(key)) {
            return Err((Property::Reason, format!("{units} units of {key:?} have no end")));
        }
        if unrecorded > self.frames_waited || (unrecorded == 0) != left.is_empty() {
            let left: i64 = left.values().sum();
            return Err((
                Property::Reason,
                format!(
                    "{unrecorded} fragments were dropped after they waited, {} waited, and {left} units \
                     are left",
                    self.frames_waited
                ),
            ));
        }
        Ok(left)
    }
}

/// What is wrong with a frame that leaves a router.
pub(super) fn check_sound(frame: &[u8]) -> Result<(), Wrong> {
    let sound = || {
        let header = frame.get(..ETHERNET_LEN).ok_or("shorter than an Ethernet header")?;
        if header[0] & 1 == 1 || header[..6] == [0; 6] {
            return Err("sent to no single station".to_owned());
        }
        let layer = Layer::read(frame, ETHERNET_LEN).ok_or("no IP packet")?;
        if layer.payload.end != frame.len() {
            return Err(format!("{} bytes behind the packet", frame.len() - layer.payload.end));
        }
        layer.check(frame)
    };
    sound().map_err(|wrong: String| (Property::Sound, wrong))
}
