//! [`Ranges`]: which bytes of a packet's payload have come, fragment by fragment.

/// The most fragments that one packet may come in: 65,535 bytes at IPv6's least MTU of 1280 take 54.
/// More would let one packet take more memory than its due.
pub(crate) const PIECES_MAX: usize = 64;

/// What has come of one packet: ranges that do not overlap, in order.
#[derive(Clone, Debug)]
pub(crate) struct Ranges {
    /// Pairs of start and end, in bytes, the end not included.
    pieces: [(u16, u16); PIECES_MAX],
    count: u8,
    /// Length of the packet's payload, known from its last fragment.
    end: Option<u16>,
    bytes: u16,
}

/// Why a range is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The very same range came before.
    Duplicate,
    /// It shares bytes with another one, or contradicts the packet's end.
    Overlap,
    /// As many as there may be have come.
    TooMany,
}

impl Ranges {
    pub(crate) fn new() -> Self {
        Self { pieces: [(0, 0); PIECES_MAX], count: 0, end: None, bytes: 0 }
    }

    pub(crate) fn clear(&mut self) {
        (self.count, self.end, self.bytes) = (0, None, 0);
    }

    /// Takes in `start..end`, which is not empty; `more` says that others follow it.
    pub(crate) fn insert(&mut self, start: u16, end: u16, more: bool) -> Result<(), Refused> {
        let count = usize::from(self.count);
        let known = self.pieces.get(..count).unwrap_or_default();
        let position = known.partition_point(|piece| piece.0 < start);
        let before = position.checked_sub(1).and_then(|before| known.get(before));
        let after = known.get(position);
        let is_end = self.end == Some(end);
        if after == Some(&(start, end)) && is_end != more {
            return Err(Refused::Duplicate);
        }
        let is_beyond = match self.end {
            Some(last) => !more || end >= last,
            None => !more && known.last().is_some_and(|piece| piece.1 > end),
        };
        if is_beyond
            || before.is_some_and(|before| before.1 > start)
            || after.is_some_and(|after| after.0 < end)
        {
            return Err(Refused::Overlap);
        }
        let Some(room) = self.pieces.get_mut(position..=count) else {
            return Err(Refused::TooMany);
        };
        room.rotate_right(1);
        if let Some(piece) = room.first_mut() {
            *piece = (start, end);
        }
        self.count += 1;
        self.bytes = self.bytes.saturating_add(end - start);
        if !more {
            self.end = Some(end);
        }
        Ok(())
    }

    /// Whether every byte has come.
    pub(crate) fn is_complete(&self) -> bool {
        self.end == Some(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_end_is_believed_once() {
        let mut ranges = Ranges::new();
        assert_eq!(ranges.insert(8, 16, true), Ok(()));
        assert_eq!(ranges.insert(16, 20, false), Ok(()));
        assert_eq!(ranges.insert(16, 20, false), Err(Refused::Duplicate));
        assert_eq!(ranges.insert(16, 20, true), Err(Refused::Overlap));
        assert_eq!(ranges.insert(8, 16, false), Err(Refused::Overlap));
        assert_eq!(ranges.insert(24, 32, true), Err(Refused::Overlap));
        assert!(!ranges.is_complete());
        assert_eq!(ranges.insert(0, 8, true), Ok(()));
        assert!(ranges.is_complete());
        let mut ranges = Ranges::new();
        assert_eq!(ranges.insert(16, 24, true), Ok(()));
        assert_eq!(ranges.insert(8, 12, false), Err(Refused::Overlap));
    }

    #[test]
    fn a_packet_may_come_in_64_pieces() {
        let mut ranges = Ranges::new();
        for piece in (0..64).rev() {
            assert_eq!(ranges.insert(piece * 16, piece * 16 + 8, true), Ok(()));
        }
        assert_eq!(ranges.insert(8, 16, true), Err(Refused::TooMany));
        assert_eq!(ranges.insert(0, 8, true), Err(Refused::Duplicate));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Against an oracle that marks each byte.
        #[test]
        fn ranges_do_what_a_map_of_bytes_does(
            pieces in prop::collection::vec((0..40_u16, 1..10_u16, prop::bool::weighted(0.9)), 0..60),
        ) {
            let mut ranges = Ranges::new();
            let (mut map, mut taken, mut last) = (vec![false; 400], Vec::new(), None);
            for (start, length, more) in pieces {
                let (start, end) = (start * 8, (start + length) * 8);
                let bytes = usize::from(start)..usize::from(end);
                let expected = if taken.contains(&(start, end, more)) {
                    Err(Refused::Duplicate)
                } else if map[bytes.clone()].contains(&true)
                    || last.is_some_and(|last| !more || end >= last)
                    || !more && map[usize::from(end)..].contains(&true)
                {
                    Err(Refused::Overlap)
                } else {
                    map[bytes].fill(true);
                    taken.push((start, end, more));
                    last = if more { last } else { Some(end) };
                    Ok(())
                };
                prop_assert_eq!(ranges.insert(start, end, more), expected);
                let whole = last.is_some_and(|last| !map[..usize::from(last)].contains(&false));
                prop_assert_eq!(ranges.is_complete(), whole);
            }
        }
    }
}
