//! [`Packet`]: one packet of a batch with its verdict, and the setters of all that can be done with it.

use core::{ops::Deref, slice};

use sluice_abi::{Descriptor, Edit, Marks, PayloadHeader, Verdict, action, edit};

use crate::{Class, EgressTag, NextHop, Reason};

/// One packet. It dereferences to its [`Descriptor`].
///
/// The setters set fields of the verdict and of the packet's edit; an action that the manifest does not
/// declare is void: the router gives such a packet the plugin's default and counts a bad verdict. Setters
/// that need the edit area, which a plugin has whose manifest declares one of their actions, panic in
/// debug builds if it is not there.
#[derive(Debug)]
pub struct Packet<'b> {
    descriptor: &'b Descriptor,
    verdict: &'b mut Verdict,
    edit: Option<&'b mut Edit>,
    marks: Option<&'b Marks>,
    payload: &'b [u8],
}

impl Deref for Packet<'_> {
    type Target = Descriptor;

    #[inline]
    fn deref(&self) -> &Descriptor {
        self.descriptor
    }
}

impl<'b> Packet<'b> {
    /// What is known of the packet.
    #[inline]
    #[must_use]
    pub fn descriptor(&self) -> &'b Descriptor {
        self.descriptor
    }

    /// What earlier plugins set. All zero unless the plugin was exported with `marks`.
    #[inline]
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.marks.copied().unwrap_or_default()
    }

    /// The packet's bytes from where the manifest's `payload.from` says; empty without `payload`.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'b [u8] {
        self.payload
    }

    /// The verdict as it stands.
    #[inline]
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        *self.verdict
    }

    /// Sets the whole verdict. Flags in it that name fields of the edit leave those fields as they are.
    #[inline]
    pub fn set_verdict(&mut self, verdict: Verdict) {
        *self.verdict = verdict;
    }

    /// Lets the packet go on to the next plugin, with the edits that were set before.
    #[inline]
    pub fn let_pass(&mut self) {
        self.verdict.action = action::CONTINUE;
        self.verdict.argument = 0;
    }

    /// Drops the packet. Edits that were set before, other than [`Self::mirror`], are void.
    #[inline]
    pub fn drop(&mut self, reason: Reason) {
        self.verdict.action = action::DROP;
        self.verdict.argument = reason.index();
        self.verdict.flags &= edit::MIRROR;
    }

    /// Sends the packet to a next hop, whatever slices and routes say of it.
    #[inline]
    pub fn transmit(&mut self, next_hop: NextHop) {
        self.verdict.action = action::TRANSMIT;
        self.verdict.argument = next_hop.number();
    }

    /// For plugins of granularity `flow`: how long this verdict holds for the packet's flow, in
    /// milliseconds, of which tenths of a second are kept (at most 6553.5 s).
    #[inline]
    pub fn set_lifetime_ms(&mut self, lifetime_ms: u32) {
        self.verdict.lifetime = u16::try_from(lifetime_ms / 100).unwrap_or(u16::MAX);
    }

    /// Shows the packet to whoever captures at this plugin.
    #[inline]
    pub fn mirror(&mut self) {
        self.verdict.flags |= edit::MIRROR;
    }

    /// Sets the mark.
    #[inline]
    pub fn set_mark(&mut self, mark: u32) {
        self.set(edit::MARK, |edit| edit.mark = mark);
    }

    /// Sends the packet by an egress tag's path instead of its route.
    #[inline]
    pub fn set_tag(&mut self, tag: EgressTag) {
        self.set(edit::TAG, |edit| edit.tag = tag.number());
    }

    /// Sets the class.
    #[inline]
    pub fn set_class(&mut self, class: Class) {
        self.set(edit::CLASS, |edit| edit.class = class.number());
    }

    /// Sets the DSCP, 0 to 63, that the packet leaves with.
    #[inline]
    pub fn set_dscp(&mut self, dscp: u8) {
        self.set(edit::DSCP, |edit| edit.dscp = dscp);
    }

    /// Lowers the MSS that a TCP SYN states to `mss`, at least 216, if it states more.
    #[inline]
    pub fn limit_mss(&mut self, mss: u16) {
        self.set(edit::MSS, |edit| edit.mss = mss);
    }

    /// Overwrites these options ([`tcp_option`](crate::tcp_option)) of a TCP SYN with no-operations.
    #[inline]
    pub fn clear_tcp_options(&mut self, options: u8) {
        self.set(edit::TCP_OPTIONS, |edit| edit.tcp_options = options);
    }

    #[inline]
    fn set(&mut self, flag: u8, change: impl FnOnce(&mut Edit)) {
        debug_assert!(self.edit.is_some(), "the manifest declares no action that takes an edit");
        if let Some(edit) = &mut self.edit {
            change(edit);
        }
        // Without the area the router says that the action is not declared.
        self.verdict.flags |= flag;
    }
}

/// The packets of a batch, in their order.
#[derive(Debug)]
pub struct Packets<'b> {
    descriptors: slice::Iter<'b, Descriptor>,
    verdicts: slice::IterMut<'b, Verdict>,
    edits: slice::IterMut<'b, Edit>,
    marks: slice::Iter<'b, Marks>,
    payload: &'b [u64],
    /// In words, as the payload is.
    payload_stride: usize,
}

impl<'b> Packets<'b> {
    #[inline]
    pub(crate) fn new(
        descriptors: &'b [Descriptor],
        verdicts: &'b mut [Verdict],
        edits: &'b mut [Edit],
        marks: &'b [Marks],
        payload: &'b [u64],
        payload_stride: usize,
    ) -> Self {
        Self {
            descriptors: descriptors.iter(),
            verdicts: verdicts.iter_mut(),
            edits: edits.iter_mut(),
            marks: marks.iter(),
            payload,
            payload_stride: payload_stride / 8,
        }
    }
}

impl<'b> Iterator for Packets<'b> {
    type Item = Packet<'b>;

    #[inline]
    fn next(&mut self) -> Option<Packet<'b>> {
        let descriptor = self.descriptors.next()?;
        let verdict = self.verdicts.next()?;
        let entry = self.payload.split_at_checked(self.payload_stride);
        let payload = entry.map_or(&[][..], |(entry, rest)| {
            self.payload = rest;
            payload_of(entry)
        });
        Some(Packet {
            descriptor,
            verdict,
            edit: self.edits.next(),
            marks: self.marks.next(),
            payload,
        })
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.descriptors.size_hint()
    }
}

impl ExactSizeIterator for Packets<'_> {}

/// The packet's bytes in an entry of the payload area.
#[inline]
pub(crate) fn payload_of(entry: &[u64]) -> &[u8] {
    let bytes: &[u8] = bytemuck::cast_slice(entry);
    match bytes.split_at_checked(size_of::<PayloadHeader>()) {
        Some((header, bytes)) => {
            let len = usize::from(u16::from_le_bytes([header[0], header[1]]));
            &bytes[..len.min(bytes.len())]
        }
        None => &[],
    }
}
