//! [`Proof`]: what shows that a handshake was completed by whoever began it.
//!
//! ```text
//!  proof = "ack"     any ACK of the client after its SYN
//!  proof = "answer"  SYN-ACK of the server, sequence number n --put into a set of all workers: (client's flow, n + 1)
//!                    ACK of the client, acknowledging m        --is (its flow, m) in the set? it is taken out
//! ```
//!
//! A forger does not see the answer, and has to guess one number of 2^32 (RFC 6528). The set is a quota, since
//! the answer may come to another worker than the client's packets do. An answer is in it before it leaves the
//! router, and so before its ACK can come.
//!
//! Costs: a call of the host for all answers of a batch, and one for all packets that may end a handshake.
//! Without the payload, which the operator has to grant, no number is seen: any ACK will do, and is counted.

use sluice_sdk::{BATCH_MAX, Descriptor, Quota, QuotaAnswer, QuotaDeparture, direction};

use crate::{ACK, FIN, RST, SYN, key, limit::Pairs, tally};

/// Bytes of a TCP header (RFC 9293 section 3.1).
const SEQUENCE: usize = 4;
const ACKNOWLEDGMENT: usize = 8;

/// What is asked of an ACK, and room for what one batch asks.
#[derive(Debug)]
pub(crate) struct Proof {
    /// Acknowledgments that are expected; `None`: any will do.
    expected: Option<Quota>,
    /// Directions that answers come in, by number.
    answers_in: [bool; 256],
    answers: Pairs,
    asks: Pairs,
    /// The places in the batch of those that are asked about.
    asked: Box<[u16; BATCH_MAX]>,
}

/// A number of the TCP header.
fn number(header: &[u8], at: usize) -> Option<u32> {
    let bytes = header.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// A flow of the client, with the number that its ACK has to acknowledge.
fn expectation(client: &Descriptor, acknowledgment: u32) -> [u8; 16] {
    (u128::from_le_bytes(key::member(client)) ^ u128::from(acknowledgment) << 96).to_le_bytes()
}

/// The client's direction of what a server sent.
fn reversed(answer: &Descriptor) -> Descriptor {
    Descriptor {
        source: answer.destination,
        destination: answer.source,
        source_port: answer.destination_port,
        destination_port: answer.source_port,
        ..*answer
    }
}

impl Proof {
    /// That any ACK completes a handshake.
    pub(crate) fn ack() -> Self {
        Self {
            expected: None,
            answers_in: [false; 256],
            answers: Pairs::new(),
            asks: Pairs::new(),
            asked: Box::new([0; BATCH_MAX]),
        }
    }

    /// That the ACK has to acknowledge the answer, if there is one to a packet of these directions. So many
    /// answers are remembered, each for so long.
    pub(crate) fn answer(
        directions: &[bool; 256],
        entries: u32,
        half_open_s: u32,
    ) -> Result<Self, String> {
        let expected = Quota::open(entries, entries, u64::from(half_open_s) * 1000)?;
        let mut proof = Self { expected: Some(expected), ..Self::ack() };
        for (asked, answered) in [
            (direction::TRANSIT, direction::TRANSIT),
            (direction::INBOUND, direction::OUTBOUND),
            (direction::OUTBOUND, direction::INBOUND),
        ] {
            proof.answers_in[usize::from(answered)] = directions[usize::from(asked)];
        }
        Ok(proof)
    }

    /// Whether an ACK alone completes a handshake.
    #[inline]
    pub(crate) const fn is_any_ack(&self) -> bool {
        self.expected.is_none()
    }

    /// Whether a TCP packet is a server's answer.
    #[inline]
    pub(crate) fn is_answer(&self, packet: &Descriptor) -> bool {
        packet.tcp_flags & (SYN | ACK | RST | FIN) == SYN | ACK
            && self.answers_in[usize::from(packet.direction)]
    }

    /// A server answers. `header` is what the packet shows from its TCP header on.
    pub(crate) fn answered(
        &mut self,
        packet: &Descriptor,
        header: &[u8],
        counts: &mut [u64; tally::ALL],
    ) {
        let Some(sequence) = number(header, SEQUENCE) else {
            counts[tally::UNSEEN] += 1;
            return;
        };
        let client = reversed(packet);
        self.answers.push(key::group(&client), expectation(&client, sequence.wrapping_add(1)));
    }

    /// A packet of the client, at this place, may end a handshake. False if it shows no number, so that there is
    /// nothing to ask.
    pub(crate) fn ask(
        &mut self,
        place: u16,
        packet: &Descriptor,
        header: &[u8],
        counts: &mut [u64; tally::ALL],
    ) -> bool {
        let Some(acknowledgment) = number(header, ACKNOWLEDGMENT) else {
            counts[tally::UNSEEN] += 1;
            return false;
        };
        self.asked[self.asks.len()] = place;
        self.asks.push(key::group(packet), expectation(packet, acknowledgment));
        true
    }

    /// Remembers the answers of the batch, then tells of each packet that was asked about whether it has the
    /// number.
    pub(crate) fn settle(
        &mut self,
        now_ns: u64,
        counts: &mut [u64; tally::ALL],
        mut tell: impl FnMut(u16, bool, &mut [u64; tally::ALL]),
    ) {
        let Some(expected) = &mut self.expected else { return };
        let remembered = self
            .answers
            .ask(|groups, members, answers| expected.admit(groups, members, now_ns, answers));
        let is_lost = |answer: &u8| QuotaAnswer::from(*answer) != QuotaAnswer::Admitted;
        counts[tally::ANSWERS_FULL] +=
            remembered.iter().filter(|answer| is_lost(answer)).count() as u64;
        let found =
            self.asks.ask(|groups, members, found| expected.leave(groups, members, now_ns, found));
        for (place, found) in self.asked.iter().zip(found) {
            tell(*place, QuotaDeparture::from(*found) == QuotaDeparture::Left, counts);
        }
    }
}
