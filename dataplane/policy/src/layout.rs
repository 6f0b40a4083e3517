//! The areas of guest memory that host and guest share, checked once and held as ranges.

use std::ops::Range;

use sluice_abi::{BATCH_MAX, Descriptor, Layout, Verdict};

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
}

/// The bytes from `address` on, if `memory` has that many.
pub(crate) fn span(memory: usize, address: u32, bytes: usize) -> Option<Range<usize>> {
    let start = address as usize;
    let end = start.checked_add(bytes)?;
    (end <= memory).then_some(start..end)
}

impl Areas {
    /// Reads and checks the layout at `address` of `memory`; `counters` is the number of counters
    /// that the manifest names.
    pub(crate) fn read(memory: &[u8], address: u32, counters: usize) -> Result<Self, LayoutFault> {
        let layout: Layout = span(memory.len(), address, size_of::<Layout>())
            .and_then(|range| memory.get(range))
            .map(bytemuck::pod_read_unaligned)
            .ok_or(LayoutFault::Outside { address, memory: memory.len() })?;
        Self::check(&layout, memory.len(), counters)
    }

    fn check(layout: &Layout, memory: usize, counters: usize) -> Result<Self, LayoutFault> {
        if (layout.size as usize) < size_of::<Layout>() {
            return Err(LayoutFault::Size(layout.size));
        }
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
        let areas = [
            area("descriptors", layout.descriptors, BATCH_MAX, descriptor_stride)?,
            area("verdicts", layout.verdicts, BATCH_MAX, verdict_stride)?,
            area("configuration", layout.config, layout.config_capacity as usize, 1)?,
            area("error text", layout.error, layout.error_capacity as usize, 1)?,
            area("counters", layout.counters, counters, size_of::<u64>())?,
        ];
        for (position, (first, a)) in areas.iter().enumerate() {
            for (second, b) in areas.iter().skip(position + 1) {
                if a.start < b.end && b.start < a.end {
                    return Err(LayoutFault::Overlap(first, second));
                }
            }
        }
        let [(_, descriptors), (_, verdicts), (_, config), (_, error), (_, counters)] = areas;
        Ok(Self {
            descriptors: descriptors.start,
            descriptor_stride,
            verdicts: verdicts.start,
            verdict_stride,
            config,
            error,
            counters,
        })
    }
}

/// Checks the layout that a guest states at `address` of its `memory`, as at loading; `counters` is the
/// number of counters that its manifest names. Gives the areas as ranges of the memory: descriptors,
/// verdicts, configuration, error text, counters.
///
/// # Errors
/// [`LayoutFault`] names the area and what is wrong with it.
pub fn check_layout(
    memory: &[u8],
    address: u32,
    counters: usize,
) -> Result<[Range<usize>; 5], LayoutFault> {
    let areas = Areas::read(memory, address, counters)?;
    let array = |start: usize, stride: usize| start..start + BATCH_MAX * stride;
    Ok([
        array(areas.descriptors, areas.descriptor_stride),
        array(areas.verdicts, areas.verdict_stride),
        areas.config,
        areas.error,
        areas.counters,
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
        }
    }

    fn fault(change: impl Fn(&mut Layout)) -> LayoutFault {
        let mut layout = good();
        change(&mut layout);
        Areas::check(&layout, MEMORY, 4).expect_err("this layout is broken")
    }

    #[test]
    fn a_good_layout_is_taken_wherever_it_lies() {
        let mut memory = vec![0; MEMORY];
        memory[1..49].copy_from_slice(bytemuck::bytes_of(&good()));
        let areas = Areas::read(&memory, 1, 4).expect("the layout is good");
        assert_eq!(areas.counters, 49_152..49_184);
        for address in [MEMORY as u32 - 47, MEMORY as u32, u32::MAX] {
            let fault = Areas::read(&memory, address, 4).expect_err("it lies outside");
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
        Areas::check(&layout, MEMORY, 4).expect("they only touch");
    }
}
