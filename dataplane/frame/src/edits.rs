//! [`Edits`]: what policy set on the packets of a batch besides their verdicts.
//!
//! ```text
//!  frames      [ f | f | f | .. ]
//!  descriptors [ d | d | d | .. ]
//!  verdicts    [ v | v | v | .. ]
//!  edits       [ e | e | e | .. ]   touched only where a plugin declares actions
//!  deeds       [ which plugin set what on which packet ]   only while somebody looks on
//! ```
//!
//! Invariants: between two batches every entry is empty; an entry holds only numbers that are
//! [known](KnownNumbers) and values in range, since whoever writes one has checked it.

use sluice_abi::{Edit, Marks};

use crate::{BATCH_MAX, HookPoint};

/// What plugins set on one packet so far, the later of two winning field by field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketEdit {
    /// A number that later plugins, captures and explanations see; 0 for none.
    pub mark: u32,
    /// Number of the next hop that the packet is sent to, whatever slices and routes say; 0 for none.
    pub next_hop: u16,
    /// Number of the egress tag whose path the packet takes; 0 for none.
    pub tag: u16,
    /// The most that a SYN's MSS may say, in bytes; 0 for any.
    pub mss: u16,
    /// Number of the class; 0 for none.
    pub class: u8,
    /// Bits of [`sluice_abi::tcp_option`]: options of a SYN that become no-operations.
    pub tcp_options: u8,
    /// The DSCP that the packet leaves with, 0 to 63.
    pub dscp: Option<u8>,
}

impl PacketEdit {
    /// Takes over the fields of `edit` that `flags` (bits of [`sluice_abi::edit`]) name.
    pub fn take(&mut self, flags: u8, edit: &Edit) {
        use sluice_abi::edit as flag;
        if flags & flag::MARK != 0 {
            self.mark = edit.mark;
        }
        if flags & flag::TAG != 0 {
            self.tag = edit.tag;
        }
        if flags & flag::CLASS != 0 {
            self.class = edit.class;
        }
        if flags & flag::DSCP != 0 {
            self.dscp = Some(edit.dscp);
        }
        if flags & flag::MSS != 0 {
            self.mss = edit.mss;
        }
        if flags & flag::TCP_OPTIONS != 0 {
            self.tcp_options = edit.tcp_options;
        }
    }

    /// What later plugins are shown of it.
    #[must_use]
    pub const fn marks(&self) -> Marks {
        Marks { mark: self.mark, tag: self.tag, class: self.class, reserved: 0 }
    }
}

/// What one plugin decided on one packet, for whoever looks on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deed {
    /// Position of the packet in its batch.
    pub position: u8,
    /// Where the plugin was called.
    pub point: HookPoint,
    /// The plugin's number, as in [`crate::Blame::plugin`].
    pub plugin: u32,
    /// The generation that judged.
    pub generation: u64,
    /// What it wanted.
    pub act: Act,
    /// Bits of [`sluice_abi::edit`]: which fields of `edit` it set, and whether it mirrors the packet.
    pub flags: u8,
    /// The values that it set; of fields that `flags` does not name, 0.
    pub edit: Edit,
}

/// What a plugin wanted of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// That it goes on, with the edit.
    Edit,
    /// That it is dropped, and mirrored; [`crate::Blame`] has the reason.
    Drop,
    /// That it goes to the next hop of this number.
    Transmit(u16),
    /// Nothing that it may want: its default counts instead. The text says what was wrong.
    Bad(&'static str),
}

/// Numbers of one kind of name, from 1 to 1023.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberSet([u64; 16]);

impl NumberSet {
    /// The largest number that a set holds.
    pub const NUMBER_MAX: u16 = 1023;
    /// No number.
    pub const EMPTY: Self = Self([0; 16]);

    /// Adds a number; 0 and what is above [`Self::NUMBER_MAX`] never becomes a member.
    pub fn insert(&mut self, number: u16) {
        if number > 0
            && let Some(word) = self.0.get_mut(usize::from(number / 64))
        {
            *word |= 1 << (number % 64);
        }
    }

    /// Whether the number was added.
    #[inline]
    #[must_use]
    pub fn contains(&self, number: u16) -> bool {
        self.0.get(usize::from(number / 64)).is_some_and(|word| word >> (number % 64) & 1 != 0)
    }
}

/// Numbers that the tables in force have names for: of next hops, egress tags and classes. Any other is
/// a bad verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownNumbers {
    /// Of next hops.
    pub next_hops: NumberSet,
    /// Of egress tags.
    pub tags: NumberSet,
    /// Of classes; none is above 255.
    pub classes: NumberSet,
}

impl KnownNumbers {
    /// No number of any kind.
    pub const NONE: Self =
        Self { next_hops: NumberSet::EMPTY, tags: NumberSet::EMPTY, classes: NumberSet::EMPTY };
}

/// How many deeds of one batch are kept: a few plugins that each act on every packet. What is beyond is
/// counted as lost. Each costs 56 bytes.
pub const DEEDS_MAX: usize = 8 * BATCH_MAX;

/// The edits of a batch, by position, and the numbers that they may name.
#[derive(Debug)]
pub struct Edits {
    /// Numbers that the tables which the batch is handled by have names for.
    pub known: KnownNumbers,
    entries: Box<[PacketEdit; BATCH_MAX]>,
    /// Entries from here on are empty.
    touched: usize,
    has_transmits: bool,
    deeds: Vec<Deed>,
    deeds_lost: u64,
}

impl Edits {
    pub(crate) fn new() -> Self {
        Self {
            known: KnownNumbers::NONE,
            entries: Box::new([PacketEdit::default(); BATCH_MAX]),
            touched: 0,
            has_transmits: false,
            deeds: Vec::with_capacity(DEEDS_MAX),
            deeds_lost: 0,
        }
    }

    /// Empties every entry. Free where nothing was set.
    #[inline]
    pub fn reset(&mut self) {
        if self.touched > 0 || !self.deeds.is_empty() {
            self.clear();
        }
    }

    #[cold]
    fn clear(&mut self) {
        if let Some(entries) = self.entries.get_mut(..self.touched) {
            entries.fill(PacketEdit::default());
        }
        self.touched = 0;
        self.has_transmits = false;
        self.deeds.clear();
    }

    /// Whether anything is set on any packet.
    #[inline]
    #[must_use]
    pub const fn is_touched(&self) -> bool {
        self.touched > 0
    }

    /// Whether any packet is sent to a named next hop.
    #[inline]
    #[must_use]
    pub const fn has_transmits(&self) -> bool {
        self.has_transmits
    }

    /// What is set on the packet at `position`.
    #[inline]
    #[must_use]
    pub fn get(&self, position: usize) -> PacketEdit {
        self.entries.get(position).copied().unwrap_or_default()
    }

    /// Changes what is set on the packet at `position`; one beyond the batch is not changed.
    #[inline]
    pub fn change(&mut self, position: usize, change: impl FnOnce(&mut PacketEdit)) {
        if let Some(entry) = self.entries.get_mut(position) {
            change(entry);
            self.touched = self.touched.max(position + 1);
            self.has_transmits |= entry.next_hop != 0;
        }
    }

    /// Notes what a plugin did, if there is room.
    pub fn note(&mut self, deed: Deed) {
        if self.deeds.len() < DEEDS_MAX {
            self.deeds.push(deed);
        } else {
            self.deeds_lost += 1;
        }
    }

    /// What plugins did with the packets of the batch, in their order, as far as there was room.
    #[must_use]
    pub fn deeds(&self) -> &[Deed] {
        &self.deeds
    }

    /// Deeds that there was no room for, since the start.
    #[must_use]
    pub const fn deeds_lost(&self) -> u64 {
        self.deeds_lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_abi::edit;

    const EVERYTHING: Edit =
        Edit { mark: 7, tag: 9, mss: 1200, class: 3, dscp: 46, tcp_options: 5, reserved: [0; 5] };

    #[test]
    fn only_named_fields_are_taken_and_later_ones_win() {
        let mut entry = PacketEdit::default();
        entry.take(edit::MARK | edit::MIRROR, &EVERYTHING);
        assert_eq!(entry, PacketEdit { mark: 7, ..PacketEdit::default() });
        entry.take(edit::TAG | edit::CLASS, &EVERYTHING);
        assert_eq!(entry.marks(), Marks { mark: 7, tag: 9, class: 3, reserved: 0 });
        entry.take(edit::DSCP | edit::MSS | edit::TCP_OPTIONS, &EVERYTHING);
        entry.take(edit::MARK | edit::DSCP, &Edit::default());
        let left = PacketEdit { mark: 0, dscp: Some(0), ..entry };
        assert_eq!(entry, left, "a mark and a DSCP of 0 are values");
        assert_eq!((entry.tag, entry.mss, entry.class, entry.tcp_options), (9, 1200, 3, 5));
    }

    #[test]
    fn a_reset_empties_what_was_changed() {
        let mut edits = Edits::new();
        assert!(!edits.is_touched());
        for position in [0, 200, 255, 256, usize::MAX] {
            edits.change(position, |entry| entry.next_hop = 4);
        }
        assert!(edits.is_touched() && edits.has_transmits());
        assert_eq!(edits.get(255).next_hop, 4);
        edits.reset();
        assert!(!edits.is_touched() && !edits.has_transmits());
        assert!((0..300).all(|position| edits.get(position) == PacketEdit::default()));
    }

    #[test]
    fn deeds_are_bounded_and_what_is_lost_is_counted() {
        let mut edits = Edits::new();
        let deed = Deed {
            position: 1,
            point: HookPoint::Ingress,
            plugin: 0,
            generation: 1,
            act: Act::Edit,
            flags: edit::MARK,
            edit: EVERYTHING,
        };
        let room = edits.deeds.capacity();
        for _ in 0..DEEDS_MAX + 3 {
            edits.note(deed);
        }
        assert_eq!((edits.deeds().len(), edits.deeds_lost()), (DEEDS_MAX, 3));
        assert_eq!(edits.deeds.capacity(), room, "nothing was allocated");
        edits.reset();
        assert!(edits.deeds().is_empty());
    }

    #[test]
    fn a_set_holds_numbers_from_1_to_1023() {
        let mut set = NumberSet::EMPTY;
        for number in [0, 1, 63, 64, 1023, 1024, u16::MAX] {
            set.insert(number);
        }
        let members: Vec<u16> = (0..=u16::MAX).filter(|number| set.contains(*number)).collect();
        assert_eq!(members, [1, 63, 64, 1023]);
    }
}
