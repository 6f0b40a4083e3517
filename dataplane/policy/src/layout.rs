//! The areas of guest memory that host and guest share, checked once and held as ranges.

use std::ops::Range;

use sluice_abi::{
    BATCH_MAX, Descriptor, Edit, LAYOUT_BYTES_LEAST, Layout, Marks, PayloadHeader, Verdict,
};

use crate::LayoutFault;

/// Areas that were inside the guest's memory when they were checked. Memory never shrinks, so they
/// still are; every use goes through a checked slice all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Areas {
    pub(crate) descriptors: usize,
    pub(crate) descriptor_stride: usize,
    pub(crate) verdicts: usize,
    pub(crate) verdict_stride: usize,
    pub(crate) config: Range<usize>,
    pub(crate) error: Range<usize>,
    pub(crate) counters: Range<usize>,
    /// Start and stride of the edits, if the guest writes any.
    pub(crate) edits: Option<(usize, usize)>,
    /// Start of the marks, if the guest reads them.
    pub(crate) marks: Option<usize>,
    /// Start and stride of the payload entries, if the guest reads payload.
    pub(crate) payload: Option<(usize, usize)>,
    /// Where state is handed over; empty if it is not.
    pub(crate) state: Range<usize>,
}

/// What a manifest says that the layout has to agree with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayoutNeeds {
    /// Number of counters.
    pub counters: usize,
    /// The manifest declares actions that take an [`Edit`].
    pub edits: bool,
    /// Bytes of payload that each packet's entry has room for; 0: no payload.
    pub payload_bytes: usize,
    /// The most bytes of state that are handed over; 0: none.
    pub state_bytes: usize,
}

/// The bytes from `address` on, if `memory` has that many.
pub(crate) fn span(memory: usize, address: u32, bytes: usize) -> Option<Range<usize>> {
    let start = address as usize;
    let end = start.checked_add(bytes)?;
    (end <= memory).then_some(start..end)
}

impl Areas {
    /// Reads and checks the layout at `address` of `memory` against what the manifest says. The part
    /// that its `size` leaves out is 0.
    pub(crate) fn read(
        memory: &[u8],
        address: u32,
        needs: LayoutNeeds,
    ) -> Result<Self, LayoutFault> {
        let outside = LayoutFault::Outside { address, memory: memory.len() };
        let at = |bytes| span(memory.len(), address, bytes).and_then(|range| memory.get(range));
        let least = at(LAYOUT_BYTES_LEAST).ok_or(outside)?;
        let size = least.first_chunk().copied().map_or(0, u32::from_le_bytes);
        let stated = at((size as usize).min(size_of::<Layout>())).ok_or(outside)?;
        let mut layout = Layout::default();
        for (to, from) in bytemuck::bytes_of_mut(&mut layout).iter_mut().zip(stated) {
            *to = *from;
        }
        Self::check(&layout, memory.len(), needs)
    }

    fn check(layout: &Layout, memory: usize, needs: LayoutNeeds) -> Result<Self, LayoutFault> {
        if (layout.size as usize) < LAYOUT_BYTES_LEAST {
            return Err(LayoutFault::Size(layout.size));
        }
        let counters = needs.counters;
        if (layout.batch_max as usize) < BATCH_MAX {
            return Err(LayoutFault::BatchMax(layout.batch_max));
        }
        let descriptor_stride =
            stride("descriptors", layout.descriptor_stride, size_of::<Descriptor>())?;
        let verdict_stride = stride("verdicts", layout.verdict_stride, size_of::<Verdict>())?;
        if layout.counters_len as usize != counters {
            return Err(LayoutFault::Counters { found: layout.counters_len, named: counters });
        }
        let area = |area, address: u32, count: usize, each: usize| {
            if !address.is_multiple_of(8) {
                return Err(LayoutFault::Alignment { area, address });
            }
            let beyond = LayoutFault::Beyond {
                area,
                address,
                bytes: (count as u64).saturating_mul(each as u64),
                memory,
            };
            let range = count.checked_mul(each).and_then(|bytes| span(memory, address, bytes));
            range.map(|range| (area, range)).ok_or(beyond)
        };
        let edit_stride = match layout.edits {
            0 if needs.edits => return Err(LayoutFault::Missing("edits")),
            0 => 0,
            _ => stride("edits", layout.edit_stride, size_of::<Edit>())?,
        };
        let payload_stride = match (layout.payload, needs.payload_bytes) {
            (0, 0) => 0,
            (0, _) => return Err(LayoutFault::Missing("payload")),
            (_, 0) => return Err(LayoutFault::PayloadUndeclared),
            (_, bytes) => {
                let least = (size_of::<PayloadHeader>() + bytes).next_multiple_of(8);
                stride("payload", layout.payload_stride, least)?
            }
        };
        if (layout.state_capacity as usize) < needs.state_bytes {
            return Err(LayoutFault::Missing("state"));
        }
        // What is not there is an empty area, which overlaps with nothing.
        let marks = if layout.marks == 0 { 0 } else { BATCH_MAX };
        let areas = [
            area("descriptors", layout.descriptors, BATCH_MAX, descriptor_stride)?,
            area("verdicts", layout.verdicts, BATCH_MAX, verdict_stride)?,
            area("configuration", layout.config, layout.config_capacity as usize, 1)?,
            area("error text", layout.error, layout.error_capacity as usize, 1)?,
            area("counters", layout.counters, counters, size_of::<u64>())?,
            area("edits", layout.edits, BATCH_MAX, edit_stride)?,
            area("marks", layout.marks, marks, size_of::<Marks>())?,
            area("payload", layout.payload, BATCH_MAX, payload_stride)?,
            area("state", layout.state, layout.state_capacity as usize, 1)?,
        ];
        for (position, (first, a)) in areas.iter().enumerate() {
            for (second, b) in areas.iter().skip(position + 1) {
                if a.start < b.end && b.start < a.end {
                    return Err(LayoutFault::Overlap(first, second));
                }
            }
        }
        let [
            (_, descriptors),
            (_, verdicts),
            (_, config),
            (_, error),
            (_, counters),
            (_, edits),
            (_, marks),
            (_, payload),
            (_, state),
        ] = areas;
        Ok(Self {
            descriptors: descriptors.start,
            descriptor_stride,
            verdicts: verdicts.start,
            verdict_stride,
            config,
            error,
            counters,
            edits: (edit_stride > 0).then_some((edits.start, edit_stride)),
            marks: (!marks.is_empty()).then_some(marks.start),
            payload: (payload_stride > 0).then_some((payload.start, payload_stride)),
            state,
        })
    }
}

/// Checks the layout that a guest states at `address` of its `memory`, as at loading, against what its
/// manifest `needs`. Gives the areas as ranges of the memory: descriptors, verdicts, configuration, error
/// text, counters, edits, marks, payload, state; those that it does not have are empty.
///
/// # Errors
/// [`LayoutFault`] names the area and what is wrong with it.
pub fn check_layout(
    memory: &[u8],
    address: u32,
    needs: LayoutNeeds,
) -> Result<[Range<usize>; 9], LayoutFault> {
    let areas = Areas::read(memory, address, needs)?;
    let array = |start: usize, stride: usize| start..start + BATCH_MAX * stride;
    let optional = |at: Option<(usize, usize)>| at.map_or(0..0, |(start, each)| array(start, each));
    Ok([
        array(areas.descriptors, areas.descriptor_stride),
        array(areas.verdicts, areas.verdict_stride),
        areas.config,
        areas.error,
        areas.counters,
        optional(areas.edits),
        optional(areas.marks.map(|start| (start, size_of::<Marks>()))),
        optional(areas.payload),
        areas.state,
    ])
}

fn stride(area: &'static str, stride: u32, least: usize) -> Result<usize, LayoutFault> {
    let bytes = stride as usize;
    if bytes < least || bytes > 4096 || !bytes.is_multiple_of(8) {
        let least = u32::try_from(least).unwrap_or(u32::MAX);
        return Err(LayoutFault::Stride { area, stride, least });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: usize = 1 << 16;

    fn good() -> Layout {
        Layout {
            size: 48,
            batch_max: 256,
            descriptors: 1024,
            descriptor_stride: 64,
            verdicts: 20_480,
            verdict_stride: 8,
            config: 32_768,
            config_capacity: 4096,
            error: 40_960,
            error_capacity: 256,
            counters: 49_152,
            counters_len: 4,
            ..Layout::default()
        }
    }

    const NEEDS: LayoutNeeds =
        LayoutNeeds { counters: 4, edits: false, payload_bytes: 0, state_bytes: 0 };

    fn fault(change: impl Fn(&mut Layout)) -> LayoutFault {
        let mut layout = good();
        change(&mut layout);
        Areas::check(&layout, MEMORY, NEEDS).expect_err("this layout is broken")
    }

    #[test]
    fn a_good_layout_is_taken_wherever_it_lies() {
        let mut memory = vec![0; MEMORY];
        memory[1..49].copy_from_slice(&bytemuck::bytes_of(&good())[..48]);
        let areas = Areas::read(&memory, 1, NEEDS).expect("the layout is good");
        assert_eq!(areas.counters, 49_152..49_184);
        for address in [MEMORY as u32 - 47, MEMORY as u32, u32::MAX] {
            let fault = Areas::read(&memory, address, NEEDS).expect_err("it lies outside");
            assert_eq!(fault, LayoutFault::Outside { address, memory: MEMORY });
        }
    }

    #[test]
    fn whatever_is_wrong_is_named() {
        assert_eq!(fault(|l| l.size = 47), LayoutFault::Size(47));
        assert_eq!(fault(|l| l.batch_max = 255), LayoutFault::BatchMax(255));
        for stride in [0, 56, 65, 4104, u32::MAX] {
            assert!(matches!(
                fault(|l| l.descriptor_stride = stride),
                LayoutFault::Stride { area: "descriptors", .. }
            ));
        }
        assert!(matches!(
            fault(|l| l.verdict_stride = 4),
            LayoutFault::Stride { area: "verdicts", least: 8, .. }
        ));
        assert_eq!(
            fault(|l| l.counters = 49_156),
            LayoutFault::Alignment { area: "counters", address: 49_156 }
        );
        assert_eq!(fault(|l| l.counters_len = 3), LayoutFault::Counters { found: 3, named: 4 });
        for address in [MEMORY as u32 - 256 * 64 + 8, MEMORY as u32, u32::MAX - 7] {
            assert!(matches!(
                fault(|l| l.descriptors = address),
                LayoutFault::Beyond { area: "descriptors", bytes: 16_384, .. }
            ));
        }
        assert!(matches!(
            fault(|l| l.config_capacity = u32::MAX),
            LayoutFault::Beyond { area: "configuration", .. }
        ));
    }

    #[test]
    fn overlaps_are_named_and_neighbours_are_not() {
        assert_eq!(
            fault(|l| l.verdicts = l.descriptors + 256 * 64 - 8),
            LayoutFault::Overlap("descriptors", "verdicts")
        );
        assert_eq!(
            fault(|l| l.error = l.config + 4088),
            LayoutFault::Overlap("configuration", "error text")
        );
        let mut layout = good();
        layout.verdicts = layout.descriptors + 256 * 64;
        Areas::check(&layout, MEMORY, NEEDS).expect("they only touch");
    }
    #[test]
    fn what_the_manifest_declares_must_have_room() {
        let needs = LayoutNeeds { counters: 4, edits: true, payload_bytes: 50, state_bytes: 64 };
        let whole = Layout {
            size: 80,
            edits: 8192 * 7,
            edit_stride: 16,
            marks: 8192,
            payload: 0,
            payload_stride: 64,
            state: 45_056,
            state_capacity: 64,
            ..Layout { descriptors: 65_536, ..good() }
        };
        let memory = 1 << 17;
        let layout = Layout { payload: 98_304, ..whole };
        let areas = Areas::check(&layout, memory, needs).expect("all is there");
        assert_eq!((areas.edits, areas.marks), (Some((57_344, 16)), Some(8192)));
        assert_eq!((areas.payload, areas.state), (Some((98_304, 64)), 45_056..45_120));
        let fault = |layout: Layout| Areas::check(&layout, memory, needs).expect_err("broken");
        assert_eq!(fault(whole), LayoutFault::Missing("payload"));
        let none = LayoutNeeds { payload_bytes: 0, ..needs };
        assert_eq!(Areas::check(&layout, memory, none), Err(LayoutFault::PayloadUndeclared));
        assert_eq!(fault(Layout { edits: 0, ..layout }), LayoutFault::Missing("edits"));
        assert_eq!(fault(Layout { state_capacity: 63, ..layout }), LayoutFault::Missing("state"));
        assert_eq!(
            fault(Layout { payload_stride: 56, ..layout }),
            LayoutFault::Stride { area: "payload", stride: 56, least: 64 }
        );
        assert_eq!(
            fault(Layout { marks: 20_480, ..layout }),
            LayoutFault::Overlap("verdicts", "marks")
        );
        // The part that an older plugin does not have is not read.
        let mut bytes = vec![0; memory];
        bytes[..80].copy_from_slice(bytemuck::bytes_of(&Layout { size: 48, ..layout }));
        let fault = Areas::read(&bytes, 0, needs).expect_err("48 bytes have none");
        assert_eq!(fault, LayoutFault::Missing("edits"));
    }
}
